from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image

torch = pytest.importorskip("torch")

from kpipe import Pipeline, ProposalDetector, read_image
from kpipe.datasets import DatasetError, read_samples
from kpipe.errors import TrainingError
from kpipe.preprocessing.boxes import landmark_box
from kpipe.preprocessing.crops import to_gray
from kpipe.training import landmarks
from kpipe.training.data import LabeledFace, load_faces
from kpipe.training.detection import DetectionSettings, calibrate, load_run, train
from kpipe.training.detection_export import export
from kpipe.training.detection_network import (
    NOMINAL_SIDES,
    STRIDES,
    DetectionNetwork,
    detection_losses,
    square_iou,
)
from kpipe.training.duplicates import photos_without_duplicates, without_duplicates
from kpipe.training.photographs import (
    LabeledScene,
    find_faces,
    label_squares,
    labeled_scene,
    load_photos,
    overlaps,
    read_scenes,
)
from kpipe.training.prepare import DataFiles
from kpipe.training.scenes import DetectionScenes
from kpipe.training.targets import SIDES, targets
from tests.conftest import EXAMPLES, GROUP, Run


@pytest.fixture
def faces(labeled: Path) -> list[LabeledFace]:
    return load_faces(read_samples(labeled), 0.0).training


def photo(faces: list[LabeledFace]) -> LabeledScene:
    """The picture of a labeled face as a labeled photograph."""
    face = faces[0]
    box = landmark_box(face.points, face.roll)
    center, side = (box[:2] + box[2:]) / 2, box[2] - box[0]
    return LabeledScene(
        face.gray, np.array([[*center, side, face.roll]], np.float32), np.ones(1, bool)
    )


def scenes(faces: list[LabeledFace], length: int = 60) -> DetectionScenes:
    texture = np.random.default_rng(0).integers(0, 256, (240, 320), np.uint8)
    photos = [photo([face]) for face in faces]
    return DetectionScenes(photos, faces, [texture], length, seed=0)


