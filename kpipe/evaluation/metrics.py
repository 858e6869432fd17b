"""Errors of landmarks, as the field measures them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kpipe.measures.pose import head_pose
from kpipe.structures.schemes import IBUG68

Array = NDArray[np.float64]


FAILURE = 8.0
"""A face counts as a failure if its NME is above this (percent), or if it is not found."""


ROLL = 15.0
"""Largest difference between the roll of a found face and its label's (degrees)."""


def ocular_distance(points: Array) -> Array:
    """(n,) distance of the outer eye corners of faces (n, 68, 2)."""
    right, left = IBUG68.ocular
    return np.asarray(np.linalg.norm(points[:, right] - points[:, left], axis=1))


def pupil_distance(points: Array) -> Array:
    """(n,) distance of the eyes' centers of faces (n, 68, 2)."""
    right = points[:, list(IBUG68.groups["right_eye"])].mean(axis=1)
    left = points[:, list(IBUG68.groups["left_eye"])].mean(axis=1)
    return np.asarray(np.linalg.norm(right - left, axis=1))


def box_size(points: Array) -> Array:
    """(n,) geometric mean of the sides of the landmark box of faces (n, 68, 2)."""
    return np.asarray(np.sqrt(np.ptp(points, axis=1).prod(axis=1)))


@dataclass(frozen=True, eq=False)
class LandmarkErrors:
    """Labeled faces and the predicted landmarks, in one way of framing.

    Attributes:
        name: the way of framing.
        truth: (n, 68, 2) labels, pixels.
        points: (n, 68, 2) predicted, pixels; NaN for a face that was not found.
        sigma: (n, 68) the stated expected error, pixels.
        sigma_bounds: multiples of sigma that 50 and 90 % of the errors should be below.
        samples: (n,) which of the evaluated samples each face is.
        brightness: (n,) mean gray level inside the labeled outline.
    """

    name: str
    truth: Array
    points: Array
    sigma: Array
    sigma_bounds: tuple[float, float]
    samples: NDArray[np.intp]
    brightness: Array

    def __len__(self) -> int:
        return len(self.truth)

    @property
    def pixels(self) -> Array:
        """(n, 68) distance of each point from its label, pixels."""
        return np.asarray(np.linalg.norm(self.points - self.truth, axis=2))

    def distances(self, normalizer: Callable[[Array], Array] = ocular_distance) -> Array:
        """(n, 68) distance of each point from its label, percent of the normalizing length."""
        return self.pixels / normalizer(self.truth)[:, None] * 100

    @property
    def faces(self) -> Array:
        """(n,) NME of each face, percent; NaN where it was not found."""
        return np.asarray(self.distances().mean(axis=1))

    def nme(self, normalizer: Callable[[Array], Array] = ocular_distance) -> float:
        """Mean NME of the faces that were found, percent."""
        return mean_known(self.distances(normalizer).mean(axis=1))

    @property
    def median(self) -> float:
        """Median NME of the faces that were found, percent."""
        found = self.faces[~np.isnan(self.faces)]
        return float(np.median(found)) if len(found) else float("nan")

    @property
    def not_found(self) -> float:
        """Share of the faces that were not found, percent."""
        return float(np.isnan(self.faces).mean() * 100)

    @property
    def right_roll(self) -> float:
        """Share of the faces found with their eyes' line within `ROLL` of the label's, percent."""
        right, left = IBUG68.ocular
        lines = [points[:, left] - points[:, right] for points in (self.truth, self.points)]
        angles = [np.arctan2(line[:, 1], line[:, 0]) for line in lines]
        away = np.abs(np.angle(np.exp(1j * (angles[0] - angles[1]))))
        return float((away < np.deg2rad(ROLL)).mean() * 100)

    def failures(self, threshold: float = FAILURE) -> float:
        """Share of the faces above a threshold or not found, percent."""
        return float((~(self.faces <= threshold)).mean() * 100)

    def area_under_curve(self, threshold: float = FAILURE) -> float:
        """Area under the cumulative error curve up to a threshold, 0 to 1; not found is worst."""
        return float(np.clip(1 - np.nan_to_num(self.faces, nan=np.inf) / threshold, 0, 1).mean())

    def group(self, indices: Sequence[int]) -> float:
        """Mean error of some of the points, percent of the inter-ocular distance."""
        return mean_known(self.distances()[:, list(indices)])

    @property
    def covered(self) -> tuple[float, float]:
        """Share of the points that lie within the 50 % and the 90 % bound of sigma, percent."""
        ratios = self.pixels / self.sigma
        ratios = ratios[~np.isnan(ratios)]
        low, high = (mean_known(ratios <= bound) * 100 for bound in self.sigma_bounds)
        return low, high


