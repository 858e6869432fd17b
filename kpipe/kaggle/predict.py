"""The 15 points of Kaggle's pictures: from a network of 15 points, or from the 68."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from kpipe.errors import ModelError
from kpipe.kaggle.synthetic import FOUR_POINTS, MEAN_POINTS, similarity
from kpipe.measures.pose import head_pose, mean_face
from kpipe.networks.session import OnnxSession
from kpipe.pipeline import Pipeline
from kpipe.preprocessing.affine import transform
from kpipe.structures.landmarks import Landmarks
from kpipe.structures.schemes import IBUG68, KAGGLE15

BATCH = 256
"""Pictures a run of the network."""

REFINEMENTS = 2
"""Runs of the refine stage, each in a crop framed by the points of the run before."""


OF_FOUR = {
    KAGGLE15.names.index("nose_tip"): (33,),  # under the nose
    KAGGLE15.names.index("mouth_center_bottom_lip"): (62, 66),  # the middle of the mouth
}
"""The points that Kaggle's rows of four labels place elsewhere than its rows of 15 do, and the
points of the 68 whose mean is that place. `benchmarks/kaggle.py definitions` prints it."""


def only_four(labeled: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(n,) the rows that label (n, 15) the four points, or some of them, and no other."""
    others = np.delete(labeled, FOUR_POINTS, axis=1)
    return np.asarray(~others.any(axis=1) & labeled.any(axis=1), bool)


class Predictor(Protocol):
    """Predicts points (n, 15, 2) float32, pixels, in pictures (n, 96, 96) uint8.

    Attributes:
        name: for tables and pictures.
    """

    name: str

    def __call__(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]: ...


class KeypointNetwork:
    """A network of `kpipe kaggle train`.

    Args:
        path: the ONNX file.

    Attributes:
        name: its architecture.
        validation: share of its training set that was kept out.

    Raises:
        ModelError: the file cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self._session = OnnxSession(path, 0)
        notes = self._session.metadata
        if notes.get("kpipe.scheme") != KAGGLE15.name:
            raise ModelError(f"{path}: an ONNX file, but not of kpipe kaggle train")
        self.name = notes["kpipe.arch"]
        self.validation = float(notes["kpipe.validation"])

    def __call__(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        parts = [np.zeros((0, len(KAGGLE15), 2), np.float32)]
        for start in range(0, len(pictures), BATCH):
            batch = np.ascontiguousarray(pictures[start : start + BATCH, None])
            parts += self._session.run(["points"], {"pictures": batch})
        return np.concatenate(parts)


class Derived:
    """The 15 points that follow from the 68. It needs no training and no labels.

    It needs no detector either: all of Kaggle's pictures frame the face much alike.

    Args:
        pipeline: predicts the 68 points; without it one of the packaged networks.
    """

    name = "from the 68 points"

    def __init__(self, pipeline: Pipeline | None = None) -> None:
        self.pipeline = pipeline if pipeline is not None else Pipeline()

    def __call__(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self.points_of([self.landmarks(picture) for picture in pictures])

    def landmarks(self, picture: NDArray[np.uint8]) -> Landmarks:
        """The 68 points of one picture (96, 96)."""
        found = self.pipeline.refine(picture, _framing()[None])
        for _ in range(REFINEMENTS - 1):
            found = self.pipeline.refine(picture, found.points)
        return found

    @staticmethod
    def points_of(
        landmarks: Sequence[Landmarks], four: NDArray[np.bool_] | None = None
    ) -> NDArray[np.float32]:
        """The 15 points (n, 15, 2) of n pictures.

        Args:
            landmarks: the 68 points of each.
            four: (n,) the pictures whose points are those of Kaggle's rows of four labels.
        """
        points = np.array([each.points[0] for each in landmarks], np.float32)
        points = points.reshape(-1, len(IBUG68), 2)
        found = KAGGLE15.weights @ points
        if four is not None:
            for index, indices in OF_FOUR.items():
                found[four, index] = points[four][:, indices].mean(axis=1)
        return np.asarray(found, np.float32)


def causes(landmarks: Sequence[Landmarks]) -> dict[str, NDArray[np.float64]]:
    """Likely causes of errors of n faces, (n,) each, by a name with its unit.

    Yaw (turned heads), sigma (parts hidden by glasses, hair or hands), and the opening of the
    mouth.

    Args:
        landmarks: the 68 points of each face.
    """
    points = np.array([each.points[0] for each in landmarks], np.float64).reshape(-1, 68, 2)
    opening = np.linalg.norm(points[:, 62] - points[:, 66], axis=1)
    width = np.linalg.norm(points[:, 48] - points[:, 54], axis=1)
    return {
        "yaw to either side, degrees": np.array([abs(head_pose(face).yaw) for face in points]),
        "mean sigma of the 68 points, pixels of 96": np.array(
            [each.sigma.mean() for each in landmarks]
        ),
        "opening of the mouth over its width": opening / width,
    }


def _framing() -> NDArray[np.float32]:
    """(68, 2) the mean face where Kaggle's pictures have it."""
    face = mean_face()[:, :2]
    return transform(similarity(KAGGLE15.weights @ face, MEAN_POINTS), face)


def load(model: Path | None) -> Predictor:
    """The network of a file, or without one what follows from the 68 points."""
    return Derived() if model is None else KeypointNetwork(model)
