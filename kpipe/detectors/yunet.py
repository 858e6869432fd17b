"""Candidates from YuNet (Wu et al., Machine Intelligence Research 2023), run by OpenCV.

Its file is not part of kpipe: OpenCV's model zoo has it (face_detection_yunet_2023mar.onnx, MIT).
"""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kpipe.detectors.face_size import COARSE_MIN_FACE, min_face_pixels
from kpipe.errors import ModelError
from kpipe.structures.detections import Detections
from kpipe.utils.opencv import cv2

NOMINAL_SIDE = 12.0
"""The smallest face that YuNet sees well, pixels: pictures are reduced until it is asked for no
smaller one."""

SHIFT, SCALE = 0.08, 0.85
"""Where the square around the landmarks lies in YuNet's box, which reaches up to the hairline: its
center so far below the box's, its side so long, in heights of the box."""


class YuNetDetector:
    """Candidates from a YuNet file.

    Args:
        model: the ONNX file.
        min_face: side of the landmark box of the smallest face wanted: see `min_face_pixels`.
        min_score: least score of a candidate.

    Raises:
        ModelError: OpenCV cannot use the file.
    """

    def __init__(
        self, model: Path, *, min_face: float = COARSE_MIN_FACE, min_score: float = 0.3
    ) -> None:
        self.model = model
        self.min_face = min_face
        self.min_score = min_score
        # OpenCV's detector keeps the picture's size inside itself: each thread needs its own.
        self._own = threading.local()
        self._network()

    def __call__(self, gray: NDArray[np.uint8]) -> Detections:
        """Candidates in a gray picture (h, w)."""
        smallest = min_face_pixels(self.min_face, gray.shape)
        faces = self._found(gray, min(NOMINAL_SIDE / smallest, 1.0))
        eyes = faces[:, 6:8] - faces[:, 4:6]
        rolls = np.arctan2(eyes[:, 1], eyes[:, 0])
        sides = faces[:, 3]
        down = np.column_stack([-np.sin(rolls), np.cos(rolls)])
        middles = faces[:, :2] + faces[:, 2:4] / 2
        centers = middles + SHIFT * sides[:, None] * down
        halves = sides[:, None] * SCALE / 2
        boxes = np.hstack([centers - halves, centers + halves])
        return Detections(boxes.astype(np.float32), np.rad2deg(rolls).astype(np.float32))

    def whole_faces(
        self, gray: NDArray[np.uint8]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """YuNet's own boxes (n, 4) x0, y0, x1, y1 and scores (n,), of the picture as it is."""
        faces = self._found(gray, 1.0)
        return np.hstack([faces[:, :2], faces[:, :2] + faces[:, 2:4]]), faces[:, 14]

    def _found(self, gray: NDArray[np.uint8], scale: float) -> NDArray[np.float64]:
        """(n, 15) of a picture reduced by `scale`: x, y, width and height of the box, five points,
        score; pixels of `gray`.
        """
        height, width = gray.shape
        size = (max(round(width * scale), 1), max(round(height * scale), 1))
        small = cv2.resize(gray, size, interpolation=cv2.INTER_AREA)
        network = self._network()
        network.setInputSize(size)
        found = network.detect(cv2.cvtColor(small, cv2.COLOR_GRAY2BGR))[1]
        faces = np.asarray(np.zeros((0, 15)) if found is None else found, np.float64)
        factors = np.array([width / size[0], height / size[1]])
        faces[:, [0, 1, *range(4, 14)]] += 0.5
        faces[:, :14] *= np.tile(factors, 7)
        faces[:, [0, 1, *range(4, 14)]] -= 0.5
        return faces

    def __getstate__(self) -> dict[str, object]:
        """Without the network: other processes load their own."""
        return {name: value for name, value in vars(self).items() if name != "_own"}

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state)
        self._own = threading.local()

    def _network(self) -> cv2.FaceDetectorYN:
        if not hasattr(self._own, "network"):
            if not self.model.is_file():
                raise ModelError(f"{self.model}: no such model file")
            try:
                self._own.network = cv2.FaceDetectorYN.create(
                    str(self.model), "", (64, 64), self.min_score, 0.4, 500
                )
            except (cv2.error, SystemError) as error:
                reason = " ".join(str(error).split())[:200]
                raise ModelError(f"{self.model}: not a YuNet file ({reason})") from None
        network: cv2.FaceDetectorYN = self._own.network
        return network
