"""Kaggle's pictures side by side, with labels and predictions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kpipe.kaggle.files import SIDE, Labeled
from kpipe.utils.opencv import cv2

TRUTH, FOUND = (64, 140, 255), (255, 60, 60)
"""RGB: labels are blue, predictions red."""


ZOOM = 2


CAPTION = 18
"""Height of the line under a face [px]."""


WORST = 16
"""Faces in the picture of the worst."""


def grid(
    pictures: NDArray[np.uint8],
    truth: NDArray[np.float32] | None = None,
    found: NDArray[np.float32] | None = None,
    captions: Sequence[str] | None = None,
    columns: int = 8,
) -> NDArray[np.uint8]:
    """Faces side by side with their points: labels blue, predictions red.

    Args:
        pictures: (n, 96, 96) uint8.
        truth, found: (n, 15, 2) pixels; NaN is not drawn.
        captions: a line of text for each.
        columns: at most so many beside each other.

    Returns:
        (h, w, 3) uint8, RGB.
    """
    height = SIDE * ZOOM + (CAPTION if captions is not None else 0)
    columns = min(columns, len(pictures))
    lines = -(-len(pictures) // columns)
    sheet = np.full((lines * height, columns * SIDE * ZOOM, 3), 255, np.uint8)
    for index, picture in enumerate(pictures):
        y, x = index // columns * height, index % columns * SIDE * ZOOM
        cell = sheet[y : y + SIDE * ZOOM, x : x + SIDE * ZOOM]
        large = cv2.resize(picture, (SIDE * ZOOM,) * 2, interpolation=cv2.INTER_CUBIC)
        cell[:] = large[..., None]
        for points, color in ((truth, TRUTH), (found, FOUND)):
            if points is not None:
                _dots(cell, points[index], color)
        if captions is not None:
            base = (x + 3, y + height - 5)
            cv2.putText(
                sheet,
                captions[index],
                base,
                cv2.FONT_HERSHEY_SIMPLEX,
                0.42,
                (0, 0, 0),
                1,
                cv2.LINE_AA,
            )
    return sheet


def worst(errors: NDArray[np.floating], count: int = WORST) -> NDArray[np.intp]:
    """Indices of the faces of the largest errors (n,), the largest first; NaN does not count."""
    order = np.argsort(-np.nan_to_num(errors, nan=-1.0), kind="stable")
    return order[: min(count, int((~np.isnan(errors)).sum()))]


def worst_sheet(
    data: Labeled,
    points: NDArray[np.float32],
    errors: NDArray[np.floating],
    chosen: NDArray[np.intp],
    names: Sequence[str] | None = None,
) -> NDArray[np.uint8]:
    """Chosen faces, each with its error beneath: labels blue, predictions red.

    Args:
        data: n labeled pictures.
        points: (n, 15, 2) predicted, pixels.
        errors: (n,) pixels.
        chosen: indices of the faces, as `worst` returns them.
        names: of the n pictures; None for none.

    Returns:
        (h, w, 3) uint8, RGB.
    """
    captions = [f"{errors[k]:.2f} px" for k in chosen]
    if names is not None:
        captions = [f"{names[k]}: {caption}" for k, caption in zip(chosen, captions)]
    return grid(data.pictures[chosen], data.points[chosen], points[chosen], captions)


def _dots(cell: NDArray[np.uint8], points: NDArray[np.float32], color: tuple[int, ...]) -> None:
    for x, y in ((points + 0.5) * ZOOM - 0.5) * 16:
        if np.isfinite(x) and np.isfinite(y):
            at = (round(float(x)), round(float(y)))
            cv2.circle(cell, at, 36, color, -1, cv2.LINE_AA, 4)