def test_targets_lie_on_the_faces_of_a_scene() -> None:
    places = np.array([[60, 70, 20, 30], [180, 120, 60, np.nan], [30, 200, 25, 0]], np.float32)
    both = targets(places, np.array([True, True, False]))
    for target, stride, nominal in zip(both, STRIDES, NOMINAL_SIDES):
        assert target.shape == (9, 256 // stride, 256 // stride)
        hit = target[7] > 0
        assert hit.any() and (target[0][hit] == 1).all() and (target[6][hit] == 1).all()
        assert (target[0][~hit] == 0).all()
        rows, columns = np.nonzero(hit)
        x = (columns + 0.5 + target[1][hit]) * stride - 0.5
        y = (rows + 0.5 + target[2][hit]) * stride - 0.5
        sides = nominal * np.exp(target[3][hit])
        # The small face is the fine map's, the large one the coarse map's.
        wanted = places[0] if stride == 8 else places[1]
        assert x == pytest.approx(wanted[0], abs=1e-3) and y == pytest.approx(wanted[1], abs=1e-3)
        assert sides == pytest.approx(wanted[2], abs=1e-3)
        assert (target[8][hit] == (not np.isnan(wanted[3]))).all()
        # One that does not count is neither a face nor none.
        column, row = 30 // stride, 200 // stride
        assert target[6][row, column] == 0
        # Far from all it is known that there is none.
        assert target[6][250 // stride, 250 // stride] == 1


def test_scenes_are_as_their_labels_say(faces: list[LabeledFace]) -> None:
    stream = scenes(faces)
    rng = np.random.default_rng(0)
    shown = 0
    for _ in range(60):
        scene, places, counted = stream.draw(rng)
        assert scene.shape == (256, 256) and scene.dtype == np.uint8
        assert len(places) == len(counted)
        assert (places[counted, 2] >= 8).all()
        low, high = places[counted, :2].min(initial=99), places[counted, :2].max(initial=99)
        assert low > -64 and high < 320
        shown += bool(counted.any())
    assert 20 < shown < 60
    first, again = stream[7], scenes(faces)[7]
    assert all((a == b).all() for a, b in zip(first, again))


def test_the_existing_pipeline_confirms_where_a_scene_has_its_faces(
    faces: list[LabeledFace], pipeline: Pipeline
) -> None:
    """Scaling, turning and mirroring move a label as they move the face."""
    stream = scenes(faces)
    rng = np.random.default_rng(1)
    confirmed = tried = 0
    for _ in range(60):
        scene, places, counted = stream.draw(rng)
        chosen = places[counted & (places[:, 2] > 40)]
        for place in chosen[~np.isnan(chosen[:, 3])]:
            tried += 1
            found = [
                (face, landmark_box(face.points, face.pose.roll)) for face in pipeline(scene)
                if face.pose is not None
            ]  # fmt: skip
            for face, box in found:
                side = float(box[2] - box[0])
                center = (box[:2] + box[2:]) / 2
                assert face.pose is not None
                turned = abs((face.pose.roll - place[3] + 180) % 360 - 180)
                close = overlaps(np.array([*center, side]), place[None])[0] > 0.6
                confirmed += bool(close and turned < 25)
    assert tried > 15
    assert confirmed > 0.6 * tried


def test_boxes_of_a_coco_file_become_landmark_squares(tmp_path: Path, pipeline: Pipeline) -> None:
    found = pipeline(read_image(GROUP))
    records = []
    for index, face in enumerate(found):
        x0, y0, x1, y1 = (float(v) for v in face.box)
        # Forehead to chin, as narrow as labels are.
        box = [x0 + 0.12 * (x1 - x0), y0, 0.76 * (x1 - x0), 0.97 * (y1 - y0)]
        records.append({"image_id": 1, "bbox": box, "invalid": int(index == 0), "pose": index % 2})
    Image.open(GROUP).save(tmp_path / "group.jpg")
    table = tmp_path / "boxes.json"
    content = {"images": [{"id": 1, "file_name": "group.jpg"}], "annotations": records}
    table.write_text(json.dumps(content))
    scene = read_scenes(table)["group.jpg"]
    assert scene.counted.tolist() == [False] + [True] * (len(found) - 1)
    squares = np.array([landmark_box(face.points) for face in found])
    sides = squares[:, 2] - squares[:, 0]
    assert scene.places[:, 2] == pytest.approx(sides, rel=0.2)
    away = np.abs(scene.places[:, :2] - (squares[:, :2] + squares[:, 2:]) / 2).max(axis=1)
    assert (away < 0.2 * sides).all()
    assert np.isnan(scene.places[1::2, 3]).all() and (scene.places[::2, 3] == 0).all()
    # With a pipeline's faces squares and rolls are those of the landmarks.
    precise = read_scenes(table, find_faces(table, pipeline))["group.jpg"]
    assert precise.places[:, 2] == pytest.approx(sides, rel=0.1)
    assert not np.isnan(precise.places[:, 3]).any()
    table.write_text("{}")
    with pytest.raises(DatasetError, match="not COCO's JSON"):
        read_scenes(table)
    content["annotations"] = [{"image_id": 1, "bbox": [1, 2, "3", 4]}]
    table.write_text(json.dumps(content))
    with pytest.raises(DatasetError, match=r"boxes\.json, annotation 1: `bbox` is not x, y"):
        read_scenes(table)


def test_a_detected_face_without_a_label_is_ignored() -> None:
    gray = np.zeros((200, 200), np.uint8)
    records: list[dict[str, object]] = [{"bbox": [20, 20, 40, 50]}]
    place = label_squares(np.array([[20.0, 20, 40, 50]]))[0]
    found = np.array([[*place[:3], 12, 0.9], [150, 150, 30, 0, 0.8]], np.float32)
    scene = labeled_scene(gray, records, found)
    assert scene.counted.tolist() == [True, False]
    assert scene.places[0, 3] == 12


def test_the_loss_is_least_at_the_truth(faces: list[LabeledFace]) -> None:
    stream = scenes(faces)
    drawn = [stream[k] for k in range(24)]
    wanted = tuple(torch.stack([torch.from_numpy(d[k]) for d in drawn]) for k in (1, 2))
    assert all((w[:, 7] > 0).any() for w in wanted)
    truth = [w[:, :6].clone() for w in wanted]
    for maps in truth:
        maps[:, 0] = (maps[:, 0] - 0.5) * 20

    def total(maps: list[torch.Tensor]) -> float:
        return sum(float(part) for part in detection_losses((maps[0], maps[1]), wanted))

    right = total(truth)
    assert right < 0.01
    for channel in range(6):
        wrong = [maps.clone() for maps in truth]
        for maps in wrong:
            maps[:, channel] = maps[:, channel] + 1.0 if channel else -maps[:, channel]
        assert total(wrong) > right + 0.1


def test_overlap_of_squares() -> None:
    one = torch.tensor([[0.0, 0.0, 0.0]])
    assert float(square_iou(one, one)) == pytest.approx(1)
    # Half a side of three cells away, and half the side.
    assert float(square_iou(one, torch.tensor([[1.5, 0.0, 0.0]]))) == pytest.approx(1 / 3)
    half = torch.tensor([[0.0, 0.0, float(np.log(0.5))]])
    assert float(square_iou(one, half)) == pytest.approx(1 / 4)


@pytest.mark.slow
def test_a_trained_network_detects_the_faces_it_saw(
    faces: list[LabeledFace], tmp_path: Path
) -> None:
    settings = DetectionSettings(steps=240, batch=8, ema_decay=0.9)
    stream = scenes(faces, settings.steps * settings.batch)
    network = train(settings, stream, tmp_path / "run", workers=0)
    pictures = np.concatenate([stream[k][0] for k in range(20)])
    export(network, tmp_path / "float.onnx")
    export(network, tmp_path / "int8.onnx", pictures)
    with torch.no_grad():
        exact = [m.numpy() for m in network(torch.from_numpy(pictures[:, None]).float())]
    for name, error in (("float", 1e-3), ("int8", 0.15)):
        session = onnxruntime.InferenceSession(tmp_path / f"{name}.onnx")
        for maps, wanted in zip(
            session.run(["fine", "coarse"], {"crops": pictures[:, None]}), exact
        ):
            assert np.abs(maps[:, 1:] - wanted[:, 1:]).mean() < error * np.abs(wanted).mean()
            assert np.abs(maps[:, 0] - 1 / (1 + np.exp(-wanted[:, 0]))).max() < max(error, 0.01) * 3
        detector = ProposalDetector(tmp_path / f"{name}.onnx", min_score=0.05)
        found = 0
        for face in faces:
            box = landmark_box(face.points)
            boxes = detector(face.gray).boxes
            away = np.abs((boxes[:, :2] + boxes[:, 2:]) / 2 - (box[:2] + box[2:]) / 2).max(axis=1)
            found += bool((away < 0.4 * (box[2] - box[0])).any())
        assert found >= len(faces) - 1
    # On the photograph that it learned the more probable of its candidates are the face.
    fitted = calibrate(network, [photo(faces)])
    assert fitted.photos == 1 and fitted.scale > 0


def test_the_network_is_fully_convolutional() -> None:
    network = DetectionNetwork().eval()
    with torch.no_grad():
        fine, coarse = network(torch.zeros(2, 1, 64, 96))
    assert fine.shape == (2, 6, 8, 12) and coarse.shape == (2, 6, 4, 6)
    assert SIDES[0][0] < 16 < SIDES[0][1] < SIDES[1][1]


def test_a_photograph_without_faces_is_detected_empty_of_labels(tmp_path: Path) -> None:
    Image.fromarray(to_gray(read_image(GROUP))).save(tmp_path / "a.png")
    table = tmp_path / "a.json"
    table.write_text(json.dumps({"images": [{"id": 1, "file_name": "a.png"}], "annotations": []}))
    scene = read_scenes(table)["a.png"]
    assert scene.places.shape == (0, 4) and scene.counted.shape == (0,)


@pytest.mark.slow
def test_a_run_that_was_stopped_ends_like_one_that_was_not(
    faces: list[LabeledFace], tmp_path: Path
) -> None:
    settings = DetectionSettings(steps=3, batch=2)
    stream = scenes(faces, settings.steps * settings.batch)
    whole = train(settings, stream, tmp_path / "whole", workers=0)

    def stop(step: int, _: object) -> None:
        if step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(settings, stream, tmp_path / "cut", workers=0, checkpoint_every=1, on_step=stop)
    resumed = train(settings, stream, tmp_path / "cut", workers=0)
    for other in (resumed, load_run(tmp_path / "cut")[0]):
        states = whole.state_dict(), other.state_dict()
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_checkpoint_without_settings_is_read(faces: list[LabeledFace], tmp_path: Path) -> None:
    """The first runs of the detection network noted none."""
    settings = DetectionSettings(steps=1, batch=2)
    network = train(settings, scenes(faces, 2), tmp_path, workers=0)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    del state["settings"]
    torch.save(state, tmp_path / "checkpoint.pt")
    read, found = load_run(tmp_path)
    assert found == {}
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), read.parameters()))
    again = train(settings, scenes(faces, 2), tmp_path, workers=0)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), again.parameters()))
    del state["averaged"]["module.heads.0.2.bias"]
    torch.save(state, tmp_path / "checkpoint.pt")
    with pytest.raises(TrainingError, match="not a run of the detection network"):
        load_run(tmp_path)


