"""Boxes of faces that another program detected: COCO's JSON, or CSV with one line a box.

This module stands above the formats: it reads COCO through `kpipe.formats.coco`.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kpipe.errors import BoxesError, FormatError
from kpipe.formats import coco
from kpipe.formats.csv import unguarded
from kpipe.formats.records import MAX_NUMBER, is_text, reading
from kpipe.utils.files import display_name
from kpipe.utils.limits import BOXES, RECORDS, csv_rows

COLUMNS = ("image", "x0", "y0", "x1", "y1")
"""The columns that a CSV must have; others are ignored."""


def read_boxes(path: Path) -> dict[str, NDArray[np.float64]]:
    """The boxes of each picture, by the picture's name in the file.

    Args:
        path: COCO's JSON (`.json`: `images`, `annotations` with `bbox`), or CSV whose header has
            `COLUMNS`. A line without coordinates is a picture without a face.

    Returns:
        (n, 4) float64 x0, y0, x1, y1 (pixels) of each picture.

    Raises:
        BoxesError: the file cannot be read, or a box is not one.
    """
    boxes: dict[str, list[list[float]]] = {}
    count = 0
    try:
        for row in _coco_rows(path) if path.suffix.lower() == ".json" else _csv_rows(path):
            RECORDS.check(count := count + 1, display_name(path))
            each = boxes.setdefault(row.image, [])
            if row.box is None:
                continue
            x0, y0, x1, y1 = row.box
            # The comparison is false for NaN.
            within = all(abs(value) <= MAX_NUMBER for value in row.box)
            if not (within and x1 > x0 and y1 > y0):
                where = f"{display_name(path)}, {row.where}"
                raise BoxesError(f"{where}: not a box with x0 < x1 and y0 < y1")
            each.append(row.box)
    except FormatError as error:
        raise BoxesError(str(error)) from None
    return {name: np.array(each, np.float64).reshape(-1, 4) for name, each in boxes.items()}


class GivenBoxes:
    """Boxes by photograph, whether its path is written relative or absolute, here or in the file.

    Args:
        boxes: as `read_boxes` returns them.
    """

    def __init__(self, boxes: Mapping[str, NDArray[np.float64]]) -> None:
        self._boxes = boxes
        self._names: dict[str, list[str]] = {}
        for name in boxes:
            self._names.setdefault(Path(name).name, []).append(name)

    def of(self, photo: str) -> NDArray[np.float64] | None:
        """The boxes of the picture that shares most of a photograph's path, from its end.

        Returns:
            (n, 4) float64, or None if no picture in the file has the photograph's file name.

        Raises:
            BoxesError: several pictures share equally much, or the picture has more boxes than the
                limit: each takes time.
        """
        shared = {
            name: _shared_parts(Path(name), Path(photo))
            for name in self._names.get(Path(photo).name, ())
        }
        if not shared:
            return None
        most = max(shared.values())
        first, *others = (name for name, count in shared.items() if count == most)
        if others:
            raise BoxesError(
                f"{display_name(photo)}: may be {display_name(first)} or "
                f"{display_name(others[0])} in the file of boxes"
            )
        try:
            BOXES.check(len(self._boxes[first]), display_name(photo))
        except FormatError as error:
            raise BoxesError(str(error)) from None
        return self._boxes[first]


def _shared_parts(a: Path, b: Path) -> int:
    """The number of equal parts of two paths, counted from their ends."""
    count = 0
    for one, other in zip(reversed(a.parts), reversed(b.parts)):
        if one != other:
            break
        count += 1
    return count


class _Row(NamedTuple):
    """A line of the file: its place, the picture's name, x0, y0, x1, y1 or None for no face."""

    where: str
    image: str
    box: list[float] | None


def _coco_rows(path: Path) -> Iterator[_Row]:
    document = coco.load(path)
    for image in document.images.values():
        yield _Row("images", image["file_name"], None)
    for number, annotation in enumerate(document.annotations, 1):
        where = f"annotation {number}"
        box = coco.box_of(annotation, f"{display_name(path)}, {where}")
        yield _Row(where, document.name_of(annotation), box)


def _csv_rows(path: Path) -> Iterator[_Row]:
    name = display_name(path)
    with reading(path, "rb") as stream:
        text = io.TextIOWrapper(stream, "utf-8-sig", newline="")
        rows = csv_rows(text, name)
        _, columns = next(rows, (0, []))
        missing = [column for column in COLUMNS if column not in columns]
        if missing:
            raise FormatError(f"{name}: no column {', '.join(missing)} in line 1")
        places = [columns.index(column) for column in COLUMNS]
        for number, cells in rows:
            if not cells:
                continue
            where = f"line {number}"
            # A row that is cut off lacks cells.
            image, *numbers = (cells[k] if k < len(cells) else "cut off" for k in places)
            if not is_text(image):
                raise FormatError(f"{name}, {where}: `image` is not text that a file can hold")
            try:
                box = None if numbers == [""] * 4 else [float(value) for value in numbers]
            except ValueError:
                raise FormatError(f"{name}, {where}: a coordinate is not a number") from None
            yield _Row(where, unguarded(image), box)
