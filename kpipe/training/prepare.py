"""From the files that `kpipe train` and `kpipe export` are given to the data of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kpipe.datasets import DatasetError, Sample, coco, read_samples
from kpipe.detectors.proposals import ProposalDetector
from kpipe.networks.stages import STAGES
from kpipe.pipeline import Pipeline
from kpipe.structures.detections import Detections, Detector
from kpipe.training.data import (
    FaceSplit,
    LabeledFace,
    NegativePhoto,
    load_faces,
    load_negatives,
    with_hard_negatives,
)
from kpipe.training.duplicates import photos_without_duplicates, without_duplicates
from kpipe.training.landmarks import load_run
from kpipe.training.photographs import LabeledScene, PhotoSplit, Progress, load_photos, read_scenes
from kpipe.training.relabel import relabeled


@dataclass(frozen=True)
class DataFiles:
    """The files of a run's data.

    Attributes:
        data: labeled faces, as `kpipe.datasets.read_samples` takes them.
        exclude: labeled faces, or photographs with boxes in COCO's format, to be measured on
            later; copies of them are not trained on.
        negatives: folders of photographs without faces.
        detection: labeled photographs, COCO's format, for the detection network.
        on_bad: called with the error of each face or photograph that cannot be used, which is then
            left out. Without it the first error is raised.
    """

    data: Sequence[Path]
    exclude: Sequence[Path] = ()
    negatives: Sequence[Path] = ()
    detection: Sequence[Path] = ()
    on_bad: Callable[[DatasetError], None] | None = None

    def faces(self, validation: float) -> tuple[FaceSplit, int]:
        """The faces, and the number of those left out as copies of excluded ones.

        Args:
            validation: share of the groups to keep out of training.

        Raises:
            DatasetError: the files cannot be used.
        """
        split = load_faces(self._samples(self.data), validation, self.on_bad)
        training = without_duplicates(split.training, *self._excluded)
        return replace(split, training=training), len(split.training) - len(training)

    def backgrounds(self) -> list[NegativePhoto]:
        """The photographs to train on, without hard negatives."""
        return self._backgrounds(None)

    def photographs(
        self, folder: Path, progress: Progress = lambda items, _: items
    ) -> tuple[PhotoSplit, int]:
        """The labeled photographs, and the number of those left out as copies of excluded ones.

        Args:
            folder: of the run, see `load_photos`.
            progress: shows how far it is with the photographs.

        Raises:
            DatasetError: the files cannot be used.
        """
        split = load_photos(self.detection, folder, progress, self.on_bad)
        training = photos_without_duplicates(split.training, *self._excluded)
        validation = photos_without_duplicates(split.validation, *self._excluded)
        before = len(split.training) + len(split.validation)
        return PhotoSplit(training, validation), before - len(training) - len(validation)

    def hard_negatives(
        self, stage: str, faces: list[LabeledFace], progress: Progress
    ) -> tuple[list[LabeledFace], list[NegativePhoto]]:
        """Faces and photographs with the candidate boxes that a stage has to tell from faces.

        They come from the packaged networks, with lower thresholds than in use: boxes of a high
        score alone are soon learned. The classifier gets all candidates of the detector, the other
        stages those that the classifier leaves.

        Args:
            stage: a key of `STAGES`.
            faces: to train on.
            progress: shows how far it is with the faces.
        """
        if not self.negatives:
            return faces, []
        detector = ProposalDetector(min_score=0.05, limit=200)
        pipeline = Pipeline(detector, min_score=0.02)

        def candidates(gray: NDArray[np.uint8]) -> Detections:
            found = detector(gray)
            return found if stage == "classifier" else pipeline.classify(gray, found)

        photos = self._backgrounds(candidates)
        return with_hard_negatives(progress(faces, "faces"), candidates, pipeline), photos

    @cached_property
    def _excluded(self) -> tuple[list[LabeledFace], list[LabeledScene]]:
        """The excluded faces, and the excluded photographs of files with boxes alone."""
        tables = [path for path in self.exclude if _has_boxes_alone(path)]
        faces = self._samples([path for path in self.exclude if path not in tables])
        photos = [s for table in tables for s in read_scenes(table, None, self.on_bad).values()]
        return load_faces(faces, 0.0, self.on_bad).training, photos

    def _backgrounds(self, detector: Detector | None) -> list[NegativePhoto]:
        return [
            photo
            for folder in self.negatives
            for photo in load_negatives(folder, detector, on_bad=self.on_bad)[0]
        ]

    def _samples(self, paths: Sequence[Path]) -> list[Sample]:
        return [sample for path in paths for sample in read_samples(path, self.on_bad)]


def _has_boxes_alone(path: Path) -> bool:
    """Whether it is a file in COCO's format whose faces have no keypoints."""
    return (
        path.suffix.lower() == ".json"
        and path.is_file()
        and not any(True for _ in coco.faces(path))
    )


def relabeled_by(
    run: Path, faces: list[LabeledFace], label_offset: float, progress: Progress
) -> list[LabeledFace]:
    """The faces with labels of 300-W's scheme, as the network of a run predicts them.

    Args:
        run: folder of a run that learned all label sets of the faces.
        faces: to relabel; those of the run's first label set stay as they are.
        label_offset: of the first label set, see `kpipe.training.crops.mirrored`.
        progress: shows how far it is with the faces.
    """
    teacher, settings = load_run(run)
    return relabeled(progress(faces, "labels"), teacher, STAGES[settings["stage"]], label_offset)
