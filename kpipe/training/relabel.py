"""Labels of one scheme from labels of another, by a network that has learned both.

A label set with habits of its own (the YouTube Faces labels lie about a pixel from 300-W's) cannot
teach the points of another directly. A network with heatmaps for both predicts the points of both
schemes in the same pictures, as the mean over several views. The new label is its prediction in the
other scheme, moved by a share of the distance from its prediction in the label's own scheme to the
label (pseudo-labels: Lee, 2013; as the mean over views: Radosavovic et al., CVPR 2018).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from kpipe.datasets import DatasetError
from kpipe.networks.stages import Stage
from kpipe.preprocessing.affine import invert, transform
from kpipe.preprocessing.crops import warp
from kpipe.structures.schemes import IBUG68
from kpipe.training.crops import mirrored
from kpipe.training.data import RELABELED, LabeledFace
from kpipe.training.network import LandmarkNetwork

VIEWS = 4
"""Framings of a face, each used as it is and mirrored."""

TRUST = 0.3
"""Share of the distance from the predicted to the given label that the new label is moved by."""

GROSS = 0.08
"""A face whose points are farther than this from the predicted ones (median, inter-ocular
distances) counts as wrongly labeled. Its new label is the prediction alone."""


def relabeled(
    faces: Iterable[LabeledFace], teacher: LandmarkNetwork, stage: Stage, offset: float = 0.0
) -> list[LabeledFace]:
    """The faces with points of the first of the teacher's schemes.

    Args:
        faces: with labels of any of the teacher's schemes; those of the first stay as they are,
            the others become the label set `RELABELED`.
        teacher: a network with heatmaps for each of their schemes.
        stage: what its crops show.
        offset: of the labels of the first scheme, see `kpipe.training.crops.mirrored`.

    Raises:
        DatasetError: a face's labels are of a scheme that the teacher has not learned.
    """
    rng = np.random.default_rng(0)
    first = teacher.sources[0]
    result = []
    for face in faces:
        if face.source not in teacher.sources:
            known = ", ".join(teacher.sources)
            raise DatasetError(f"labels of {face.source}: the network to relabel by knows {known}")
        if face.source != first:
            points = _relabel(face, teacher, stage, offset, rng)
            face = replace(face, points=points, source=RELABELED)
        result.append(face)
    return result


def _relabel(
    face: LabeledFace,
    teacher: LandmarkNetwork,
    stage: Stage,
    offset: float,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    matrices = [stage.random_transform(face.points, face.roll, rng) for _ in range(VIEWS)]
    crops = np.stack([warp(face.gray, matrix, stage.crop_size) for matrix in matrices])
    points, expected = _predicted(
        crops, matrices, teacher, {teacher.sources[0]: offset, face.source: 0.0}
    )
    right, left = IBUG68.ocular
    away = face.points - expected
    distance = np.linalg.norm(away, axis=1) / np.linalg.norm(points[right] - points[left])
    trust = TRUST if np.median(distance) < GROSS else 0.0
    return np.asarray(points + trust * away, np.float32)


@torch.no_grad()
def _predicted(
    crops: NDArray[np.uint8],
    matrices: Sequence[NDArray[np.float64]],
    teacher: LandmarkNetwork,
    offsets: Mapping[str, float],
) -> list[NDArray[np.float32]]:
    """Points (68, 2) in the picture in the scheme of each label set.

    They are the mean over the crops, which the matrices cut out of the picture, and over their
    mirror images.
    """
    both = np.concatenate([crops, crops[:, :, ::-1]])[:, None].astype(np.float32)
    features, _ = teacher.features(torch.from_numpy(both))
    found = []
    for source, offset in offsets.items():
        points = teacher.landmarks(features, source).points.numpy()
        size = crops.shape[2]
        turned = [mirrored(part, size, offset) for part in points[len(crops) :]]
        mean = (points[: len(crops)] + np.stack(turned)) / 2
        back = [transform(invert(matrix), part) for matrix, part in zip(matrices, mean)]
        found.append(np.asarray(np.mean(back, axis=0), np.float32))
    return found
