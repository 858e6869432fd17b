"""How far eyes and mouth are open, from the landmarks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kpipe.measures.pose import seen_from_front
from kpipe.structures.faces import Openness

EYES = ((36, 37, 38, 39, 40, 41), (42, 43, 44, 45, 46, 47))
"""Right and left: corner, two points of the upper lid, corner, two of the lower lid."""


MOUTH = ((60, 64), (61, 62, 63), (67, 66, 65))
"""Inner corners, inner edge of the upper lip, inner edge of the lower lip."""


def openness(points: NDArray[np.floating]) -> Openness:
    """How far eyes and mouth are open, from the 68 points of a face (68, 2) in pixels.

    The aspect ratio of Soukupova and Cech (CVWW 2016), of the points as seen from the front: of a
    turned head the width is foreshortened, of a raised one the height.
    """
    front = seen_from_front(points)
    right, left = (
        (gap(front, b, f) + gap(front, c, e)) / (2 * gap(front, a, d)) for a, b, c, d, e, f in EYES
    )
    corners, upper, lower = MOUTH
    gaps = [gap(front, above, below) for above, below in zip(upper, lower)]
    return Openness(right, left, sum(gaps) / len(gaps) / gap(front, *corners))


def gap(points: NDArray[np.floating], a: int, b: int) -> float:
    return max(float(np.hypot(*(points[a] - points[b]))), 1e-6)
