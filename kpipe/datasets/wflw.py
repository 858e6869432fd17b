"""WFLW's text lists: 98 points, the face's box, six attributes and the picture's name on a line.

Wu et al., "Look at Boundary" (CVPR 2018). Pixels are counted from 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from kpipe.datasets.samples import Sample, checked_points, format_errors
from kpipe.errors import DatasetError
from kpipe.formats.records import reading
from kpipe.utils.files import display_name
from kpipe.utils.limits import bounded_lines
from kpipe.utils.paths import is_file

COLUMNS = 98 * 2 + 4 + 6 + 1

TO_IBUG68 = (
    *range(0, 33, 2),
    *range(33, 38),
    *range(42, 47),
    *range(51, 60),
    *(60, 61, 63, 64, 65, 67),
    *(68, 69, 71, 72, 73, 75),
    *range(76, 96),
)
"""Indices of the 68 points among the 98 that mean the same: every second point of the jaw, the
upper edge of the brows, the eyelids without their middles.
"""


def lines(table: Path) -> Iterator[tuple[int, list[str]]]:
    """The words of each line that is not empty, with the line's number from 1.

    Raises:
        DatasetError: the file cannot be read.
    """
    name = display_name(table)
    try:
        with format_errors(), reading(table, "rb") as file:
            for number, line in enumerate(bounded_lines(file, name), 1):
                if words := line.decode().split():
                    yield number, words
    except UnicodeDecodeError:
        raise DatasetError(f"{name}: not a text file") from None


def picture_of(table: Path, name: str) -> Path:
    """The picture of this name: beside the list, or in `WFLW_images` there or up to three folders
    higher.

    Raises:
        DatasetError: it is in none of these.
    """
    folders = [table.parent, *(p / "WFLW_images" for p in (table.parent, *table.parents[1:4]))]
    for folder in folders:
        if is_file(folder / name):
            return folder / name
    raise DatasetError(
        f"{display_name(table)}: no picture {display_name(name)} beside it or in a folder "
        "WFLW_images"
    )


def sample_of(table: Path, number: int, words: list[str]) -> Sample:
    """The sample of one line.

    Raises:
        DatasetError: the line is not one of WFLW's, or there is no picture.
    """
    where = f"{display_name(table)}, line {number}"
    if len(words) != COLUMNS:
        raise DatasetError(f"{where}: {len(words)} columns, {COLUMNS} expected")
    try:
        points = np.array(words[: 98 * 2], np.float64).reshape(98, 2)
    except ValueError:
        raise DatasetError(f"{where}: a coordinate is not a number") from None
    path = picture_of(table, words[-1])
    return Sample(path, checked_points(points[list(TO_IBUG68)], where), "wflw", path.stem)
