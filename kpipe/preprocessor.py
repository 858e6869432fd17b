"""From a picture and a face's box to the gray square that the network sees, and back.

The box of a face is the square around its landmarks: centred on their bounding box, as long as the
longer side of it. The crop is that square with a margin of context, turned upright by the roll.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kpipe.opencv import cv2

OUTER_SCALE, FOREHEAD = 1.3, 0.12
"""The square around the whole face has a side so many times that of the landmarks' square, and its
centre lies so many sides of that above: it ends just below the chin, and leaves room for the
forehead, which has no points."""

CROP_SIZE = 128
"""Side of the network's input, pixels."""

CROP_MARGIN = 1.45
"""Side of the crop over the side of the face's box."""


def face_box(
    points: NDArray[np.floating], roll: float | NDArray[np.floating] = 0.0
) -> NDArray[np.float32]:
    """The square box of a face from its landmarks, or of many faces at once.

    Args:
        points: (..., n, 2), pixels.
        roll: (...,) degrees; the box's sides stand along and across a face turned by so much, as
            the crop does. The box that comes back is that square turned upright about its centre.

    Returns:
        (..., 4) float32: x0, y0, x1, y1.
    """
    along = _direction(roll)
    across = np.stack([-along[..., 1], along[..., 0]], axis=-1)
    turn = np.stack([along, across], axis=-1)
    upright = np.asarray(points, np.float64) @ turn
    low, high = upright.min(axis=-2), upright.max(axis=-2)
    centre = (turn @ ((low + high) / 2)[..., None])[..., 0]
    half = (high - low).max(axis=-1, keepdims=True) / 2
    return np.concatenate([centre - half, centre + half], axis=-1).astype(np.float32)


def outer_box(
    points: NDArray[np.floating], roll: float | NDArray[np.floating] = 0.0
) -> NDArray[np.float32]:
    """The square around the whole face, forehead to chin: what labels of detection call its box.

    Args:
        points: (..., n, 2), pixels.
        roll: (...,) of the head, degrees: where its top is.

    Returns:
        (..., 4) float32: x0, y0, x1, y1.
    """
    box = face_box(points, roll)
    side = box[..., 2:3] - box[..., 0:1]
    along = _direction(roll)
    up = np.stack([along[..., 1], -along[..., 0]], axis=-1)
    centre = (box[..., :2] + box[..., 2:]) / 2 + FOREHEAD * side * up
    half = OUTER_SCALE * side / 2
    return np.concatenate([centre - half, centre + half], axis=-1).astype(np.float32)


def _direction(degrees: float | NDArray[np.floating]) -> NDArray[np.float64]:
    """(..., 2) unit vectors, clockwise from the x axis."""
    angle = np.deg2rad(np.asarray(degrees, np.float64))
    return np.stack([np.cos(angle), np.sin(angle)], axis=-1)


def crop_transform(
    box: NDArray[np.floating], roll: float = 0.0, size: int = CROP_SIZE, margin: float = CROP_MARGIN
) -> NDArray[np.float64]:
    """The 2x3 matrix from picture pixels to crop pixels.

    Args:
        box: (4,) x0, y0, x1, y1; only its centre and longer side count.
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
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    offsets = (size - 1) / 2 - (linear @ centres[..., None])[..., 0]
    return np.concatenate([linear, offsets[..., None]], axis=2)


def invert(matrix: NDArray[np.floating]) -> NDArray[np.float64]:
    """The inverse of a 2x3 affine matrix, as a 2x3 matrix."""
    return np.asarray(cv2.invertAffineTransform(np.asarray(matrix, np.float64)), np.float64)


def transform(matrix: NDArray[np.floating], points: NDArray[np.floating]) -> NDArray[np.float32]:
    """Points (..., 2) mapped by a 2x3 matrix."""
    return np.asarray(points @ matrix[:, :2].T + matrix[:, 2], np.float32)


def to_gray(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A gray picture (h, w) of an RGB (h, w, 3) or gray one."""
    if image.ndim == 2:
        return image
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)


