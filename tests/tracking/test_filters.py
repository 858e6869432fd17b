import numpy as np
import pytest

from kpipe.measures.pose import mean_face
from kpipe.tracking.filters import KalmanPoints, UnfilteredPoints

FACE = (mean_face()[:, :2] * 60 + (300, 200)).astype(np.float32)
SIGMA = np.full(68, 2.0, np.float32)
STEP = 1 / 30


def seen(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What a network sees: noise of a few hundredths of sigma."""
    return (points + rng.normal(0, 0.1, points.shape)).astype(np.float32)


def shift(x: float, y: float) -> np.ndarray:
    return np.array([[1.0, 0.0, x], [0.0, 1.0, y]])


def test_a_still_face_stands_still() -> None:
    rng = np.random.default_rng(0)
    steady, raw = KalmanPoints(FACE, SIGMA), UnfilteredPoints(FACE, SIGMA)
    tracks = []
    for _ in range(60):
        for points in (steady, raw):
            points.predict(STEP, shift(0, 0))
        look = seen(FACE, rng)
        steady.update(look, SIGMA)
        raw.update(look, SIGMA)
        tracks.append((steady.points.copy(), raw.points.copy()))
    spread = np.std(np.array(tracks)[15:], axis=0).mean(axis=(1, 2))
    assert spread[0] < spread[1] / 3
    assert raw.points == pytest.approx(look)


def test_where_the_motion_is_seen_there_is_no_lag() -> None:
    rng = np.random.default_rng(1)
    steady = KalmanPoints(FACE, SIGMA)
    for k in range(1, 40):
        steady.predict(STEP, shift(4, -1))
        steady.update(seen(FACE + (4 * k, -k), rng), SIGMA)
    assert np.abs(steady.points - FACE - (4 * 39, -39)).mean() < 0.1


def test_a_blink_is_followed_at_once() -> None:
    rng = np.random.default_rng(2)
    steady = KalmanPoints(FACE, SIGMA)
    for _ in range(20):
        steady.predict(STEP, shift(0, 0))
        steady.update(seen(FACE, rng), SIGMA)
    closed = FACE.copy()
    closed[[37, 38, 43, 44], 1] += 5
    steady.predict(STEP, shift(0, 0))
    steady.update(seen(closed, rng), SIGMA)
    lids = steady.points[[37, 38, 43, 44], 1] - FACE[[37, 38, 43, 44], 1]
    assert lids == pytest.approx(5, abs=0.5)
    assert np.abs(steady.points[:17] - FACE[:17]).max() < 0.3


def test_an_unsure_network_is_followed_less() -> None:
    gains = []
    for sigma in (SIGMA, SIGMA * 4):
        steady = KalmanPoints(FACE, SIGMA)
        for _ in range(20):
            steady.predict(STEP, shift(0, 0))
            steady.update(FACE, sigma)
        steady.predict(STEP, shift(0, 0))
        steady.update(FACE + 0.1, sigma)
        gains.append(float((steady.points - FACE).mean()) / 0.1)
    assert 0 < gains[1] < gains[0] / 2 < 0.5


def test_after_a_jump_that_nobody_saw_the_network_counts_alone() -> None:
    steady = KalmanPoints(FACE, SIGMA)
    steady.predict(STEP, None)
    steady.update(FACE + 7, SIGMA)
    assert steady.points == pytest.approx(FACE + 7, abs=0.02)
