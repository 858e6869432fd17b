"""How many faces are found, and how many of the found are none, on photographs with labeled boxes.

A found face is right if its box and a labeled one, not yet taken by a more probable face, have an
IoU of at least `MIN_IOU`: the rule of PASCAL VOC (Everingham et al., IJCV 2010) at the overlap that
is usual for Haar cascades, whose idea of a face's box differs from that of labels. Labels that do
not count (invalid, to be ignored, a crowd, too small) make a face on them neither right nor false,
as in COCO (Lin et al., ECCV 2014) and WIDER FACE (Yang et al., CVPR 2016).
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kpipe.datasets import DatasetError, Sample
from kpipe.datasets.coco import picture_of
from kpipe.detectors.yunet import YuNetDetector
from kpipe.errors import ImageError
from kpipe.media.images import read_image
from kpipe.networks.fusion import fused_score
from kpipe.pipeline import Pipeline
from kpipe.preprocessing.boxes import head_box, iou, landmark_box, nms
from kpipe.preprocessing.crops import to_gray
from kpipe.structures.detections import Detections, Detector
from kpipe.structures.faces import Faces

MIN_IOU, STRICT_IOU = 0.3, 0.5
"""Overlap from which on a found face is a labeled one; and that of the stricter figure beside."""

GROUPS = ("blur", "occlusion", "pose", "illumination", "expression", "mask")
"""Labels of single faces by which recall is given: WIDER FACE's attributes, and masks."""


@dataclass(frozen=True)
class LabeledPhoto:
    """A photograph and its labeled faces.

    Attributes:
        path: of the picture.
        boxes: (n, 4) x0, y0, x1, y1, pixels.
        ignored: (n,) whether the label counts neither way.
        crowds: (n,) whether it is a region of any number of faces; those are ignored too.
        groups: what `GROUPS` say of each box, as text; "" where nothing is said.
    """

    path: Path
    boxes: NDArray[np.float64]
    ignored: NDArray[np.bool_]
    crowds: NDArray[np.bool_]
    groups: Mapping[str, NDArray[np.str_]] = field(default_factory=dict)

    def counted(self, min_face: float) -> NDArray[np.bool_]:
        """(n,) which labels count, if smaller faces (longer side of the box, pixels) do not."""
        sides = (self.boxes[:, 2:] - self.boxes[:, :2]).max(axis=1, initial=0)
        return np.asarray(~self.ignored & ~self.crowds & (sides >= min_face), bool)


