from __future__ import annotations

import csv
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from kpipe.cli import app
from kpipe.datasets import DatasetError, read_samples
from kpipe.errors import ModelError, TrainingError
from kpipe.measures.pose import mean_face
from kpipe.networks.classifier import FaceClassifier
from kpipe.networks.landmarker import Landmarker
from kpipe.networks.stages import STAGES
from kpipe.preprocessing.affine import CROP_SIZE, transform
from kpipe.preprocessing.crops import warp
from kpipe.structures.detections import Detections
from kpipe.structures.schemes import IBUG68
from kpipe.training import relabel
from kpipe.training.augment import degrade, elastic_warp, misframed_transform
from kpipe.training.crops import CropStream, mirrored
from kpipe.training.data import RELABELED, FaceSplit, LabeledFace, NegativePhoto, load_faces
from kpipe.training.duplicates import without_duplicates
from kpipe.training.export import Calibration, calibrate, export
from kpipe.training.landmarks import (
    LabelSets,
    TrainSettings,
    load_run,
    mean_network,
    train,
)
from kpipe.training.loss import landmark_losses
from kpipe.training.network import SIZES, LandmarkNetwork, LandmarkTensors
from kpipe.utils.opencv import cv2
from tests.conftest import PATIENCE, Run

SETTINGS = TrainSettings(size="small", steps=12, batch=8, validation=0.0, ema_decay=0.5)


@pytest.fixture
def faces(labeled: Path) -> FaceSplit:
    return load_faces(read_samples(labeled), 0.0)


def stream(faces: FaceSplit, seed: int = 0) -> CropStream:
    hard_negatives = Detections(np.array([[10, 10, 60, 60]], np.float32), np.zeros(1, np.float32))
    empty = [NegativePhoto(np.full((200, 300), 80, np.uint8), hard_negatives)]
    return CropStream(
        STAGES["refine"], {"300w": faces.training}, {"300w": 1.0}, empty, 0.3, 100, seed
    )


def test_crop_i_is_always_the_same(faces: FaceSplit) -> None:
    first, second, other = stream(faces), stream(faces), stream(faces, seed=1)
    for index in (0, 7, 99):
        a, b, c = first[index], second[index], other[index]
        assert (a[0] == b[0]).all() and (a[1] == b[1]).all() and a[3] == b[3]
        assert a[0].shape == (1, CROP_SIZE, CROP_SIZE) and a[0].dtype == np.uint8
        assert not (a[0] == c[0]).all()
    kinds = [first[index][3] for index in range(60)]
    assert 0.5 < np.mean(kinds) < 0.9


def test_points_stay_on_the_face_through_augmentation() -> None:
    """White dots at the points are found again where the crop says the points are."""
    rng = np.random.default_rng(0)
    points = rng.uniform(150, 350, (68, 2)).round().astype(np.float32)
    picture = np.zeros((500, 500), np.uint8)
    for x, y in points.astype(int):
        picture[y - 2 : y + 3, x - 2 : x + 3] = 255
    for draw in range(20):
        matrix = STAGES["refine"].random_transform(points, draw, rng)
        crop, placed = warp(picture, matrix), transform(matrix, points)
        inside = ((placed > 3) & (placed < CROP_SIZE - 4)).all(axis=1)
        columns, rows = placed[inside].round().astype(int).T
        assert np.mean(crop[rows, columns] > 100) > 0.97


def test_mirrored_labels_lie_as_the_label_set_s_do() -> None:
    points = np.random.default_rng(0).uniform(20, 100, (68, 2)).astype(np.float32)
    side = np.ptp(points, axis=0).max()
    plain, ours = mirrored(points, 128, 0.0), mirrored(points, 128, 0.01)
    assert plain == pytest.approx((127, 0) + points[IBUG68.mirror] * (-1, 1), abs=1e-4)
    assert ours - plain == pytest.approx(np.tile((2 * 0.01 * side, 0), (68, 1)), abs=1e-4)
    for offset in (0.0, 0.01):
        twice = mirrored(mirrored(points, 128, offset), 128, offset)
        assert twice == pytest.approx(points, abs=1e-4)


