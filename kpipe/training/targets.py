"""What the detection network is to predict in each cell of its maps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kpipe.training.detection_network import NOMINAL_SIDES, STRIDES

SCENE = 256
"""Side of a training scene [px]."""

SIDES = ((11.0, 42.0), (30.0, 100.0))
"""Least and greatest side [px] of the faces that each map learns to detect."""


def targets(
    places: NDArray[np.float32], counted: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What the network is to predict of a scene, at strides 8 and 16.

    Args:
        places: (n, 4) x, y and side [px] of the landmark square of each face, and its roll
            (degrees; NaN if unknown).
        counted: (n,) whether the face is learned; the cells of the others count neither way.

    Returns:
        (9, 32, 32) and (9, 16, 16), as `detection_losses` takes them.
    """
    fine, coarse = (
        _marked(places, counted, stride, nominal, sides)
        for stride, nominal, sides in zip(STRIDES, NOMINAL_SIDES, SIDES)
    )
    return fine, coarse


def _marked(
    places: NDArray[np.float32],
    counted: NDArray[np.bool_],
    stride: int,
    nominal: float,
    sides: tuple[float, float],
) -> NDArray[np.float32]:
    count = SCENE // stride
    result = np.zeros((9, count, count), np.float32)
    result[6] = 1
    centers = np.arange(count) * stride + (stride - 1) / 2
    nearest = np.full((count, count), np.inf)
    low, high = sides
    for (x, y, side, roll), counts in zip(places.astype(np.float64), counted):
        across, down = (x - centers) / stride, (y - centers) / stride
        away = np.maximum(np.abs(across)[None], np.abs(down)[:, None])
        if not counts:
            if side < 1.3 * high:
                result[6][(away * stride <= max(0.6 * side, 0.5 * stride)) & (nearest > 1)] = 0
            continue
        if not low / 1.35 <= side <= high * 1.35:
            continue
        reach = max(0.8, 0.22 * side / stride)
        ring = (away <= reach + 0.6) & (nearest > 1)
        if not low <= side <= high:
            result[6][ring] = 0
            continue
        result[6][ring] = 0
        hit = (away <= reach) & (away / reach < nearest)
        nearest[hit] = (away / reach)[hit]
        known = not np.isnan(roll)
        angle = np.deg2rad(roll) if known else 0.0
        size = np.log(side / nominal)
        for channel, value in (
            (0, 1), (3, size), (4, np.cos(angle)), (5, np.sin(angle)), (6, 1), (7, 1), (8, known)
        ):  # fmt: skip
            result[channel][hit] = value
        result[1][hit] = np.broadcast_to(across[None], hit.shape)[hit]
        result[2][hit] = np.broadcast_to(down[:, None], hit.shape)[hit]
    return result
