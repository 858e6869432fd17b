from __future__ import annotations

import numpy as np

from kpipe.structures.detections import Detections
from kpipe.structures.landmarks import Landmarks


def test_joined_detections_keep_scores_only_if_both_have_them() -> None:
    box, roll = np.zeros((1, 4), np.float32), np.array([10.0], np.float32)
    scored = Detections(box, roll, np.array([0.5], np.float32))
    both = scored.joined(Detections(box + 1, roll + 1, np.array([0.7], np.float32)))
    assert both.boxes[:, 0].tolist() == [0, 1] and both.rolls.tolist() == [10, 11]
    assert both.scores is not None and both.scores.tolist() == np.float32([0.5, 0.7]).tolist()
    assert scored.joined(Detections(box, roll)).scores is None


def test_joined_landmarks_are_in_order() -> None:
    one = Landmarks(np.zeros((1, 68, 2)), np.ones((1, 68)), np.array([0.1]))
    two = one.joined(Landmarks(np.ones((2, 68, 2)), np.ones((2, 68)), np.array([0.2, 0.3])))
    assert len(two) == 3 and two.scores.tolist() == [0.1, 0.2, 0.3]
    assert len(one.joined(Landmarks.empty())) == 1
