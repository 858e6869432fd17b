"""One labelled face, whatever the format it came from."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kpipe.errors import DatasetError, ImageError
from kpipe.media.images import read_image
from kpipe.preprocessing.crops import to_gray


@dataclass(frozen=True)
class Sample:
    """One labelled face in a picture.

    Attributes:
        path: the picture.
        points: (68, 2) float32, pixels, centre of the top-left pixel at (0, 0).
        source: whose labels these are (`300w`, `ytf`, `wflw`): schemes differ by a pixel or so.
        group: pictures that must not be parted between training and validation share it (the
            person, or the photograph that several faces were cut from).
    """

    path: Path
    points: NDArray[np.float32]
    source: str
    group: str

    def read(self) -> NDArray[np.uint8]:
        """The gray picture (h, w).

        Raises:
            DatasetError: it cannot be read, or its labels lie far outside it.
        """
        try:
            gray = to_gray(read_image(self.path))
        except ImageError as error:
            raise DatasetError(str(error)) from None
        height, width = gray.shape
        reach = 0.5 * float(np.ptp(self.points, axis=0).max())
        beyond = max(-self.points.min(), *(self.points.max(axis=0) - (width, height)))
        if beyond > reach:
            raise DatasetError(
                f"{self.path}: a point lies {beyond:.0f} pixels outside the picture "
                f"({width} x {height})"
            )
        return gray


def photograph_of(stem: str) -> str:
    """The photograph that a file of 300-W was made from, as far as its name tells.

    `afw_12345_1` and `afw_12345_12` are two faces of one photograph, as are `helen_X_1` and
    `helen_X_2`; `_mirror` marks dlib's mirrored copies.
    """
    stem = stem.removesuffix("_mirror")
    return re.sub(r"_\d{1,2}$", "", stem) if stem.startswith(("afw", "helen")) else stem


def checked_points(values: object, where: str) -> NDArray[np.float32]:
    """(68, 2) float32 from nested lists of numbers.

    Raises:
        DatasetError: wrong count, not numbers, not finite, or all in one place.
    """
    try:
        points = np.array(values, np.float32).reshape(-1, 2)
    except (TypeError, ValueError):
        raise DatasetError(f"{where}: a coordinate is not a number") from None
    if len(points) != 68:
        raise DatasetError(f"{where}: {len(points)} points, 68 expected")
    if not np.isfinite(points).all():
        raise DatasetError(f"{where}: a coordinate is not finite")
    if np.ptp(points, axis=0).max() < 2:
        raise DatasetError(f"{where}: all points lie in one place")
    return points


def held_out(group: str, share: float) -> bool:
    """Whether a group belongs to the validation part: the same answer in every run."""
    digest = hashlib.sha256(group.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:4], "big") < share * 2**32
