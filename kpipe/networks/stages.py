"""The looks at a face, each a network of its own: what their crops show and how they vary.

A glance sees a detector's candidates, nearly all of which are no face, and sorts out most of those
for next to nothing (a cascade of classifiers: Viola and Jones, CVPR 2001). The first look is to be
sure of what is a face, and roughly of its points. The second sees an upright crop framed by the
points of the first, tight around the face: all of it is for precision (a cascade of regressors:
Dollár et al., CVPR 2010).
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
"""A box from the points of the look before, or of the frame before."""


@dataclass(frozen=True)
class Stage:
    """What one network sees, and how what frames its crops errs.

    Attributes:
        crop_size: side of its input, pixels.
        crop_margin: side of its crops over the side of the face's box.
        framing: spread of the boxes.
        roll: spread of the roll that is undone, degrees.
        points: whether its points are of use, or its face score alone.
    """

    crop_size: int
    crop_margin: float
    framing: Framing
    roll: float
    points: bool = True

    def random_transform(
        self, points: NDArray[np.floating], roll: float, rng: Rng
    ) -> NDArray[np.float64]:
        """A 2x3 matrix from picture to crop pixels, as random as what the network will meet.

        Args:
            points: (68, 2) of the face.
            roll: of the head, degrees.
            rng: draws.
        """
        # Some proposals, first looks and tracks are much worse than most.
        tail = 1.0 if rng.random() < USUAL else TAIL
        framing = Framing(*(tail * spread for spread in astuple(self.framing)))
        roll += rng.normal(0, self.roll * tail)
        box = jitter(landmark_box(points, roll), framing, rng)
        return crop_transform(box, roll, self.crop_size, self.crop_margin)


USUAL, TAIL = 0.85, 2.5
"""Share of the boxes with the usual spread, and how many times larger it is for the others."""

STAGES = {
    "glance": Stage(32, 1.45, PROPOSED, 12.0, points=False),
    "first": Stage(64, 1.45, PROPOSED, 12.0),
    "second": Stage(128, 1.3, REFINED, 4.0),
}


def jitter(box: NDArray[np.floating], framing: Framing, rng: Rng) -> NDArray[np.float64]:
    """The box (4,) moved and scaled at random."""
    side = max(box[2] - box[0], box[3] - box[1])
    centre = (box[:2] + box[2:]) / 2 + side * rng.normal(0, (framing.x, framing.y))
    half = side / 2 * np.exp(np.clip(rng.normal(0, framing.scale), -0.3, 0.3))
    return np.concatenate([centre - half, centre + half])
