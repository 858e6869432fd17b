"""Boxes of faces that another program found: COCO's JSON, or CSV with a line a box."""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kpipe.errors import BoxesError

COLUMNS = ("image", "x0", "y0", "x1", "y1")


def read_boxes(path: Path) -> dict[str, NDArray[np.float64]]:
    """The boxes (n, 4) x0, y0, x1, y1 of each picture, by the picture's name in the file.

    Args:
        path: COCO's JSON (`images`, `annotations` with `bbox`), or CSV whose header names at least
            image, x0, y0, x1 and y1; a line without numbers is a picture without a face.

    Raises:
        BoxesError: it cannot be read, or a box is none.
    """
    try:
        content = path.read_text("utf-8-sig")
    except OSError as error:
        raise BoxesError(f"{path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise BoxesError(f"{path}: not a text file") from None
    rows = _coco(path, content) if path.suffix.lower() == ".json" else _table(path, content)
    boxes: dict[str, list[list[float]]] = {}
    for where, name, box in rows:
        each = boxes.setdefault(name, [])
        if box is None:
            continue
        if not (np.isfinite(box).all() and box[2] > box[0] and box[3] > box[1]):
            raise BoxesError(f"{path}, {where}: not a box with x0 < x1 and y0 < y1")
        each.append(box)
    return {name: np.array(each, np.float64).reshape(-1, 4) for name, each in boxes.items()}


class GivenBoxes:
    """The boxes of each photograph of a job, whichever way its path is written.

    Args:
        boxes: of `read_boxes`.
    """

    def __init__(self, boxes: Mapping[str, NDArray[np.float64]]) -> None:
        self._boxes = boxes
        self._names: dict[str, list[str]] = {}
        for name in boxes:
            self._names.setdefault(Path(name).name, []).append(name)

    def of(self, photo: str) -> NDArray[np.float64] | None:
        """Those of the picture whose name has most of a photograph's path, from the end.

        Returns:
            (n, 4), or None if no picture there has that name.

        Raises:
            BoxesError: several could be it.
        """
        wanted = Path(photo).parts[::-1]
        shared = {
            name: _alike(Path(name).parts[::-1], wanted)
            for name in self._names.get(Path(photo).name, ())
        }
        if not shared:
            return None
        most = max(shared.values())
        first, *others = (name for name, count in shared.items() if count == most)
        if others:
            raise BoxesError(f"{photo}: may be {first} or {others[0]} in the file of boxes")
        return self._boxes[first]


def _alike(ones: Sequence[str], others: Sequence[str]) -> int:
    """How many parts are the same, from the first on."""
    pairs = zip(ones, others)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


Row = tuple[str, str, list[float] | None]
"""Where it stands, the picture's name, and a box, or None for a picture that has none."""


def _coco(path: Path, content: str) -> list[Row]:
    rows: list[Row] = []
    try:
        table = json.loads(content)
        names = {image["id"]: str(image["file_name"]) for image in table["images"]}
        rows += [("images", name, None) for name in names.values()]
        for index, record in enumerate(table["annotations"]):
            x, y, width, height = (float(value) for value in record["bbox"])
            name = names[record["image_id"]]
            rows.append((f"annotation {index + 1}", name, [x, y, x + width, y + height]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BoxesError(f"{path}: not COCO's JSON ({type(error).__name__}: {error})") from None
    return rows


def _table(path: Path, content: str) -> list[Row]:
    reader = csv.DictReader(content.splitlines())
    missing = [name for name in COLUMNS if name not in (reader.fieldnames or [])]
    if missing:
        raise BoxesError(f"{path}: no column {', '.join(missing)} in its first line")
    rows: list[Row] = []
    for record in reader:
        where = f"line {reader.line_num}"
        numbers = [record[name] for name in COLUMNS[1:]]
        try:
            box = None if numbers == [""] * 4 else [float(value) for value in numbers]
            rows.append((where, record["image"], box))
        except (TypeError, ValueError):
            raise BoxesError(f"{path}, {where}: a coordinate is not a number") from None
    return rows
