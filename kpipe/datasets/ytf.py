"""The YouTube Faces keypoint CSV: the picture's name, then x0, y0 … x67, y67 (pixels, from 0).

Wolf et al., "Face Recognition in Unconstrained Videos with Matched Background Similarity" (CVPR
2011): the frames are from its videos.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from kpipe.datasets.samples import Sample, checked_points, format_errors
from kpipe.errors import DatasetError
from kpipe.formats.records import reading
from kpipe.utils.files import display_name
from kpipe.utils.limits import csv_rows
from kpipe.utils.paths import is_file

SUFFIX = "_frames_keypoints.csv"


def picture_folder(table: Path) -> Path:
    """The folder of the frames: NAME beside `NAME_frames_keypoints.csv`, or the CSV's own."""
    folder = table.with_name(table.name.removesuffix(SUFFIX))
    return folder if table.name.endswith(SUFFIX) and folder.is_dir() else table.parent


def rows(table: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows of the CSV with their line numbers, without the header.

    Raises:
        DatasetError: the file cannot be read, or is not CSV.
    """
    with format_errors(), reading(table, "rb") as file:
        text = io.TextIOWrapper(file, "utf-8", newline="")
        yield from islice(csv_rows(text, display_name(table)), 1, None)


def sample_of(table: Path, line: int, row: list[str]) -> Sample:
    """The sample of one row; its group is the person, George_W_Bush of George_W_Bush_42.jpg.

    Raises:
        DatasetError: the row does not hold 68 points, or there is no picture.
    """
    where = f"{display_name(table)}, line {line}"
    if len(row) != 1 + 2 * 68:
        raise DatasetError(f"{where}: {len(row)} columns, 137 expected")
    points = checked_points(row[1:], where)
    picture = picture_folder(table) / row[0]
    if not is_file(picture):
        raise DatasetError(f"{where}: no picture {display_name(picture)}")
    return Sample(picture, points, "ytf", re.sub(r"_\d+$", "", Path(row[0]).stem))
