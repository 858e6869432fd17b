"""Labeled faces of the formats that face data sets are published in, one module a format."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from kpipe.datasets import coco, dlib, pts, wflw, ytf
from kpipe.datasets.samples import Sample, held_out
from kpipe.errors import DatasetError, reason_of
from kpipe.utils.files import display_name

__all__ = ["DatasetError", "Sample", "held_out", "read_samples"]


def read_samples(data: Path, on_bad: Callable[[DatasetError], None] | None = None) -> list[Sample]:
    """The labeled faces of a data set.

    Args:
        data: a folder of pictures and `.pts` files, a YouTube Faces keypoint CSV, dlib's XML,
            WFLW's text or COCO's JSON; or a folder that holds such folders and CSVs.
        on_bad: called with the error of each face that cannot be used, which is then left out.

    Raises:
        DatasetError: the data set cannot be read or has no usable face; or, without `on_bad`, a
            face cannot be used.
    """
    samples = []
    try:
        for load in _loaders(data):
            try:
                samples.append(load())
            except DatasetError as error:
                if on_bad is None:
                    raise
                on_bad(error)
    except OSError as error:  # a folder that must not be read, a name that is too long
        raise DatasetError(f"{display_name(error.filename or data)}: {reason_of(error)}") from None
    if not samples:
        raise DatasetError(f"{display_name(data)}: no usable face in it")
    return samples


def _loaders(data: Path) -> Iterator[Callable[[], Sample]]:
    """One function a face, which returns its sample or raises the face's own DatasetError."""
    if not data.exists():
        raise DatasetError(f"{display_name(data)}: no such file or folder")
    if data.is_file():
        yield from _loaders_of_file(data)
        return
    if pts.is_pts_folder(data):
        for picture in pts.pictures_in(data):
            yield partial(pts.sample_of, picture)
        return
    tables = sorted(data.glob("*.csv"))
    folders = sorted(f for f in data.iterdir() if f.is_dir() and pts.is_pts_folder(f))
    if not tables and not folders:
        raise DatasetError(f"{display_name(data)}: no .pts files and no keypoint CSV in it")
    for part in (*folders, *tables):
        yield from _loaders(part)


def _loaders_of_file(table: Path) -> Iterator[Callable[[], Sample]]:
    suffix = table.suffix.lower()
    if suffix == ".csv":
        for line, row in ytf.rows(table):
            yield partial(ytf.sample_of, table, line, row)
    elif suffix == ".xml":
        for picture, box in dlib.boxes(table):
            yield partial(dlib.sample_of, table, picture, box)
    elif suffix == ".txt":
        for line, words in wflw.lines(table):
            yield partial(wflw.sample_of, table, line, words)
    elif suffix == ".json":
        for name, annotation in coco.faces(table):
            yield partial(coco.sample_of, table, name, annotation)
    else:
        raise DatasetError(
            f"{display_name(table)}: not a format of labeled faces (.csv, .xml, .txt, .json)"
        )
