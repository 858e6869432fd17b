"""Makes sets in Kaggle's format: from labeled faces, or drawn.

Kaggle's pictures are 96x96 crops that frame a face much alike, and most of them lack most labels.
Both are taken from its label columns where they are given: each face is laid by a similarity on a
fully labeled row, so that the columns get those rows' mean and spread, and loses the labels that
another row lacks. Without them the figures below do, which `benchmarks/kaggle.py definitions`
prints.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kpipe.datasets import DatasetError, Sample, held_out
from kpipe.errors import KaggleError
from kpipe.kaggle.files import (
    COLUMNS,
    SIDE,
    Labeled,
    Lookup,
    Unlabeled,
    lookup_csv,
    test_csv,
    training_csv,
)
from kpipe.preprocessing.affine import transform
from kpipe.preprocessing.crops import warp
from kpipe.structures.schemes import KAGGLE15
from kpipe.utils.files import write_file
from kpipe.utils.opencv import cv2

Rng = np.random.Generator

MEAN_POINTS = np.array(
    [
        (66.2, 36.8), (29.6, 37.1), (59.3, 37.9), (73.4, 37.6), (36.6, 37.9),
        (22.4, 38.0), (56.1, 29.2), (79.6, 29.7), (39.3, 29.4), (15.8, 30.5),
        (48.0, 57.3), (63.4, 75.9), (33.0, 76.1), (48.1, 72.7), (48.1, 82.6),
    ]
)  # fmt: skip
"""(15, 2) mean of Kaggle's fully labeled rows, pixels."""

SHIFT = (1.4, 1.8)
"""Standard deviation of the middle between their eyes, pixels."""

LOG_SCALE = 0.08
"""Standard deviation of the logarithm of the distance between their eyes."""

ROLL = 4.3
"""Standard deviation of the angle of the line through their eyes, degrees."""

FULL_SHARE = 0.31
"""Share of the rows with all labels; nearly all others have four points."""

FOUR_POINTS = tuple(
    KAGGLE15.names.index(name)
    for name in ("left_eye_center", "right_eye_center", "nose_tip", "mouth_center_bottom_lip")
)

JPEG_QUALITY = (60, 96)
"""Range of what the drawn pictures are degraded with."""


class Row(NamedTuple):
    """How a row is to be made.

    Attributes:
        target: (15, 2) points that the face is laid on.
        labeled: (15, 2) bool, which labels stay.
    """

    target: NDArray[np.float64]
    labeled: NDArray[np.bool_]


class Picture(NamedTuple):
    """A row's picture and its labels: (96, 96) uint8 and (15, 2) float32, all of them."""

    pixels: NDArray[np.uint8]
    points: NDArray[np.float32]


def rows_like(labels: NDArray[np.float32] | None, seed: int = 0) -> Iterator[Row]:
    """Endless rows, framed and labeled as those of Kaggle are.

    Args:
        labels: (n, 15, 2) of a `training.csv`, NaN where there is none; without them this
            module's figures of Kaggle's.
        seed: repeats the rows.

    Raises:
        KaggleError: none of the rows has all labels.
    """
    rng = np.random.default_rng(seed)
    if labels is None:
        while True:
            yield Row(_framed(MEAN_POINTS, rng), _pattern(rng))
    there = ~np.isnan(labels)
    full = np.asarray(labels[there.all(axis=(1, 2))], np.float64)
    if not len(full):
        raise KaggleError("labels: no row has all of them, so none tells how faces are framed")
    while True:
        yield Row(full[rng.integers(len(full))], there[rng.integers(len(there))])


def _framed(points: NDArray[np.float64], rng: Rng) -> NDArray[np.float64]:
    """The points moved, scaled and turned about the middle between the eyes."""
    middle = points[:2].mean(axis=0)
    angle = np.deg2rad(rng.normal(0, ROLL))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    scale = np.exp(rng.normal(0, LOG_SCALE))
    framed = scale * (points - middle) @ turn.T + middle + rng.normal(0, SHIFT)
    return np.asarray(framed, np.float64)


def _pattern(rng: Rng) -> NDArray[np.bool_]:
    labeled = np.full((len(KAGGLE15), 2), rng.random() < FULL_SHARE)
    labeled[list(FOUR_POINTS)] = True
    return labeled