def test_the_stream_moves_mirrored_labels_alone(faces: FaceSplit) -> None:
    plain, moved = stream(faces), stream(faces)
    moved.offsets = {"300w": 0.01}
    shifts = []
    for index in range(40):
        a, b = plain[index][1], moved[index][1]
        if plain[index][3]:
            shifts.append((b - a).mean(axis=0) / np.ptp(a, axis=0).max())
    assert np.array(shifts)[:, 1] == pytest.approx(np.zeros(len(shifts)), abs=1e-5)
    still = np.abs(np.array(shifts)[:, 0]) < 1e-5
    assert 0.2 < still.mean() < 0.8
    assert np.array(shifts)[~still, 0] == pytest.approx(np.full((~still).sum(), 0.02), abs=1e-4)


def test_points_stay_on_the_face_when_it_is_bent() -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform(150, 350, (68, 2)).round().astype(np.float32)
    for zoom in (1, 3):  # at 3 the picture is reduced before it is cut
        picture = np.zeros((500, 500), np.uint8)
        for x, y in points.astype(int):
            picture[y - 3 : y + 4, x - 3 : x + 4] = 255
        picture = np.repeat(np.repeat(picture, zoom, axis=0), zoom, axis=1)
        large = ((points + 0.5) * zoom - 0.5).astype(np.float32)
        away = []
        for draw in range(20):
            matrix = STAGES["refine"].random_transform(large, draw, rng)
            crop, placed = elastic_warp(picture, matrix, large, CROP_SIZE, rng)
            away.append(np.abs(placed - transform(matrix, large)).mean())
            inside = ((placed > 3) & (placed < CROP_SIZE - 4)).all(axis=1)
            columns, rows = placed[inside].round().astype(int).T
            assert np.mean(crop[rows, columns] > 100) > 0.95
        assert max(away) > 2


