"""Landmarks of n faces as arrays."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Landmarks(NamedTuple):
    """What was seen in n boxes of one picture.

    Attributes:
        points: (n, 68, 2) float32, pixels of the picture.
        sigma: (n, 68) float32, pixels of the picture.
        scores: (n,) float32, probability of a face.
    """

    points: NDArray[np.float32]
    sigma: NDArray[np.float32]
    scores: NDArray[np.float32]

    def take(self, chosen: NDArray[np.intp]) -> Landmarks:
        return Landmarks(self.points[chosen], self.sigma[chosen], self.scores[chosen])
