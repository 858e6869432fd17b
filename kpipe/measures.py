"""Measures taken from the points."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from kpipe.faces import Openness, Pose
from kpipe.preprocessor import warp
from kpipe.resources import packaged


@cache
def mean_face() -> NDArray[np.float64]:
    """(68, 3) mean shape of the 300-W training faces: x to the subject's left, y down, z away from
    the camera, outer eye corners 1 apart. `kpipe.training.mean_face` made it.
    """
    face = np.loadtxt(packaged("models/mean_face.csv"), delimiter=",")
    face.setflags(write=False)
    return face


def scaled_orthographic(
    shape: NDArray[np.floating], views: NDArray[np.floating]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How a shape must be scaled and turned to look like each view.

    Least squares for an affine camera, then the nearest scaled rotation: the POS step of DeMenthon
    and Davis (IJCV 1995). No focal length is needed, so a cropped photograph does no harm.

    Args:
        shape: (n, 3).
        views: (f, n, 2), pixels or any other unit.

    Returns:
        scales (f,), rotations (f, 3, 3).
    """
    shape = shape - shape.mean(axis=0)
    views = views - views.mean(axis=1, keepdims=True)
    cameras = views.transpose(0, 2, 1) @ shape @ np.linalg.inv(shape.T @ shape)
    left, scales, right = np.linalg.svd(cameras, full_matrices=False)
    rows = left @ right
    depth = np.cross(rows[:, 0], rows[:, 1])
    return scales.mean(axis=1), np.concatenate([rows, depth[:, None]], axis=1)


def head_angles(points: NDArray[np.floating]) -> NDArray[np.float64]:
    """(n, 3) yaw, pitch and roll of n heads in degrees, from their points (n, 68, 2) in pixels.

    The rotation is taken apart as a turn of the head about its own vertical (yaw), then up or down
    (pitch), then in the plane of the picture (roll): turning the picture changes the roll alone.
    Zero is the average head of the 300-W training set.
    """
    _, turned = scaled_orthographic(mean_face(), np.asarray(points, np.float64))
    yaw = np.arctan2(turned[:, 2, 0], turned[:, 2, 2])
    pitch = -np.arcsin(np.clip(turned[:, 2, 1], -1, 1))
    roll = np.arctan2(-turned[:, 0, 1], turned[:, 1, 1])
    return np.asarray(np.rad2deg(np.stack([yaw, pitch, roll], axis=1)))


def head_pose(points: NDArray[np.floating]) -> Pose:
    """How a head is turned, from its 68 points (68, 2) in pixels: see `head_angles`."""
    return Pose(*head_angles(np.asarray(points)[None])[0].tolist())


def seen_from_front(points: NDArray[np.floating]) -> NDArray[np.float64]:
    """The points (68, 2) of a turned head as they would be seen from its front.

    Across the picture each point is where it was seen; how deep it lies is taken from the mean
    face. The outer eye corners come out about 1 apart.
    """
    views = np.asarray(points, np.float64)[None]
    scales, rotations = scaled_orthographic(mean_face(), views)
    depth = (mean_face() - mean_face().mean(axis=0)) @ rotations[0, 2]
    flat = (views[0] - views[0].mean(axis=0)) / scales[0]
    return np.asarray((np.column_stack([flat, depth]) @ rotations[0])[:, :2])


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
        (_gap(front, b, f) + _gap(front, c, e)) / (2 * _gap(front, a, d))
        for a, b, c, d, e, f in EYES
    )
    corners, upper, lower = MOUTH
    gaps = [_gap(front, above, below) for above, below in zip(upper, lower)]
    return Openness(right, left, sum(gaps) / len(gaps) / _gap(front, *corners))


def _gap(points: NDArray[np.floating], a: int, b: int) -> float:
    return max(float(np.hypot(*(points[a] - points[b]))), 1e-6)


def aligned_chip(
    image: NDArray[np.uint8], points: NDArray[np.floating], side: int = 160
) -> NDArray[np.uint8]:
    """A face cut out upright and always at the same place, as networks that compare faces want it.

    Args:
        image: (h, w) or (h, w, 3) uint8.
        points: (68, 2) of the face in it, pixels.
        side: of the result, pixels.

    Returns:
        (side, side) or (side, side, 3) uint8: turned, scaled and shifted so that the points lie as
        nearly as can be (least squares) on the mean face, whose outer eye corners are 0.45 sides
        apart.
    """
    seen = np.asarray(points, np.float64) @ (1, 1j)
    wanted = mean_face()[:, :2] @ (1, 1j)
    seen_centre, wanted_centre = seen.mean(), wanted.mean()
    turn = np.vdot(seen - seen_centre, wanted - wanted_centre)
    turn *= 0.45 * side / np.vdot(seen - seen_centre, seen - seen_centre).real
    offset = (side - 1) / 2 * (1 + 1j) - turn * seen_centre
    matrix = np.array([[turn.real, -turn.imag, offset.real], [turn.imag, turn.real, offset.imag]])
    return warp(image, matrix, side)


CLOSED = 0.6
"""Eyes are closed when they are open by less than this share of what is usual for them."""


NEW = 1.0
"""Seconds for which a face is new: longer than a blink."""


class BlinkDetector:
    """Whether a face's eyes are closed, against what is usual for them.

    Eyes differ: what is wide open for one is narrow for another. The usual openness follows upwards
    within a third of a second and downwards within ten, so that closed eyes do not become usual;
    within half a second as long as the face is new.
    """

    def __init__(self) -> None:
        self._usual: float | None = None
        self._begin = self._time = 0.0

    def __call__(self, now: Openness, time: float) -> bool:
        """Whether the eyes are closed at a time, in seconds; times must not go back."""
        eyes = (now.right_eye + now.left_eye) / 2
        if self._usual is None:
            # Nothing is known yet: a face may come into the picture in the middle of a blink.
            self._usual = max(eyes, _mean_eyes())
            self._begin = time
        else:
            falling = 0.5 if time - self._begin < NEW else 10.0
            slowness = 0.3 if eyes > self._usual else falling
            share = 1 - np.exp(-(time - self._time) / slowness)
            self._usual += float(share) * (eyes - self._usual)
        self._time = time
        return eyes < CLOSED * self._usual


@cache
def _mean_eyes() -> float:
    mean = openness(mean_face()[:, :2])
    return (mean.right_eye + mean.left_eye) / 2
