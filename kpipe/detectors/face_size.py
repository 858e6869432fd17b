"""The smallest face that a detector looks for: the rule that all detectors share."""

from __future__ import annotations

COARSE_MIN_FACE = 1 / 40
"""Default smallest face of the slow detectors, as a share of the picture's longer side."""

MIN_FACE_PIXELS = 16.0
"""Side of the landmark box of the smallest face that is looked for by default (pixels): smaller
faces show too little."""


def min_face_pixels(min_face: float, shape: tuple[int, ...]) -> float:
    """The side of the smallest face (pixels).

    Args:
        min_face: in pixels; or below 1 a share of the picture's longer side, but then at least
            `MIN_FACE_PIXELS`.
        shape: of the picture, (h, w).
    """
    return min_face if min_face >= 1 else max(min_face * max(shape), MIN_FACE_PIXELS)