def test_a_run_of_another_kind_is_refused(faces: list[LabeledFace], tmp_path: Path) -> None:
    settings = DetectionSettings(steps=1, batch=2)
    train(settings, scenes(faces, 2), tmp_path, workers=0)
    recorded = load_run(tmp_path)[1]
    assert recorded["stage"] == "proposals"
    assert recorded["data"] == {"photographs": 5, "faces": len(faces), "negatives": 1}
    with pytest.raises(TrainingError, match="a run of another kind"):
        landmarks.load_run(tmp_path)
    with pytest.raises(TrainingError, match="a run of other settings"):
        train(replace(settings, seed=1), scenes(faces, 2), tmp_path, workers=0)
    nothing = DetectionScenes([], faces, [], 2, seed=0)
    with pytest.raises(TrainingError, match="no photograph with a face"):
        train(settings, nothing, tmp_path / "none", workers=0)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    state["settings"]["stage"] = "coarse"
    torch.save(state, tmp_path / "checkpoint.pt")
    with pytest.raises(TrainingError, match="a run of another kind"):
        load_run(tmp_path)


def test_a_network_that_detects_nothing_is_not_calibrated(faces: list[LabeledFace]) -> None:
    found = calibrate(DetectionNetwork().eval(), [photo(faces)])
    assert (found.photos, found.shift, found.scale) == (0, 0.0, 1.0)


