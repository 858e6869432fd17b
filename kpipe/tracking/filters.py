"""Points that stand still when the face does and follow at once when it moves.

Each point has a Kalman filter. Its motion model is the affine motion of the face between two
frames, from optical flow (`kpipe.tracking.motion.face_motion`). Its measurement is the network's
point, with a share of sigma as noise. A measurement further from the prediction than noise explains
(a blink, a mouth that opens, a turn) is taken at once.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from kpipe.preprocessing.affine import transform
from kpipe.preprocessing.boxes import landmark_box

MEASUREMENT_NOISE = 0.09
"""What of sigma is noise that changes from frame to frame, along each axis. The rest of sigma is
error that stays while the face does; `benchmarks/video.py` prints both."""

PROCESS_NOISE = 0.0008
"""How far points wander by themselves off the face's common motion, in a second: standard deviation
along each axis, as a share of the face's size. With the noise it decides how many frames are
averaged: about eight."""

GATE = 3.0
"""Squared distance from the prediction, over its expectation, beyond which it is no noise."""


class Filter(Protocol):
    """What carries the points of one face through time.

    It is made of the points (n, 2) and their sigma (n,) where the face is first seen; then for each
    frame come `predict` and, if the face is seen there, `update`.

    Attributes:
        points: (n, 2) float32, where they are now.
    """

    points: NDArray[np.float32]

    def predict(self, seconds: float, motion: NDArray[np.float64] | None) -> None:
        """Moves the points to the next frame.

        Args:
            seconds: since the last frame.
            motion: 2x3, how the face moved in the meantime; None if that could not be seen.
        """

    def update(self, points: NDArray[np.floating], sigma: NDArray[np.floating]) -> None:
        """Takes in what the network sees in this frame: points (n, 2) and sigma (n,), pixels."""


class UnfilteredPoints:
    """The filter that filters nothing: the points are where the network saw them last."""

    def __init__(self, points: NDArray[np.floating], _sigma: NDArray[np.floating]) -> None:
        self.points = np.asarray(points, np.float32)

    def predict(self, _seconds: float, motion: NDArray[np.float64] | None) -> None:
        if motion is not None:
            self.points = transform(motion, self.points)

    def update(self, points: NDArray[np.floating], _sigma: NDArray[np.floating]) -> None:
        self.points = np.asarray(points, np.float32)


class KalmanPoints:
    """A Kalman filter for each point of one face."""

    def __init__(self, points: NDArray[np.floating], sigma: NDArray[np.floating]) -> None:
        self.points = np.asarray(points, np.float32)
        self._variance = _noise(sigma)

    def predict(self, seconds: float, motion: NDArray[np.float64] | None) -> None:
        x0, _, x1, _ = landmark_box(self.points)
        size = float(x1 - x0)
        if motion is None:
            # It may be anywhere: the next measurement counts alone.
            self._variance = self._variance + size**2
        else:
            self.points = transform(motion, self.points)
            self._variance = self._variance + (PROCESS_NOISE * size) ** 2 * seconds

    def update(self, points: NDArray[np.floating], sigma: NDArray[np.floating]) -> None:
        noise = _noise(sigma)
        gap = np.asarray(points, np.float64) - self.points
        squared = (gap**2).mean(axis=1)
        variance = np.maximum(self._variance, squared / GATE - noise)
        gain = variance / (variance + noise)
        self.points = np.asarray(self.points + gain[:, None] * gap, np.float32)
        self._variance = (1 - gain) * variance


def _noise(sigma: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.asarray((MEASUREMENT_NOISE * np.maximum(np.asarray(sigma, np.float64), 1e-3)) ** 2)
