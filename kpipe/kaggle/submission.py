"""`submission.csv`: one coordinate a row, as the lookup table asks and the sample orders them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kpipe.errors import KaggleError
from kpipe.kaggle.files import SIDE, Lookup
from kpipe.structures.schemes import KAGGLE15


def check(lookup: Lookup, ids: tuple[int, ...], sample: tuple[int, ...] | None) -> tuple[int, ...]:
    """The order of a submission's rows, as `RowId`s: the sample's, or else the lookup's.

    To be asked before anything is predicted: it tells whether the files belong together.

    Args:
        lookup: the points that are asked for.
        ids: `ImageId` of each picture of the test set.
        sample: `RowId`s of the sample submission, in its order.

    Raises:
        KaggleError: the lookup names a picture that is not there, or the sample other rows.
    """
    known = set(ids)
    for number, (row, image) in enumerate(zip(lookup.rows, lookup.images), 1):
        if image not in known:
            raise KaggleError(
                f"lookup table: row {number} (RowId {row}): ImageId {image} is not in the test set"
            )
    if sample is None:
        return lookup.rows
    asked = set(lookup.rows)
    for number, row in enumerate(sample, 1):
        if row not in asked:
            raise KaggleError(
                f"sample submission: row {number}: RowId {row} is not in the lookup table"
            )
    unasked = asked.difference(sample)
    if unasked:
        raise KaggleError(
            f"sample submission: {len(unasked)} rows of the lookup table are not in it, "
            f"such as RowId {min(unasked)}"
        )
    return sample


def asked_points(lookup: Lookup, ids: tuple[int, ...]) -> NDArray[np.bool_]:
    """(n, 15) of which points of each picture of the test set a coordinate is asked for."""
    place = {number: index for index, number in enumerate(ids)}
    asked = np.zeros((len(ids), len(KAGGLE15)), bool)
    asked[[place[image] for image in lookup.images], np.array(lookup.columns) // 2] = True
    return asked


def submission_csv(
    points: NDArray[np.float32], ids: tuple[int, ...], lookup: Lookup, order: tuple[int, ...]
) -> str:
    """The text of a submission, every value within 0-96.

    Args:
        points: (n, 15, 2), pixels, of the test set's pictures.
        ids: their `ImageId`s.
        lookup: which coordinates are asked for.
        order: of `check`.
    """
    place = {number: index for index, number in enumerate(ids)}
    values = np.clip(points.reshape(-1, 2 * len(KAGGLE15)), 0, SIDE)
    location = {
        row: values[place[image], column]
        for row, image, column in zip(lookup.rows, lookup.images, lookup.columns)
    }
    rows = (f"{row},{location[row]:.4f}" for row in order)
    return "\n".join(("RowId,Location", *rows)) + "\n"
