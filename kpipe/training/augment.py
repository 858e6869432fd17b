"""From a labelled photograph to one training crop: framing, light, resolution, noise, occlusion.

Framing varies as the detector's boxes do. The figures in `Framing` are the spread of OpenCV's
frontal cascades around the landmark box, after their mean offset, on the 300-W training faces:
`benchmarks/haar_boxes.py` prints them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kpipe.opencv import cv2
from kpipe.preprocessor import CROP_SIZE, crop_transform, face_box, transform, warp

Gray = NDArray[np.uint8]
Rng = np.random.Generator


@dataclass(frozen=True)
class Framing:
    """Standard deviations of a box around the face, in sides of it; the last is of log(side)."""

    x: float
    y: float
    scale: float


DETECTED = Framing(0.10, 0.06, 0.11)
"""The first look: a box from a Haar cascade."""

REFINED = Framing(0.03, 0.03, 0.05)
"""The second look: a box from the points of the first, or of the frame before."""


def jitter(box: NDArray[np.floating], framing: Framing, rng: Rng) -> NDArray[np.float64]:
    """The box (4,) moved and scaled at random."""
    side = max(box[2] - box[0], box[3] - box[1])
    centre = (box[:2] + box[2:]) / 2 + side * rng.normal(0, (framing.x, framing.y))
    half = side / 2 * np.exp(np.clip(rng.normal(0, framing.scale), -0.3, 0.3))
    return np.concatenate([centre - half, centre + half])


def random_roll(rng: Rng) -> float:
    """Degrees: mostly small, every third face turned far."""
    return float(rng.normal(0, 10) if rng.random() < 0.65 else rng.uniform(-55, 55))


def face_crop(
    gray: Gray, points: NDArray[np.float32], rng: Rng, size: int = CROP_SIZE
) -> tuple[Gray, NDArray[np.float32]]:
    """A randomly framed crop of a face and its points in it."""
    roll = random_roll(rng)
    framing = DETECTED if rng.random() < 0.6 else REFINED
    box = jitter(face_box(points, roll), framing, rng)
    matrix = crop_transform(box, roll, size)
    return warp(gray, matrix, size), transform(matrix, points)


def misframed_crop(
    gray: Gray, points: NDArray[np.float32], rng: Rng, size: int = CROP_SIZE
) -> Gray:
    """A crop beside a face or far too large or small for it: not a face for the face score."""
    box = face_box(points)
    side = float(box[2] - box[0])
    centre = (box[:2] + box[2:]) / 2
    kind = rng.random()
    if kind < 0.4:
        scale = rng.uniform(0.2, 0.45)
        centre = centre + side * rng.uniform(-0.5, 0.5, 2)
    elif kind < 0.7:
        scale = rng.uniform(2.3, 3.5)
        centre = centre + side * rng.uniform(-0.5, 0.5, 2)
    else:
        scale = rng.uniform(0.6, 1.5)
        angle = rng.uniform(0, 2 * np.pi)
        centre = centre + side * rng.uniform(0.75, 1.2) * np.array([np.cos(angle), np.sin(angle)])
    half = side * scale / 2
    matrix = crop_transform(np.concatenate([centre - half, centre + half]), random_roll(rng), size)
    return warp(gray, matrix, size)


def degrade(crop: Gray, texture: Gray, rng: Rng) -> Gray:
    """The crop as a worse camera would have taken it.

    Args:
        crop: (size, size).
        texture: another crop, a source of things that hide a face.
        rng: decides what happens.
    """
    if rng.random() < 0.35:
        crop = _occlude(crop, texture, rng)
    if rng.random() < 0.06:
        crop = _cut(crop, rng)
    if rng.random() < 0.6:
        crop = _relight(crop, rng)
    if rng.random() < 0.3:
        crop = _reduce(crop, rng)
    if rng.random() < 0.2:
        crop = _blur(crop, rng)
    if rng.random() < 0.3:
        noise = rng.normal(0, rng.uniform(1, 14), crop.shape).astype(np.float32)
        crop = np.clip(crop + noise, 0, 255).astype(np.uint8)
    if rng.random() < 0.2:
        quality = int(rng.uniform(12, 80))
        encoded = cv2.imencode(".jpg", crop, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        crop = _as_gray(cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE))
    return crop


def _as_gray(values: object) -> Gray:
    return np.asarray(values, np.uint8)


def _occlude(crop: Gray, texture: Gray, rng: Rng) -> Gray:
    size = crop.shape[0]
    mask = np.zeros_like(crop)
    centre = rng.uniform(0.1, 0.9, 2) * size
    extent = rng.uniform(0.12, 0.5, 2) * size
    shape = (centre.tolist(), extent.tolist(), float(rng.uniform(0, 180)))
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
    value = (value - 0.5) * np.exp(rng.normal(0, 0.3)) + 0.5 + rng.normal(0, 0.1)
    return _as_gray(np.clip(value, 0, 1) * 255)


def _reduce(crop: Gray, rng: Rng) -> Gray:
    size = crop.shape[0]
    small = int(size * np.exp(rng.uniform(np.log(0.18), np.log(0.75))))
    reduced = cv2.resize(crop, (small, small), interpolation=cv2.INTER_AREA)
    back = cv2.INTER_LINEAR if rng.random() < 0.6 else cv2.INTER_CUBIC
    return _as_gray(cv2.resize(reduced, (size, size), interpolation=back))


def _blur(crop: Gray, rng: Rng) -> Gray:
    if rng.random() < 0.6:
        return _as_gray(cv2.GaussianBlur(crop, (0, 0), rng.uniform(0.5, 2.5)))
    length = int(rng.integers(3, 12))
    kernel = np.zeros((length, length), np.float32)
    angle = rng.uniform(0, np.pi)
    reach = np.array([np.cos(angle), np.sin(angle)]) * (length - 1) / 2
    middle = (length - 1) / 2
    start, end = np.round(middle - reach).astype(int), np.round(middle + reach).astype(int)
    cv2.line(kernel, tuple(start.tolist()), tuple(end.tolist()), 1.0)
    return _as_gray(cv2.filter2D(crop, -1, kernel / kernel.sum()))
