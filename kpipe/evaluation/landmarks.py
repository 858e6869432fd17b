"""How far off the points are, on labeled faces.

The error of a face is the mean distance of its points from the labels over the inter-ocular
distance (outer eye corners), in percent: NME, as the 300-W challenge defines it (Sagonas et al.,
ICCV Workshops 2013). Divided by the distance of the pupils (the means of the eyes' points) or by
the geometric mean of the landmark box's sides it is also given, since papers use all three.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

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
from kpipe.structures.landmarks import Landmarks
from kpipe.utils.opencv import cv2

NOT_FOUND = Landmarks(
    np.full((1, 68, 2), np.nan, np.float32),
    np.full((1, 68), np.nan, np.float32),
    np.zeros(1, np.float32),
)
"""The landmarks of a face that is not found."""


def evaluate(
    samples: Iterable[Sample],
    pipeline: Pipeline,
    jitters: int = 1,
    seed: int = 0,
    perturbation: Perturbation = UNPERTURBED,
    on_bad: Callable[[DatasetError], None] | None = None,
) -> list[LandmarkErrors]:
    """The errors from our own detector, from the true box jittered like a detector's, and from it.

    Args:
        samples: labeled faces.
        pipeline: to measure.
        jitters: random boxes a face.
        seed: of the jitter.
        perturbation: done to each photograph first; given boxes are turned with it.
        on_bad: called with each face that cannot be used, which is then left out.

    Raises:
        DatasetError: without `on_bad`, the first picture that cannot be read; or none can.
    """
    rng = np.random.default_rng(seed)
    chosen: list[int] = []
    brightness: list[float] = []
    labels: list[NDArray[np.float32]] = []
    found: list[Landmarks] = []
    jittered: list[Landmarks] = []
    framed: list[Landmarks] = []
    for index, sample in enumerate(samples):
        try:
            gray, points = perturbation(sample.read(), sample.points)
        except DatasetError as error:
            if on_bad is None:
                raise
            on_bad(error)
            continue
        chosen.append(index)
        brightness.append(_brightness(gray, points))
        labels.append(points)
        found.append(nearest(pipeline(gray), points) or NOT_FOUND)
        box = landmark_box(points, perturbation.turn)
        boxes = np.stack([box, *(jitter(box, DETECTED, rng) for _ in range(jitters))])
        rolls = np.full(len(boxes), perturbation.turn, np.float32)
        landmarks = pipeline.landmarks(gray, Detections(boxes.astype(np.float32), rolls))
        framed.append(landmarks[:1])
        jittered.append(landmarks[1:])
    if not labels:
        raise DatasetError("no usable face to evaluate on")

    def errors(name: str, measured: list[Landmarks]) -> LandmarkErrors:
        each = len(measured[0])
        return LandmarkErrors(
            name,
            np.stack(labels).astype(np.float64).repeat(each, axis=0),
            np.concatenate([m.points for m in measured]).astype(np.float64),
            np.concatenate([m.sigma for m in measured]).astype(np.float64),
            pipeline.landmarker.sigma_bounds,
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


def nearest(faces: Faces, points: NDArray[np.float32]) -> Landmarks | None:
    """The landmarks of the face found at a labeled one: centers within half the label's side.

    Args:
        faces: found in the picture.
        points: (68, 2) label, pixels.

    Returns:
        Landmarks of one face, or None.
    """
    box = landmark_box(points)
    center, side = (box[:2] + box[2:]) / 2, box[2] - box[0]
    middles = [(found[:2] + found[2:]) / 2 for found in (landmark_box(f.points) for f in faces)]
    distances = [np.linalg.norm(middle - center) / side for middle in middles]
    if not distances or min(distances) >= 0.5:
        return None
    face = faces[int(np.argmin(distances))]
    return Landmarks(face.points[None], face.sigma[None], np.array([face.score], np.float32))
