"""Blinks of one face over time."""

from __future__ import annotations

from functools import cache

import numpy as np

from kpipe.measures.expression import openness
from kpipe.measures.pose import mean_face
from kpipe.structures.faces import Openness

CLOSED = 0.6
"""Eyes are closed if their openness is below this share of their usual one."""


NEW = 1.0
"""Seconds for which a face counts as new: longer than a blink."""


class BlinkDetector:
    """Whether a face's eyes are closed, compared with their usual openness.

    Eyes differ more among people than half-closed eyes from open ones. The usual openness follows
    upwards within a third of a second and downwards within ten, so that closed eyes do not become
    usual; within half a second as long as the face is new.
    """

    def __init__(self) -> None:
        self._usual: float | None = None
        self._begin = self._time = 0.0

    def __call__(self, now: Openness, time: float) -> bool:
        """Whether the eyes are closed at a time, in seconds; times must not go back."""
        eyes = (now.right_eye + now.left_eye) / 2
        if self._usual is None:
            # Nothing is known yet: a face may come into the picture in the middle of a blink.
            self._usual = max(eyes, _mean_eyes())
            self._begin = time
        else:
            falling = 0.5 if time - self._begin < NEW else 10.0
            slowness = 0.3 if eyes > self._usual else falling
            share = 1 - np.exp(-(time - self._time) / slowness)
            self._usual += float(share) * (eyes - self._usual)
        self._time = time
        return eyes < CLOSED * self._usual


@cache
def _mean_eyes() -> float:
    mean = openness(mean_face()[:, :2])
    return (mean.right_eye + mean.left_eye) / 2
