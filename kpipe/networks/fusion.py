"""What detector and landmarkers say of a candidate, taken together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kpipe.measures.pose import mean_face
from kpipe.preprocessing.boxes import iou, landmark_box
from kpipe.structures.detections import Detections
from kpipe.structures.landmarks import Landmarks

COARSE_WEIGHTS = (0.21, 0.53, 0.53)
REFINED_WEIGHTS = (0.46, 0.50, 0.29, 0.22)
"""Intercept of the log odds of a face, and weights of those of the detector, the coarse landmarker
and the landmarker: see `face_probability`."""

MIN_BOX_IOU = 0.3
"""IoU with the detector's box below which landmarks are not of the face in it."""

GUESS_SIGMA = 0.15
"""Sigma of landmarks that are a guess, in sides of the detector's box."""


USUAL_SPREAD, SPREAD_PENALTY = 0.033, 150.0
"""Mean sigma of a face, in sides of its landmark box, that none of 416 held-out faces exceeds; and
how much the log odds of a face fall for each side above it. False faces on photographs without any
have 0.033 to 0.055."""


def face_probability(
    weights: tuple[float, ...], *scores: NDArray[np.floating]
) -> NDArray[np.float32]:
    """(n,) probability of a face from the scores of several networks.

    A logistic regression on the log odds of the scores.

    Args:
        weights: the intercept, and the weight of each network.
        scores: (n,) probabilities of each network.
    """
    odds = np.full(len(scores[0]), weights[0])
    for weight, score in zip(weights[1:], scores):
        odds += weight * log_odds(score)
    return np.asarray(1 / (1 + np.exp(-odds)), np.float32)


def log_odds(scores: NDArray[np.floating]) -> NDArray[np.float64]:
    """Log odds of probabilities, of which none is taken for surer than 1 in 10,000."""
    bounded = scores.astype(np.float64).clip(1e-4, 1 - 1e-4)
    return np.asarray(np.log(bounded / (1 - bounded)), np.float64)


def anchored(found: Landmarks, detections: Detections) -> Landmarks:
    """Landmarks that stay in the boxes of their detections, and a sigma that says where they guess.

    Landmarks that leave the box, or are NaN, are replaced by the mean face's in it. Sigma is at
    least `GUESS_SIGMA`, in sides of the box, times the probability that the landmarker's crop shows
    no face.

    Args:
        found: of n candidates.
        detections: the n candidates, in the same order.
    """
    boxes, rolls = detections.boxes, detections.rolls
    inside = iou(landmark_box(found.points, rolls), boxes) >= MIN_BOX_IOU
    points = np.where(inside[:, None, None], found.points, mean_landmarks(boxes, rolls))
    doubt = np.where(inside, 1 - found.scores, 1.0) * GUESS_SIGMA * (boxes[:, 2] - boxes[:, 0])
    sigma = np.fmax(found.sigma, doubt[:, None])
    return Landmarks(points.astype(np.float32), sigma.astype(np.float32), found.scores)


def mean_landmarks(boxes: NDArray[np.floating], rolls: NDArray[np.floating]) -> NDArray[np.float32]:
    """The landmarks of the mean face in given boxes.

    Args:
        boxes: (n, 4) squares around the landmarks, pixels.
        rolls: (n,) degrees clockwise.

    Returns:
        (n, 68, 2) pixels.
    """
    shape = mean_face()[:, :2]
    low, high = np.split(landmark_box(shape).astype(np.float64), 2)
    shape = (shape - (low + high) / 2) / (high - low)
    angle = np.deg2rad(np.asarray(rolls, np.float64))
    right = np.stack([np.cos(angle), np.sin(angle)], axis=1)[:, None]
    down = np.stack([-np.sin(angle), np.cos(angle)], axis=1)[:, None]
    sides = np.asarray(boxes[:, 2] - boxes[:, 0], np.float64)[:, None, None]
    centers = (boxes[:, None, :2] + boxes[:, None, 2:]) / 2
    return np.asarray(centers + sides * (shape[:, :1] * right + shape[:, 1:] * down), np.float32)


def fused_score(coarse: Landmarks, refined: Landmarks) -> NDArray[np.float32]:
    """(n,) probability of a face: the lower of both stages' scores, less where sigma is unusual.

    A false face, a fold in a cloth for instance, has points that could be anywhere: its sigma is
    large.
    """
    least = np.minimum(coarse.scores, refined.scores).astype(np.float64).clip(1e-6, 1 - 1e-6)
    sides = np.ptp(refined.points, axis=1).max(axis=1)
    spread = refined.sigma.mean(axis=1) / np.maximum(sides, 1e-6)
    odds = np.log(least / (1 - least)) - SPREAD_PENALTY * np.maximum(spread - USUAL_SPREAD, 0)
    return np.asarray(1 / (1 + np.exp(-odds)), np.float32)
