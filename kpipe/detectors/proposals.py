"""Where faces may be, from a small fully convolutional network: any size, any roll."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kpipe.detectors.face_size import min_face_pixels
from kpipe.errors import ModelError
from kpipe.networks.session import OnnxSession
from kpipe.structures.detections import Detections
from kpipe.utils.opencv import cv2
from kpipe.utils.resources import packaged

PROPOSALS = "models/proposals.onnx"

STRIDES = (8, 16)
"""Pixels from one cell to the next, of the detection network's two maps."""

NOMINAL_SIDES = (24.0, 48.0)
"""Sides [px] that predicted sizes are relative to, of the two maps: three cells of each."""

RANGE = (16.0, 64.0)
"""Sides [px] of the faces that one pass of the detection network detects."""

STRIDE, OCTAVE, NOMINAL_SIDE = 8, (16.0, 32.0), 22.6
"""The same of the smaller network of version 0.1, which has one map and whose scores only rank. Its
files still run; `kpipe train` no longer makes them."""

LEVEL_STEP = 2.0
"""Each level of the pyramid is smaller by this factor, so that most faces are in the range of two.
On 242 held-out photographs that finds .916 of the faces of 50 pixels at a precision of .97; with
levels four times smaller, which each face meets once, it finds .895."""

CERTAIN_ROLL, MIN_TURNED_SCORE = 0.7, 0.2
"""Length of the predicted (cosine, sine) of the roll below which quarter turns are tried too, if a
face is at least so probable. A network that wavers between two rolls predicts their mean, which is
short."""

QUARTER_TURNS = (0.0, 180.0, 90.0, -90.0)
"""Degrees added to a doubtful roll."""

PROBABLE_FACE_SCORE, PLACES_PER_FACE = 0.3, 3
"""A place at least so probable is taken for a face, and for each there may be so many more."""

MIN_FACE = 1 / 80
"""Default smallest face, as a share: see `min_face_pixels`. Faces in the back rows of a large group
are that small."""

USUAL_AREA = (RANGE[0] / MIN_FACE) ** 2
"""Pixels of the finest level, at most, where that is the smallest face."""

COMPARED = 200
"""Places that are compared at once."""

DEEPEST = 32
"""Sides of what the network gets are multiples of this [px]."""

BORDER = 16
"""Pixels around the picture: a face may be cut by its edge, or larger than it."""


class ProposalDetector:
    """Candidates from the proposal network on a pyramid of reduced pictures.

    Args:
        model: an ONNX file of `kpipe train --stage proposals`; without it the packaged one.
        min_face: side of the landmark box of the smallest face wanted: see `min_face_pixels`.
        min_score: least probability of a candidate.
        limit: most places in a picture, the most probable ones, besides `PLACES_PER_FACE` for each
            face that there probably is; more, where faces below `MIN_FACE` are wanted.
        threads: of the network; 0 for all cores.

    Raises:
        ModelError: the file cannot be used.
    """

    def __init__(
        self,
        model: Path | None = None,
        *,
        min_face: float = MIN_FACE,
        min_score: float = 0.02,
        limit: int = 40,
        threads: int = 0,
    ) -> None:
        self._session = OnnxSession(model or packaged(PROPOSALS), threads)
        kind = self._session.metadata.get("kpipe.network")
        if kind == "detection":
            self._maps = dict(zip(("fine", "coarse"), zip(STRIDES, NOMINAL_SIDES)))
        elif kind == "proposals":
            self._maps = {"maps": (STRIDE, NOMINAL_SIDE)}
        else:
            raise ModelError(f"{model}: an ONNX file, but not a detection network of kpipe's")
        self._states_scores = kind == "detection"
        self._largest = RANGE[1] if kind == "detection" else OCTAVE[1]
        self.min_face = min_face
        self.min_score = min_score
        self.limit = limit

    def __call__(self, gray: NDArray[np.uint8]) -> Detections:
        """Candidates in a gray picture (h, w)."""
        smallest = min_face_pixels(self.min_face, gray.shape)
        levels = list(_levels(gray, smallest / RANGE[0], self._largest))
        cells = [self._cells(level, factors) for level, factors in levels]
        places = _places(np.concatenate(cells, axis=1, dtype=np.float64))
        limit = self.limit * max(levels[0][0].size / USUAL_AREA, 1.0)
        found = _detections(_merged(places, round(limit)))
        return found if self._states_scores else Detections(found.boxes, found.rolls)

    def _cells(self, gray: NDArray[np.uint8], factors: tuple[float, float]) -> NDArray[np.floating]:
        """The probable cells of one level, of all maps.

        Returns:
            (12, n): the six channels there, column and row, stride and nominal side of the map, and
            the factors, across and down, by which the level is reduced.
        """
        height, width = gray.shape
        right, bottom = (-(side + 2 * BORDER) % DEEPEST for side in (width, height))
        framed = cv2.copyMakeBorder(
            gray, BORDER, BORDER + bottom, BORDER, BORDER + right, cv2.BORDER_REPLICATE
        )
        outputs = self._session.run([*self._maps], {"crops": framed[None, None]})
        parts = []
        for maps, (stride, nominal) in zip(outputs, self._maps.values()):
            rows, columns = np.nonzero(maps[0, 0] >= self.min_score)
            found = np.empty((12, len(rows)), np.float32)
            found[:6] = maps[0][:, rows, columns]
            found[6], found[7] = columns, rows
            found[8:] = np.reshape((stride, nominal, *factors), (4, 1))
            parts.append(found)
        return np.concatenate(parts, axis=1)


