from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image

torch = pytest.importorskip("torch")

from kpipe.datasets import read_samples
from kpipe.detectors.proposals import NOMINAL_SIDE, STRIDE, ProposalDetector
from kpipe.errors import TrainingError
from kpipe.preprocessing.boxes import landmark_box
from kpipe.structures.detections import Detections
from kpipe.training import landmarks
from kpipe.training.data import LabelledFace, NegativePhoto, load_faces
from kpipe.training.proposals import (
    ProposalNetwork,
    ProposalSettings,
    blockwise,
    export,
    load_run,
    loss,
    train,
)
from kpipe.training.scenes import SceneStream
from tests.conftest import Run


@pytest.fixture
def faces(labelled: Path) -> list[LabelledFace]:
    return load_faces(read_samples(labelled), 0.0).training


def scenes(faces: list[LabelledFace], length: int = 40) -> SceneStream:
    texture = np.random.default_rng(0).integers(0, 256, (240, 320), np.uint8)
    return SceneStream(faces, [NegativePhoto(texture, Detections.empty())], length, seed=0)


def test_targets_lie_on_faces(faces: list[LabelledFace]) -> None:
    """What the targets say of a face is what the landmark pipeline sees there."""
    stream = scenes(faces, 200)
    marked = 0
    for index in range(len(stream)):
        scene, targets = stream[index]
        assert scene.shape == (1, 128, 128) and scene.dtype == np.uint8
        hit = targets[7] > 0
        marked += hit.any()
        assert (targets[0][hit] == 1).all() and (targets[6][hit] == 1).all()
        assert np.hypot(targets[4], targets[5])[hit] == pytest.approx(1, abs=1e-4)
        assert (np.abs(targets[1:3][:, hit]) <= 1).all()
        sides = NOMINAL_SIDE * np.exp(targets[3][hit])
        assert ((sides > 14) & (sides < 36)).all()
    assert 0.3 * len(stream) < marked < 0.9 * len(stream)
    again = scenes(faces, 200)
    assert (again[7][0] == stream[7][0]).all()


def test_the_loss_is_least_at_the_truth(faces: list[LabelledFace]) -> None:
    targets = torch.stack([torch.from_numpy(scenes(faces)[k][1]) for k in range(16)])
    truth = targets[:, :6].clone()
    truth[:, 0] = (truth[:, 0] - 0.5) * 20
    right = sum(float(part) for part in loss(truth, targets))
    assert right < 0.01
    for channel in range(6):
        wrong = truth.clone()
        wrong[:, channel] = wrong[:, channel] + 1.0 if channel else -wrong[:, channel]
        assert sum(float(part) for part in loss(wrong, targets)) > right + 0.1


@pytest.mark.slow
def test_a_trained_network_finds_the_faces_it_saw(
    faces: list[LabelledFace], tmp_path: Path
) -> None:
    settings = ProposalSettings(steps=150, batch=16, ema_decay=0.9)
    network = train(settings, faces, [], tmp_path / "run", workers=0)
    stream = scenes(faces, 20)
    pictures = np.concatenate([stream[k][0] for k in range(20)])
    export(network, tmp_path / "float.onnx")
    export(network, tmp_path / "int8.onnx", pictures)
    seen = [
        onnxruntime.InferenceSession(tmp_path / f"{name}.onnx").run(
            ["maps"], {"crops": pictures[:, None]}
        )[0]
        for name in ("float", "int8")
    ]
    with torch.no_grad():
        exact = network(torch.from_numpy(pictures[:, None]).float()).numpy()
    exact[:, 0] = 1 / (1 + np.exp(-exact[:, 0]))
    assert seen[0] == pytest.approx(exact, abs=1e-3)
    assert np.abs(seen[1] - exact).mean() < 0.1 * np.abs(exact - exact.mean()).mean()
    for name in ("float", "int8"):
        detector = ProposalDetector(tmp_path / f"{name}.onnx", min_score=0.05)
        found = 0
        for face in faces:
            box = landmark_box(face.points)
            boxes = detector(face.gray).boxes
            away = np.abs((boxes[:, :2] + boxes[:, 2:]) / 2 - (box[:2] + box[2:]) / 2).max(axis=1)
            found += bool((away < 0.4 * (box[2] - box[0])).any())
        assert found >= len(faces) - 1
    resumed = train(settings, faces, [], tmp_path / "run", workers=0)
    for a, b in zip(network.parameters(), resumed.parameters()):
        assert torch.equal(a, b)


