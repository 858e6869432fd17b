"""Aligned chips: faces cut out upright and always at the same place."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kpipe.measures.pose import mean_face
from kpipe.preprocessing.crops import warp


def aligned_chip(
    image: NDArray[np.uint8], points: NDArray[np.floating], side: int = 160
) -> NDArray[np.uint8]:
    """A face cut out upright and always at the same place, as networks that compare faces want it.

    Args:
        image: (h, w) or (h, w, 3) uint8.
        points: (68, 2) of the face in it, pixels.
        side: of the result, pixels.

    Returns:
        (side, side) or (side, side, 3) uint8: turned, scaled and shifted so that the points lie as
        nearly as can be (least squares) on the mean face, whose outer eye corners are 0.45 sides
        apart.
    """
    seen = np.asarray(points, np.float64) @ (1, 1j)
    wanted = mean_face()[:, :2] @ (1, 1j)
    seen_center, wanted_center = seen.mean(), wanted.mean()
    turn = np.vdot(seen - seen_center, wanted - wanted_center)
    turn *= 0.45 * side / np.vdot(seen - seen_center, seen - seen_center).real
    offset = (side - 1) / 2 * (1 + 1j) - turn * seen_center
    matrix = np.array([[turn.real, -turn.imag, offset.real], [turn.imag, turn.real, offset.imag]])
    return warp(image, matrix, side)