class FoundBoxes(NamedTuple):
    """Boxes (n, 4) x0, y0, x1, y1 of found faces and their scores (n,)."""

    boxes: NDArray[np.floating]
    scores: NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class Detected:
    """The found faces of a set of photographs; those on labels that do not count are left out.

    Attributes:
        labeled: number of labeled faces.
        scores: (n,) of each found face.
        right: (n,) whether it is one.
        photos: (n,) index of the photograph of each.
        found: faces of each photograph, of a pipeline.
        matched: (n,) index of the labeled face that each is, -1 for none.
        groups: what `GROUPS` say of each labeled face.
    """

    labeled: int
    scores: NDArray[np.float64]
    right: NDArray[np.bool_]
    photos: NDArray[np.intp]
    found: tuple[Faces, ...]
    matched: NDArray[np.intp] = field(default_factory=lambda: np.zeros(0, np.intp))
    groups: Mapping[str, NDArray[np.str_]] = field(default_factory=dict)

    def at(self, threshold: float) -> tuple[float, float, int]:
        """Recall, precision, and the number of false faces if this score were asked for."""
        kept = self.scores >= threshold
        right = int((kept & self.right).sum())
        false = int(kept.sum()) - right
        recall = right / self.labeled if self.labeled else float("nan")
        return recall, right / (right + false) if right + false else float("nan"), false

    @property
    def average_precision(self) -> float:
        """Area under precision as a function of recall, precision made monotone."""
        order = np.argsort(-self.scores, kind="stable")
        hits = np.cumsum(self.right[order])
        precision = hits / np.arange(1, len(order) + 1)
        precision = np.maximum.accumulate(precision[::-1])[::-1]
        return float((precision * self.right[order]).sum() / max(self.labeled, 1))

    def best(self, precision: float) -> tuple[float, float]:
        """The highest recall at a precision of at least this, and the score to ask for; NaN, where
        no score gives such a precision.
        """
        order = np.argsort(-self.scores, kind="stable")
        scores, hits = self.scores[order], np.cumsum(self.right[order])
        # Equal scores are asked for together.
        last = np.append(scores[1:] != scores[:-1], True)[: len(scores)]
        enough = np.flatnonzero((hits >= precision * np.arange(1, len(scores) + 1)) & last)
        if not len(enough) or not self.labeled:
            return float("nan"), float("nan")
        return float(hits[enough[-1]] / self.labeled), float(scores[enough[-1]])

    def by_group(self, threshold: float) -> list[tuple[str, str, int, float]]:
        """Name, value, number of faces, and recall at a score, of each group of labeled faces."""
        hit = np.zeros(self.labeled, bool)
        kept = (self.scores >= threshold) & self.right
        hit[self.matched[kept]] = True
        rows = []
        for name, values in self.groups.items():
            for value in np.unique(values[values != ""]).tolist():
                chosen = values == value
                rows.append((name, value, int(chosen.sum()), float(hit[chosen].mean())))
        return rows

    def reliability(self) -> list[tuple[float, float, int, float, float]]:
        """Least and greatest score, number of found faces, mean score, and share of them that are
        right, in each of `RELIABILITY_BINS` that has any.
        """
        rows = []
        for low, high in itertools.pairwise(RELIABILITY_BINS):
            inside = (self.scores >= low) & ((self.scores < high) | (high == 1))
            if inside.any():
                share = float(self.right[inside].mean())
                mean = float(self.scores[inside].mean())
                rows.append((low, high, int(inside.sum()), mean, share))
        return rows


RELIABILITY_BINS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)


def read_photos(
    table: Path, on_bad: Callable[[DatasetError], None] | None = None
) -> list[LabeledPhoto]:
    """The photographs of a COCO detection file; those without any face too.

    Of an annotation `bbox` counts, and where they are given `iscrowd`, `ignore`, `invalid` (1: not
    to be counted either way) and those of `GROUPS`.

    Args:
        table: the file.
        on_bad: called with each photograph that is not there, which is then left out.

    Raises:
        DatasetError: it cannot be read, or is not such a file; without `on_bad`, the first
            photograph that is not there.
    """
    try:
        content = json.loads(table.read_bytes())
        records: dict[object, list[dict[str, object]]] = {i["id"]: [] for i in content["images"]}
        boxes: dict[object, list[list[float]]] = {key: [] for key in records}
        for record in content["annotations"]:
            x, y, width, height = (float(value) for value in record["bbox"])
            boxes[record["image_id"]].append([x, y, x + width, y + height])
            records[record["image_id"]].append(record)
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
        marked = records[key]
        groups = {
            group: np.array([str(record.get(group, "")) for record in marked], np.str_)
            for group in GROUPS
        }
        photo = LabeledPhoto(
            path,
            np.array(boxes[key], np.float64).reshape(-1, 4),
            np.array([bool(r.get("ignore") or r.get("invalid")) for r in marked], bool),
            np.array([bool(r.get("iscrowd")) for r in marked], bool),
            groups,
        )
        photos.append(photo)
    return photos


def empty_photos(folder: Path) -> list[LabeledPhoto]:
    """The pictures of a folder, none of which shows a face.

    Raises:
        DatasetError: there is no file in it.
    """
    paths = sorted(p for p in folder.iterdir() if p.is_file()) if folder.is_dir() else []
    if not paths:
        raise DatasetError(f"{folder}: no folder with pictures in it")
    none = np.zeros(0, bool)
    return [LabeledPhoto(path, np.zeros((0, 4)), none, none) for path in paths]