def test_copies_of_photographs_and_of_their_faces_are_left_out(
    faces: list[LabeledFace],
) -> None:
    """A copy has another size; a crop of a photograph shares its face alone."""
    small = [photo([reduced(face, 0.8)]) for face in faces]
    others = [photo([face]) for face in faces]
    assert photos_without_duplicates(small, [], []) == small
    assert photos_without_duplicates(small, [], others[:2]) == small[2:]
    crops = [cropped(face) for face in faces]
    assert photos_without_duplicates(small, [], [photo(crops)]) == small
    assert photos_without_duplicates(small, crops[:2], []) == small[2:]
    assert without_duplicates(faces, [], small[:2]) == faces[2:]


def reduced(face: LabeledFace, factor: float) -> LabeledFace:
    size = (round(face.gray.shape[1] * factor), round(face.gray.shape[0] * factor))
    gray = np.asarray(Image.fromarray(face.gray).resize(size, Image.Resampling.BOX))
    return replace(face, gray=gray, points=(face.points + 0.5) * np.float32(factor) - 0.5)


def cropped(face: LabeledFace) -> LabeledFace:
    x0, y0, x1, y1 = (int(v) for v in landmark_box(face.points))
    side = x1 - x0
    x, y = max(x0 - side // 4, 0), max(y0 - side // 4, 0)
    gray = face.gray[y : y1 + side // 4, x : x1 + side // 4]
    return replace(face, gray=gray, points=face.points - np.float32([x, y]))


@pytest.fixture
def table(tmp_path: Path, pipeline: Pipeline) -> Path:
    """A COCO detection file of the example portraits and the group photograph."""
    folder = tmp_path / "boxes"
    folder.mkdir()
    images: list[dict[str, object]] = []
    annotations: list[dict[str, object]] = []
    for path in (GROUP, *sorted((EXAMPLES / "portraits").glob("*.jpg"))):
        shutil.copy(path, folder)
        images.append({"id": len(images), "file_name": path.name})
        for face in pipeline(read_image(path)):
            x0, y0, x1, y1 = (float(v) for v in face.box)
            box = [x0, y0, x1 - x0, y1 - y0]
            annotations.append({"image_id": len(images) - 1, "bbox": box})
    file = tmp_path / "boxes.json"
    file.write_text(json.dumps({"images": images, "annotations": annotations}))
    return file


@pytest.fixture
def measured(labeled: Path, tmp_path: Path) -> Path:
    """One of the labeled portraits."""
    folder = tmp_path / "measured"
    folder.mkdir()
    for path in labeled.glob("biden*"):
        shutil.copy(path, folder)
    return folder


def test_photographs_that_are_to_be_measured_on_are_left_out(
    table: Path, labeled: Path, measured: Path, tmp_path: Path
) -> None:
    split, copies = DataFiles([], detection=[table]).photographs(tmp_path)
    count = len(json.loads(table.read_text())["images"])
    assert copies == 0 and count == len(split.training) + len(split.validation)
    # The portrait, and the group photograph, which shows it too.
    split, copies = DataFiles([], exclude=[measured], detection=[table]).photographs(tmp_path)
    assert copies == 2 and count - 2 == len(split.training) + len(split.validation)
    split, copies = DataFiles([], exclude=[table], detection=[table]).photographs(tmp_path)
    assert copies == count and not split.training and not split.validation
    found, copies = DataFiles([labeled], exclude=[measured]).faces(0.0)
    assert copies == 1 and len(found.training) == count - 2
    found, copies = DataFiles([labeled], exclude=[table]).faces(0.0)
    assert copies == count - 1 and not found.training


def test_photographs_that_cannot_be_used(table: Path, tmp_path: Path) -> None:
    (tmp_path / "boxes" / GROUP.name).write_bytes(b"no picture")
    with pytest.raises(DatasetError, match=GROUP.name):
        load_photos([table], tmp_path)
    bad: list[DatasetError] = []
    split = load_photos([table], tmp_path, on_bad=bad.append)
    assert len(bad) == 1 and GROUP.name in str(bad[0])
    count = len(json.loads(table.read_text())["images"])
    assert len(split.training) + len(split.validation) == count - 1
    with pytest.raises(DatasetError, match="the name of another file too"):
        load_photos([table, table], tmp_path, on_bad=bad.append)
    (tmp_path / "found_boxes.json").write_text("[1]")
    with pytest.raises(DatasetError, match=r"found_boxes\.json: .*; delete it"):
        load_photos([table], tmp_path, on_bad=bad.append)


@pytest.mark.slow
def test_the_commands_from_photographs_to_a_usable_detector(
    kpipe: Run, table: Path, labeled: Path, measured: Path, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    for folder in ("negatives", "more"):
        (tmp_path / folder).mkdir()
        for name in "abc":
            texture = rng.integers(0, 256, (180, 200, 3), np.uint8)
            Image.fromarray(texture).save(tmp_path / folder / f"{name}.png")
    files = ("--detection", table, "--data", labeled)
    files += ("--negatives", "negatives", "--negatives", "more")
    arguments = ("-o", "run", "--steps", "3", "--batch", "2", "--workers", "0")
    more = ("--checkpoint-every", "2", "--validation", "0.3", "--seed", "1")
    done = kpipe("train", "--stage", "proposals", *files, *arguments, *more)
    assert done.returncode == 0, done.stderr
    assert b"photographs without faces" in done.stderr
    names = sorted(path.name for path in (tmp_path / "run").iterdir())
    written = ["checkpoint.pt", "curves.png", "found_boxes.json", "log.csv", "settings.json"]
    assert names == written
    log = list(csv.DictReader((tmp_path / "run" / "log.csv").open()))
    assert [row["step"] for row in log] == ["2", "3"]
    assert {"loss", "score", "box", "roll", "learning_rate"} <= set(log[0])
    settings = json.loads((tmp_path / "run" / "settings.json").read_text())
    assert settings["stage"] == "proposals" and settings["validation"] == 0.3
    assert settings["learning_rate"] == DetectionSettings.learning_rate

    done = kpipe("export", "run", "-o", "float.onnx")
    assert done.returncode == 0 and b"scores not calibrated" in done.stderr, done.stderr
    done = kpipe("export", "run", "-o", "int8.onnx", *files)
    assert done.returncode == 0 and b"calibrated" in done.stderr, done.stderr
    sizes = [(tmp_path / f"{name}.onnx").stat().st_size for name in ("float", "int8")]
    assert sizes[1] < 0.5 * sizes[0]
    gray = to_gray(read_image(GROUP))
    for name in ("float", "int8"):
        detector = ProposalDetector(tmp_path / f"{name}.onnx", min_score=0.0, limit=5)
        found = detector(gray)
        assert len(found) and found.scores is not None and np.isfinite(found.boxes).all()

    more = ("--start-from", "run", "--exclude", measured, *arguments[2:], "-o", "second")
    done = kpipe("train", "--stage", "proposals", *files, *more)
    assert done.returncode == 0, done.stderr
    # The portrait as a face to paste and as a photograph, and the group photograph.
    assert b"3 copies of excluded ones" in b" ".join(done.stderr.split())
    for wrong, message in (
        (("run", "--data", labeled), b"needs the run's --detection"),
        (("run", "run"), b"takes one run"),
    ):
        done = kpipe("export", *wrong, "-o", "none.onnx")
        assert done.returncode == 2 and message in done.stderr
    assert not (tmp_path / "none.onnx").exists()
