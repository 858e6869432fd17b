"""How a face moved from one frame to the next, measured in the frames themselves.

The network says where the points are, to a share of its sigma, anew in every frame. How far the
face has moved since the last frame shows more exactly in its texture: sparse optical flow (Lucas
and Kanade, IJCAI 1981, on pyramids) over the face, and the affine map that fits most of it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kpipe.opencv import cv2
from kpipe.preprocessor import crop_transform, face_box, invert, warp

SIDE = 112
"""Side of the crop that the flow is measured in, pixels."""

MARGIN = 1.6
"""Side of that crop over the side of the face's box: room to move in."""

GRID = 10
"""Places a side of the face's box whose flow is measured."""

WINDOW = 11
LEVELS = 2
"""Of the pyramid above the crop: the flow may be several windows long."""

LEAST = 0.5
"""Share of the places that must have moved together, or nothing is known."""

TOGETHER = 2.0
"""Pixels of the crop that a place may be off the common motion."""


def face_motion(
    before: NDArray[np.uint8], after: NDArray[np.uint8], points: NDArray[np.floating]
) -> NDArray[np.float64] | None:
    """The 2x3 matrix that carries a face's points from one frame to the next.

    Args:
        before, after: gray frames (h, w) of one size.
        points: (n, 2) of the face in the first of them.

    Returns:
        None where the flow has no common motion: the face is gone, blurred or somewhere else.
    """
    matrix = crop_transform(face_box(points), size=SIDE, margin=MARGIN)
    inner = SIDE / MARGIN
    line = (SIDE - inner) / 2 + (np.arange(GRID) + 0.5) / GRID * inner
    places = np.stack(np.meshgrid(line, line), -1).reshape(-1, 2).astype(np.float32)
    moved, found, _ = cv2.calcOpticalFlowPyrLK(
        warp(before, matrix, SIDE),
        warp(after, matrix, SIDE),
        places[:, None],
        np.empty(0, np.float32),
        winSize=(WINDOW, WINDOW),
        maxLevel=LEVELS,
        criteria=(cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 10, 0.02),
    )
    seen = found[:, 0] > 0
    if seen.sum() < LEAST * len(places):
        return None
    inside, off = _affine(places[seen].astype(np.float64), moved[seen, 0].astype(np.float64))
    if (off < TOGETHER).sum() < LEAST * len(places):
        return None
    # From the first frame's pixels into the crop, the motion there, and back out.
    full = [np.vstack([m, [0, 0, 1]]) for m in (invert(matrix), inside, matrix)]
    return np.asarray((full[0] @ full[1] @ full[2])[:2])


def _affine(
    places: NDArray[np.float64], moved: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The affine map (2x3) of most places, and how far each is off it.

    Least squares, weighted anew three times by Cauchy's weights: a hand, or the background beside
    the face, does not pull.
    """
    terms = np.column_stack([places, np.ones(len(places))])
    weights = np.ones(len(places))
    for _ in range(3):
        weighted = terms * weights[:, None]
        map_ = np.linalg.solve(weighted.T @ terms + 1e-9 * np.eye(3), weighted.T @ moved)
        off = np.linalg.norm(terms @ map_ - moved, axis=1)
        spread = 1.4826 * np.median(off) + 1e-3
        weights = 1 / (1 + (off / (2 * spread)) ** 2)
    return map_.T, off


THUMBNAIL = 160
"""Longer side of the copy of a frame in which the camera's motion is looked for, pixels."""

CLEAR = 0.1
"""Least response of the phase correlation."""


def camera_motion(
    before: NDArray[np.uint8], after: NDArray[np.uint8]
) -> NDArray[np.float64] | None:
    """The 2x3 matrix, a shift, that carries most of one frame to the next, to a pixel or two.

    Phase correlation (Kuglin and Hines, 1975) of small copies: it sees shifts of any length, as
    where a camera is swung round.

    Args:
        before, after: gray frames (h, w) of one size.

    Returns:
        None where no shift explains the two.
    """
    height, width = before.shape
    shrink = max(height, width) / THUMBNAIL
    size = (max(round(width / shrink), 8), max(round(height / shrink), 8))
    small = [
        np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), np.float32)
        for frame in (before, after)
    ]
    window = cv2.createHanningWindow(size, cv2.CV_32F)
    (x, y), response = cv2.phaseCorrelate(small[0], small[1], window)
    if response < CLEAR:
        return None
    return np.array([[1, 0, x * width / size[0]], [0, 1, y * height / size[1]]])