def detect(
    photos: Iterable[LabeledPhoto],
    pipeline: Pipeline,
    min_iou: float = MIN_IOU,
    on_bad: Callable[[DatasetError], None] | None = None,
    *,
    min_face: float = 0.0,
) -> Detected:
    """Runs a pipeline over labeled photographs and compares the faces with the labels.

    Args:
        photos: the photographs.
        pipeline: to measure; its `min_score` bounds what can be said of lower thresholds.
        min_iou: overlap from which on a found face is a labeled one.
        on_bad: called with each photograph that cannot be read, which is then left out.
        min_face: longer side [px] of the smallest labeled box that counts.

    Raises:
        DatasetError: without `on_bad`, the first photograph that cannot be read.
    """
    seen: list[LabeledPhoto] = []
    found: list[Faces | FoundBoxes] = []
    for photo, image in _pictures(photos, on_bad):
        seen.append(photo)
        found.append(pipeline(image).at(str(photo.path)))
    return compared(seen, found, min_iou, min_face)


def _pictures(
    photos: Iterable[LabeledPhoto], on_bad: Callable[[DatasetError], None] | None
) -> Iterator[tuple[LabeledPhoto, NDArray[np.uint8]]]:
    """The photographs that can be read, each with its picture (h, w, 3)."""
    for photo in photos:
        try:
            image = read_image(photo.path)
        except ImageError as error:
            _leave_out(DatasetError(str(error)), on_bad)
            continue
        yield photo, image


def find_alone(
    photos: Iterable[LabeledPhoto],
    detector: Detector,
    on_bad: Callable[[DatasetError], None] | None = None,
) -> tuple[list[LabeledPhoto], list[Faces | FoundBoxes]] | None:
    """What a detector finds without the networks behind it, and the photographs that it saw; None,
    if it gives no scores.

    Raises:
        DatasetError: without `on_bad`, the first photograph that cannot be read.
    """
    seen: list[LabeledPhoto] = []
    found: list[Faces | FoundBoxes] = []
    for photo, image in _pictures(photos, on_bad):
        boxes = _boxes_alone(detector, to_gray(image))
        if boxes is None:
            return None
        seen.append(photo)
        found.append(boxes)
    return seen, found


ALONE_OVERLAP = 0.4
"""Of two boxes of one detector that overlap by more (IoU) the less probable one goes."""


def _boxes_alone(detector: Detector, gray: NDArray[np.uint8]) -> FoundBoxes | None:
    if isinstance(detector, YuNetDetector):
        return FoundBoxes(*detector.whole_faces(gray))
    detections = detector(gray)
    if detections.scores is None:
        return None
    order = np.argsort(-detections.scores, kind="stable")
    rolls, scores = detections.rolls[order], detections.scores[order]
    corners = (
        detections.boxes[order][:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2).astype(np.float64)
    )
    centers = corners.mean(axis=1, keepdims=True)
    angle = np.deg2rad(rolls)[:, None, None]
    along, down = np.split(corners - centers, 2, axis=2)
    turned = np.concatenate(
        [
            along * np.cos(angle) - down * np.sin(angle),
            along * np.sin(angle) + down * np.cos(angle),
        ],
        axis=2,
    )
    boxes = head_box(centers + turned, rolls)
    kept = nms(boxes, scores, ALONE_OVERLAP)
    return FoundBoxes(boxes[kept], scores[kept])


def compared(
    photos: Sequence[LabeledPhoto],
    found: Sequence[Faces | FoundBoxes],
    min_iou: float = MIN_IOU,
    min_face: float = 0.0,
) -> Detected:
    """What was found on each photograph against the labels, see `detect`."""
    labeled = 0
    scores: list[NDArray[np.floating]] = []
    matched: list[NDArray[np.intp]] = []
    places: list[NDArray[np.intp]] = []
    groups: dict[str, list[NDArray[np.str_]]] = {name: [] for name in GROUPS}
    for place, (photo, faces) in enumerate(zip(photos, found)):
        boxes = _boxes_of(faces) if isinstance(faces, Faces) else faces
        order = np.argsort(-boxes.scores, kind="stable")
        counted = photo.counted(min_face)
        labels = assigned(boxes.boxes[order], photo, counted, min_iou)
        numbers = np.cumsum(counted) - 1 + labeled
        says = labels != IGNORED
        hit = labels >= 0
        labels[hit] = numbers[labels[hit]]
        scores.append(boxes.scores[order][says])
        matched.append(labels[says])
        places.append(np.full(int(says.sum()), place, np.intp))
        for name, values in groups.items():
            said = photo.groups.get(name, np.full(len(counted), "", np.str_))
            values.append(said[counted])
        labeled += int(counted.sum())
    labels = np.concatenate([*matched, np.zeros(0, np.intp)])
    return Detected(
        labeled,
        np.concatenate([*scores, np.zeros(0)]),
        labels >= 0,
        np.concatenate([*places, np.zeros(0, np.intp)]),
        tuple(faces for faces in found if isinstance(faces, Faces)),
        labels,
        {n: np.concatenate([*values, np.zeros(0, np.str_)]) for n, values in groups.items()},
    )


