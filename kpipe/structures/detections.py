"""Candidate boxes, and what finds them."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray


class Detections(NamedTuple):
    """Places where a face may be.

    Attributes:
        boxes: (n, 4) float32, x0, y0, x1, y1: squares around the landmarks to be expected.
        rolls: (n,) float32, degrees: how far the face is turned clockwise in the picture.
        scores: (n,) float32, probability of a face; None of a detector that does not know it.
    """

    boxes: NDArray[np.float32]
    rolls: NDArray[np.float32]
    scores: NDArray[np.float32] | None = None


class Detector(Protocol):
    """Anything that finds candidates: a gray picture (h, w) uint8 in, `Detections` out."""

    def __call__(self, gray: NDArray[np.uint8]) -> Detections: ...


ROLLS = (-40.0, 0.0, 40.0)
"""Degrees that the head in a box may be turned by: the box does not tell."""


FRAMINGS = ((0.0, 1.0), (0.09, 0.77))
"""What a box of a face may mean: the landmarks' own, or the whole face up to the hair. The square
around the landmarks lies so far below its centre and is so long, in sides of the box; the first
look tells which fits."""


def candidates(boxes: NDArray[np.floating]) -> Detections:
    """Boxes (n, 4) from elsewhere as candidates: each in every framing and roll it may have."""
    sides = np.maximum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])[:, None]
    middles = (boxes[:, :2] + boxes[:, 2:]) / 2
    framed = []
    for shift, scale in FRAMINGS:
        centres, halves = middles + sides * (0.0, shift), sides * scale / 2
        framed.append(np.hstack([centres - halves, centres + halves]))
    squares = np.concatenate(framed).astype(np.float32).reshape(-1, 4)
    rolls = np.repeat(np.array(ROLLS, np.float32), len(squares))
    return Detections(np.tile(squares, (len(ROLLS), 1)), rolls)
