"""Head pose, from 2D landmarks and a 3D mean face."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from kpipe.structures.faces import Pose
from kpipe.utils.resources import packaged


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
    """The scale and rotation under which a shape projects to each view.

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
