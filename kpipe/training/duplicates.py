"""Photographs that are in two data sets under different names.

300-W's parts were gathered from the web one by one, and a few faces of its training set are in its
test sets too. Training on them would make every figure on those sets too good.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kpipe.preprocessing.affine import crop_transform
from kpipe.preprocessing.boxes import landmark_box
from kpipe.preprocessing.crops import warp
from kpipe.training.data import LabelledFace

SIDE = 24
"""Side of the picture of a face that is compared, pixels."""

SAME = 0.96
"""Correlation above which two faces are one photograph: 300-W's different faces stay below 0.93."""


def without_duplicates(
    faces: Sequence[LabelledFace], others: Sequence[LabelledFace]
) -> list[LabelledFace]:
    """The faces that have no copy among others; copies may differ by a few pixels or in size."""
    if not faces or not others:
        return list(faces)
    alike = _signatures(faces) @ _signatures(others).T
    return [face for face, best in zip(faces, alike.max(axis=1)) if best < SAME]


def _signatures(faces: Sequence[LabelledFace]) -> NDArray[np.float64]:
    """(n, SIDE * SIDE) unit vectors of zero mean."""
    crops = [
        warp(f.gray, crop_transform(landmark_box(f.points), 0.0, SIDE, 1.2), SIDE) for f in faces
    ]
    rows = np.stack(crops).reshape(len(faces), -1).astype(np.float64)
    rows -= rows.mean(axis=1, keepdims=True)
    return np.asarray(rows / (np.linalg.norm(rows, axis=1, keepdims=True) + 1e-9))
