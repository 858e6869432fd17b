"""Candidate boxes, and what finds them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

UNKNOWN_ROLLS = (-40.0, 0.0, 40.0)
"""Rolls (degrees) that are tried for an ordinary box, which does not tell how the head leans."""

BOX_FRAMINGS = ((0.0, 1.0), (0.09, 0.77))
"""What an ordinary face box may enclose: the landmarks, or the whole face up to the hair. For each,
the center of the landmark square below the box's center, and its side, in sides of the box. The
face score of the coarse network tells which of the two fits."""


@dataclass(frozen=True, eq=False)
class Detections:
    """Places in one picture where a face may be.

    Attributes:
        boxes: (n, 4) float32, x0, y0, x1, y1 (pixels): squares around the expected landmarks.
        rolls: (n,) float32, degrees: how far the face is turned clockwise in the picture.
        scores: (n,) float32, the detector's confidence, 0 to 1; None where it states none.

    Raises:
        ValueError: the arrays are of different lengths, or not finite.
    """

    boxes: NDArray[np.float32]
    rolls: NDArray[np.float32]
    scores: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        boxes: NDArray[Any] = np.asarray(self.boxes, np.float32).reshape(-1, 4)
        object.__setattr__(self, "boxes", boxes)
        for name in ("rolls", "scores"):
            given = getattr(self, name)
            if given is None and name == "scores":
                continue
            values: NDArray[Any] = np.asarray(given, np.float32).reshape(-1)
            if len(values) != len(boxes):
                raise ValueError(f"detections: {len(boxes)} boxes, but {len(values)} {name}")
            if not np.isfinite(values).all():
                raise ValueError(f"detections: one of the {name} is not finite")
            object.__setattr__(self, name, values)
        if not np.isfinite(boxes).all():
            raise ValueError("detections: one of the boxes is not finite")

    def __len__(self) -> int:
        return len(self.boxes)

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        """Boxes and rolls, as in version 0.1, where detections were a tuple of the two."""
        message = "Detections no longer unpack: use .boxes and .rolls"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        return iter((self.boxes, self.rolls))

    def __getitem__(self, chosen: NDArray[Any] | slice | list[int]) -> Detections:
        """Some of them: by a boolean mask (n,), by indices, or by a slice."""
        scores = None if self.scores is None else self.scores[chosen]
        return Detections(self.boxes[chosen], self.rolls[chosen], scores)

    def joined(self, other: Detections) -> Detections:
        """These and then the others; without scores, if either has none."""
        scores = None
        if self.scores is not None and other.scores is not None:
            scores = np.concatenate([self.scores, other.scores])
        boxes = np.concatenate([self.boxes, other.boxes])
        return Detections(boxes, np.concatenate([self.rolls, other.rolls]), scores)

    @classmethod
    def empty(cls) -> Detections:
        """No detection at all."""
        return cls(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))

    @classmethod
    def from_face_boxes(
        cls, boxes: NDArray[np.floating], rolls: NDArray[np.floating] | None = None
    ) -> Detections:
        """Ordinary face boxes of another detector as candidates.

        Each box becomes several candidates: one for each of `BOX_FRAMINGS` and, without rolls, for
        each of `UNKNOWN_ROLLS`.

        Args:
            boxes: (n, 4) x0, y0, x1, y1, pixels.
            rolls: (n,) degrees clockwise, where they are known.

        Raises:
            ValueError: a box is not finite, or the rolls are of another number.
        """
        boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
        sides = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=0.0)[:, None]
        centers = (boxes[:, :2] + boxes[:, 2:]) / 2
        squares = []
        for shift, scale in BOX_FRAMINGS:
            middles, halves = centers + sides * (0.0, shift), sides * scale / 2
            squares.append(np.hstack([middles - halves, middles + halves]))
        framed = np.concatenate(squares)
        if rolls is not None:
            return cls(framed, np.tile(np.asarray(rolls, np.float32), len(BOX_FRAMINGS)))
        turns = np.repeat(np.array(UNKNOWN_ROLLS, np.float32), len(framed))
        return cls(np.tile(framed, (len(UNKNOWN_ROLLS), 1)), turns)


class Detector(Protocol):
    """Anything that finds candidates: a gray picture (h, w) uint8 in, `Detections` out."""

    def __call__(self, gray: NDArray[np.uint8]) -> Detections: ...
