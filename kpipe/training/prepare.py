"""From the files that `kpipe train` and `kpipe export` are given to the data of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kpipe.datasets import DatasetError, Sample, read_samples
from kpipe.detectors.proposals import ProposalDetector
from kpipe.networks.stages import STAGES
from kpipe.pipeline import Pipeline
from kpipe.structures.detections import Detections
from kpipe.training.data import (
    FaceSplit,
    LabelledFace,
    NegativePhoto,
    load_faces,
    load_negatives,
    with_hard_negatives,
)
from kpipe.training.duplicates import without_duplicates
from kpipe.training.landmarks import load_run
from kpipe.training.relabel import relabelled

Progress = Callable[[list[LabelledFace], str], Iterable[LabelledFace]]
"""Gives the faces back one by one and shows how far it is with them; the text says what they are
for."""


@dataclass(frozen=True)
class DataFiles:
    """The files of a run's data.

    Attributes:
        data: labelled faces, as `kpipe.datasets.read_samples` takes them.
        exclude: labelled faces to be measured on later; copies of them are not trained on.
        negatives: folder of photographs without faces.
        on_bad: called with the error of each face or photograph that cannot be used, which is then
            left out. Without it the first error is raised.
    """

    data: Sequence[Path]
    exclude: Sequence[Path] = ()
    negatives: Path | None = None
    on_bad: Callable[[DatasetError], None] | None = None

    def faces(self, validation: float) -> tuple[FaceSplit, int]:
        """The faces, and the number of those left out as copies of excluded ones.

        Args:
            validation: share of the groups to keep out of training.

        Raises:
            DatasetError: the files cannot be used.
        """
        split = load_faces(self._samples(self.data), validation, self.on_bad)
        others = load_faces(self._samples(self.exclude), 0.0, self.on_bad).training
        training = without_duplicates(split.training, others)
        return replace(split, training=training), len(split.training) - len(training)

    def backgrounds(self) -> list[NegativePhoto]:
        """The photographs to train on, without hard negatives."""
        if self.negatives is None:
            return []
        return load_negatives(self.negatives, None, on_bad=self.on_bad)[0]

    def hard_negatives(
        self, stage: str, faces: list[LabelledFace], progress: Progress
    ) -> tuple[list[LabelledFace], list[NegativePhoto]]:
        """Faces and photographs with the candidate boxes that a stage has to tell from faces.

        They come from the packaged networks, with lower thresholds than in use: boxes of a high
        score alone are soon learned. The classifier gets all candidates of the detector, the other
        stages those that the classifier leaves.

        Args:
            stage: a key of `STAGES`.
            faces: to train on.
            progress: shows how far it is with the faces.
        """
        if self.negatives is None:
            return faces, []
        detector = ProposalDetector(min_score=0.05, limit=200)
        pipeline = Pipeline(detector, min_score=0.02)

        def candidates(gray: NDArray[np.uint8]) -> Detections:
            found = detector(gray)
            return found if stage == "classifier" else pipeline.classify(gray, found)

        photos = load_negatives(self.negatives, candidates, on_bad=self.on_bad)[0]
        return with_hard_negatives(progress(faces, "faces"), candidates, pipeline), photos

    def _samples(self, paths: Sequence[Path]) -> list[Sample]:
        return [sample for path in paths for sample in read_samples(path, self.on_bad)]


def relabelled_by(
    run: Path, faces: list[LabelledFace], label_offset: float, progress: Progress
) -> list[LabelledFace]:
    """The faces with labels of 300-W's scheme, as the network of a run predicts them.

    Args:
        run: folder of a run that learned all label sets of the faces.
        faces: to relabel; those of the run's first label set stay as they are.
        label_offset: of the first label set, see `kpipe.training.crops.mirrored`.
        progress: shows how far it is with the faces.
    """
    teacher, settings = load_run(run)
    return relabelled(progress(faces, "labels"), teacher, STAGES[settings["stage"]], label_offset)