def test_labels_of_another_scheme_become_labels_of_the_first(
    faces: FaceSplit, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = LandmarkNetwork(SIZES["nano"], ("300w", "ytf"))
    ours, face = faces.training[0], replace(faces.training[1], source="ytf")
    apart = float(np.linalg.norm(face.points[36] - face.points[45]))
    for away, expected in ((0.05, face.points - 0.7 * 0.05 * apart), (0.2, face.points)):
        # The label is so far to the right of and below what the teacher expects of its scheme, and
        # the teacher sees the first scheme's points where it expects those.
        seen = face.points - away * apart
        monkeypatch.setattr(relabel, "_predicted", lambda *_, seen=seen: [seen, seen])
        same, other = relabel.relabeled([ours, face], teacher, STAGES["refine"])
        assert same == ours
        assert other.source == RELABELED
        # A label that is far off is not taken for an opinion.
        wanted = expected if away < relabel.GROSS else seen
        assert other.points == pytest.approx(wanted, abs=1e-3)


def test_a_teacher_of_other_labels_is_refused(faces: FaceSplit) -> None:
    teacher = LandmarkNetwork(SIZES["nano"], ("300w",))
    other = replace(faces.training[0], source="ytf")
    with pytest.raises(DatasetError, match="labels of ytf"):
        relabel.relabeled([other], teacher, STAGES["refine"])


def test_a_teacher_predicts_several_times_and_both_ways() -> None:
    class Teacher:
        """Sees a bright spot: right parts of the face a little to its left, and the other way
        round; points of the second scheme lie below those of the first.
        """

        def features(self, crops: torch.Tensor) -> tuple[torch.Tensor, None]:
            return crops, None

        def landmarks(self, crops: torch.Tensor, source: str) -> LandmarkTensors:
            sides = (torch.arange(n) for n in crops.shape[2:])
            rows, columns = torch.meshgrid(*sides, indexing="ij")
            weight = crops[:, 0] / crops[:, 0].sum(dim=(1, 2), keepdim=True)
            center = [(weight * place).sum(dim=(1, 2)) for place in (columns, rows)]
            below = 5.0 * (source == "ytf")
            points = (
                torch.stack(center, dim=1)[:, None] + torch.tensor(parts) + torch.tensor([0, below])
            )
            return LandmarkTensors(points, torch.zeros(0), torch.zeros(0))

    ys, xs = np.mgrid[:200, :300]
    picture = 255 * np.exp(-((xs - 141.3) ** 2 + (ys - 90.6) ** 2) / 50)
    # Each point as far to one side as its mirror image is to the other.
    index = np.arange(68)
    parts = np.stack([(index - IBUG68.mirror) / 4.0, np.zeros(68)], axis=1).astype(np.float32)
    points = np.random.default_rng(0).uniform((100, 50), (180, 130), (68, 2))
    matrices = [STAGES["refine"].random_transform(points, 0, np.random.default_rng(1))] * 2
    crops = np.stack([warp(picture.astype(np.uint8), matrix) for matrix in matrices])
    found = relabel._predicted(crops, matrices, Teacher(), {"300w": 0.01, "ytf": 0.0})  # type: ignore[arg-type]
    back = np.linalg.inv(matrices[0][:, :2])
    # It knows nothing of how 300-W's labels lie, and is taken for the mean of both ways.
    aside = 0.01 * np.ptp(parts, axis=0).max()
    for seen, offset in zip(found, ((aside, 0.0), (0.0, 5.0))):
        expected = (141.3, 90.6) + (parts + offset) @ back.T
        assert seen == pytest.approx(expected, abs=0.15)


@pytest.mark.slow
def test_training_on_relabeled_faces(faces: FaceSplit, tmp_path: Path) -> None:
    others = [replace(face, source=RELABELED) for face in faces.training]
    both = FaceSplit(faces.training + others, [])
    network = train(replace(SETTINGS, steps=2), both, [], tmp_path / "run", workers=0)
    assert network.sources == ("300w",)
    columns = next(csv.reader((tmp_path / "run" / "log.csv").open()))
    assert "coordinates_relabelled" in columns
    with pytest.raises(TrainingError, match="own scheme"):
        train(SETTINGS, FaceSplit(others, []), [], tmp_path / "other", workers=0)


def test_label_sets_keep_their_numbers_in_whatever_order_they_come(faces: FaceSplit) -> None:
    """The number that a crop has of its label set is the one that the losses go by."""
    ytf = [replace(face, source="ytf") for face in faces.training[:2]]
    sets = LabelSets.of(FaceSplit(ytf + faces.training[2:], []))
    assert list(sets.faces) == ["300w", "ytf"] and sets.schemes == ("300w", "ytf")
    shares = {"300w": 0.0, "ytf": 1.0}
    crops = CropStream(STAGES["refine"], sets.faces, shares, [], 0.0, 10, 0)
    assert all(crops[index][2] == 1 for index in range(10))


def test_degraded_crops_are_crops() -> None:
    rng = np.random.default_rng(0)
    crop = rng.integers(0, 256, (CROP_SIZE, CROP_SIZE), np.uint8)
    for _ in range(200):
        worse = degrade(crop, crop[::-1], rng)
        assert worse.shape == crop.shape and worse.dtype == np.uint8
    face = rng.uniform(50, 150, (68, 2)).astype(np.float32)
    for stage in STAGES.values():
        matrix = misframed_transform(face, 0.0, stage, rng)
        placed = transform(matrix, face)
        away = np.abs(placed.mean(axis=0) - stage.crop_size / 2).max() / stage.crop_size
        size = np.ptp(placed, axis=0).max() / stage.crop_size
        turned = abs(np.rad2deg(np.arctan2(matrix[0, 1], matrix[0, 0]))) > 70
        assert away > 0.3 or size > 1.2 or size < 0.4 or turned


def test_the_loss_is_least_at_the_truth() -> None:
    truth = torch.tensor([[[40.0, 60.0]] * 68])
    cells = torch.arange(32) * 4 + 1.5

    def maps(x: float, y: float) -> torch.Tensor:
        logits = -((cells[None, :] - x) ** 2 + (cells[:, None] - y) ** 2) / (2 * 4**2)
        return logits.flatten().log_softmax(0).expand(1, 68, -1)

    def total(x: float, y: float, sigma: float) -> float:
        point = torch.tensor([[[x, y]] * 68])
        seen = LandmarkTensors(point, torch.full((1, 68), np.log(sigma)), maps(x, y))
        return float(sum(part.mean() for part in landmark_losses(seen, truth, CROP_SIZE)))

    assert total(40, 60, 0.5) < total(42, 60, 0.5) < total(48, 60, 0.5)
    # Said and real error agree: the likelihood is highest.
    assert total(46, 60, 6.0) < total(46, 60, 2.0)
    assert total(46, 60, 6.0) < total(46, 60, 20.0)


def test_points_are_not_rounded_by_reduced_precision() -> None:
    network = LandmarkNetwork(SIZES["small"]).eval()
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        assert network(torch.rand(2, 1, 128, 128) * 255)[0].points.dtype == torch.float32


@pytest.mark.slow
def test_training_learns_and_resumes_as_if_never_stopped(faces: FaceSplit, tmp_path: Path) -> None:
    settings = replace(SETTINGS, steps=90, learning_rate=2e-2, negative_share=0.0)
    seen: list[float] = []
    whole = train(
        settings, faces, [], tmp_path / "whole", workers=0, checkpoint_every=45,
        on_step=lambda _, figures: seen.append(figures["loss"]),
    )  # fmt: skip
    assert np.mean(seen[-10:]) < 0.75 * np.mean(seen[:10])

    class Stopped(Exception):
        pass

    def stop(step: int, _: dict[str, float]) -> None:
        if step == 60:
            raise Stopped

    with pytest.raises(Stopped):
        train(settings, faces, [], tmp_path / "cut", workers=0, checkpoint_every=45, on_step=stop)
    resumed = train(settings, faces, [], tmp_path / "cut", workers=0, checkpoint_every=45)
    for a, b in zip(whole.parameters(), resumed.parameters()):
        assert torch.allclose(a, b, atol=1e-4)
    with pytest.raises(TrainingError, match="a run of other settings"):
        train(replace(settings, learning_rate=1.0), faces, [], tmp_path / "cut", workers=0)


@pytest.mark.slow
def test_a_run_begins_with_the_weights_of_another(faces: FaceSplit, tmp_path: Path) -> None:
    settings = replace(SETTINGS, steps=1, learning_rate=0.0, ema_decay=0.0)
    torch.manual_seed(5)
    start = LandmarkNetwork(SIZES["small"])
    begun = train(settings, faces, [], tmp_path / "a", start=start, workers=0)
    assert all(torch.equal(a, b) for a, b in zip(start.parameters(), begun.parameters()))
    with pytest.raises(TrainingError, match="another size"):
        train(replace(settings, size="tiny"), faces, [], tmp_path / "b", start=start, workers=0)


def test_the_mean_of_networks() -> None:
    torch.manual_seed(0)
    a = LandmarkNetwork(SIZES["nano"], ("300w", "ytf")).eval()
    b = LandmarkNetwork(SIZES["nano"], ("300w",)).eval()
    crops = torch.rand(2, 1, 128, 128) * 255
    b.train()(crops)  # so that its running means are of something
    b.eval()
    mean = mean_network([a, b])
    assert mean.sources == ("300w",)
    own = dict(mean.state_dict())
    different = 0
    for name, value in own.items():
        if value.is_floating_point():
            parts = [network.state_dict()[name] for network in (a, b)]
            assert torch.allclose(value, (parts[0] + parts[1]) / 2)
            different += not torch.equal(*parts)
    assert different > 20
    alone, _ = mean_network([a])(crops)
    assert torch.equal(alone.points, a(crops)[0].points) and a.sources == ("300w", "ytf")
    with pytest.raises(TrainingError, match="sizes"):
        mean_network([a, LandmarkNetwork(SIZES["tiny"])])
    with pytest.raises(TrainingError, match="label sets"):
        mean_network([a, LandmarkNetwork(SIZES["nano"], ("ytf",))])


@pytest.mark.slow
def test_two_processes_train_one_network(labeled: Path, tmp_path: Path) -> None:
    command = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    arguments = ("--size", "tiny", "--steps", "2", "--batch", "4", "--workers", "0")
    program = ("-m", "kpipe", "train", "--data", labeled, "-o", tmp_path / "run")
    done = subprocess.run(
        [sys.executable, *command, *program, *arguments],
        capture_output=True,
        timeout=PATIENCE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert load_run(tmp_path / "run")[1]["processes"] == 2
    assert len((tmp_path / "run" / "log.csv").read_text().splitlines()) == 2


def test_quantized_networks_say_nearly_the_same(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = LandmarkNetwork(SIZES["small"]).eval()
    stage = STAGES["coarse"]
    crops = np.random.default_rng(0).integers(0, 256, (32, 64, 64), np.uint8)
    for name, ranges in (("float", None), ("int8", crops)):
        export(network, stage, tmp_path / f"{name}.onnx", Calibration(), {}, ranges)
    exact, small = (Landmarker(tmp_path / f"{n}.onnx") for n in ("float", "int8"))
    size = [(tmp_path / f"{name}.onnx").stat().st_size for name in ("float", "int8")]
    assert size[1] < 0.4 * size[0]
    assert small.crop_margin == exact.crop_margin
    assert np.abs(small(crops).points - exact(crops).points).mean() < 0.5


def test_copies_of_measured_faces_are_not_trained_on(faces: FaceSplit) -> None:
    some = faces.training[:3]
    copies = [
        LabeledFace(np.asarray(cv2.resize(f.gray, None, fx=0.7, fy=0.7), np.uint8),
                     (f.points * 0.7 + 0.5).astype(np.float32), f.source)
        for f in some
    ]  # fmt: skip
    kept = without_duplicates(faces.training, copies)
    assert kept == faces.training[3:]
    assert without_duplicates(faces.training, []) == faces.training


def test_the_exported_file_says_what_the_network_says(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = LandmarkNetwork(SIZES["small"]).eval()
    stage = STAGES["refine"]
    notes = {"kpipe.run": "test"}
    export(network, stage, tmp_path / "n.onnx", Calibration(2.0, 0.7, 1.5, 0.4), notes)
    predictor = Landmarker(tmp_path / "n.onnx")
    assert predictor.sigma_bounds == (0.7, 1.5)
    assert (predictor.crop_size, predictor.crop_margin) == (stage.crop_size, stage.crop_margin)
    crops = np.random.default_rng(0).integers(0, 256, (3, CROP_SIZE, CROP_SIZE), np.uint8)
    with torch.no_grad():
        expected, face = network(torch.from_numpy(crops)[:, None].float())
    found = predictor(crops)
    assert found.points == pytest.approx(expected.points.numpy() + (0.4, 0), abs=1e-3)
    assert found.sigma == pytest.approx(2 * expected.log_sigma.exp().numpy(), rel=1e-3)
    assert found.scores == pytest.approx(face.sigmoid().numpy(), abs=1e-4)

    model = onnx.load(tmp_path / "n.onnx")
    model.graph.input[1].name = "most"
    for node in model.graph.node:
        node.input[:] = ["most" if name == "least" else name for name in node.input]
    onnx.save(model, tmp_path / "old.onnx")
    with pytest.raises(ModelError, match="of an older kpipe"):
        Landmarker(tmp_path / "old.onnx")


def test_the_classifier_is_exported_as_a_face_score(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = LandmarkNetwork(SIZES["nano"]).eval()
    stage = STAGES["classifier"]
    crops = np.random.default_rng(0).integers(0, 256, (5, 32, 32), np.uint8)
    export(network, stage, tmp_path / "n.onnx", Calibration(), {})
    classifier = FaceClassifier(tmp_path / "n.onnx")
    assert (classifier.crop_size, classifier.crop_margin) == (stage.crop_size, stage.crop_margin)
    with torch.no_grad():
        expected = network(torch.from_numpy(crops)[:, None].float())[1].sigmoid()
    assert classifier(crops) == pytest.approx(expected.numpy(), abs=1e-4)
    assert classifier(crops[:0]).shape == (0,)
    with pytest.raises(ModelError, match="no points"):
        Landmarker(tmp_path / "n.onnx")


def test_calibration_makes_sigma_the_mean_error(faces: FaceSplit) -> None:
    torch.manual_seed(0)
    network = LandmarkNetwork(SIZES["small"]).eval()
    stage = STAGES["coarse"]
    again = [LabeledFace(f.gray, f.points, f.source) for f in faces.training]
    found = calibrate(network, stage, again)
    assert found.factor > 0
    assert 0 < found.bound50 < found.bound90
    assert found.faces == len(again)
    assert calibrate(network, stage, []) == Calibration()


def test_calibration_finds_how_labels_lie_to_the_face(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kpipe.training.export.degrade", lambda crop, *_: crop)

    class Network:
        """Sees all points where the crop is brightest."""

        def __call__(self, crops: torch.Tensor) -> tuple[LandmarkTensors, torch.Tensor]:
            sides = (torch.arange(n) for n in crops.shape[2:])
            rows, columns = torch.meshgrid(*sides, indexing="ij")
            weight = crops[:, 0] / crops[:, 0].sum(dim=(1, 2), keepdim=True)
            center = [(weight * place).sum(dim=(1, 2)) for place in (columns, rows)]
            points = torch.stack(center, dim=1)[:, None].expand(-1, 68, 2)
            landmarks = LandmarkTensors(points, torch.zeros(points.shape[:2]), torch.zeros(0))
            return landmarks, torch.zeros(len(points))

    rng = np.random.default_rng(0)
    ys, xs = np.mgrid[:300, :300]
    for shift in (4.0, 0.0):
        faces = []
        for _ in range(12):
            place = rng.uniform(140, 160, 2)
            spot = np.exp(-((xs - place[0]) ** 2 + (ys - place[1]) ** 2) / 200)
            shape = 60 * (mean_face()[:, :2] - mean_face()[:, :2].mean(axis=0))
            shape += rng.normal(0, 0.2, 2)
            points = (place + shape + (shift, 0)).astype(np.float32)
            faces.append(LabeledFace((255 * spot).astype(np.uint8), points, "300w"))
        stage = replace(STAGES["refine"], roll=0.0)
        found = calibrate(Network(), stage, faces)  # type: ignore[arg-type]
        scale = stage.crop_size / (stage.crop_margin * np.ptp(shape, axis=0).max())
        assert found.offset == pytest.approx(shift * scale, abs=0.3)


@pytest.mark.slow
def test_the_commands_from_photographs_to_a_usable_network(
    kpipe: Run, labeled: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    arguments = ("--size", "tiny", "--steps", "3", "--batch", "8", "--workers", "1")
    done = kpipe("train", "--data", labeled, "-o", run, *arguments, "--validation", "0.3")
    assert done.returncode == 0, done.stderr
    log = list(csv.DictReader((run / "log.csv").open()))
    assert [row["step"] for row in log] == ["3"]
    assert 10 < float(log[0]["loss"]) < 100
    assert Image.open(run / "curves.png").width > 500
    done = kpipe("export", run, "-o", "mine.onnx", "--data", labeled)
    assert done.returncode == 0, done.stderr
    photo = next(labeled.glob("*.jpg"))
    done = kpipe("annotate", photo, "--model", "mine.onnx", "-o", "out.jpg", "--min-score", "0")
    assert done.returncode == 0, done.stderr
    network, settings = load_run(run)
    assert settings["steps"] == 3 and isinstance(network, LandmarkNetwork)
    more = ("--start-from", run, "--relabel-by", run, "--seed", "1", *arguments)
    done = kpipe("train", "--data", labeled, "-o", "second run", *more)
    assert done.returncode == 0, done.stderr
    done = kpipe("export", run, "second run", "-o", "both.onnx", "--data", labeled)
    assert done.returncode == 0, done.stderr
    assert Landmarker(tmp_path / "both.onnx").crop_size == CROP_SIZE
    done = kpipe(
        "train", "--data", labeled, "-o", "classifier", "--stage", "classifier", *arguments
    )
    assert done.returncode == 0, done.stderr
    done = kpipe("export", "classifier", "-o", "c.onnx", "--data", labeled)
    assert done.returncode == 0 and b"calibrated" not in done.stderr, done.stderr
    done = kpipe("export", run, "classifier", "-o", "none.onnx")
    assert done.returncode == 2 and b"different stages" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_the_old_name_of_a_stage_works_and_gives_the_new_one(
    kpipe: Run, labeled: Path, tmp_path: Path
) -> None:
    arguments = ("--size", "nano", "--steps", "2", "--batch", "4", "--workers", "0")
    done = kpipe("train", "--data", labeled, "-o", "old", "--look", "first", *arguments)
    assert done.returncode == 0, done.stderr
    first = done.stderr.decode().splitlines()[0]
    assert first == "kpipe: DeprecationWarning: --look is now --stage; first is now coarse"
    new = kpipe("train", "--data", labeled, "-o", "new", "--stage", "coarse", *arguments)
    assert new.returncode == 0 and b"DeprecationWarning" not in new.stderr
    settings = [(tmp_path / run / "settings.json").read_text() for run in ("old", "new")]
    assert settings[0] == settings[1] and '"stage": "coarse"' in settings[0]
    assert b"--look" not in kpipe("train", "--help").stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--look third", "choose proposals, classifier, coarse, refine"),
        ("--stage glance", "choose proposals, classifier, coarse, refine"),
        ("--size huge", "choose nano, tiny, small, medium, large"),
        ("--stage proposals", "--detection: --stage proposals needs it"),
        ("--stage proposals --detection x --size tiny", "does not go with --stage proposals"),
        ("--stage proposals --detection x --relabel-by y", "--relabel-by: does not go with"),
        ("--stage proposals --detection x --start-from y --start-from z", "takes one run"),
        ("--detection x", "--detection: goes with --stage proposals alone"),
    ],
)
def test_options_that_cannot_be(arguments: str, message: str) -> None:
    done = CliRunner().invoke(app, ["train", "--data", "x", "-o", "z", *arguments.split()])
    assert done.exit_code == 2
    assert message in " ".join(done.output.split())


@pytest.mark.slow
def test_the_scheme_that_needs_no_option_any_more_may_still_be_named(kpipe: Run) -> None:
    done = kpipe("train", "--scheme", "ibug68", "--data", "nowhere", "-o", "run")
    first, second = done.stderr.decode().splitlines()
    assert first.startswith("kpipe: DeprecationWarning: --scheme ibug68 is now")
    assert done.returncode == 2 and second.startswith("kpipe: nowhere: ")


@pytest.mark.slow
def test_training_on_bad_data(kpipe: Run, labeled: Path, tmp_path: Path) -> None:
    (labeled / "biden_standing.jpg").write_bytes(b"no picture")
    done = kpipe("train", "--data", labeled, "-o", "run")
    assert done.returncode == 2
    message = done.stderr.decode().splitlines()
    assert len(message) == 1 and "biden_standing.jpg" in message[0]
    done = kpipe("export", "nowhere", "-o", "x.onnx")
    assert done.returncode == 2 and b"checkpoint.pt: no such file" in done.stderr
    (tmp_path / "run").mkdir(exist_ok=True)
    (tmp_path / "run" / "checkpoint.pt").touch()
    done = kpipe("export", "run", "-o", "x.onnx")
    assert done.returncode == 2 and b"not a checkpoint of kpipe train" in done.stderr
