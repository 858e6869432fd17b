"""Motion of a face, or of the camera, from one frame to the next, measured in the frames.

The network predicts the points anew in every frame, to a share of its sigma. The motion since the
last frame can be measured more exactly in the face's texture: by sparse optical flow over the face
(Lucas and Kanade, IJCAI 1981, on pyramids) and the affine map that fits most of it.
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
"""Places along each side of the face's box at which the flow is measured."""

WINDOW = 11
LEVELS = 2
"""Side of the window that is matched (pixels), and levels of the image pyramid above the crop: the
flow may be several windows long."""

MIN_AGREEING = 0.5
"""Share of the places that must move together; below it the motion is unknown."""

MAX_RESIDUAL = 2.0
"""Largest distance of a place from the common motion, of those that move together (crop pixels)."""


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
    if seen.sum() < MIN_AGREEING * len(places):
        return None
    inside, off = _affine(places[seen].astype(np.float64), moved[seen, 0].astype(np.float64))
    if (off < MAX_RESIDUAL).sum() < MIN_AGREEING * len(places):
        return None
    # From the first frame's pixels into the crop, the motion there, and back out.
    full = [np.vstack([m, [0, 0, 1]]) for m in (invert(matrix), inside, matrix)]
    return np.asarray((full[0] @ full[1] @ full[2])[:2])


def _affine(
    places: NDArray[np.float64], moved: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The affine map (2x3) that most places follow, and the distance of each (n,) from it.

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
"""Longer side of the copies of two frames that the camera's motion is measured in (pixels)."""

MAX_SHIFT_RESIDUE = 0.7
"""Share of the difference of two frames that a shift may leave, compared with standing still.
Something that comes into the picture, or leaves it, also looks like a shift."""

MAX_RESIDUE = 0.7
"""Largest difference left, as a share of the picture's own contrast, of a motion that counts."""


def camera_motion(
    before: NDArray[np.uint8], after: NDArray[np.uint8]
) -> NDArray[np.float64] | None:
    """The 2x3 matrix, a shift, that carries most of one frame to the next, to a pixel or two.

    Phase correlation (Kuglin and Hines, 1975) of small copies measures shifts of any length, also
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
    if shifted > MAX_SHIFT_RESIDUE * still:
        x, y, shifted = 0.0, 0.0, still
    if shifted > MAX_RESIDUE * float(np.abs(b - b.mean()).mean()) + 1:
        return None
    return np.array([[1, 0, x * width / size[0]], [0, 1, y * height / size[1]]])


def _difference(a: NDArray[np.float32], b: NDArray[np.float32], x: int, y: int) -> float:
    """Mean difference of a, shifted by whole pixels, from b, where they overlap."""
    height, width = a.shape
    moved = a[max(-y, 0) : height - max(y, 0), max(-x, 0) : width - max(x, 0)]
    there = b[max(y, 0) : height - max(-y, 0), max(x, 0) : width - max(-x, 0)]
    return float(np.abs(moved - there).mean()) if moved.size else np.inf