@pytest.mark.slow
def test_the_commands_from_photographs_to_a_usable_detector(
    kpipe: Run, labelled: Path, tmp_path: Path
) -> None:
    (tmp_path / "negatives").mkdir()
    rng = np.random.default_rng(0)
    for name in "abcdef":
        texture = rng.integers(0, 256, (180, 200, 3), np.uint8)
        Image.fromarray(texture).save(tmp_path / "negatives" / f"{name}.png")
    files = ("--data", labelled, "--negatives", "negatives")
    arguments = ("-o", "run", "--steps", "6", "--batch", "4", "--workers", "0")
    more = ("--checkpoint-every", "2", "--validation", "0.3", "--seed", "1")
    done = kpipe("train", "--stage", "proposals", *files, *arguments, *more)
    assert done.returncode == 0, done.stderr
    assert b"photographs without faces" in done.stderr
    names = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert names == ["checkpoint.pt", "curves.png", "log.csv", "settings.json"]
    log = list(csv.DictReader((tmp_path / "run" / "log.csv").open()))
    assert [row["step"] for row in log] == ["2", "4", "6"]
    assert {"loss", "score", "place", "learning_rate"} <= set(log[0])

    done = kpipe("export", "run", "-o", "float.onnx")
    assert done.returncode == 0, done.stderr
    done = kpipe("export", "run", "-o", "int8.onnx", *files)
    assert done.returncode == 0, done.stderr
    sizes = [(tmp_path / f"{name}.onnx").stat().st_size for name in ("float", "int8")]
    assert sizes[1] < sizes[0]
    for name in ("float", "int8"):
        detector = ProposalDetector(tmp_path / f"{name}.onnx", min_score=0.0, limit=5)
        assert len(detector(np.zeros((120, 160), np.uint8))) <= 5
    done = kpipe("export", "run", "-o", "none.onnx", "--data", labelled)
    assert done.returncode == 2 and b"needs the run's --negatives" in done.stderr
    done = kpipe("export", "run", "run", "-o", "none.onnx")
    assert done.returncode == 2 and b"takes one run" in done.stderr
    assert not (tmp_path / "none.onnx").exists()


def test_a_run_of_another_kind_is_refused(faces: list[LabelledFace], tmp_path: Path) -> None:
    settings = ProposalSettings(steps=1, batch=2)
    train(settings, faces, [], tmp_path, workers=0)
    assert load_run(tmp_path)[1]["stage"] == "proposals"
    with pytest.raises(TrainingError, match="a run of another kind"):
        landmarks.load_run(tmp_path)
    with pytest.raises(TrainingError, match="a run of other settings"):
        train(replace(settings, seed=1), faces, [], tmp_path, workers=0)
    with pytest.raises(TrainingError, match="no face to train on"):
        train(settings, [], [], tmp_path / "none", workers=0)


def test_a_convolution_over_blocks_is_the_same() -> None:
    """The exported stem is two such: rows of pixels, then rows of channels, hold a block."""
    torch.manual_seed(0)
    for channels, side in ((1, 4), (3, 4), (12, 2)):
        convolution = torch.nn.Conv2d(channels, 5, 3, stride=2, padding=1)
        picture = torch.rand(2, channels, 16, 24)
        blocks = as_blocks(picture, side)
        padded = torch.nn.functional.pad(blocks, (1, 0, 1, 0))
        with torch.no_grad():
            found = blockwise(convolution, side)(padded)
            wanted = as_blocks(convolution(picture), side // 2)
        assert found.shape == wanted.shape
        assert torch.allclose(found, wanted, atol=1e-5)


def test_the_worked_example_of_a_convolution_over_blocks() -> None:
    convolution = torch.nn.Conv2d(1, 1, 3, stride=2, padding=1)
    kernel = torch.arange(1.0, 10.0).reshape(1, 1, 3, 3)
    convolution.weight = torch.nn.Parameter(kernel)
    a, b, c, d, e, f, g, h, i = kernel.flatten().tolist()
    found = blockwise(convolution, 2).weight.detach()
    assert found.shape == (1, 4, 2, 2)
    assert found[0, :, 0, 0].tolist() == [0, 0, 0, a]
    assert found[0, :, 0, 1].tolist() == [0, 0, b, c]
    assert found[0, :, 1, 0].tolist() == [0, d, 0, g]
    assert found[0, :, 1, 1].tolist() == [e, f, h, i]


def as_blocks(picture: torch.Tensor, side: int) -> torch.Tensor:
    count, channels, height, width = picture.shape
    cut = picture.reshape(count, channels, height // side, side, width // side, side)
    return cut.permute(0, 3, 5, 1, 2, 4).reshape(count, -1, height // side, width // side)


def test_the_network_is_fully_convolutional() -> None:
    network = ProposalNetwork().eval()
    with torch.no_grad():
        maps = network(torch.zeros(2, 1, 64, 96))
    assert maps.shape == (2, 6, 64 // STRIDE, 96 // STRIDE)
