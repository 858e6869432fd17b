"""How far off the points are, on labelled faces.

The error of a face is the mean distance of its points from the labels over the inter-ocular
distance (outer eye corners), in percent: NME, as the 300-W challenge defines it (Sagonas et al.,
ICCV Workshops 2013).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kpipe.datasets import DatasetError, Sample
from kpipe.detector import Detections
from kpipe.faces import Faces
from kpipe.pipeline import Pipeline
from kpipe.preprocessor import face_box
from kpipe.schemes import IBUG68, Scheme

FAILURE = 8.0
"""A face whose NME is above so many percent counts as a failure, as does one not found."""

JITTER = (0.10, 0.06, 0.11)
"""Spread of a Haar box around the face's box: x and y in sides of it, and log(side)."""


@dataclass(frozen=True, eq=False)
class Errors:
    """The errors of n faces in one way of framing them.

    Attributes:
        name: the way of framing.
        distances: (n, 68) distance of each point from its label over the inter-ocular distance;
            NaN for a face that was not found.
        ratios: (n, 68) the same distance over the stated sigma.
        sigma_bounds: below so many sigma a point's error should be in 50 and in 90 % of cases.
    """

    name: str
    distances: NDArray[np.float64]
    ratios: NDArray[np.float64]
    sigma_bounds: tuple[float, float]

    @property
    def faces(self) -> NDArray[np.float64]:
        """(n,) NME of each face, percent; NaN where it was not found."""
        return np.asarray(self.distances.mean(axis=1) * 100)

    @property
    def nme(self) -> float:
        """Mean NME of the faces that were found, percent."""
        return float(np.nanmean(self.faces)) if self.not_found < 100 else float("nan")

    @property
    def median(self) -> float:
        """Median NME of the faces that were found, percent."""
        return float(np.nanmedian(self.faces)) if self.not_found < 100 else float("nan")

    @property
    def not_found(self) -> float:
        """Share of the faces that were not found, percent."""
        return float(np.isnan(self.faces).mean() * 100)

    def failures(self, threshold: float = FAILURE) -> float:
        """Share of the faces above a threshold or not found, percent."""
        return float((~(self.faces <= threshold)).mean() * 100)

    def area_under_curve(self, threshold: float = FAILURE) -> float:
        """Area under the cumulative error curve up to a threshold, 0 to 1; not found is worst."""
        return float(np.clip(1 - np.nan_to_num(self.faces, nan=np.inf) / threshold, 0, 1).mean())

    def group(self, indices: Sequence[int]) -> float:
        """Mean error of some of the points, percent of the inter-ocular distance."""
        return float(np.nanmean(self.distances[:, list(indices)]) * 100)

    @property
    def covered(self) -> tuple[float, float]:
        """Share of the points that lie within the 50 % and the 90 % bound of sigma, percent."""
        ratios = self.ratios[~np.isnan(self.ratios)]
        low, high = ((ratios <= bound).mean() * 100 for bound in self.sigma_bounds)
        return float(low), float(high)


class Measured(NamedTuple):
    """A face's points as found, or None, and their sigma."""

    points: NDArray[np.float32]
    sigma: NDArray[np.float32]


def evaluate(
    samples: Iterable[Sample],
    pipeline: Pipeline,
    jitters: int = 1,
    seed: int = 0,
    on_bad: Callable[[DatasetError], None] | None = None,
) -> list[Errors]:
    """The errors from our own detector, from the true box jittered like a detector's, and from it.

    Args:
        samples: labelled faces.
        pipeline: to measure.
        jitters: random boxes a face.
        seed: of the jitter.
        on_bad: called with each face that cannot be used, which is then left out.

    Raises:
        DatasetError: without `on_bad`, the first picture that cannot be read; or none can.
    """
    rng = np.random.default_rng(seed)
    labels: list[NDArray[np.float32]] = []
    found: list[Measured | None] = []
    jittered: list[Measured] = []
    framed: list[Measured] = []
    for sample in samples:
        try:
            gray = sample.read()
        except DatasetError as error:
            if on_bad is None:
                raise
            on_bad(error)
            continue
        labels.append(sample.points)
        found.append(nearest(pipeline(gray), sample.points))
        box = face_box(sample.points)
        boxes = np.stack([box, *(_jittered(box, rng) for _ in range(jitters))])
        seen = pipeline.locate(gray, Detections(boxes, np.zeros(len(boxes), np.float32)))
        framed.append(Measured(seen.points[0], seen.sigma[0]))
        jittered += (Measured(*pair) for pair in zip(seen.points[1:], seen.sigma[1:]))
    if not labels:
        raise DatasetError("no usable face to evaluate on")
    truth, bounds = np.stack(labels), pipeline.predictor.sigma_bounds
    return [
        _errors("end to end", truth, found, bounds),
        _errors("true box, jittered", truth.repeat(jitters, axis=0), jittered, bounds),
        _errors("true box", truth, framed, bounds),
    ]


def nearest(faces: Faces, points: NDArray[np.float32]) -> Measured | None:
    """The face found where the labelled one is: its centre within half the labelled box's side."""
    box = face_box(points)
    centre, side = (box[:2] + box[2:]) / 2, box[2] - box[0]
    best: tuple[float, Measured] | None = None
    for face in faces:
        distance = float(np.linalg.norm((face.box[:2] + face.box[2:]) / 2 - centre) / side)
        if distance < 0.5 and (best is None or distance < best[0]):
            best = distance, Measured(face.points, face.sigma)
    return best[1] if best is not None else None


def _jittered(box: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    x, y, scale = rng.normal(0, JITTER)
    side = box[2] - box[0]
    centre = (box[:2] + box[2:]) / 2 + side * np.array([x, y])
    half = side / 2 * np.exp(scale)
    return np.concatenate([centre - half, centre + half]).astype(np.float32)


def _errors(
    name: str,
    truth: NDArray[np.float32],
    measured: Sequence[Measured | None],
    bounds: tuple[float, float],
    scheme: Scheme = IBUG68,
) -> Errors:
    nowhere = Measured(np.full(truth.shape[1:], np.nan), np.full(truth.shape[1], np.nan))
    points = np.stack([(m or nowhere).points for m in measured]).astype(np.float64)
    sigma = np.stack([(m or nowhere).sigma for m in measured]).astype(np.float64)
    right, left = scheme.ocular
    ocular = np.linalg.norm(truth[:, right] - truth[:, left], axis=1)
    pixels = np.linalg.norm(points - truth, axis=2)
    return Errors(name, pixels / ocular[:, None], pixels / sigma, bounds)
