"""How far to believe each network of a face: fits on photographs that none was trained on.

    python -m kpipe.training.fusion TABLE... --negatives FOLDER... --run RUN [--detector FILE]

TABLE and FOLDER as for `kpipe train --stage proposals`, RUN its folder. Prints the weights that
`kpipe.networks.fusion` holds, fitted to the photographs that the run held out.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kpipe.detectors.proposals import ProposalDetector
from kpipe.networks.fusion import COARSE_WEIGHTS, anchored, face_probability, log_odds
from kpipe.pipeline import MIN_COARSE_SCORE, Pipeline
from kpipe.preprocessing.boxes import landmark_box, nms
from kpipe.structures.detections import Detections
from kpipe.training.data import load_negatives
from kpipe.training.photographs import LabeledScene, load_photos, overlaps

MATCHED = 0.3
"""IoU from which on a detection is the labeled face."""

LEAST_PROBABLE = 0.02
"""Candidates below this probability, by detector and coarse landmarks, are never refined."""


def fitted(features: NDArray[np.floating], labels: NDArray[np.floating]) -> tuple[float, ...]:
    """Intercept and weights of a logistic regression, by Newton's method with a weak prior.

    Args:
        features: (n, k) log odds.
        labels: (n,) 1 for a face, 0 for none.
    """
    inputs = np.column_stack([np.ones(len(features)), features]).astype(np.float64)
    weights = np.zeros(inputs.shape[1])
    for _ in range(100):
        chance = 1 / (1 + np.exp(-np.clip(inputs @ weights, -30, 30)))
        slope = inputs.T @ (chance - labels) + weights
        curvature = (inputs * (chance * (1 - chance))[:, None]).T @ inputs + np.eye(len(weights))
        weights -= 0.8 * np.linalg.solve(curvature, slope)
    return tuple(float(weight) for weight in weights)


def outcomes(detections: Detections, scene: LabeledScene) -> NDArray[np.float64]:
    """(n,) 1 for a detection that is a labeled face and the first on it, 0 for none, NaN for one on
    a face that does not count; the detections in the order of their probability.
    """
    boxes = detections.boxes
    squares = np.column_stack([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2] - boxes[:, 0]])
    free = scene.counted.copy()
    result = np.zeros(len(boxes))
    for index, square in enumerate(squares if len(scene.places) else ()):
        overlap = overlaps(square, scene.places)
        best = int(np.where(free, overlap, -1).argmax())
        if free[best] and overlap[best] >= MATCHED:
            free[best] = False
            result[index] = 1
        elif (overlap[~scene.counted] >= MATCHED).any():
            result[index] = np.nan
    return result


def calibration(
    detector: Callable[[NDArray[np.uint8]], Detections],
    scenes: Iterable[LabeledScene],
    overlap: float = 0.4,
) -> tuple[float, ...] | None:
    """Intercept and weight of the log odds of a detector's scores that make them probabilities;
    None, if it detects nothing.
    """
    scores, labels = [], []
    for scene in scenes:
        found = detector(scene.gray)
        assert found.scores is not None
        found = found[nms(found.boxes, found.scores, overlap)]
        assert found.scores is not None
        scores.append(found.scores)
        labels.append(outcomes(found, scene))
    known = np.isfinite(np.concatenate(labels))
    if not known.any():
        return None
    odds = log_odds(np.concatenate(scores)[known])
    return fitted(odds[:, None], np.concatenate(labels)[known])


def evidence(
    pipeline: Pipeline, scenes: Iterable[LabeledScene]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Log odds (n, 3) by detector, coarse landmarks and refined ones, and outcomes (n,)."""
    rows, labels = [], []
    for scene in scenes:
        found = pipeline.detector(scene.gray)
        coarse = pipeline.coarse_landmarks(scene.gray, found, MIN_COARSE_SCORE)
        coarse = anchored(coarse, found)
        assert found.scores is not None
        chance = face_probability(COARSE_WEIGHTS, found.scores, coarse.scores)
        chosen = nms(landmark_box(coarse.points), chance, pipeline.overlap)
        chosen = chosen[chance[chosen] >= LEAST_PROBABLE]
        found, coarse = found[chosen], coarse[chosen]
        refined = pipeline.refine(scene.gray, coarse.points)
        assert found.scores is not None
        rows.append(log_odds(np.column_stack([found.scores, coarse.scores, refined.scores])))
        labels.append(outcomes(found, scene))
    known = np.isfinite(np.concatenate(labels))
    return np.concatenate(rows)[known], np.concatenate(labels)[known]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("tables", type=Path, nargs="+")
    parser.add_argument("--negatives", type=Path, action="append", default=[])
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--detector", type=Path, help="without it the packaged one")
    arguments = parser.parse_args()
    nothing = np.zeros((0, 4), np.float32), np.zeros(0, bool)
    scenes = load_photos(arguments.tables, arguments.run).validation
    for folder in arguments.negatives:
        scenes += [LabeledScene(photo.gray, *nothing) for photo in load_negatives(folder, None)[1]]
    rows, labels = evidence(Pipeline(ProposalDetector(arguments.detector)), scenes)
    print(f"{len(labels)} candidates, {int(labels.sum())} faces")
    for name, columns in (("COARSE_WEIGHTS", [0, 1]), ("REFINED_WEIGHTS", [0, 1, 2])):
        weights = ", ".join(f"{weight:.2f}" for weight in fitted(rows[:, columns], labels))
        print(f"{name} = ({weights})")


if __name__ == "__main__":
    main()
