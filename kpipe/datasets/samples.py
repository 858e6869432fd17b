"""One labeled face, of whatever format, and the checks that all formats share."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kpipe.errors import DatasetError, FormatError, ImageError
from kpipe.media.images import read_image
from kpipe.preprocessing.crops import to_gray
from kpipe.utils.files import display_name

MAX_COORDINATE = 1e6
"""Pixels, absolute value: beyond the side of any picture that can be read."""


@dataclass(frozen=True)
class Sample:
    """One labeled face in a picture.

    Attributes:
        path: the picture.
        points: (68, 2) float32, pixels, the center of the top-left pixel at (0, 0).
        source: whose labels they are (`300w`, `ytf`, `wflw`); the same point differs by about a
            pixel between them.
        group: the person, or the photograph that several faces were cut from. All samples of a
            group go to training or all to validation.
    """

    path: Path
    points: NDArray[np.float32]
    source: str
    group: str

    def read(self) -> NDArray[np.uint8]:
        """The picture in gray, (h, w) uint8.

        Raises:
            DatasetError: the picture cannot be read, or a point lies more than half the face's size
                outside it.
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
                f"{display_name(self.path)}: a point lies {beyond:.0f} pixels outside the picture "
                f"({width} x {height})"
            )
        return gray


def photograph_of(stem: str) -> str:
    """The photograph that a file of 300-W was cut from, by the file's name without its ending.

    `afw_12345_1` and `afw_12345_12` are two faces of one photograph, as are `helen_X_1` and
    `helen_X_2`; `_mirror` marks dlib's mirrored copies.
    """
    stem = stem.removesuffix("_mirror")
    return re.sub(r"_\d{1,2}$", "", stem) if stem.startswith(("afw", "helen")) else stem


def checked_points(values: object, where: str) -> NDArray[np.float32]:
    """(68, 2) float32 of values x, y, x, y …, nested or not, numbers or text.

    Args:
        values: in pixels.
        where: file and line or picture, for the message.

    Raises:
        DatasetError: they are not 68 pairs of finite numbers, lie beyond `MAX_COORDINATE`, or
            within two pixels.
    """
    try:
        with np.errstate(over="ignore"):
            points = np.array(values, np.float32).reshape(-1, 2)
    except (TypeError, ValueError, OverflowError):
        raise DatasetError(f"{where}: a coordinate is not a number") from None
    if len(points) != 68:
        raise DatasetError(f"{where}: {len(points)} points, 68 expected")
    if not np.isfinite(points).all():
        raise DatasetError(f"{where}: a coordinate is not finite")
    if np.abs(points).max() > MAX_COORDINATE:
        raise DatasetError(f"{where}: a coordinate is farther out than any picture is wide")
    if np.ptp(points, axis=0).max() < 2:
        raise DatasetError(f"{where}: all points lie in one place")
    return points


def held_out(group: str, share: float) -> bool:
    """Whether a group belongs to the validation part: by a hash of its name, in every run the same.

    Args:
        group: of `Sample.group`.
        share: of the groups that are held out, 0 to 1.
    """
    digest = hashlib.sha256(group.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:4], "big") < share * 2**32


@contextmanager
def format_errors(where: str | None = None) -> Iterator[None]:
    """Turns the FormatError of a parser into a DatasetError.

    Args:
        where: file and picture, if the parser's message does not name them.
    """
    try:
        yield
    except FormatError as error:
        raise DatasetError(str(error) if where is None else f"{where}: {error}") from None
