"""The YouTube Faces keypoint CSV: the file name, then x0,y0 … x67,y67, 0-based."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path

from kpipe.datasets.samples import Sample, checked_points
from kpipe.errors import DatasetError

SUFFIX = "_frames_keypoints.csv"


def is_ytf_csv(path: Path) -> bool:
    return path.suffix.lower() == ".csv"


def picture_folder(table: Path) -> Path:
    """Where the frames of `NAME_frames_keypoints.csv` lie: the folder NAME beside it."""
    folder = table.with_name(table.name.removesuffix(SUFFIX))
    return folder if table.name.endswith(SUFFIX) and folder.is_dir() else table.parent


def rows(table: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows of a CSV with their line numbers, the header left out."""
    try:
        with table.open(newline="", encoding="utf-8") as file:
            reader = csv.reader(file)
            next(reader, None)
            for row in reader:
                yield reader.line_num, row
    except OSError as error:
        raise DatasetError(f"{table}: {error.strerror or error}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{table}: not a CSV file ({error})") from None


def sample_of(table: Path, line: int, row: list[str]) -> Sample:
    """The labelled face of one row."""
    where = f"{table}, line {line}"
    if len(row) != 1 + 2 * 68:
        raise DatasetError(f"{where}: {len(row)} columns, 137 expected")
    points = checked_points(row[1:], where)
    picture = picture_folder(table) / row[0]
    if not picture.exists():
        raise DatasetError(f"{where}: no picture {picture}")
    # George_W_Bush_42.jpg: the person is what must not be parted.
    return Sample(picture, points, "ytf", re.sub(r"_\d+$", "", Path(row[0]).stem))
