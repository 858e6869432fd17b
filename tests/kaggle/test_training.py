"""Training of the 15-point networks, and the example scripts, which train too."""

from __future__ import annotations

import csv
import importlib.util
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
pytest.importorskip("matplotlib")

from kpipe.cli import app
from kpipe.errors import ModelError, TrainingError
from kpipe.kaggle.architectures import ARCHITECTURES
from kpipe.kaggle.files import SIDE, Labeled
from kpipe.kaggle.predict import KeypointNetwork
from kpipe.kaggle.synthetic import MEAN_POINTS, from_drawings
from kpipe.kaggle.training import (
    KeypointSettings,
    TrainedKeypoints,
    distort,
    export_keypoints,
    predict,
    train_keypoints,
)
from kpipe.structures.schemes import KAGGLE15
from tests.conftest import EXAMPLES, ROOT, Run


@pytest.fixture(scope="module")
def drawn_faces() -> Labeled:
    return from_drawings(60, None, test_share=0.02, seed=5).training


SHORT = KeypointSettings(steps=4, batch=4, validation=0.3, seed=1)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_missing_labels_teach_nothing(arch: str) -> None:
    torch.manual_seed(0)
    network = ARCHITECTURES[arch]().eval()
    pictures = torch.rand(3, 1, SIDE, SIDE) * 255
    labels = torch.rand(3, 15, 2) * 80 + 8
    labels[1] = torch.nan
    labels[2, 4:] = torch.nan
    pictures.requires_grad_()
    loss = network.loss(pictures, labels)
    loss.backward()
    assert torch.isfinite(loss)
    reached = pictures.grad.abs().amax(dim=(1, 2, 3))
    assert reached[0] > 0 and reached[2] > 0 and reached[1] == 0
    points = network(pictures)
    assert points.shape == (3, 15, 2)
    # A loss that is a mean over labels: rows without any change nothing of it.
    some = network.loss(pictures[[0, 2]], labels[[0, 2]])
    assert float(some.detach()) == pytest.approx(float(loss.detach()), rel=1e-4)


