"""How far off the points are, on labelled faces.

The error of a face is the mean distance of its points from the labels over the inter-ocular
distance (outer eye corners), in percent: NME, as the 300-W challenge defines it (Sagonas et al.,
ICCV Workshops 2013). Divided by the distance of the pupils (the means of the eyes' points) or by
the geometric mean of the landmark box's sides it is also given, since papers use all three.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kpipe.datasets import DatasetError, Sample
from kpipe.evaluation.metrics import LandmarkErrors
from kpipe.evaluation.perturbation import UNPERTURBED, Perturbation
from kpipe.networks.stages import DETECTED, jitter
from kpipe.pipeline import Pipeline
from kpipe.preprocessing.boxes import landmark_box
from kpipe.structures.detections import Detections
from kpipe.structures.faces import Faces
from kpipe.utils.opencv import cv2


class Measured(NamedTuple):
    """A face's points and their sigma, as found."""

    points: NDArray[np.float32]
    sigma: NDArray[np.float32]
    score: float = 0.0


NOTHING = Measured(np.full((68, 2), np.nan, np.float32), np.full(68, np.nan, np.float32))
"""What is found of a face that is not found."""


def evaluate(
    samples: Iterable[Sample],
    pipeline: Pipeline,
    jitters: int = 1,
    seed: int = 0,
    alteration: Perturbation = UNPERTURBED,
    on_bad: Callable[[DatasetError], None] | None = None,
) -> list[LandmarkErrors]:
    """The errors from our own detector, from the true box jittered like a detector's, and from it.

    Args:
        samples: labelled faces.
        pipeline: to measure.
        jitters: random boxes a face.
        seed: of the jitter.
        alteration: done to each photograph first; given boxes are turned with it.
        on_bad: called with each face that cannot be used, which is then left out.

    Raises:
        DatasetError: without `on_bad`, the first picture that cannot be read; or none can.
    """
    rng = np.random.default_rng(seed)
    chosen: list[int] = []
    brightness: list[float] = []
    labels: list[NDArray[np.float32]] = []
    found: list[Measured] = []
    jittered: list[Measured] = []
    framed: list[Measured] = []
    for index, sample in enumerate(samples):
        try:
            gray, points = alteration(sample.read(), sample.points)
        except DatasetError as error:
            if on_bad is None:
                raise
            on_bad(error)
            continue
        chosen.append(index)
        brightness.append(_brightness(gray, points))
        labels.append(points)
        found.append(nearest(pipeline(gray), points) or NOTHING)
        box = landmark_box(points, alteration.turn)
        boxes = np.stack([box, *(jitter(box, DETECTED, rng) for _ in range(jitters))])
        boxes = boxes.astype(np.float32)
        seen = pipeline.locate(
            gray, Detections(boxes, np.full(len(boxes), alteration.turn, np.float32))
        )
        framed.append(Measured(seen.points[0], seen.sigma[0]))
        jittered += (Measured(*face) for face in zip(*(part[1:] for part in seen)))
    if not labels:
        raise DatasetError("no usable face to evaluate on")

    def errors(name: str, measured: list[Measured]) -> LandmarkErrors:
        each = len(measured) // len(labels)
        return LandmarkErrors(
            name,
            np.stack(labels).astype(np.float64).repeat(each, axis=0),
            np.stack([m.points for m in measured]).astype(np.float64),
            np.stack([m.sigma for m in measured]).astype(np.float64),
            pipeline.predictor.sigma_bounds,
            np.array(chosen).repeat(each),
            np.array(brightness).repeat(each),
        )

    return [
        errors("end to end", found),
        errors("true box, jittered", jittered),
        errors("true box", framed),
    ]


def _brightness(gray: NDArray[np.uint8], points: NDArray[np.float32]) -> float:
    outline = np.zeros_like(gray)
    cv2.fillConvexPoly(outline, cv2.convexHull(points).round().astype(np.int32), 255)
    return float(cv2.mean(gray, mask=outline)[0])


def nearest(faces: Faces, points: NDArray[np.float32]) -> Measured | None:
    """The face found where the labelled one is: its centre within half the labelled box's side."""
    box = landmark_box(points)
    centre, side = (box[:2] + box[2:]) / 2, box[2] - box[0]
    middles = [(found[:2] + found[2:]) / 2 for found in (landmark_box(f.points) for f in faces)]
    distances = [np.linalg.norm(middle - centre) / side for middle in middles]
    if not distances or min(distances) >= 0.5:
        return None
    face = faces[int(np.argmin(distances))]
    return Measured(face.points, face.sigma, face.score)
