"""The stream of training crops: sample i of a run is the same whenever it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from kpipe.detector import Detections
from kpipe.preprocessor import CROP_SIZE, crop_transform, warp
from kpipe.schemes import IBUG68
from kpipe.training.augment import (
    REFINED,
    degrade,
    face_crop,
    jitter,
    misframed_crop,
    random_roll,
)

Gray = NDArray[np.uint8]


@dataclass(frozen=True)
class LabelledFace:
    """A face in memory: gray picture (h, w), points (68, 2), and whose labels they are."""

    gray: Gray
    points: NDArray[np.float32]
    source: str


@dataclass(frozen=True)
class EmptyPhoto:
    """A photograph without faces and where the detector sees some all the same."""

    gray: Gray
    mistakes: Detections


class CropStream(Dataset[tuple[Gray, NDArray[np.float32], int, bool]]):
    """Endless random crops, addressed by their number.

    Crop i is drawn by a generator seeded with (seed, i), so a run that resumes at step k sees what
    an uninterrupted one would have seen.

    Args:
        faces: the labelled faces, by label set.
        shares: how often each label set is drawn.
        empty: photographs without faces; with the misframed faces they make up `negative_share`.
        length: how many crops the run will ask for.
        seed: of the run.
    """

    def __init__(
        self,
        faces: dict[str, list[LabelledFace]],
        shares: dict[str, float],
        empty: Sequence[EmptyPhoto],
        negative_share: float,
        length: int,
        seed: int,
    ) -> None:
        self.sources = list(faces)
        self.faces = faces
        weights = np.array([shares[source] for source in self.sources])
        self.weights = weights / weights.sum()
        self.empty = empty
        self.negative_share = negative_share
        self.length = length
        self.seed = seed

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Gray, NDArray[np.float32], int, bool]:
        """Crop (1, side, side), points (68, 2) in crop pixels, label set, whether it is a face."""
        rng = np.random.default_rng((self.seed, index))
        source = int(rng.choice(len(self.sources), p=self.weights))
        face = self._any_face(source, rng)
        texture = self._texture(rng)
        if rng.random() < self.negative_share:
            crop, points = self._negative(face, rng), np.zeros_like(face.points)
            return degrade(crop, texture, rng)[None], points, source, False
        crop, points = face_crop(face.gray, face.points, rng)
        if rng.random() < 0.5:
            crop = np.ascontiguousarray(crop[:, ::-1])
            points = points[IBUG68.mirror]
            points[:, 0] = CROP_SIZE - 1 - points[:, 0]
        return degrade(crop, texture, rng)[None], points, source, True

    def _any_face(self, source: int, rng: np.random.Generator) -> LabelledFace:
        faces = self.faces[self.sources[source]]
        return faces[int(rng.integers(len(faces)))]

    def _texture(self, rng: np.random.Generator) -> Gray:
        """A random square of a random photograph."""
        if self.empty and rng.random() < 0.7:
            gray = self.empty[int(rng.integers(len(self.empty)))].gray
        else:
            gray = self._any_face(int(rng.integers(len(self.sources))), rng).gray
        return warp(gray, crop_transform(_random_box(gray, rng), rng.uniform(-180, 180)))

    def _negative(self, face: LabelledFace, rng: np.random.Generator) -> Gray:
        if not self.empty or rng.random() < 0.25:
            return misframed_crop(face.gray, face.points, rng)
        photo = self.empty[int(rng.integers(len(self.empty)))]
        boxes, rolls = photo.mistakes
        if len(boxes) and rng.random() < 0.75:
            chosen = int(rng.integers(len(boxes)))
            box, roll = jitter(boxes[chosen], REFINED, rng), float(rolls[chosen])
        else:
            box, roll = _random_box(photo.gray, rng), 0.0
        crop = warp(photo.gray, crop_transform(box, roll + random_roll(rng)))
        return np.ascontiguousarray(crop[:, ::-1]) if rng.random() < 0.5 else crop


def _random_box(gray: Gray, rng: np.random.Generator) -> NDArray[np.float64]:
    height, width = gray.shape
    side = min(height, width) * np.exp(rng.uniform(np.log(0.06), np.log(0.6)))
    corner = rng.uniform(0, 1, 2) * (np.array([width, height]) - side)
    return np.concatenate([corner, corner + side])
