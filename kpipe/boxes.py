"""Boxes of faces that another program found: COCO's JSON, or CSV with a line a box."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kpipe.detector import Detections

COLUMNS = ("image", "x0", "y0", "x1", "y1")

ROLLS = (-40.0, 0.0, 40.0)
"""Degrees that the head in a box may be turned by: the box does not tell."""

FRAMINGS = ((0.0, 1.0), (0.09, 0.77))
"""What a box of a face may mean: the landmarks' own, or the whole face up to the hair. The square
around the landmarks lies so far below its centre and is so long, in sides of the box; the first
look tells which fits."""


class BoxesError(ValueError):
    """A file of boxes cannot be used; the message is one line and names the file."""


def read_boxes(path: Path) -> dict[str, NDArray[np.float64]]:
    """The boxes (n, 4) x0, y0, x1, y1 of each picture, by the picture's file name.

    Args:
        path: COCO's JSON (`images`, `annotations` with `bbox`), or CSV whose header names at least
            image, x0, y0, x1 and y1.

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
        if not (np.isfinite(box).all() and box[2] > box[0] and box[3] > box[1]):
            raise BoxesError(f"{path}, {where}: not a box with x0 < x1 and y0 < y1")
        boxes.setdefault(Path(name).name, []).append(box)
    return {name: np.array(each, np.float64) for name, each in boxes.items()}


def _coco(path: Path, content: str) -> list[tuple[str, str, list[float]]]:
    rows = []
    try:
        table = json.loads(content)
        names = {image["id"]: str(image["file_name"]) for image in table["images"]}
        for index, record in enumerate(table["annotations"]):
            x, y, width, height = (float(value) for value in record["bbox"])
            name = names[record["image_id"]]
            rows.append((f"annotation {index + 1}", name, [x, y, x + width, y + height]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BoxesError(f"{path}: not COCO's JSON ({type(error).__name__}: {error})") from None
    return rows


def _table(path: Path, content: str) -> list[tuple[str, str, list[float]]]:
    reader = csv.DictReader(content.splitlines())
    missing = [name for name in COLUMNS if name not in (reader.fieldnames or [])]
    if missing:
        raise BoxesError(f"{path}: no column {', '.join(missing)} in its first line")
    rows = []
    for record in reader:
        where = f"line {reader.line_num}"
        try:
            rows.append((where, record["image"], [float(record[name]) for name in COLUMNS[1:]]))
        except (TypeError, ValueError):
            raise BoxesError(f"{path}, {where}: a coordinate is not a number") from None
    return rows


def candidates(boxes: NDArray[np.floating]) -> Detections:
    """Boxes (n, 4) from elsewhere as candidates: each in every framing and roll it may have."""
    sides = np.maximum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])[:, None]
    middles = (boxes[:, :2] + boxes[:, 2:]) / 2
    framed = []
    for shift, scale in FRAMINGS:
        centres, halves = middles + sides * (0.0, shift), sides * scale / 2
        framed.append(np.hstack([centres - halves, centres + halves]))
    squares = np.concatenate(framed).astype(np.float32).reshape(-1, 4)
    rolls = np.repeat(np.array(ROLLS, np.float32), len(squares))
    return Detections(np.tile(squares, (len(ROLLS), 1)), rolls)
