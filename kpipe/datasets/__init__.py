"""Labelled faces from the formats that their users have, one module a format."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from kpipe.datasets import coco, dlib, pts, wflw, ytf
from kpipe.datasets.samples import Sample, held_out
from kpipe.errors import DatasetError

__all__ = ["DatasetError", "Sample", "held_out", "read_samples"]


def read_samples(data: Path, on_bad: Callable[[DatasetError], None] | None = None) -> list[Sample]:
    """The labelled faces of a data set.

    Args:
        data: a folder of pictures and `.pts` files, a YouTube Faces keypoint CSV, dlib's XML,
            WFLW's text or COCO's JSON; or a folder that holds such folders and CSVs.
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
        yield from _faces_of_table(data)
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


def _faces_of_table(table: Path) -> Iterator[Callable[[], Sample]]:
    if ytf.is_ytf_csv(table):
        for line, row in ytf.rows(table):
            yield partial(ytf.sample_of, table, line, row)
    elif dlib.is_dlib_xml(table):
        for picture, box in dlib.boxes(table):
            yield partial(dlib.sample_of, table, picture, box)
    elif wflw.is_wflw_text(table):
        for line, words in wflw.lines(table):
            yield partial(wflw.sample_of, table, line, words)
    elif coco.is_coco(table):
        for name, record in coco.faces(table):
            yield partial(coco.sample_of, table, name, record)
    else:
        raise DatasetError(
            f"{table}: not a format of labelled faces known here (csv, xml, txt, json)"
        )
