"""How far off the 15 points are, in pixels of 96."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Metrics(NamedTuple):
    """Figures over all labeled coordinates; NaN where nothing is labeled.

    Attributes:
        rmse: root of the mean squared error of a coordinate, pixels: Kaggle's score.
        mae: mean absolute error of a coordinate, pixels.
        accuracy: what networks for this set often report under that name, 0 to 1: the share of
            pictures of which the largest predicted coordinate is the same one of the 30 as the
            largest label (the accuracy of a classifier, though nothing is classified). It says
            nothing of how near the points are: one that always answers with the mean face gets
            most of it.
    """

    rmse: float
    mae: float
    accuracy: float


def measure(found: NDArray[np.floating], labels: NDArray[np.floating]) -> Metrics:
    """Figures of points (n, 15, 2) against labels with NaN where there is none."""
    errors = (found - labels)[~np.isnan(labels)]
    if not errors.size:
        return Metrics(np.nan, np.nan, np.nan)
    rmse = float(np.sqrt(np.mean(errors.astype(np.float64) ** 2)))
    return Metrics(rmse, float(np.abs(errors).mean()), _accuracy(found, labels))


def _accuracy(found: NDArray[np.floating], labels: NDArray[np.floating]) -> float:
    there = ~np.isnan(labels.reshape(len(labels), -1))
    rows = there.any(axis=1)
    largest = [
        np.where(there, values.reshape(len(labels), -1), -np.inf)[rows].argmax(axis=1)
        for values in (found, labels)
    ]
    return float((largest[0] == largest[1]).mean())


def distances(found: NDArray[np.floating], labels: NDArray[np.floating]) -> NDArray[np.float64]:
    """(n, 15) distance of each point from its label, pixels; NaN where there is none."""
    return np.asarray(np.linalg.norm(found - labels, axis=2), np.float64)


def rmse_by_point(found: NDArray[np.floating], labels: NDArray[np.floating]) -> NDArray[np.float64]:
    """(15,) RMSE of the coordinates of each point; NaN where none is labeled."""
    return _rmse(found, labels, (0, 2))


def rmse_by_face(found: NDArray[np.floating], labels: NDArray[np.floating]) -> NDArray[np.float64]:
    """(n,) RMSE of the coordinates of each face; NaN where none is labeled."""
    return _rmse(found, labels, (1, 2))


def _rmse(
    found: NDArray[np.floating], labels: NDArray[np.floating], axes: tuple[int, int]
) -> NDArray[np.float64]:
    squares = np.asarray(found - labels, np.float64) ** 2
    count = np.asarray((~np.isnan(squares)).sum(axis=axes), np.float64)
    count[count == 0] = np.nan
    root: NDArray[np.float64] = np.sqrt(np.nansum(squares, axis=axes) / count)
    return root
