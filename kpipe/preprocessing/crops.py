"""Pictures turned gray, and square crops cut out of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kpipe.preprocessing.affine import CROP_SIZE, crop_transform, invert, transform
from kpipe.preprocessing.boxes import landmark_box
from kpipe.utils.opencv import cv2


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
    # Pixel k of the reduced part is centered on pixel shrink * k + (shrink - 1) / 2 of the part.
    center = np.array([x0, y0]) + (shrink - 1) / 2
    shifted = np.column_stack([matrix[:, :2] * shrink, matrix[:, :2] @ center + matrix[:, 2]])
    return np.asarray(cv2.warpAffine(part, shifted, (size, size)), np.uint8)


OPENCV_LIMIT = 32_767
"""Sides from which on OpenCV cuts no crop out of a picture, but only out of a part of it."""


class ImagePyramid:
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
        # Pixel k of a level is centered on pixel factor * k + (factor - 1) / 2 of the picture.
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


def checked_gray(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The gray picture of an RGB or gray one.

    Raises:
        ValueError: it is neither.
    """
    right_shape = isinstance(image, np.ndarray) and (
        image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)
    )
    if not right_shape or image.dtype != np.uint8 or image.size == 0:
        got = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image)
        raise ValueError(f"image: expected uint8 (h, w, 3) RGB or (h, w) gray, got {got}")
    return to_gray(image)


def face_crop(
    image: NDArray[np.uint8], points: NDArray[np.floating], roll: float = 0.0, size: int = 224
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """One face as a picture of its own, framed by its landmarks as the networks' crops are.

    Args:
        image: (h, w) or (h, w, 3) uint8.
        points: (n, 2) landmarks of the face, pixels.
        roll: degrees; how far the head is turned clockwise, undone in the crop.
        size: side of the crop (pixels).

    Returns:
        The crop (size, size) or (size, size, 3) uint8, and the matrix (2, 3) that cuts it out.
    """
    matrix = crop_transform(landmark_box(points, roll), roll, size)
    return warp(image, matrix, size), matrix
