"""Landmarks of n faces as arrays. It is the only type for them, whatever stage they are of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Landmarks:
    """What a network says of n crops or boxes.

    Attributes:
        points: (n, k, 2) float32, pixels of the crop or of the picture; NaN where they were not
            asked for.
        sigma: (n, k) float32, expected error of each point, pixels; NaN likewise.
        scores: (n,) float32, probability of a face.
    """

    points: NDArray[np.float32]
    sigma: NDArray[np.float32]
    scores: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, chosen: NDArray[Any] | slice | list[int]) -> Landmarks:
        """Some of them: by a boolean mask (n,), by indices, or by a slice."""
        return Landmarks(self.points[chosen], self.sigma[chosen], self.scores[chosen])

    def joined(self, other: Landmarks) -> Landmarks:
        """These and then the others."""
        pairs = ((getattr(self, n), getattr(other, n)) for n in ("points", "sigma", "scores"))
        return Landmarks(*(np.concatenate(pair) for pair in pairs))

    @classmethod
    def empty(cls, points: int = 68) -> Landmarks:
        """Landmarks of no face."""
        shapes = ((0, points, 2), (0, points), (0,))
        return cls(*(np.zeros(shape, np.float32) for shape in shapes))

    def mapped_back(self, matrices: NDArray[np.float64]) -> Landmarks:
        """Landmarks of crops, in pixels of the picture that the crops were cut out of.

        Args:
            matrices: (n, 2, 3), from the picture to each crop.
        """
        back = np.linalg.inv(matrices[:, :, :2]).transpose(0, 2, 1)
        points = (self.points - matrices[:, None, :, 2]) @ back
        sigma = self.sigma * np.hypot(back[:, 0, 0], back[:, 1, 0])[:, None]
        return Landmarks(points.astype(np.float32), sigma.astype(np.float32), self.scores)
