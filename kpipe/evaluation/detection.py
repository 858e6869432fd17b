"""How many faces are found, and how many of the found are none, on photographs with labelled boxes.

A found face is right if its box and a labelled one, not yet taken by a more probable face, have an
IoU of at least `MIN_IOU`: the rule of PASCAL VOC (Everingham et al., IJCV 2010) at the overlap that
is usual for Haar cascades, whose idea of a face's box differs from that of labels.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kpipe.datasets import DatasetError, Sample
from kpipe.datasets.coco import picture_of
from kpipe.errors import ImageError
from kpipe.media.images import read_image
from kpipe.pipeline import Pipeline, fused_score
from kpipe.preprocessing.boxes import iou, landmark_box
from kpipe.preprocessing.crops import to_gray
from kpipe.structures.detections import Detections
from kpipe.structures.faces import Faces

MIN_IOU = 0.3


@dataclass(frozen=True)
class LabelledPhoto:
    """A photograph and the boxes (n, 4) x0, y0, x1, y1 of its faces."""

    path: Path
    boxes: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Detected:
    """The found faces of a set of photographs.

    Attributes:
        labelled: how many faces there are.
        scores: (n,) of each found face.
        right: (n,) whether it is one.
        photos: (n,) index of the photograph of each.
        found: what was found in each photograph.
    """

    labelled: int
    scores: NDArray[np.float64]
    right: NDArray[np.bool_]
    photos: NDArray[np.intp]
    found: tuple[Faces, ...]

    def at(self, threshold: float) -> tuple[float, float, int]:
        """Recall, precision, and the number of false faces if this score were asked for."""
        kept = self.scores >= threshold
        right = int((kept & self.right).sum())
        false = int(kept.sum()) - right
        recall = right / self.labelled if self.labelled else float("nan")
        return recall, right / (right + false) if right + false else float("nan"), false

    @property
    def average_precision(self) -> float:
        """Area under precision as a function of recall, precision made monotone."""
        order = np.argsort(-self.scores, kind="stable")
        hits = np.cumsum(self.right[order])
        precision = hits / np.arange(1, len(order) + 1)
        precision = np.maximum.accumulate(precision[::-1])[::-1]
        return float((precision * self.right[order]).sum() / max(self.labelled, 1))


def read_photos(
    table: Path, on_bad: Callable[[DatasetError], None] | None = None
) -> list[LabelledPhoto]:
    """The photographs of a COCO detection file; those without any face too.

    Args:
        table: the file.
        on_bad: called with each photograph that is not there, which is then left out.

    Raises:
        DatasetError: it cannot be read, or is not such a file; without `on_bad`, the first
            photograph that is not there.
    """
    try:
        content = json.loads(table.read_bytes())
        boxes: dict[object, list[list[float]]] = {image["id"]: [] for image in content["images"]}
        for record in content["annotations"]:
            x, y, width, height = (float(value) for value in record["bbox"])
            if not record.get("iscrowd"):
                boxes[record["image_id"]].append([x, y, x + width, y + height])
        names = {image["id"]: str(image["file_name"]) for image in content["images"]}
    except OSError as error:
        raise DatasetError(f"{table}: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DatasetError(f"{table}: not COCO's JSON ({type(error).__name__}: {error})") from None
    photos = []
    for key, name in names.items():
        try:
            path = picture_of(table, name)
        except DatasetError as error:
            _leave_out(error, on_bad)
            continue
        photos.append(LabelledPhoto(path, np.array(boxes[key], np.float64).reshape(-1, 4)))
    return photos


def empty_photos(folder: Path) -> list[LabelledPhoto]:
    """The pictures of a folder, none of which shows a face.

    Raises:
        DatasetError: there is no file in it.
    """
    paths = sorted(p for p in folder.iterdir() if p.is_file()) if folder.is_dir() else []
    if not paths:
        raise DatasetError(f"{folder}: no folder with pictures in it")
    return [LabelledPhoto(path, np.zeros((0, 4))) for path in paths]


def detect(
    photos: Iterable[LabelledPhoto],
    pipeline: Pipeline,
    min_iou: float = MIN_IOU,
    on_bad: Callable[[DatasetError], None] | None = None,
) -> Detected:
    """Runs a pipeline over labelled photographs and compares the faces with the labels.

    Args:
        photos: the photographs.
        pipeline: to measure; its `min_score` bounds what can be said of lower thresholds.
        min_iou: overlap from which on a found face is a labelled one.
        on_bad: called with each photograph that cannot be read, which is then left out.

    Raises:
        DatasetError: without `on_bad`, the first photograph that cannot be read.
    """
    labelled = 0
    scores: list[float] = []
    right: list[bool] = []
    places: list[int] = []
    found: list[Faces] = []
    for photo in photos:
        try:
            faces = pipeline(read_image(photo.path)).at(str(photo.path))
        except ImageError as error:
            _leave_out(DatasetError(str(error)), on_bad)
            continue
        labelled += len(photo.boxes)
        ranked = sorted(faces, key=lambda face: -face.score)
        scores += (face.score for face in ranked)
        right += matches([face.box for face in ranked], photo.boxes, min_iou)
        places += [len(found)] * len(ranked)
        found.append(faces)
    return Detected(
        labelled, np.array(scores), np.array(right, bool), np.array(places, np.intp), tuple(found)
    )


def _leave_out(error: DatasetError, on_bad: Callable[[DatasetError], None] | None) -> None:
    if on_bad is None:
        raise error from None
    on_bad(error)


def matches(
    ranked: Sequence[NDArray[np.floating]], labels: NDArray[np.float64], min_iou: float
) -> list[bool]:
    """Whether each box, the most probable first, is a labelled one that none before it took."""
    free = set(range(len(labels)))
    right = []
    for box in ranked:
        best = max(free, key=lambda k: iou(box, labels[k]), default=None)
        hit = best is not None and bool(iou(box, labels[best]) >= min_iou)
        if hit and best is not None:
            free.remove(best)
        right.append(hit)
    return right


@dataclass(frozen=True)
class Separation:
    """How well the face score tells faces from what the detector takes for faces.

    Attributes:
        faces: labelled faces that the detector proposed.
        others: proposals on photographs without faces.
        threshold: score that `KEPT` of the faces reach.
        rejected: share of the others below it.
    """

    faces: int
    others: int
    threshold: float
    rejected: float


KEPT = 0.99


def separation(
    samples: Iterable[Sample],
    photos: Iterable[LabelledPhoto],
    pipeline: Pipeline,
    on_bad: Callable[[DatasetError], None] | None = None,
) -> Separation:
    """The face scores, both looks, of labelled faces and of proposals where there is no face.

    Args:
        samples: labelled faces.
        photos: photographs without faces.
        pipeline: to measure.
        on_bad: called with each picture that cannot be read, which is then left out.

    Raises:
        DatasetError: without `on_bad`, the first picture that cannot be read.
    """
    true: list[float] = []
    for sample in samples:
        try:
            scores = _scores_near(sample.read(), landmark_box(sample.points), pipeline)
        except DatasetError as error:
            _leave_out(error, on_bad)
            continue
        true += [float(scores.max())] if len(scores) else []
    false: list[float] = []
    for photo in photos:
        try:
            gray = to_gray(read_image(photo.path))
        except ImageError as error:
            _leave_out(DatasetError(str(error)), on_bad)
            continue
        false += _scores(gray, pipeline.detector(gray), pipeline).tolist()
    threshold = float(np.quantile(true, 1 - KEPT)) if true else float("nan")
    return Separation(len(true), len(false), threshold, float(np.mean(np.array(false) < threshold)))


def _scores(
    gray: NDArray[np.uint8], detections: Detections, pipeline: Pipeline
) -> NDArray[np.float32]:
    coarse = pipeline.coarse_landmarks(gray, detections)
    return fused_score(coarse, pipeline.refine(gray, coarse.points))


def _scores_near(
    gray: NDArray[np.uint8], box: NDArray[np.float32], pipeline: Pipeline
) -> NDArray[np.float32]:
    """Scores of the proposals whose centre is within half the box's side of its centre."""
    detections = pipeline.detector(gray)
    centres = (detections.boxes[:, :2] + detections.boxes[:, 2:]) / 2
    away = np.linalg.norm(centres - (box[:2] + box[2:]) / 2, axis=1)
    near = away < (box[2] - box[0]) / 2
    return _scores(gray, detections[near], pipeline)