def warp(
    image: NDArray[np.uint8], matrix: NDArray[np.float64], size: int = CROP_SIZE
) -> NDArray[np.uint8]:
    """The square that a 2x3 matrix from picture to crop pixels cuts out.

    Outside the picture it is black. Only the part of the picture that is needed is touched; where
    it is much larger than the crop it is first reduced by averaging, so that nothing aliases.

    Args:
        image: (h, w) or (h, w, 3) uint8.
        matrix: from pixels of the picture to pixels of the crop.
        size: side of the crop, pixels.

    Returns:
        (size, size) or (size, size, 3) uint8.
    """
    shrink = max(int(1 / max(np.hypot(matrix[0, 0], matrix[1, 0]), 1e-6)), 1)
    corners = transform(invert(matrix), np.array([[0, 0], [size, 0], [0, size], [size, size]]))
    height, width = image.shape[:2]
    x0, y0 = np.clip(np.floor(corners.min(axis=0)) - 2 * shrink, 0, (width, height)).astype(int)
    x1, y1 = np.clip(np.ceil(corners.max(axis=0)) + 2 * shrink, 0, (width, height)).astype(int)
    columns, rows = (x1 - x0) // shrink, (y1 - y0) // shrink
    if columns < 1 or rows < 1:
        return np.zeros((size, size, *image.shape[2:]), np.uint8)
    part = image[y0 : y0 + rows * shrink, x0 : x0 + columns * shrink]
    if shrink > 1:
        part = np.asarray(cv2.resize(part, (columns, rows), interpolation=cv2.INTER_AREA), np.uint8)
    # Pixel k of the reduced part is centred on pixel shrink * k + (shrink - 1) / 2 of the part.
    centre = np.array([x0, y0]) + (shrink - 1) / 2
    shifted = np.column_stack([matrix[:, :2] * shrink, matrix[:, :2] @ centre + matrix[:, 2]])
    return np.asarray(cv2.warpAffine(part, shifted, (size, size)), np.uint8)


OPENCV_LIMIT = 32_767
"""Sides from which on OpenCV cuts no crop out of a picture, but only out of a part of it."""


class Pyramid:
    """A gray picture and halves of it, made when first needed: cutting many crops out of a large
    picture then costs no more than out of a small one.

    Args:
        gray: (h, w) uint8.
    """

    def __init__(self, gray: NDArray[np.uint8]) -> None:
        self.levels = [gray]

    def crops(self, matrices: NDArray[np.float64], size: int) -> NDArray[np.uint8]:
        """The squares (n, size, size) that matrices (n, 2, 3) cut out, as `warp` does.

        Each comes from the smallest level that is at least as fine as it is.
        """
        scale = np.hypot(matrices[:, 0, 0], matrices[:, 1, 0])
        level = np.maximum(-np.log2(np.maximum(scale, 1e-6)), 0).astype(int)
        while len(self.levels) <= level.max(initial=0) and max(self.levels[-1].shape) >= 4:
            last = self.levels[-1]
            # A side of one pixel is doubled first.
            last = np.pad(last, [(0, int(side == 1)) for side in last.shape], "edge")
            height, width = last.shape[0] // 2, last.shape[1] // 2
            part = last[: 2 * height, : 2 * width]
            half = cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA)
            self.levels.append(np.asarray(half, np.uint8))
        level = np.minimum(level, len(self.levels) - 1)
        # Pixel k of a level is centred on pixel factor * k + (factor - 1) / 2 of the picture.
        factor = 2.0 ** level[:, None]
        linear = matrices[:, :, :2] * factor[:, :, None]
        offset = matrices[:, :, 2] + matrices[:, :, :2].sum(axis=2) * (factor - 1) / 2
        placed = np.concatenate([linear, offset[..., None]], axis=2)
        crops = np.empty((len(matrices), size, size), np.uint8)
        for crop, k, matrix in zip(crops, level.tolist(), placed):
            if max(self.levels[k].shape) < OPENCV_LIMIT:
                cv2.warpAffine(self.levels[k], matrix, (size, size), dst=crop)
            else:
                crop[:] = warp(self.levels[k], matrix, size)
        return crops
