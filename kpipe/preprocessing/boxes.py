"""Boxes around faces: of the landmarks, of the whole head, and how boxes overlap."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

HEAD_SCALE, HEAD_RISE = 1.3, 0.12
"""Side of the head box over the side of the landmark box, and how far its center lies above the
landmark box's, in sides of that. It ends just below the chin and leaves room for the forehead,
which has no points."""


def landmark_box(
    points: NDArray[np.floating], roll: float | NDArray[np.floating] = 0.0
) -> NDArray[np.float32]:
    """The square box of a face from its landmarks, or of many faces at once.

    Args:
        points: (..., n, 2), pixels.
        roll: (...,) degrees; the box's sides stand along and across a face turned by so much, as
            the crop does. The box that comes back is that square turned upright about its center.

    Returns:
        (..., 4) float32: x0, y0, x1, y1.
    """
    along = direction(roll)
    across = np.stack([-along[..., 1], along[..., 0]], axis=-1)
    turn = np.stack([along, across], axis=-1)
    upright = np.asarray(points, np.float64) @ turn
    low, high = upright.min(axis=-2), upright.max(axis=-2)
    center = (turn @ ((low + high) / 2)[..., None])[..., 0]
    half = (high - low).max(axis=-1, keepdims=True) / 2
    return np.concatenate([center - half, center + half], axis=-1).astype(np.float32)


def head_box(
    points: NDArray[np.floating], roll: float | NDArray[np.floating] = 0.0
) -> NDArray[np.float32]:
    """The square around the whole face, forehead to chin: what labels of detection call its box.

    Args:
        points: (..., n, 2), pixels.
        roll: (...,) of the head, degrees: where its top is.

    Returns:
        (..., 4) float32: x0, y0, x1, y1.
    """
    box = landmark_box(points, roll)
    side = box[..., 2:3] - box[..., 0:1]
    along = direction(roll)
    up = np.stack([along[..., 1], -along[..., 0]], axis=-1)
    center = (box[..., :2] + box[..., 2:]) / 2 + HEAD_RISE * side * up
    half = HEAD_SCALE * side / 2
    return np.concatenate([center - half, center + half], axis=-1).astype(np.float32)


def direction(degrees: float | NDArray[np.floating]) -> NDArray[np.float64]:
    """(..., 2) unit vectors, clockwise from the x axis."""
    angle = np.deg2rad(np.asarray(degrees, np.float64))
    return np.stack([np.cos(angle), np.sin(angle)], axis=-1)


def nms(
    boxes: NDArray[np.floating], scores: NDArray[np.floating], overlap: float
) -> NDArray[np.intp]:
    """Non-maximum suppression: indices of the boxes that no more probable box overlaps.

    Args:
        boxes: (n, 4) x0, y0, x1, y1.
        scores: (n,).
        overlap: IoU above which the less probable of two boxes is dropped.

    Returns:
        (m,) the most probable first.
    """
    order = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    dropped = np.zeros(len(order), bool)
    ranked = boxes[order]
    for index in range(len(order)):
        if not dropped[index]:
            kept.append(index)
            dropped |= iou(ranked[index], ranked) > overlap
    return order[kept]


def iou(a: NDArray[np.floating], b: NDArray[np.floating]) -> NDArray[np.float64]:
    """(...,) IoU of boxes (..., 4) x0, y0, x1, y1."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    shared = np.maximum(sides, 0).prod(axis=-1)
    both = (a[..., 2:] - a[..., :2]).prod(axis=-1) + (b[..., 2:] - b[..., :2]).prod(axis=-1)
    return np.asarray(shared / np.maximum(both - shared, 1e-12))