def mean_known(values: NDArray[np.generic]) -> float:
    """The mean of the values that are not NaN; NaN if there is none."""
    numbers = np.asarray(values, np.float64)
    numbers = numbers[~np.isnan(numbers)]
    return float(numbers.mean()) if len(numbers) else float("nan")


def groups(result: LandmarkErrors) -> list[tuple[str, int, float, float]]:
    """The error by groups of faces: name, count, NME (percent), failure rate (percent).

    Groups are by pose (from the labeled points), open mouth, brightness and size.
    """
    poses = [head_pose(points) for points in result.truth]
    yaw, pitch, roll = np.abs(np.array(poses)).T
    ocular = ocular_distance(result.truth)
    inner = [IBUG68.names.index(name) for name in INNER_LIPS]
    gap = np.linalg.norm(result.truth[:, inner[0]] - result.truth[:, inner[1]], axis=1) / ocular
    side = np.ptp(result.truth, axis=1).max(axis=1)
    rows = []
    for name, values, bounds in (
        ("yaw, °", yaw, (0, 10, 20, 30, 180)),
        ("pitch, °", pitch, (0, 10, 20, 180)),
        ("roll, °", roll, (0, 10, 30, 180)),
        ("lips apart, of the inter-ocular distance", gap, (0, 0.05, 0.2, 10)),
        ("brightness, 0-255", result.brightness, (0, 70, 110, 150, 256)),
        ("face's box, pixels", side, (0, 40, 80, 160, 1e9)),
    ):
        for low, high in pairwise(bounds):
            those = (values >= low) & (values < high)
            if those.any():
                faces = result.faces[those]
                failed = float((~(faces <= FAILURE)).mean() * 100)
                label = f"{name}: {low} to {high}" if high < bounds[-1] else f"{name}: from {low}"
                rows.append((label, int(those.sum()), mean_known(faces), failed))
    return rows


INNER_LIPS = ("upper_lip_inner", "lower_lip_inner")


class Figure(NamedTuple):
    """One row of the table of results: a name and a value for each way of framing, as text."""

    name: str
    values: list[str]


def figures(results: Sequence[LandmarkErrors]) -> list[Figure]:
    """The rows that `kpipe evaluate` prints."""

    def row(name: str, value: Callable[[LandmarkErrors], float], decimals: int = 2) -> Figure:
        return Figure(name, [f"{value(result):.{decimals}f}" for result in results])

    def part(group: str) -> Figure:
        return row(f"  {group.replace('_', ' ')}", lambda r: r.group(IBUG68.groups[group]))

    parts = [part(group) for group in IBUG68.groups]
    return [
        row("faces", len, 0),
        row("not found, %", lambda r: r.not_found),
        row("found with the right roll, %", lambda r: r.right_roll),
        row("NME, % of the inter-ocular distance", lambda r: r.nme()),
        *parts,
        row("median NME", lambda r: r.median),
        row("NME, % of the inter-pupil distance", lambda r: r.nme(pupil_distance)),
        row("NME, % of the box", lambda r: r.nme(box_size)),
        row("failures: NME above 8 % or not found, %", lambda r: r.failures(8)),
        row("failures: NME above 10 % or not found, %", lambda r: r.failures(10)),
        row("area under the error curve to 8 %", lambda r: r.area_under_curve(8), 3),
        row("area under the error curve to 10 %", lambda r: r.area_under_curve(10), 3),
        row("points within sigma's 50 % bound, %", lambda r: r.covered[0], 1),
        row("points within sigma's 90 % bound, %", lambda r: r.covered[1], 1),
    ]