def _levels(
    gray: NDArray[np.uint8], reduction: float, largest: float
) -> Iterator[tuple[NDArray[np.uint8], tuple[float, float]]]:
    """The picture reduced by a factor and ever further, until a face that fills it is no
    larger than `largest` [px]; each with the exact factors, across and down.
    """
    level, (width, height) = _averaged(gray, int(reduction))
    while True:
        size = (max(round(width / reduction), 1), max(round(height / reduction), 1))
        if size != (level.shape[1], level.shape[0]):
            level = np.asarray(cv2.resize(level, size, interpolation=cv2.INTER_AREA), np.uint8)
        yield level, (width / size[0], height / size[1])
        if max(size) <= largest:
            return
        reduction *= LEVEL_STEP


def _places(cells: NDArray[np.floating]) -> NDArray[np.float64]:
    """(n, 6): x, y, side, roll, length of its vector, score; of cells (12, n), see `_cells`."""
    score, x, y, size, cosine, sine, columns, rows, stride, nominal, across, down = cells
    middle = stride / 2 - BORDER
    return np.column_stack(
        [
            ((columns + x) * stride + middle) * across - 0.5,
            ((rows + y) * stride + middle) * down - 0.5,
            nominal * np.exp(np.clip(size, -1.5, 1.5)) * (across + down) / 2,
            np.rad2deg(np.arctan2(sine, cosine)),
            np.hypot(cosine, sine),
            score,
        ]
    )


def _averaged(gray: NDArray[np.uint8], factor: int) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """The picture reduced by a whole factor, which is fast, and the part of it that this shows.

    Returns:
        The picture (h, w) and width and height, in pixels, of its part: all but a few at the edge.
    """
    height, width = gray.shape
    size = (width // max(factor, 1), height // max(factor, 1))
    if factor < 2 or min(size) < 1:
        return gray, (width, height)
    whole = (size[0] * factor, size[1] * factor)
    part = gray[: whole[1], : whole[0]]
    return np.asarray(cv2.resize(part, size, interpolation=cv2.INTER_AREA), np.uint8), whole


def _merged(places: NDArray[np.float64], limit: int) -> NDArray[np.float64]:
    """The most probable candidates, without those that say the same as a more probable one.

    How probable one must be depends on the picture: in one that is full of detail more is taken
    for a face than is one, and faces stand out from it all the same.
    """
    places = places[np.argsort(-places[:, 5], kind="stable")]
    kept = np.zeros((0, 6))
    # Most of the places are never reached.
    for start in range(0, len(places), COMPARED):
        part = places[start : start + COMPARED]
        said = np.any(_say_the_same(kept, part), axis=0)
        same = _say_the_same(part, part)
        fresh: list[int] = []
        for index, score in enumerate(part[:, 5]):
            if said[index]:
                continue
            limit += PLACES_PER_FACE if score >= PROBABLE_FACE_SCORE else 0
            if len(kept) + len(fresh) >= limit:
                return np.concatenate([kept, part[fresh]])
            fresh.append(index)
            said |= same[index]
        kept = np.concatenate([kept, part[fresh]])
    return kept


def _say_the_same(ones: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(n, m): which of m places, (m, 6), are so near to which of n that they are one face."""
    x, y, side = ones[:, :3].T.astype(np.float32)[..., None]
    other_x, other_y, other_side = others[:, :3].T.astype(np.float32)
    near = np.abs(other_x - x) < 0.3 * side
    near &= np.abs(other_y - y) < 0.3 * side
    near &= np.abs(np.log(other_side) - np.log(side)) < 0.4
    return np.asarray(near)


def _detections(places: NDArray[np.float64]) -> Detections:
    """Candidates; likely ones of doubtful roll in all four ways: the first look will tell."""
    doubtful = (places[:, 4] < CERTAIN_ROLL) & (places[:, 5] >= MIN_TURNED_SCORE)
    counts = np.where(doubtful, len(QUARTER_TURNS), 1)
    which = np.repeat(np.arange(len(places)), counts)
    way = np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts)
    rolls = (places[which, 3] + np.array(QUARTER_TURNS)[way] + 180) % 360 - 180
    centers, halves = places[which, :2], places[which, 2:3] / 2
    boxes = np.hstack([centers - halves, centers + halves])
    scores = places[which, 5]
    return Detections(*(a.astype(np.float32) for a in (boxes, rolls, scores)))
