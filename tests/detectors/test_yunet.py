from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kpipe.detectors.yunet import YuNetDetector
from kpipe.errors import ModelError
from kpipe.utils.opencv import cv2


class Network:
    """Answers as OpenCV's class does: x, y, w, h, five points (right eye first), score."""

    def setInputSize(self, size: tuple[int, int]) -> None:  # noqa: N802
        self.size = size

    def detect(self, image: np.ndarray) -> tuple[int, np.ndarray | None]:
        assert image.shape == (self.size[1], self.size[0], 3)
        if image.max() == 0:
            return 0, None
        # Leaning clockwise by 45 degrees, 40 pixels high.
        eyes = [20, 20, 30, 30]
        return 1, np.array([[10, 10, 30, 40, *eyes, 25, 30, 20, 35, 25, 40, 0.9]], np.float32)


@pytest.fixture
def detector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> YuNetDetector:
    (tmp_path / "yunet.onnx").touch()
    monkeypatch.setattr(cv2.FaceDetectorYN, "create", lambda *_: Network())
    return YuNetDetector(tmp_path / "yunet.onnx", min_face=24.0)


def test_boxes_are_in_pixels_of_the_picture(detector: YuNetDetector) -> None:
    found = detector(np.full((200, 300), 9, np.uint8))  # reduced to half its size
    boxes, rolls = found.boxes, found.rolls
    assert rolls == pytest.approx([45])
    assert boxes[0, 2] - boxes[0, 0] == pytest.approx(0.85 * 80)
    center = (boxes[0, :2] + boxes[0, 2:]) / 2
    down = 0.08 * 80 * np.sqrt(0.5)
    assert center == pytest.approx((50.5 - down, 60.5 + down), abs=0.01)


def test_nothing_found(detector: YuNetDetector) -> None:
    assert len(detector(np.zeros((200, 300), np.uint8)).boxes) == 0


def test_files_that_are_no_yunet(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such model file"):
        YuNetDetector(tmp_path / "missing.onnx")
    (tmp_path / "text.onnx").write_text("no network")
    with pytest.raises(ModelError, match="not a YuNet file"):
        YuNetDetector(tmp_path / "text.onnx")
