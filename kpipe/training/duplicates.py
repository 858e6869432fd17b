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
from kpipe.training.scenes import LabelledScene
from kpipe.utils.opencv import cv2

Gray = NDArray[np.uint8]
Box = NDArray[np.floating]

SIDE = 24
"""Side of the picture of a face, or of a whole photograph, that is compared [px]. Smaller faces of
photographs are not compared: enlarged, all look alike."""

SAME = 0.96
"""Correlation above which two faces are one photograph: 300-W's different faces stay below 0.93."""


def without_duplicates(
    faces: Sequence[LabelledFace],
    others: Sequence[LabelledFace],
    photos: Sequence[LabelledScene] = (),
) -> list[LabelledFace]:
    """The faces that have no copy among others, nor their picture among photographs; copies may
    differ by a few pixels or in size.
    """
    copies = _alike(_faces_of(faces), _faces_of(others))
    copies |= _alike([(face.gray, None) for face in faces], [(p.gray, None) for p in photos])
    return [face for face, copy in zip(faces, copies) if not copy]


def photos_without_duplicates(
    photos: Sequence[LabelledScene],
    faces: Sequence[LabelledFace],
    others: Sequence[LabelledScene],
) -> list[LabelledScene]:
    """The photographs that have no copy among others, nor one of their faces among faces."""
    copies = _alike([(p.gray, None) for p in photos], [(p.gray, None) for p in others])
    shown = [(index, box) for index, photo in enumerate(photos) for box in _boxes(photo)]
    same = _alike([(photos[index].gray, box) for index, box in shown], _faces_of(faces))
    copies[[index for (index, _), copy in zip(shown, same) if copy]] = True
    return [photo for photo, copy in zip(photos, copies) if not copy]


def _faces_of(faces: Sequence[LabelledFace]) -> list[tuple[Gray, Box | None]]:
    return [(face.gray, landmark_box(face.points)) for face in faces]


def _boxes(photo: LabelledScene) -> list[Box]:
    """x0, y0, x1, y1 of the squares of a photograph that are not too small to compare."""
    places = photo.places[photo.places[:, 2] >= SIDE]
    half = places[:, 2:3] / 2
    return [*np.hstack([places[:, :2] - half, places[:, :2] + half])]


def _alike(
    pictures: Sequence[tuple[Gray, Box | None]], others: Sequence[tuple[Gray, Box | None]]
) -> NDArray[np.bool_]:
    """(n,) which pictures have a copy among others; a box means the face in it."""
    if not pictures or not others:
        return np.zeros(len(pictures), bool)
    alike = _signatures(pictures) @ _signatures(others).T
    return np.asarray(alike.max(axis=1) >= SAME)


def _signatures(pictures: Sequence[tuple[Gray, Box | None]]) -> NDArray[np.float64]:
    """(n, SIDE * SIDE) unit vectors of zero mean."""
    small = [
        cv2.resize(gray, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        if box is None
        else warp(gray, crop_transform(box, 0.0, SIDE, 1.2), SIDE)
        for gray, box in pictures
    ]
    rows = np.stack(small).reshape(len(pictures), -1).astype(np.float64)
    rows -= rows.mean(axis=1, keepdims=True)
    return np.asarray(rows / (np.linalg.norm(rows, axis=1, keepdims=True) + 1e-9))
