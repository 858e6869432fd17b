"""How a face moved from one frame to the next, measured in the frames themselves.

The network says where the points are, to a share of its sigma, anew in every frame. How far the
face has moved since the last frame shows more exactly in its texture: sparse optical flow (Lucas
and Kanade, IJCAI 1981, on pyramids) over the face, and the affine map that fits most of it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kpipe.preprocessing.affine import crop_transform, invert
from kpipe.preprocessing.boxes import landmark_box
from kpipe.preprocessing.crops import warp
from kpipe.utils.opencv import cv2

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
    matrix = crop_transform(landmark_box(points), size=SIDE, margin=MARGIN)
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

BETTER = 0.7
"""A shift must leave so much less of the difference between two frames than standing still does:
something that comes or goes in the picture also looks like a shift."""

EXPLAINED = 0.7
"""Difference that may be left, as a share of the picture's own contrast."""


def camera_motion(
    before: NDArray[np.uint8], after: NDArray[np.uint8]
) -> NDArray[np.float64] | None:
    """The 2x3 matrix, a shift, that carries most of one frame to the next, to a pixel or two.

    Phase correlation (Kuglin and Hines, 1975) of small copies: it sees shifts of any length, as
    where a camera is swung round.

    Args:
        before, after: gray frames (h, w) of one size.

    Returns:
        None where neither a shift nor standing still explains the two.
    """
    height, width = before.shape
    shrink = max(height, width) / THUMBNAIL
    size = (max(round(width / shrink), 8), max(round(height / shrink), 8))
    a, b = (
        np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), np.float32)
        for frame in (before, after)
    )
    # It windows the pictures in place: on copies.
    window = cv2.createHanningWindow(size, cv2.CV_32F)
    (x, y), _ = cv2.phaseCorrelate(a.copy(), b.copy(), window)
    still, shifted = _difference(a, b, 0, 0), _difference(a, b, round(x), round(y))
    if shifted > BETTER * still:
        x, y, shifted = 0.0, 0.0, still
    if shifted > EXPLAINED * float(np.abs(b - b.mean()).mean()) + 1:
        return None
    return np.array([[1, 0, x * width / size[0]], [0, 1, y * height / size[1]]])


def _difference(a: NDArray[np.float32], b: NDArray[np.float32], x: int, y: int) -> float:
    """Mean difference of a, shifted by whole pixels, from b, where they overlap."""
    height, width = a.shape
    moved = a[max(-y, 0) : height - max(y, 0), max(-x, 0) : width - max(x, 0)]
    there = b[max(y, 0) : height - max(-y, 0), max(x, 0) : width - max(-x, 0)]
    return float(np.abs(moved - there).mean()) if moved.size else np.inf
