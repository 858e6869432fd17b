"""Affine maps between a picture and the crops that are cut out of it, as 2x3 matrices."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kpipe.utils.opencv import cv2

CROP_SIZE = 128
"""Side of the network's input, pixels."""


CROP_MARGIN = 1.45
"""Side of the crop over the side of the face's box."""


def crop_transform(
    box: NDArray[np.floating], roll: float = 0.0, size: int = CROP_SIZE, margin: float = CROP_MARGIN
) -> NDArray[np.float64]:
    """The 2x3 matrix from picture pixels to crop pixels.

    Args:
        box: (4,) x0, y0, x1, y1; only its center and longer side count.
        roll: degrees; how far the face is turned clockwise in the picture, undone in the crop.
        size: side of the crop, pixels.
        margin: side of the crop over the side of the box.
    """
    return np.asarray(crop_transforms(np.asarray(box)[None], np.array([roll]), size, margin)[0])


def crop_transforms(
    boxes: NDArray[np.floating], rolls: NDArray[np.floating], size: int, margin: float
) -> NDArray[np.float64]:
    """As `crop_transform`, of many boxes at once.

    Args:
        boxes: (n, 4) x0, y0, x1, y1.
        rolls: (n,) degrees.
        size, margin: of all crops.

    Returns:
        (n, 2, 3) float64.
    """
    boxes = np.asarray(boxes, np.float64)
    scale = size / (margin * np.maximum((boxes[:, 2:] - boxes[:, :2]).max(axis=1), 1e-3))
    angle = np.deg2rad(np.asarray(rolls, np.float64))
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    linear = np.stack([cos, sin, -sin, cos], axis=1).reshape(-1, 2, 2)
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    offsets = (size - 1) / 2 - (linear @ centers[..., None])[..., 0]
    return np.concatenate([linear, offsets[..., None]], axis=2)


def invert(matrix: NDArray[np.floating]) -> NDArray[np.float64]:
    """The inverse of a 2x3 affine matrix, as a 2x3 matrix."""
    return np.asarray(cv2.invertAffineTransform(np.asarray(matrix, np.float64)), np.float64)


def transform(matrix: NDArray[np.floating], points: NDArray[np.floating]) -> NDArray[np.float32]:
    """Points (..., 2) mapped by a 2x3 matrix."""
    return np.asarray(points @ matrix[:, :2].T + matrix[:, 2], np.float32)
