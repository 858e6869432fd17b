"""The smallest face that a detector looks for: the rule that all detectors share."""

from __future__ import annotations

import math

COARSE_MIN_FACE = 1 / 40
"""Default smallest face of the slow detectors, as a share: see `min_face_pixels`."""

MIN_FACE_PIXELS = 16.0
"""Side of the landmark box of the smallest face that is looked for by default (pixels): smaller
faces show too little."""


USUAL_ASPECT, LONGEST_ASPECT = 2.0, 12.0
"""Longer over shorter side up to which a share counts of the longer side, and up to which it counts
of `USUAL_ASPECT` times the shorter one. Beyond that the detector works on no more pixels, however
long the picture is."""


def min_face_pixels(min_face: float, shape: tuple[int, ...]) -> float:
    """The side of the smallest face (pixels).

    A panorama shows people as large as an ordinary picture of its height does, so a share of its
    longer side would leave most of them out: of six faces of 59 to 174 pixels in a picture of
    20,000 x 960 five.

    Args:
        min_face: in pixels; or below 1 a share of the picture's longer side, but at most of twice
            the shorter one (see `LONGEST_ASPECT`), and then at least `MIN_FACE_PIXELS`.
        shape: of the picture, (h, w).
    """
    if min_face >= 1:
        return min_face
    shorter, longer = min(shape[:2]), max(shape[:2])
    counted = min(longer, USUAL_ASPECT * shorter)
    bounded = USUAL_ASPECT * math.sqrt(shorter * longer / LONGEST_ASPECT)
    return max(min_face * max(counted, bounded), MIN_FACE_PIXELS)