def similarity(source: NDArray[np.floating], target: NDArray[np.floating]) -> NDArray[np.float64]:
    """The 2x3 matrix that moves, turns and scales points (n, 2) onto others.

    The turn is the least-squares one (Procrustes); the scale makes both equally large, so that
    faces of another shape do not come out smaller.
    """
    a, b = source - source.mean(axis=0), target - target.mean(axis=0)
    angle = np.arctan2((a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum(), (a * b).sum())
    scale = np.linalg.norm(b) / np.linalg.norm(a)
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    linear = np.array([[cos, -sin], [sin, cos]])
    return np.column_stack([linear, target.mean(axis=0) - linear @ source.mean(axis=0)])


def photographed(sample: Sample, target: NDArray[np.float64]) -> Picture:
    """A labeled face, framed so that its points lie about where the target's do.

    Raises:
        DatasetError: its picture cannot be read.
    """
    points = KAGGLE15.weights @ sample.points
    matrix = similarity(points, target)
    return Picture(warp(sample.read(), matrix, SIDE), transform(matrix, points))


def drawn(target: NDArray[np.float64], seed: int) -> Picture:
    """A face drawn at random, framed so that its points lie about where the target's do."""
    rng = np.random.default_rng(seed)
    face = _Sketch.random(rng)
    matrix = similarity(face.points, target)
    pixels = face.draw(matrix)
    blurred = cv2.GaussianBlur(pixels, (0, 0), rng.uniform(0.4, 1.0))
    noisy = np.clip(blurred + rng.normal(0, rng.uniform(1, 8), blurred.shape), 0, 255)
    quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.uniform(*JPEG_QUALITY))]
    encoded = cv2.imencode(".jpg", noisy.astype(np.uint8), quality)[1]
    decoded = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE), np.uint8)
    return Picture(decoded, transform(matrix, face.points))


_ZOOM = 4
"""Drawn at so many times the size, then averaged."""