def test_labels_stay_on_what_they_mark() -> None:
    points = np.array([(12 + 18 * (k % 5), 24 + 24 * (k // 5)) for k in range(15)], np.float32)
    ys, xs = np.mgrid[:SIDE, :SIDE]
    dots = [np.exp(-((xs - x) ** 2 + (ys - y) ** 2) / 8) for x, y in points]
    picture = torch.from_numpy((90 + 100 * np.sum(dots, axis=0)).astype(np.float32))
    labels = torch.from_numpy(np.tile(points, (24, 1, 1)))
    labels[0, 3] = torch.nan
    generator = torch.Generator().manual_seed(3)
    shown, moved = distort(picture.expand(24, 1, SIDE, SIDE), labels, generator)
    assert moved[0].isnan().any()
    offsets = np.arange(-5, 6)
    distances = []
    for image, places in zip(shown[:, 0].numpy(), moved.numpy()):
        for x, y in places:
            if not (6 < x < SIDE - 7 and 6 < y < SIDE - 7):
                continue
            left, top = round(float(x)), round(float(y))
            window = image[top - 5 : top + 6, left - 5 : left + 6].astype(np.float64)
            weights = np.clip(window - np.median(window) - 20, 0, None)
            found_x = left + (weights.sum(axis=0) * offsets).sum() / weights.sum()
            found_y = top + (weights.sum(axis=1) * offsets).sum() / weights.sum()
            distances.append(np.hypot(found_x - x, found_y - y))
    assert len(distances) > 200
    assert np.mean(distances) < 0.3 and np.max(distances) < 1.5


def test_mirroring_swaps_left_and_right() -> None:
    labels = torch.from_numpy(np.tile(MEAN_POINTS.astype(np.float32), (40, 1, 1)))
    labels[:, KAGGLE15.names.index("left_eyebrow_outer_end")] = torch.nan
    moved = distort(torch.zeros(40, 1, SIDE, SIDE), labels, torch.Generator().manual_seed(0))[1]
    left, right = (KAGGLE15.names.index(f"{side}_eye_center") for side in ("left", "right"))
    assert (moved[:, left, 0] > moved[:, right, 0]).all()
    brows = [KAGGLE15.names.index(f"{side}_eyebrow_outer_end") for side in ("left", "right")]
    missing = moved[:, brows].isnan().any(dim=2)
    assert (missing.sum(dim=1) >= 1).all()
    assert 5 < missing[:, 1].sum() < 35  # in the mirror it is the other brow that has no label


@pytest.mark.slow
def test_a_run_learns_and_its_file_says_the_same(drawn_faces: Labeled, tmp_path: Path) -> None:
    settings = KeypointSettings(steps=40, batch=12, validation=0.2)
    trained = train_keypoints(drawn_faces, settings)
    curve = trained.curves.validation_rmse
    assert curve[-1] < 0.5 * curve[0] and curve[-1] == trained.validation.rmse
    assert trained.curves.training_loss[-1] < 0.6 * trained.curves.training_loss[0]
    export_keypoints(trained, tmp_path / "network.onnx")
    network = KeypointNetwork(tmp_path / "network.onnx")
    assert (network.name, network.validation) == ("heatmap", 0.2)
    pictures = drawn_faces.pictures[:7]
    np.testing.assert_allclose(network(pictures), predict(trained.network, pictures), atol=0.01)
    assert network(pictures[:0]).shape == (0, 15, 2)


@pytest.mark.parametrize("arch", [arch for arch in ARCHITECTURES if arch != "heatmap"])
@pytest.mark.slow
def test_every_baseline_trains_and_exports(drawn_faces: Labeled, tmp_path: Path, arch: str) -> None:
    trained = train_keypoints(drawn_faces, replace(SHORT, arch=arch, steps=2))
    export_keypoints(trained, tmp_path / "network.onnx")
    found = KeypointNetwork(tmp_path / "network.onnx")(drawn_faces.pictures[:3])
    np.testing.assert_allclose(found, predict(trained.network, drawn_faces.pictures[:3]), atol=0.01)


@pytest.mark.slow
def test_an_interrupted_run_ends_as_one_that_was_not(drawn_faces: Labeled, tmp_path: Path) -> None:
    class Interrupted(Exception):
        pass

    def interrupt(step: int, _: float | None) -> None:
        if step == 2:
            raise Interrupted

    straight = train_keypoints(drawn_faces, SHORT)
    with pytest.raises(Interrupted):
        train_keypoints(drawn_faces, SHORT, tmp_path, interrupt)
    seen: list[int] = []
    resumed = train_keypoints(drawn_faces, SHORT, tmp_path, lambda step, _: seen.append(step))
    assert seen == [3, 4]
    assert resumed.curves.step == straight.curves.step == [1, 2, 3, 4]
    for a, b in zip(_weights(resumed), _weights(straight)):
        torch.testing.assert_close(a, b)
    with pytest.raises(TrainingError, match="a run of other settings"):
        train_keypoints(drawn_faces, replace(SHORT, seed=2), tmp_path)
    (tmp_path / "checkpoint.pt").write_bytes(b"nothing")
    with pytest.raises(TrainingError, match="not a checkpoint"):
        train_keypoints(drawn_faces, SHORT, tmp_path)


def _weights(trained: TrainedKeypoints) -> list[torch.Tensor]:
    return list(trained.network.state_dict().values())


def test_nothing_to_learn_from_or_to_validate_with(drawn_faces: Labeled) -> None:
    with pytest.raises(TrainingError, match="no labeled picture to validate with"):
        train_keypoints(drawn_faces, replace(SHORT, validation=0.0))
    with pytest.raises(TrainingError, match="no labeled picture to train on"):
        train_keypoints(drawn_faces, replace(SHORT, validation=1.0))


def test_other_files_are_no_networks_of_15_points(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="but not of kpipe kaggle train"):
        KeypointNetwork(ROOT / "models" / "landmarks.onnx")
    (tmp_path / "x.onnx").write_text("x")
    with pytest.raises(ModelError, match="not a usable ONNX file"):
        KeypointNetwork(tmp_path / "x.onnx")


@pytest.mark.slow
def test_the_command(kpipe: Run, tmp_path: Path) -> None:
    from_drawings(40, None, test_share=0.2).write(tmp_path / "set")
    command = ("kaggle", "train", "set/training.csv", "-o", "run")
    options = ("--steps", "3", "--batch", "4", "--validation", "0.3")
    done = kpipe(*command, *options, "--arch", "dense")
    assert done.returncode == 0, done.stderr
    assert b"RMSE" in done.stdout and b"accuracy" in done.stdout
    names = sorted(path.name for path in (tmp_path / "run").iterdir())
    drawn = ["curves.png", "worst.png"]
    assert names == sorted(["checkpoint.pt", "log.csv", "network.onnx", "settings.json", *drawn])
    log = list(csv.DictReader((tmp_path / "run" / "log.csv").open()))
    assert [row["step"] for row in log] == ["1", "2", "3"]
    done = kpipe(
        "kaggle", "report", "set/training.csv", "--model", "run/network.onnx", "-o", "page"
    )
    assert done.returncode == 0, done.stderr
    assert b"dense" in done.stdout and b"from the 68 points" in done.stdout
    # The figure is that of the training: the same pictures are kept out.
    said = done.stdout.decode().split("dense")[1].split()[0]
    assert float(said) == pytest.approx(float(log[-1]["validation_rmse"]), abs=2e-3)
    assert Image.open(tmp_path / "page" / "same_faces.png").size


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--scheme kaggle15 --negatives x", "--negatives: does not go with --scheme kaggle15"),
        ("--scheme kaggle15 --arch vgg", "choose heatmap, naimishnet, five-conv, dense"),
        ("--scheme kaggle15 --data y", "kaggle15 takes one training.csv"),
        ("--arch dense", "goes with kpipe kaggle train alone"),
        ("--scheme coco17", "choose ibug68 or kaggle15"),
    ],
)
def test_options_that_do_not_go_together(arguments: str, message: str) -> None:
    done = CliRunner().invoke(app, ["train", "--data", "x", "-o", "z", *arguments.split()])
    assert done.exit_code == 2
    assert message in " ".join(done.output.split())


def test_the_baselines_are_named_if_another_is_asked_for() -> None:
    arguments = ["kaggle", "train", "x.csv", "-o", "z", "--arch", "vgg"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2
    assert "choose heatmap, naimishnet, five-conv, dense" in " ".join(done.output.split())


@pytest.mark.slow
def test_the_old_command_works_and_names_the_new_one(kpipe: Run, tmp_path: Path) -> None:
    from_drawings(40, None, test_share=0.2).write(tmp_path / "set")
    options = ("--steps", "2", "--batch", "4", "--validation", "0.3", "--arch", "dense")
    old = ("train", "--scheme", "kaggle15", "--data", "set/training.csv", "-o", "old")
    done = kpipe(*old, *options)
    assert done.returncode == 0, done.stderr
    first = done.stderr.decode().splitlines()[0]
    assert first == (
        "kpipe: DeprecationWarning: kpipe train --scheme kaggle15 is now kpipe kaggle train"
    )
    new = kpipe("kaggle", "train", "set/training.csv", "-o", "new", *options)
    assert new.returncode == 0 and new.stdout == done.stdout
    assert b"DeprecationWarning" not in new.stderr
    logs = [(tmp_path / run / "log.csv").read_text() for run in ("old", "new")]
    assert logs[0] == logs[1]


@pytest.mark.slow
def test_a_run_of_version_0_1_goes_on(drawn_faces: Labeled, tmp_path: Path) -> None:
    """Its checkpoint has the step in the curves alone, and another name for the optimizer."""

    class Interrupted(Exception):
        pass

    def interrupt(step: int, _: float | None) -> None:
        if step == 2:
            raise Interrupted

    straight = train_keypoints(drawn_faces, SHORT)
    with pytest.raises(Interrupted):
        train_keypoints(drawn_faces, SHORT, tmp_path, interrupt)
    path = tmp_path / "checkpoint.pt"
    state = torch.load(path, weights_only=True)
    state["optimiser"] = state.pop("optimizer")
    state["curves"] = {"step": [1, state.pop("step")]}
    torch.save(state, path)
    resumed = train_keypoints(drawn_faces, SHORT, tmp_path)
    assert resumed.curves.step == [1, 2, 3, 4]
    for a, b in zip(_weights(resumed), _weights(straight)):
        torch.testing.assert_close(a, b)


# The examples.


def run_example(name: str, tmp_path: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, EXAMPLES / name, *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_course_project(tmp_path: Path) -> None:
    said = run_example("course_project.py", tmp_path, "-o", "out")
    assert said.count("probability") == 6
    plain = np.asarray(Image.open(EXAMPLES / "group_photo.jpg").convert("RGB")).astype(int)
    dressed = np.asarray(Image.open(tmp_path / "out" / "sunglasses.jpg")).astype(int)
    changed = np.abs(dressed - plain).max(axis=2) > 60
    assert dressed.shape == plain.shape and 0.0005 < changed.mean() < 0.02
    assert Image.open(tmp_path / "out" / "crops.png").size == (6 * 128, 128)
    assert (tmp_path / "out" / "annotated.jpg").exists()


@pytest.mark.slow
def test_the_kaggle_example(tmp_path: Path) -> None:
    from_drawings(60, None, test_share=0.1).write(tmp_path / "set")
    said = run_example("kaggle_keypoints.py", tmp_path, "--set", "set", "--steps", "10", "-o", "o")
    assert "54 pictures" in said and "from the 68 points: RMSE" in said
    rows = list(csv.reader((tmp_path / "o" / "submission.csv").open()))
    sample = list(csv.reader((tmp_path / "set" / "SampleSubmission.csv").open()))
    assert [row[0] for row in rows] == [row[0] for row in sample]
    for name in ("faces", "curves", "keypoints", "worst"):
        assert Image.open(tmp_path / "o" / f"{name}.png").width > 300


def test_forward_fill_of_the_benchmark() -> None:
    spec = importlib.util.spec_from_file_location("bench", ROOT / "benchmarks" / "kaggle.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    points = np.full((4, 15, 2), np.nan, np.float32)
    points[0, 1], points[1, 0], points[2, 0] = 5, 1, 2
    filled = module.forward_filled(points[:, :2])
    assert filled[:, 0, 0].tolist() == [1, 1, 2, 2]
    assert filled[:, 1, 1].tolist() == [5, 5, 5, 5]
