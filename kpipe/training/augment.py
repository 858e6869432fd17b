"""What a training crop goes through: light, resolution, blur, noise, occlusion."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kpipe.networks.stages import Stage
from kpipe.preprocessing.affine import crop_transform, invert, transform
from kpipe.preprocessing.boxes import landmark_box
from kpipe.preprocessing.crops import warp
from kpipe.utils.opencv import cv2

Gray = NDArray[np.uint8]
Rng = np.random.Generator


def misframed_transform(
    points: NDArray[np.floating], roll: float, stage: Stage, rng: Rng
) -> NDArray[np.float64]:
    """A crop beside a face, far too large or small for it, or far from upright.

    The face score learns it as a negative, and so depends on where and how a face lies.

    Args:
        points: (68, 2) of the face.
        roll: of the head, degrees.
        stage: whose crop.
        rng: draws.
    """
    box = landmark_box(points)
    side = float(box[2] - box[0])
    center = (box[:2] + box[2:]) / 2
    kind = rng.random()
    turn = rng.normal(0, 25)
    if kind < 0.25:
        scale = rng.uniform(0.2, 0.45)
        center = center + side * rng.uniform(-0.5, 0.5, 2)
    elif kind < 0.5:
        scale = rng.uniform(0.8, 1.25)
        turn = rng.uniform(80, 280)
    elif kind < 0.75:
        scale = rng.uniform(2.3, 3.5)
        center = center + side * rng.uniform(-0.5, 0.5, 2)
    else:
        scale = rng.uniform(0.6, 1.5)
        angle = rng.uniform(0, 2 * np.pi)
        center = center + side * rng.uniform(0.75, 1.2) * np.array([np.cos(angle), np.sin(angle)])
    half = side * scale / 2
    box = np.concatenate([center - half, center + half]).astype(np.float32)
    return crop_transform(box, roll + turn, stage.crop_size, stage.crop_margin)


def elastic_warp(
    gray: Gray,
    matrix: NDArray[np.float64],
    points: NDArray[np.floating],
    size: int,
    rng: Rng,
) -> tuple[Gray, NDArray[np.float32]]:
    """A crop that is distorted smoothly: each part of the face is moved, stretched and turned a
    little (elastic deformations: Simard et al., ICDAR 2003).

    Args:
        gray: picture (h, w).
        matrix: from picture to crop pixels.
        points: (68, 2), of the picture.
        size: side of the crop.
        rng: draws.

    Returns:
        The crop (size, size), and the points in it (68, 2). A distortion that would fold the crop
        over itself is left out.
    """
    strength = rng.uniform(0, BEND) * size
    knots = rng.normal(0, strength, (BEND_KNOTS, BEND_KNOTS, 2)).astype(np.float32)
    stretch = rng.normal(0, STRETCH, (2, 2))
    middle = (size - 1) / 2
    # The source of each pixel of the crop, in pixels of the undistorted crop.
    across = np.arange(size, dtype=np.float32) - middle
    offset = cv2.resize(knots, (size, size), interpolation=cv2.INTER_CUBIC)
    offset[..., 0] += stretch[0, 0] * across + stretch[0, 1] * across[:, None]
    offset[..., 1] += stretch[1, 0] * across + stretch[1, 1] * across[:, None]
    origin = offset + middle
    origin[..., 0] += across
    origin[..., 1] += across[:, None]

    empty = np.zeros(0, np.float32)  # OpenCV's second map, which is not used
    whole = gray
    shrink = max(int(1 / max(np.hypot(matrix[0, 0], matrix[1, 0]), 1e-6)), 1)
    if shrink > 1:
        height, width = gray.shape[0] // shrink, gray.shape[1] // shrink
        part = gray[: height * shrink, : width * shrink]
        gray = _as_gray(cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA))
    inverse = invert(matrix)
    inverse[:, 2] -= (shrink - 1) / 2
    source = np.asarray(cv2.transform(origin, inverse / shrink), np.float32)
    crop = cv2.remap(gray, source, empty, cv2.INTER_LINEAR)

    # The offset is inverted by iteration: the point that is taken from `straight` is wanted.
    straight = transform(matrix, points)
    moved = straight
    for _ in range(6):
        at = np.clip(moved, 0, size - 1)[None]
        before, moved = moved, straight - cv2.remap(offset, at, empty, cv2.INTER_LINEAR)[0]
    if np.abs(moved - before).max() > FOLDED * size:
        # The crop is folded over itself, one in some hundreds: the inverse is not unique.
        return warp(whole, matrix, size), straight
    return _as_gray(crop), np.asarray(moved, np.float32)


BEND, BEND_KNOTS = 0.035, 5
"""Greatest spread of the displacement of a crop's parts [sides of the crop], and the number of
knots along each axis that it is drawn for; it is smooth between them."""

STRETCH = 0.05
"""Spread of the shares by which a crop is stretched and slanted."""

FOLDED = 0.003
"""Movement of a point in the last iteration [sides of the crop] from which on the crop counts as
folded."""


def degrade(crop: Gray, texture: Gray, rng: Rng) -> Gray:
    """The crop as a worse camera would have taken it.

    Args:
        crop: (size, size).
        texture: another crop, a source of things that hide a face.
        rng: decides what happens.
    """
    if rng.random() < 0.25:
        crop = _occlude(crop, texture, rng)
    if rng.random() < 0.05:
        crop = _cut(crop, rng)
    if rng.random() < 0.5:
        crop = _relight(crop, rng)
    if rng.random() < 0.22:
        crop = _reduce(crop, rng)
    if rng.random() < 0.15:
        crop = _blur(crop, rng)
    if rng.random() < 0.2:
        crop = _noise(crop, rng)
    if rng.random() < 0.15:
        crop = _compress(crop, rng)
    return crop


def degrade_scene(scene: Gray, rng: Rng) -> Gray:
    """A scene (size, size) of small faces as a worse camera would have taken it."""
    if rng.random() < 0.6:
        scene = _relight(scene, rng)
    if rng.random() < 0.25:
        scene = _as_gray(cv2.GaussianBlur(scene, (0, 0), rng.uniform(0.4, 1.3)))
    if rng.random() < 0.3:
        scene = _noise(scene, rng)
    if rng.random() < 0.3:
        scene = _compress(scene, rng)
    return scene


def _as_gray(values: object) -> Gray:
    return np.asarray(values, np.uint8)


def _noise(crop: Gray, rng: Rng) -> Gray:
    noise = rng.normal(0, rng.uniform(1, 14), crop.shape).astype(np.float32)
    return _as_gray(np.clip(crop + noise, 0, 255))


def _compress(crop: Gray, rng: Rng) -> Gray:
    quality = int(rng.uniform(12, 80))
    encoded = cv2.imencode(".jpg", crop, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return _as_gray(cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE))


def _occlude(crop: Gray, texture: Gray, rng: Rng) -> Gray:
    size = crop.shape[0]
    mask = np.zeros_like(crop)
    center = rng.uniform(0.1, 0.9, 2) * size
    extent = rng.uniform(0.12, 0.5, 2) * size
    shape = (center.tolist(), extent.tolist(), float(rng.uniform(0, 180)))
    if rng.random() < 0.5:
        cv2.ellipse(mask, shape, 255, -1)
    else:
        cv2.fillPoly(mask, [cv2.boxPoints(shape).astype(np.int32)], 255)
    cover = texture if rng.random() < 0.6 else np.full_like(crop, int(rng.uniform(0, 256)))
    return np.where(mask > 0, cover, crop)


def _cut(crop: Gray, rng: Rng) -> Gray:
    """Black from one side on, as where the face leaves the picture."""
    crop = crop.copy()
    depth = int(rng.uniform(0.1, 0.4) * crop.shape[0])
    side = int(rng.integers(4))
    np.rot90(crop, side)[:depth] = 0
    return crop


def _relight(crop: Gray, rng: Rng) -> Gray:
    value = crop.astype(np.float32) / 255
    value = value ** np.exp(rng.normal(0, 0.4))
    if rng.random() < 0.35:
        size = crop.shape[0]
        ramp = np.linspace(-1, 1, size, dtype=np.float32)
        angle = rng.uniform(0, 2 * np.pi)
        value *= 1 + rng.uniform(0, 0.8) * (np.cos(angle) * ramp + np.sin(angle) * ramp[:, None])
    if rng.random() < 0.3:
        # Shadows.
        coarse = rng.normal(0, rng.uniform(0, 0.5), (4, 4)).astype(np.float32)
        value *= np.exp(cv2.resize(coarse, crop.shape[::-1], interpolation=cv2.INTER_CUBIC))
    value = (value - 0.5) * np.exp(rng.normal(0, 0.3)) + 0.5 + rng.normal(0, 0.1)
    return _as_gray(np.clip(value, 0, 1) * 255)


def _reduce(crop: Gray, rng: Rng) -> Gray:
    size = crop.shape[0]
    small = int(np.exp(rng.uniform(np.log(max(0.18 * size, 16)), np.log(0.75 * size))))
    reduced = cv2.resize(crop, (small, small), interpolation=cv2.INTER_AREA)
    back = cv2.INTER_LINEAR if rng.random() < 0.6 else cv2.INTER_CUBIC
    return _as_gray(cv2.resize(reduced, (size, size), interpolation=back))


def _blur(crop: Gray, rng: Rng) -> Gray:
    if rng.random() < 0.6:
        return _as_gray(cv2.GaussianBlur(crop, (0, 0), rng.uniform(0.5, 2.5) * crop.shape[0] / 128))
    length = int(rng.uniform(3, 12) * crop.shape[0] / 128) + 1
    kernel = np.zeros((length, length), np.float32)
    angle = rng.uniform(0, np.pi)
    reach = np.array([np.cos(angle), np.sin(angle)]) * (length - 1) / 2
    middle = (length - 1) / 2
    start, end = np.round(middle - reach).astype(int), np.round(middle + reach).astype(int)
    cv2.line(kernel, tuple(start.tolist()), tuple(end.tolist()), 1.0)
    return _as_gray(cv2.filter2D(crop, -1, kernel / kernel.sum()))
