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
"""Standard deviation of the noise that changes from frame to frame, along each axis, as a share of
sigma. The rest of sigma is error that stays while the face does; `benchmarks/video.py` prints
both."""

PROCESS_NOISE = 0.0008
"""Standard deviation of a point's own motion, beside the face's common one, in a second along each
axis, as a share of the face's size. Together with the measurement noise it averages about eight
frames."""

GATE = 3.0
"""Squared distance of a measurement from the prediction, over its expectation, above which it is
motion and no noise."""


class Filter(Protocol):
    """The points of one face through time.

    It begins with the points (n, 2) and their sigma (n,) in the first frame; then for each frame
    come `predict` and, if the face is observed there, `update`.

    Attributes:
        points: (n, 2) float32, in the current frame, pixels.
    """

    points: NDArray[np.float32]

    def predict(self, seconds: float, motion: NDArray[np.float64] | None) -> None:
        """Moves the points to the next frame.

        Args:
            seconds: since the last frame.
            motion: (2, 3), the face's motion since then; None if it is unknown.
        """

    def update(self, points: NDArray[np.floating], sigma: NDArray[np.floating]) -> None:
        """Takes in the network's points (n, 2) and sigma (n,) in this frame, pixels."""


class UnfilteredPoints:
    """The filter that filters nothing: the points are the network's last ones."""

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
