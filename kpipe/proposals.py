"""Where faces may be, from a small fully convolutional network: any size, any roll, one pass."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kpipe.detector import SMALLEST, Detections
from kpipe.opencv import cv2
from kpipe.predictor import ModelError, open_session
from kpipe.resources import packaged

PROPOSALS = "models/proposals.onnx"

STRIDE = 8
"""Pixels from one cell of the network's map to the next."""

OCTAVE = (16.0, 32.0)
"""Sides of the faces that one pass answers to, pixels."""

NOMINAL_SIDE = 22.6
"""The middle of the octave: predicted sizes are relative to it."""

SURE = 0.75
"""Length of the predicted (cosine, sine) of the roll below which the other way round is tried too.
A network that wavers between two ways predicts their mean, which is short."""

BORDER = 16
"""Pixels around the picture: a face may be cut by its edge, or larger than it."""


class ProposalDetector:
    """Candidates from the proposal network on a pyramid of reduced pictures.

    Args:
        model: an ONNX file from `kpipe.training.proposals`; without it the packaged one.
        min_face: side of the smallest face wanted (its box around the landmarks): pixels; or below
            1 a share of the picture's longer side, but then at least `SMALLEST`.
        max_roll: degrees; heads turned further in the plane of the picture are left out.
        min_score: least probability of a candidate.
        limit: most candidates in a picture, the most probable ones.
        threads: of the network; 0 for all cores.

    Raises:
        ModelError: the file cannot be used.
    """

    def __init__(
        self,
        model: Path | None = None,
        *,
        min_face: float = 1 / 40,
        max_roll: float = 180.0,
        min_score: float = 0.2,
        limit: int = 200,
        threads: int = 0,
    ) -> None:
        self._session = open_session(model or packaged(PROPOSALS), threads)
        if self._session.get_modelmeta().custom_metadata_map.get("kpipe.network") != "proposals":
            raise ModelError(f"{model}: an ONNX file, but not a proposal network of kpipe's")
        self.min_face = min_face
        self.max_roll = max_roll
        self.min_score = min_score
        self.limit = limit

    def __call__(self, gray: NDArray[np.uint8]) -> Detections:
        """Candidates in a gray picture (h, w)."""
        height, width = gray.shape
        smallest = self.min_face
        if smallest < 1:
            smallest = max(smallest * max(height, width), SMALLEST)
        found = [np.zeros((0, 6))]
        reduction = smallest / OCTAVE[0]
        level = gray
        while True:
            size = (max(round(width / reduction), 1), max(round(height / reduction), 1))
            if size != (level.shape[1], level.shape[0]):
                level = np.asarray(cv2.resize(level, size, interpolation=cv2.INTER_AREA), np.uint8)
            places = self._look(level)
            factors = np.array([width / size[0], height / size[1]])
            places[:, :2] = (places[:, :2] + 0.5) * factors - 0.5
            places[:, 2] *= factors.mean()
            found.append(places)
            if max(size) < OCTAVE[0]:
                break
            reduction *= 2
        best = _merged(np.concatenate(found), self.limit)
        return _detections(best[np.abs(best[:, 3]) <= self.max_roll])

    def _look(self, gray: NDArray[np.uint8]) -> NDArray[np.float64]:
        """(n, 6): x, y, side, roll, how sure of it, score; the candidates of one octave."""
        height, width = gray.shape
        right, bottom = (-(side + 2 * BORDER) % STRIDE for side in (width, height))
        framed = cv2.copyMakeBorder(
            gray, BORDER, BORDER + bottom, BORDER, BORDER + right, cv2.BORDER_REPLICATE
        )
        maps = self._session.run(["maps"], {"crops": framed[None, None]})[0][0]
        rows, columns = np.nonzero(maps[0] >= self.min_score)
        score, x, y, size, cosine, sine = maps[:, rows, columns].astype(np.float64)
        middle = (STRIDE - 1) / 2 - BORDER
        return np.column_stack(
            [
                (columns + x) * STRIDE + middle,
                (rows + y) * STRIDE + middle,
                NOMINAL_SIDE * np.exp(np.clip(size, -1, 1)),
                np.rad2deg(np.arctan2(sine, cosine)),
                np.hypot(cosine, sine),
                score,
            ]
        )


def _merged(places: NDArray[np.float64], limit: int) -> NDArray[np.float64]:
    """The most probable candidates, without those that say the same as a more probable one."""
    places = places[np.argsort(-places[:, 5], kind="stable")]
    x, y, side = places[:, 0], places[:, 1], places[:, 2]
    kept: list[int] = []
    left = np.ones(len(places), bool)
    while left.any() and len(kept) < limit:
        index = int(np.argmax(left))
        kept.append(index)
        near = np.maximum(np.abs(x - x[index]), np.abs(y - y[index])) < 0.3 * side[index]
        left &= ~(near & (np.abs(np.log(side / side[index])) < 0.4))
        left[index] = False
    return places[kept]


def _detections(places: NDArray[np.float64]) -> Detections:
    """Candidates, twice where they may as well stand on their crown: the first look will tell."""
    twice = np.repeat(places, np.where(places[:, 4] < SURE, 2, 1), axis=0)
    again = np.zeros(len(twice), bool)
    again[1:] = (twice[1:] == twice[:-1]).all(axis=1)
    rolls = np.where(again, (twice[:, 3] + 360) % 360 - 180, twice[:, 3])
    centres, halves = twice[:, :2], twice[:, 2:3] / 2
    boxes = np.hstack([centres - halves, centres + halves])
    return Detections(boxes.astype(np.float32), rolls.astype(np.float32))
