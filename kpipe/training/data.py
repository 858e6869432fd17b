"""What the networks learn from, in memory: labeled faces, and photographs without faces."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kpipe.datasets import DatasetError, Sample, held_out
from kpipe.errors import ImageError
from kpipe.measures.pose import head_pose
from kpipe.media.images import read_image
from kpipe.pipeline import Pipeline
from kpipe.preprocessing.boxes import landmark_box
from kpipe.preprocessing.crops import to_gray
from kpipe.structures.detections import Detections, Detector

Gray = NDArray[np.uint8]

RELABELED = "relabelled"
"""The label set of faces that `kpipe.training.relabel` has labeled anew, in 300-W's scheme."""

NEGATIVE_VALIDATION = 0.33
"""Share of the photographs without faces that is kept out of training."""

HARD_NEGATIVES = 8
"""Most hard negatives of one photograph of a face; those with the highest score are kept."""

BESIDE = 0.8
"""A candidate box is not that of the labeled face if their centers are this far apart along x or
y, in sides of the face's landmark box."""


@dataclass(frozen=True)
class LabeledFace:
    """A face in memory.

    Attributes:
        gray: (h, w) uint8, the picture it is in.
        points: (68, 2) float32, pixels.
        source: the label set, such as `300w`.
        hard_negatives: boxes in the picture that the detector proposes and that show no face.
    """

    gray: Gray
    points: NDArray[np.float32]
    source: str
    hard_negatives: Detections = field(default_factory=Detections.empty)

    @cached_property
    def roll(self) -> float:
        """Roll of the head [degrees], from the points."""
        return head_pose(self.points).roll


@dataclass(frozen=True)
class NegativePhoto:
    """A photograph without faces.

    Attributes:
        gray: (h, w) uint8.
        hard_negatives: boxes that the detector proposes in it.
    """

    gray: Gray
    hard_negatives: Detections


@dataclass(frozen=True)
class FaceSplit:
    """Faces to train on, and faces to choose settings by."""

    training: list[LabeledFace]
    validation: list[LabeledFace]


def load_faces(
    samples: Iterable[Sample],
    validation: float,
    on_bad: Callable[[DatasetError], None] | None = None,
) -> FaceSplit:
    """Reads labeled faces into memory, their pictures as gray levels.

    Args:
        samples: labeled faces on disk.
        validation: share of their groups (photographs, persons) to keep out of training.
        on_bad: called with the error of each face that cannot be used, which is then left out.

    Raises:
        DatasetError: without `on_bad`, the first unusable face.
    """
    split = FaceSplit([], [])
    for sample in samples:
        part = split.validation if held_out(sample.group, validation) else split.training
        try:
            part.append(LabeledFace(sample.read(), sample.points, sample.source))
        except DatasetError as error:
            if on_bad is None:
                raise
            on_bad(error)
    return split


def load_negatives(
    folder: Path,
    detector: Detector | None,
    validation: float = NEGATIVE_VALIDATION,
    on_bad: Callable[[DatasetError], None] | None = None,
) -> tuple[list[NegativePhoto], list[NegativePhoto]]:
    """Reads photographs without faces.

    Args:
        folder: of the photographs.
        detector: proposes their hard negatives; None for none.
        validation: share of the photographs to keep out of training.
        on_bad: called with the error of each that cannot be read, which is then left out.

    Returns:
        Those to train on, and those kept out to measure the face score on.

    Raises:
        DatasetError: the folder has none; or, without `on_bad`, one that cannot be read.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder}: no such folder")
    parts: tuple[list[NegativePhoto], list[NegativePhoto]] = ([], [])
    for path in sorted(p for p in folder.iterdir() if p.is_file()):
        try:
            gray = to_gray(read_image(path))
        except ImageError as error:
            if on_bad is None:
                raise DatasetError(str(error)) from None
            on_bad(DatasetError(str(error)))
            continue
        photo = NegativePhoto(gray, detector(gray) if detector is not None else Detections.empty())
        parts[held_out(path.name, validation)].append(photo)
    if not any(parts):
        raise DatasetError(f"{folder}: no picture in it")
    return parts


def with_hard_negatives(
    faces: Iterable[LabeledFace], detector: Detector, pipeline: Pipeline
) -> list[LabeledFace]:
    """The faces, each with the hard negatives around it.

    Args:
        faces: labeled faces. Their photographs may show other faces, which have no label.
        detector: proposes the boxes.
        pipeline: boxes that its coarse stage scores as a face are left out.
    """
    noted = []
    for face in faces:
        found = detector(face.gray)
        box = landmark_box(face.points)
        away = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2 - (box[:2] + box[2:]) / 2
        far = np.abs(away).max(axis=1) > BESIDE * (box[2] - box[0])
        others = found[far][:HARD_NEGATIVES]
        none = pipeline.coarse_landmarks(face.gray, others).scores < 0.5
        noted.append(replace(face, hard_negatives=others[none]))
    return noted
