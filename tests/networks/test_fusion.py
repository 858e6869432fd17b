from __future__ import annotations

import numpy as np
import pytest

from kpipe.measures.pose import head_pose
from kpipe.networks.fusion import anchored, face_probability, log_odds, mean_landmarks
from kpipe.preprocessing.boxes import landmark_box
from kpipe.structures.detections import Detections
from kpipe.structures.landmarks import Landmarks

BOX = np.array([[100.0, 50.0, 160.0, 110.0]], np.float32)


def test_a_probability_of_one_network_with_weight_one_is_its_score() -> None:
    scores = np.array([0.001, 0.3, 0.5, 0.99])
    assert face_probability((0.0, 1.0), scores) == pytest.approx(scores, rel=1e-5)
    both = face_probability((0.0, 1.0, 1.0), scores, 1 - scores)
    assert both == pytest.approx(0.5)
    assert (np.diff(face_probability((-1.0, 0.5, 0.5), scores, scores)) > 0).all()


def test_scores_of_zero_and_one_have_finite_log_odds() -> None:
    odds = log_odds(np.array([0.0, 1.0]))
    assert np.isfinite(odds).all() and odds[0] == pytest.approx(-odds[1])


@pytest.mark.parametrize("roll", [0.0, 40.0, -120.0, 180.0])
def test_the_mean_face_fills_its_box_at_any_roll(roll: float) -> None:
    points = mean_landmarks(BOX, np.array([roll]))
    assert points.shape == (1, 68, 2) and points.dtype == np.float32
    assert landmark_box(points, np.array([roll])) == pytest.approx(BOX, abs=0.01)
    assert abs((head_pose(points[0]).roll - roll + 180) % 360 - 180) < 1


def test_landmarks_that_leave_the_box_or_are_missing_become_the_mean_face() -> None:
    boxes, rolls = np.repeat(BOX, 3, axis=0), np.zeros(3)
    own = mean_landmarks(BOX, np.zeros(1))[0] + 3
    points = np.stack([own, own + 100, np.full_like(own, np.nan)])
    sigma = np.full((3, 68), 1.0, np.float32)
    sigma[2] = np.nan
    scores = np.array([0.99, 0.9, 0.01], np.float32)
    found = anchored(Landmarks(points, sigma, scores), Detections(boxes, rolls))
    mean = mean_landmarks(BOX, np.zeros(1))[0]
    assert (found.points[0] == own).all()
    assert found.points[1] == pytest.approx(mean) and found.points[2] == pytest.approx(mean)
    # Nine pixels of a box of sixty: a guess.
    assert found.sigma[0] == pytest.approx(1.0)
    assert found.sigma[1:] == pytest.approx(9.0)
    assert (found.scores == scores).all()


def test_sigma_of_what_the_landmarker_takes_for_no_face_is_a_guess() -> None:
    points = mean_landmarks(BOX, np.zeros(1))
    found = Landmarks(points, np.ones((1, 68), np.float32), np.array([0.1], np.float32))
    assert anchored(found, Detections(BOX, np.zeros(1))).sigma == pytest.approx(0.9 * 9)


def test_no_candidate_is_no_trouble() -> None:
    found = anchored(Landmarks.empty(), Detections.empty())
    assert len(found) == 0 and found.points.shape == (0, 68, 2)
