"""Association: which face of a frame continues which track.

A track is kept by three cues: the face score, the distance from where optical flow carried it, and
its appearance.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kpipe.measures.pose import head_pose
from kpipe.preprocessing.affine import crop_transform
from kpipe.preprocessing.boxes import landmark_box
from kpipe.preprocessing.crops import warp
from kpipe.utils.opencv import cv2

SAME_FACE_DISTANCE = 0.25
"""Mean distance of two faces' points, in sizes of the face, below which they are one face."""

APPEARANCE_SIDE = 24
"""Side of the small picture that appearances are compared by (pixels)."""

Distance = Callable[[NDArray[np.floating], NDArray[np.floating]], float]


def point_distance(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """Mean distance of two faces' points (n, 2), in sizes of the larger one."""
    size = max(float(np.ptp(points, axis=0).max()) for points in (a, b))
    return float(np.linalg.norm(a - b, axis=1).mean()) / max(size, 1e-6)


def appearance(gray: NDArray[np.uint8], points: NDArray[np.floating]) -> NDArray[np.float32]:
    """The appearance of a face: a unit vector (APPEARANCE_SIDE**2,) float32.

    It is the face upright and small, without what light and shadow do to large parts of it.

    Args:
        gray: picture (h, w) uint8.
        points: (68, 2) of the face, pixels.
    """
    roll = head_pose(points).roll
    matrix = crop_transform(landmark_box(points, roll), roll, APPEARANCE_SIDE, 1.0)
    chip = warp(gray, matrix, APPEARANCE_SIDE).astype(np.float32)
    chip = chip - np.asarray(cv2.GaussianBlur(chip, (0, 0), APPEARANCE_SIDE / 6), np.float32)
    return unit((chip - chip.mean()).ravel())


def similarity(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """Correlation of two appearances, -1 to 1.

    Two people's faces have 0.2 in the median and 0.5 in one of twenty pairs, one person's in frames
    of one video 0.9.
    """
    return float(a @ b)


def unit(vector: NDArray[np.floating]) -> NDArray[np.float32]:
    """The vector scaled to length 1."""
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-6), np.float32)


@dataclass(frozen=True)
class MatchPolicy:
    """How similar in appearance a face must be to continue a track.

    | motion since last seen | distance from the expected place | similarity needed |
    | --- | --- | --- |
    | known | below `near` | none: even a blurred face continues its track |
    | known | above `near` | `per_near_distance` for each size beyond, up to the next row |
    | known | far | `expected` + `per_distance` for each size |
    | unknown, as after a cut | any | the same, but at least `anywhere` |

    Attributes:
        expected: similarity needed at the expected place.
        anywhere: similarity needed where nothing tells the expected place.
        per_distance: added for each size of the face that it is away from the expected place.
        near: distance, in sizes of the face, up to which appearance does not matter.
        per_near_distance: similarity needed for each size of the face beyond `near`.
    """

    expected: float = 0.35
    anywhere: float = 0.6
    per_distance: float = 0.15
    near: float = 0.1
    per_near_distance: float = 1.5

    def min_similarity(self, distance: float, motion_known: bool) -> float:
        """The similarity needed; a negative one is always reached by a face in its place.

        Args:
            distance: from the expected place, in sizes of the face.
            motion_known: whether the motion of the face, or of the camera, since it was last seen
                is known.
        """
        needed = self.expected + self.per_distance * distance
        if not motion_known:
            return max(needed, self.anywhere)
        return min(needed, self.per_near_distance * (distance - self.near))
