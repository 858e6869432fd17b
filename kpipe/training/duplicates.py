"""Photographs that are in two data sets under different names.

300-W's parts were gathered from the web one by one, and a few faces of its training set are in its
test sets too. Training on them would make every figure on those sets too good.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kpipe.preprocessing.affine import crop_transform
from kpipe.preprocessing.boxes import landmark_box
from kpipe.preprocessing.crops import warp
from kpipe.training.data import LabeledFace
from kpipe.training.photographs import LabeledScene
from kpipe.utils.opencv import cv2

SIDE = 24
"""Side of the picture of a face, or of a whole photograph, that is compared [px]. Smaller faces of
photographs are not compared: enlarged, all look alike."""

SAME = 0.96
"""Correlation from which on two faces, or two photographs, are one. 300-W's different faces stay
below 0.93; so do those of 6,596 faces of `wider_train` and `masks` and 224 of `300w/dev`. Their
2,122 photographs and the 204 of `wider_dev` stay below 0.82."""


class _Part(NamedTuple):
    """A face in a picture; without a box the whole picture.

    Attributes:
        gray: (h, w), the picture.
        box: (4,) square around the landmarks.
        roll: that is undone [degrees].
    """

    gray: NDArray[np.uint8]
    box: NDArray[np.floating] | None = None
    roll: float = 0.0


def without_duplicates(
    faces: Sequence[LabeledFace],
    others: Sequence[LabeledFace],
    photos: Sequence[LabeledScene] = (),
) -> list[LabeledFace]:
    """The faces that have no copy among others, nor their picture among photographs; copies may
    differ by a few pixels or in size.
    """
    copies = _alike([_face(f) for f in faces], [_face(f) for f in others])
    copies |= _alike([_Part(f.gray) for f in faces], [_Part(p.gray) for p in photos])
    return [face for face, copy in zip(faces, copies) if not copy]


def photos_without_duplicates(
    photos: Sequence[LabeledScene],
    faces: Sequence[LabeledFace],
    others: Sequence[LabeledScene],
) -> list[LabeledScene]:
    """The photographs that have no copy among others, nor one of their faces among faces."""
    copies = _alike([_Part(p.gray) for p in photos], [_Part(p.gray) for p in others])
    shown = [(index, part) for index, photo in enumerate(photos) for part in _faces_on(photo)]
    # The roll of a face that has a box alone is not known.
    known = [_face(f) for f in faces] + [_upright(f) for f in faces]
    same = _alike([part for _, part in shown], known)
    copies[[index for (index, _), copy in zip(shown, same) if copy]] = True
    return [photo for photo, copy in zip(photos, copies) if not copy]


def _face(face: LabeledFace) -> _Part:
    return _Part(face.gray, landmark_box(face.points))


def _upright(face: LabeledFace) -> _Part:
    return _Part(face.gray, landmark_box(face.points, face.roll), face.roll)


def _faces_on(photo: LabeledScene) -> list[_Part]:
    """The faces of a photograph that are not too small to compare."""
    return [
        _Part(photo.gray, np.array([x - side / 2, y - side / 2, x + side / 2, y + side / 2]), roll)
        for x, y, side, roll in np.nan_to_num(photo.places).tolist()
        if side >= SIDE
    ]


def _alike(parts: Sequence[_Part], others: Sequence[_Part]) -> NDArray[np.bool_]:
    """(n,) which parts have a copy among others."""
    if not parts or not others:
        return np.zeros(len(parts), bool)
    alike = _signatures(parts) @ _signatures(others).T
    return np.asarray(alike.max(axis=1) >= SAME)


def _signatures(parts: Sequence[_Part]) -> NDArray[np.float64]:
    """(n, SIDE * SIDE) unit vectors of zero mean."""
    small = [
        cv2.resize(gray, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        if box is None
        else warp(gray, crop_transform(box, roll, SIDE, 1.2), SIDE)
        for gray, box, roll in parts
    ]
    rows = np.stack(small).reshape(len(parts), -1).astype(np.float64)
    rows -= rows.mean(axis=1, keepdims=True)
    return np.asarray(rows / (np.linalg.norm(rows, axis=1, keepdims=True) + 1e-9))