@dataclass(frozen=True)
class _Sketch:
    """A face to be drawn, in the coordinates of `MEAN_POINTS`.

    Attributes:
        points: (15, 2).
        shades: gray levels of background, skin, hair, brows, iris and lips.
        light: (2,) how much brighter it gets to the right and downwards, gray levels a pixel.
        open: height of the eyes, pixels.
    """

    points: NDArray[np.float64]
    shades: tuple[int, int, int, int, int, int]
    light: tuple[float, float]
    open: float

    @classmethod
    def random(cls, rng: Rng) -> _Sketch:
        points = MEAN_POINTS.copy()
        # A turn of the head moves what stands out (the nose) against what lies behind.
        depth = np.array([0, 0, 0, -3, 0, -3, 1, -4, 1, -4, 9, -1, -1, 3, 3])
        yaw, pitch = rng.normal(0, (0.25, 0.15))
        points += np.column_stack([depth * yaw, depth * pitch])
        points[[6, 7, 8, 9], 1] += rng.normal(0, 1.2)  # brows up or down
        points[[11, 12, 13, 14], 1] += rng.normal(0, 1.5)
        points[14, 1] += abs(rng.normal(0, 3))  # an open mouth
        points[11:13, 0] += np.array([1, -1]) * rng.normal(0, 2)
        skin = int(rng.uniform(90, 220))
        shades = (
            int(rng.uniform(0, 255)),
            skin,
            int(rng.uniform(10, 90)),
            int(skin * rng.uniform(0.25, 0.6)),
            int(rng.uniform(10, 70)),
            int(skin * rng.uniform(0.5, 0.8)),
        )
        light = tuple(rng.normal(0, 0.4, 2).tolist())
        return cls(points, shades, light, float(rng.uniform(2.0, 4.0)))

    def draw(self, matrix: NDArray[np.float64]) -> NDArray[np.uint8]:
        """(96, 96), the face moved, turned and scaled by a 2x3 matrix."""
        background, skin, hair, brow, iris, lips = self.shades
        canvas = np.full((SIDE * _ZOOM, SIDE * _ZOOM), background, np.uint8)
        scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
        angle = float(np.rad2deg(np.arctan2(matrix[1, 0], matrix[0, 0])))

        def place(points: NDArray[np.floating]) -> NDArray[np.int32]:
            where = (transform(matrix, points) + 0.5) * _ZOOM - 0.5
            return np.round(where).astype(np.int32)

        def ellipse(center: NDArray[np.floating], width: float, height: float, shade: int) -> None:
            axes = (round(width * scale * _ZOOM), round(height * scale * _ZOOM))
            at = tuple(place(center).tolist())
            cv2.ellipse(canvas, at, axes, angle, 0, 360, shade, -1, cv2.LINE_AA)

        def line(indices: tuple[int, ...], shade: int, width: float) -> None:
            thickness = max(round(width * scale * _ZOOM), 1)
            cv2.polylines(
                canvas, [place(self.points[list(indices)])], False, shade, thickness, cv2.LINE_AA
            )

        points = self.points
        middle = (points[[3, 5]].mean(axis=0) + points[14]) / 2
        ellipse(middle - (0, 14), 42, 46, hair)
        ellipse(middle - (0, 2), 36, 44, skin)
        line((7, 6), brow, 3)
        line((9, 8), brow, 3)
        for center, inner, outer in ((0, 2, 3), (1, 4, 5)):
            width = float(np.linalg.norm(points[inner] - points[outer])) / 2
            ellipse(points[[inner, outer]].mean(axis=0), width, self.open, 245)
            ellipse(points[center], self.open * 0.9, self.open * 0.9, iris)
        ellipse(points[10] + (0, 1.5), 5, 3, int(skin * 0.8))
        ellipse(points[10], 2.2, 2.2, min(int(skin * 1.15), 255))
        outline = place(points[[12, 13, 11, 14]])
        cv2.fillPoly(canvas, [outline], lips, cv2.LINE_AA)
        small = cv2.resize(canvas, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        ramp = np.arange(SIDE) - SIDE / 2
        lit = small + self.light[0] * ramp + self.light[1] * ramp[:, None]
        return np.asarray(np.clip(lit, 0, 255), np.uint8)


@dataclass(frozen=True)
class MadeSet:
    """A set in Kaggle's format, with the truth that Kaggle keeps to itself.

    Attributes:
        training: with missing labels.
        test: pictures to be predicted.
        truth: the same pictures with all labels.
        lookup: the coordinates that are asked for: of each picture what its row labels.
    """

    training: Labeled
    test: Unlabeled
    truth: Labeled
    lookup: Lookup

    FILES: ClassVar = (
        "training.csv",
        "test.csv",
        "IdLookupTable.csv",
        "SampleSubmission.csv",
        "test_labels.csv",
    )
    """What `write` writes."""

    def write(self, folder: Path) -> None:
        """Writes Kaggle's four files, and `test_labels.csv` with the truth.

        Raises:
            ImageError: one cannot be written.
        """
        sample = "".join(f"{row},0\n" for row in self.lookup.rows)
        texts = (
            training_csv(self.training),
            test_csv(self.test),
            lookup_csv(self.lookup),
            "RowId,Location\n" + sample,
            training_csv(self.truth),
        )
        for name, text in zip(self.FILES, texts):
            write_file(folder / name, text.encode())


def from_samples(
    samples: Iterable[Sample],
    labels: NDArray[np.float32] | None,
    test_share: float,
    seed: int = 0,
    on_bad: Callable[[DatasetError], None] | None = None,
) -> MadeSet:
    """A set of labeled faces; those of one photograph or person stay together.

    Args:
        samples: faces of 68 points.
        labels: see `rows_like`.
        test_share: about which share of the photographs is for the test set.
        seed: repeats it.
        on_bad: called with each face that cannot be used, which is then left out.

    Raises:
        DatasetError: without `on_bad`, the first face whose picture cannot be read.
        KaggleError: there is none for training, or none for testing.
    """

    def faces() -> Iterator[tuple[Picture, NDArray[np.bool_], bool]]:
        for sample, row in zip(samples, rows_like(labels, seed)):
            try:
                picture = photographed(sample, row.target)
            except DatasetError as error:
                if on_bad is None:
                    raise
                on_bad(error)
                continue
            yield picture, row.labeled, held_out(sample.group, test_share)

    return _made(faces())


def from_drawings(
    count: int, labels: NDArray[np.float32] | None, test_share: float, seed: int = 0
) -> MadeSet:
    """A set of drawn faces, which needs no data.

    Args:
        count: of faces, training and test together.
        labels: see `rows_like`.
        test_share: which share of them is for the test set.
        seed: repeats it.

    Raises:
        KaggleError: there is none for training, or none for testing.
    """
    rows = rows_like(labels, seed)
    first = zlib.crc32(str(seed).encode())
    tests = round(count * test_share)
    return _made(
        (drawn(row.target, first + number), row.labeled, number < tests)
        for number, row in zip(range(count), rows)
    )


def _made(rows: Iterable[tuple[Picture, NDArray[np.bool_], bool]]) -> MadeSet:
    training: list[tuple[Picture, NDArray[np.bool_]]] = []
    test: list[tuple[Picture, NDArray[np.bool_]]] = []
    for picture, labeled, is_test in rows:
        # A label that lies outside the picture nobody could have set.
        inside = ((picture.points >= 0) & (picture.points <= SIDE)).all(axis=1, keepdims=True)
        (test if is_test else training).append((picture, labeled & inside))
    for part, name in ((training, "training"), (test, "test")):
        if not part:
            raise KaggleError(f"no face is left for the {name} set: more faces, or another share")
    ids = tuple(range(1, len(test) + 1))
    asked = [
        (image, column)
        for image, (_, labeled) in zip(ids, test)
        for column in range(len(COLUMNS))
        if labeled.ravel()[column]
    ]
    images, columns = zip(*asked)
    truth = _stacked(test, masked=False)
    return MadeSet(
        training=_stacked(training, masked=True),
        test=Unlabeled(ids, truth.pictures),
        truth=truth,
        lookup=Lookup(tuple(range(1, len(asked) + 1)), images, columns),
    )


def _stacked(part: list[tuple[Picture, NDArray[np.bool_]]], masked: bool) -> Labeled:
    points = np.stack([picture.points for picture, _ in part])
    if masked:
        points[~np.stack([labeled for _, labeled in part])] = np.nan
    return Labeled(np.stack([picture.pixels for picture, _ in part]), points)
