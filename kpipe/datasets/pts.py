"""Folders of `NAME.jpg` beside `NAME.pts`, as the iBUG group publishes 300-W and its parts."""

from __future__ import annotations

import re
from pathlib import Path

from kpipe.datasets.samples import Sample, checked_points, photograph_of
from kpipe.errors import DatasetError

PICTURES = (".jpg", ".jpeg", ".png", ".bmp")


def read_pts(path: Path) -> list[list[float]]:
    """The points of a `.pts` file, 0-based (the file counts pixels from 1).

    Raises:
        DatasetError: it is not a `.pts` file, or not of as many points as it says.
    """
    try:
        text = path.read_text("ascii")
    except OSError as error:
        raise DatasetError(f"{path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise DatasetError(f"{path}: not a text file") from None
    match = re.search(r"n_points\s*:\s*(\d+)\s*\{([^}]*)\}", text)
    if match is None:
        raise DatasetError(f"{path}: no 'n_points: N {{ … }}' in it")
    try:
        points = [[float(v) - 1 for v in line.split()] for line in match[2].strip().splitlines()]
    except ValueError:
        raise DatasetError(f"{path}: a coordinate is not a number") from None
    if any(len(point) != 2 for point in points):
        raise DatasetError(f"{path}: a line without exactly two numbers")
    if len(points) != int(match[1]):
        raise DatasetError(f"{path}: {len(points)} points, its header says {match[1]}")
    return points


def is_pts_folder(folder: Path) -> bool:
    return next(folder.glob("*.pts"), None) is not None


def sample_of(picture: Path) -> Sample:
    """The labelled face of one picture with its `.pts` beside it."""
    labels = picture.with_suffix(".pts")
    if not labels.exists():
        raise DatasetError(f"{picture}: no {labels.name} beside it")
    points = checked_points(read_pts(labels), str(labels))
    return Sample(picture, points, "300w", photograph_of(picture.stem))


def pictures_in(folder: Path) -> list[Path]:
    """The pictures of a folder, and a placeholder for every `.pts` that has none."""
    pictures = {p.stem: p for p in sorted(folder.iterdir()) if p.suffix.lower() in PICTURES}
    for labels in folder.glob("*.pts"):
        pictures.setdefault(labels.stem, labels.with_suffix(".jpg"))
    return [pictures[stem] for stem in sorted(pictures)]
