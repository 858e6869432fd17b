"""The stream of training crops: sample i of a run is the same whenever it is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from kpipe.networks.stages import REFINED, Stage, jitter
from kpipe.preprocessing.affine import crop_transform, transform
from kpipe.preprocessing.crops import warp
from kpipe.structures.detections import Detections
from kpipe.structures.schemes import IBUG68
from kpipe.training.augment import degrade, elastic_warp, misframed_transform
from kpipe.training.data import LabeledFace, NegativePhoto

Gray = NDArray[np.uint8]


class CropStream(Dataset[tuple[Gray, NDArray[np.float32], int, bool]]):
    """Endless random crops, addressed by their number.

    Crop i is drawn by a generator seeded with (seed, i), so a run that resumes at step k gets the
    same crops as an uninterrupted one.

    Args:
        stage: whose crops.
        faces: the labeled faces, by label set.
        shares: relative frequency of each label set.
        negatives: photographs without faces; they and misframed faces make up `negative_share`.
        length: number of crops of the run.
        seed: of the run.
        offsets: of label sets whose labels lie to one side, see `mirrored`.
    """

    def __init__(
        self,
        stage: Stage,
        faces: dict[str, list[LabeledFace]],
        shares: dict[str, float],
        negatives: Sequence[NegativePhoto],
        negative_share: float,
        length: int,
        seed: int,
        offsets: Mapping[str, float] | None = None,
    ) -> None:
        self.stage = stage
        self.offsets = offsets or {}
        self.sources = list(faces)
        self.faces = faces
        weights = np.array([shares[source] for source in self.sources])
        self.weights = weights / weights.sum()
        self.negatives = negatives
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
        matrix = self.stage.random_transform(face.points, face.roll, rng)
        if rng.random() < BENT:
            crop, points = elastic_warp(face.gray, matrix, face.points, self.stage.crop_size, rng)
        else:
            crop, points = self._cut(face.gray, matrix), transform(matrix, face.points)
        if rng.random() < 0.5:
            crop = np.ascontiguousarray(crop[:, ::-1])
            points = mirrored(points, self.stage.crop_size, self.offsets.get(face.source, 0.0))
        return degrade(crop, texture, rng)[None], points, source, True

    def _any_face(self, source: int, rng: np.random.Generator) -> LabeledFace:
        faces = self.faces[self.sources[source]]
        return faces[int(rng.integers(len(faces)))]

    def _texture(self, rng: np.random.Generator) -> Gray:
        """A random square of a random photograph."""
        if self.negatives and rng.random() < 0.7:
            gray = self.negatives[int(rng.integers(len(self.negatives)))].gray
        else:
            gray = self._any_face(int(rng.integers(len(self.sources))), rng).gray
        return self._cut(gray, self._transform(_random_box(gray, rng), rng.uniform(-180, 180)))

    def _transform(self, box: NDArray[np.floating], roll: float) -> NDArray[np.float64]:
        return crop_transform(box, roll, self.stage.crop_size, self.stage.crop_margin)

    def _cut(self, gray: Gray, matrix: NDArray[np.float64]) -> Gray:
        return warp(gray, matrix, self.stage.crop_size)

    def _negative(self, face: LabeledFace, rng: np.random.Generator) -> Gray:
        kind = rng.random()
        if kind < 0.25 and len(face.hard_negatives.boxes):
            return self._hard_negative(face.gray, face.hard_negatives, rng)
        if kind < 0.5 or not self.negatives:
            matrix = misframed_transform(face.points, face.roll, self.stage, rng)
            return self._cut(face.gray, matrix)
        photo = self.negatives[int(rng.integers(len(self.negatives)))]
        if len(photo.hard_negatives.boxes) and rng.random() < 0.75:
            return self._hard_negative(photo.gray, photo.hard_negatives, rng)
        matrix = self._transform(_random_box(photo.gray, rng), rng.normal(0, self.stage.roll))
        return self._cut(photo.gray, matrix)

    def _hard_negative(
        self, gray: Gray, hard_negatives: Detections, rng: np.random.Generator
    ) -> Gray:
        chosen = int(rng.integers(len(hard_negatives.boxes)))
        box = jitter(hard_negatives.boxes[chosen], REFINED, rng)
        roll = float(hard_negatives.rolls[chosen]) + rng.normal(0, self.stage.roll)
        crop = self._cut(gray, self._transform(box, roll))
        return np.ascontiguousarray(crop[:, ::-1]) if rng.random() < 0.5 else crop


def mirrored(points: NDArray[np.float32], size: int, offset: float) -> NDArray[np.float32]:
    """The points of a crop's mirror image, where its label set would have them.

    Args:
        points: (68, 2), crop pixels.
        size: side of the crop.
        offset: how far the labels of the set lie to the right of where the picture has the points,
            in sides of the landmarks' square.
    """
    side = float(np.ptp(points, axis=0).max())
    turned = points[IBUG68.mirror]
    turned[:, 0] = size - 1 - turned[:, 0] + 2 * offset * side
    return turned


BENT = 0.6
"""Share of the faces that `elastic_warp` distorts."""


def _random_box(gray: Gray, rng: np.random.Generator) -> NDArray[np.float64]:
    height, width = gray.shape
    side = min(height, width) * np.exp(rng.uniform(np.log(0.06), np.log(0.6)))
    corner = rng.uniform(0, 1, 2) * (np.array([width, height]) - side)
    return np.concatenate([corner, corner + side])
