"""Labelled faces from the formats that their users have, one module a format."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from kpipe.datasets import pts, ytf_csv
from kpipe.datasets.samples import DatasetError, Sample, held_out

__all__ = ["DatasetError", "Sample", "held_out", "read_samples"]


def read_samples(data: Path, on_bad: Callable[[DatasetError], None] | None = None) -> list[Sample]:
    """The labelled faces of a folder of `.pts` files or of a YouTube Faces CSV.

    Args:
        data: a folder with pictures and `.pts` files, a `*_frames_keypoints.csv`, or a folder that
            holds such folders and tables.
        on_bad: called with each face that cannot be used, which is then left out.

    Raises:
        DatasetError: nothing usable there; or, without `on_bad`, the first unusable face.
    """
    samples = []
    for load in _faces(data):
        try:
            samples.append(load())
        except DatasetError as error:
            if on_bad is None:
                raise
            on_bad(error)
    if not samples:
        raise DatasetError(f"{data}: no usable face in it")
    return samples


def _faces(data: Path) -> Iterator[Callable[[], Sample]]:
    if not data.exists():
        raise DatasetError(f"{data}: no such file or folder")
    if data.is_file():
        if data.suffix.lower() != ".csv":
            raise DatasetError(f"{data}: neither a folder of .pts files nor a keypoint CSV")
        for line, row in ytf_csv.rows(data):
            yield partial(ytf_csv.sample_of, data, line, row)
        return
    if pts.is_pts_folder(data):
        for picture in pts.pictures_in(data):
            yield partial(pts.sample_of, picture)
        return
    tables = sorted(data.glob("*.csv"))
    folders = sorted(f for f in data.iterdir() if f.is_dir() and pts.is_pts_folder(f))
    if not tables and not folders:
        raise DatasetError(f"{data}: no .pts files and no keypoint CSV in it")
    for part in (*folders, *tables):
        yield from _faces(part)
