from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

torch = pytest.importorskip("torch")

from kpipe.datasets import read_samples
from kpipe.detectors.proposals import NOMINAL_SIDE, STRIDE, ProposalDetector
from kpipe.preprocessing.boxes import landmark_box
from kpipe.structures.detections import Detections
from kpipe.training.crops import LabelledFace, NegativePhoto
from kpipe.training.landmarks import load_faces
from kpipe.training.proposals import (
    ProposalNetwork,
    SceneStream,
    blockwise,
    export,
    loss,
    train,
)


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
    network = train(faces, [], tmp_path / "run", steps=150, batch=16, ema_decay=0.9, workers=0)
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
    resumed = train(faces, [], tmp_path / "run", steps=150, batch=16, ema_decay=0.9, workers=0)
    for a, b in zip(network.parameters(), resumed.parameters()):
        assert torch.equal(a, b)


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


def as_blocks(picture: torch.Tensor, side: int) -> torch.Tensor:
    count, channels, height, width = picture.shape
    cut = picture.reshape(count, channels, height // side, side, width // side, side)
    return cut.permute(0, 3, 5, 1, 2, 4).reshape(count, -1, height // side, width // side)


def test_the_network_is_fully_convolutional() -> None:
    network = ProposalNetwork().eval()
    with torch.no_grad():
        maps = network(torch.zeros(2, 1, 64, 96))
    assert maps.shape == (2, 6, 64 // STRIDE, 96 // STRIDE)