def _leave_out(error: DatasetError, on_bad: Callable[[DatasetError], None] | None) -> None:
    if on_bad is None:
        raise error from None
    on_bad(error)


def _boxes_of(faces: Faces) -> FoundBoxes:
    boxes = np.array([face.box for face in faces], np.float64).reshape(-1, 4)
    return FoundBoxes(boxes, np.array([face.score for face in faces], np.float64))


FALSE, IGNORED = -1, -2
"""A found face that is none, and one on a label that does not count."""


def assigned(
    ranked: NDArray[np.floating],
    photo: LabeledPhoto,
    counted: NDArray[np.bool_],
    min_iou: float,
) -> NDArray[np.intp]:
    """Which label each found box is.

    Args:
        ranked: (n, 4) boxes, the most probable first.
        photo: the labels.
        counted: which of them count.
        min_iou: overlap from which on a box is a labeled one.

    Returns:
        (n,) index of a label that counts and that no box before took, else `IGNORED` if it lies on
        one that does not count, or to a half in a crowd, else `FALSE`.
    """
    labels = photo.boxes
    free = counted.copy()
    result = np.full(len(ranked), FALSE, np.intp)
    if not len(labels):
        return result
    for index, box in enumerate(ranked):
        overlap = iou(box, labels)
        best = int(np.where(free, overlap, -1).argmax())
        if free[best] and overlap[best] >= min_iou:
            free[best] = False
            result[index] = best
        elif (overlap[~counted] >= min_iou).any() or _within(box, labels[photo.crowds]):
            result[index] = IGNORED
    return result


def _within(box: NDArray[np.floating], regions: NDArray[np.float64]) -> bool:
    """Whether at least a half of a box lies in one of the regions (n, 4)."""
    shared = np.minimum(box[2:], regions[:, 2:]) - np.maximum(box[:2], regions[:, :2])
    area = np.maximum(shared, 0).prod(axis=1)
    return bool((area >= 0.5 * (box[2:] - box[:2]).prod()).any())


def matches(
    ranked: Sequence[NDArray[np.floating]], labels: NDArray[np.float64], min_iou: float
) -> list[bool]:
    """Whether each box, the most probable first, is a labeled one that none before it took."""
    none = np.zeros(len(labels), bool)
    photo = LabeledPhoto(Path(), labels, none, none)
    boxes = np.array(ranked, np.float64).reshape(-1, 4)
    return [bool(label >= 0) for label in assigned(boxes, photo, ~none, min_iou)]


@dataclass(frozen=True)
class Separation:
    """How well the face score tells faces from what the detector takes for faces.

    Attributes:
        faces: labeled faces that the detector proposed.
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
    photos: Iterable[LabeledPhoto],
    pipeline: Pipeline,
    on_bad: Callable[[DatasetError], None] | None = None,
) -> Separation:
    """The face scores, both looks, of labeled faces and of proposals where there is no face.

    Args:
        samples: labeled faces.
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
    for _, image in _pictures(photos, on_bad):
        gray = to_gray(image)
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
    """Scores of the proposals whose center is within half the box's side of its center."""
    detections = pipeline.detector(gray)
    centers = (detections.boxes[:, :2] + detections.boxes[:, 2:]) / 2
    away = np.linalg.norm(centers - (box[:2] + box[2:]) / 2, axis=1)
    near = away < (box[2] - box[0]) / 2
    return _scores(gray, detections[near], pipeline)
