"""The networks' stages: what the crops of each show, and how far off the boxes that frame them are.

The face classifier sees all of a detector's candidates and rejects most non-faces at next to no
cost (a cascade of classifiers: Viola and Jones, CVPR 2001). The coarse stage says which of the rest
are faces, and roughly where their landmarks lie. The refine stage sees an upright crop, framed
tightly by the coarse landmarks: all of it is for precision (a cascade of regressors: Dollár et al.,
CVPR 2010).
"""

from __future__ import annotations

from dataclasses import astuple, dataclass

import numpy as np
from numpy.typing import NDArray

from kpipe.preprocessing.affine import crop_transform
from kpipe.preprocessing.boxes import landmark_box

Rng = np.random.Generator


@dataclass(frozen=True)
class Framing:
    """Standard deviations of a box around the face, in sides of it; the last is of log(side)."""

    x: float
    y: float
    scale: float


DETECTED = Framing(0.10, 0.06, 0.11)
"""A box from a Haar cascade: the spread of OpenCV's frontal cascades around the landmark box, after
their mean offset, on the 300-W training faces. `benchmarks/haar_boxes.py` prints it."""

PROPOSED = Framing(0.08, 0.08, 0.12)
"""A box from the proposal network, or from a detector of the user's."""

REFINED = Framing(0.03, 0.03, 0.05)
"""A box from the landmarks of the stage before, or of the frame before."""

USUAL, TAIL = 0.85, 2.5
"""Share of the boxes with the usual spread, and how many times larger it is for the others: some
proposals, coarse landmarks and tracks are much worse than most."""


@dataclass(frozen=True)
class Stage:
    """What the crops of one network show, and how far off the boxes that frame them are.

    Attributes:
        crop_size: side of its input (pixels).
        crop_margin: side of its crops over the side of the face's landmark box.
        framing: spread of the boxes.
        roll: spread of the roll that is undone (degrees).
        points: whether its landmarks are used, or its face score alone.
    """

    crop_size: int
    crop_margin: float
    framing: Framing
    roll: float
    points: bool = True

    def random_transform(
        self, points: NDArray[np.floating], roll: float, rng: Rng
    ) -> NDArray[np.float64]:
        """A random crop of the kind that the network meets: (2, 3), from picture to crop pixels.

        Args:
            points: (68, 2) of the face, pixels.
            roll: of the head (degrees).
            rng: draws.
        """
        tail = 1.0 if rng.random() < USUAL else TAIL
        framing = Framing(*(tail * spread for spread in astuple(self.framing)))
        roll += rng.normal(0, self.roll * tail)
        box = jitter(landmark_box(points, roll), framing, rng)
        return crop_transform(box, roll, self.crop_size, self.crop_margin)


STAGES = {
    "classifier": Stage(32, 1.45, PROPOSED, 12.0, points=False),
    "coarse": Stage(64, 1.45, PROPOSED, 12.0),
    "refine": Stage(128, 1.3, REFINED, 4.0),
}
"""By the name that `kpipe train --stage` takes."""

OLD_NAMES = {"glance": "classifier", "first": "coarse", "second": "refine"}
"""Names of the stages in runs and commands of version 0.1."""


def jitter(box: NDArray[np.floating], framing: Framing, rng: Rng) -> NDArray[np.float64]:
    """The box (4,) moved and scaled at random."""
    side = max(box[2] - box[0], box[3] - box[1])
    center = (box[:2] + box[2:]) / 2 + side * rng.normal(0, (framing.x, framing.y))
    half = side / 2 * np.exp(np.clip(rng.normal(0, framing.scale), -0.3, 0.3))
    return np.concatenate([center - half, center + half])
