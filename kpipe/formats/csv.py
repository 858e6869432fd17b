"""CSV: one row a face, and one row for each photograph without faces."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from kpipe.errors import FormatError
from kpipe.formats.records import (
    Record,
    checked_record,
    face_record,
    photo_record,
    reading,
    scheme_named,
)
from kpipe.structures.faces import Openness, Pose
from kpipe.structures.schemes import IBUG68, SCHEMES, Scheme
from kpipe.utils.files import atomic_file, display_name

LEADING = ("image", "face", "score", "x0", "y0", "x1", "y1", *Pose._fields)
"""The columns before the points: photograph, number of the face (from 1), score, box (pixels), pose
(degrees).
"""

FRAME = ("frame", "time", *(f"{part}_openness" for part in Openness._fields), "blink")
"""The columns that only frames of a video fill; time in seconds."""

TRAILING = ("track", "width", "height", "error", *FRAME)
"""The columns after the points; files of older versions lack some."""


def header(scheme: Scheme) -> str:
    """The line of column names: box and pose, x, y and sigma of each point, then `TRAILING`."""
    return line([*LEADING, *_point_columns(scheme), *TRAILING])


def rows_of_record(record: Record, scheme: Scheme) -> str:
    """The lines of one record: one a face, or one with an empty `face` if it has none.

    Raises:
        FormatError: the record's points are not those of the scheme.
    """
    if not record["faces"]:
        blank = [""] * (len(LEADING) - 1 + 3 * len(scheme) + 1)
        photo = map(record.get, ("width", "height", "error", "frame", "time"))
        return line([record["image"], *blank, *photo, *[""] * (len(FRAME) - 2)])
    if (own := scheme_named(record)) != scheme:
        raise FormatError(
            f"{display_name(record['image'])}: points of {own.name} in a table of {scheme.name}"
        )
    faces = enumerate(record["faces"], 1)
    return "".join(_face_row(record, number, face, len(scheme)) for number, face in faces)


def line(values: Iterable[Any]) -> str:
    """A line of CSV with its line end; None is an empty cell."""
    buffer = io.StringIO()
    # The writer quotes a carriage return in a name only if lines end in one.
    csv.writer(buffer, lineterminator="\r\n").writerow(values)
    return buffer.getvalue().removesuffix("\r\n") + "\n"


def read(path: Path) -> Iterator[Record]:
    """The records of a file; the rows of one photograph must follow each other.

    Raises:
        FormatError: the file cannot be read, its columns are not those of `header`, or a cell is
            not of its kind; the message has the line.
    """
    with reading(path) as stream:
        table = csv.DictReader(stream)
        try:
            scheme = _scheme(table.fieldnames or [], path)
            for rows in _photographs(table):
                where = f"{display_name(path)}, line {table.line_num}"
                yield checked_record(_record(rows, scheme), where)
        except FormatError:
            raise
        except (ValueError, TypeError, csv.Error) as error:
            # float(None): DictReader fills a row that is too short with None.
            reason = "fewer cells than columns" if isinstance(error, TypeError) else error
            raise FormatError(f"{display_name(path)}, line {table.line_num}: {reason}") from None


def write(path: Path, records: Iterable[Record]) -> dict[str, int]:
    """Writes the records. Nothing is dropped: the dict is empty.

    Raises:
        FormatError: the records' points are of several schemes, or of an unknown one.
        WriteError: the file cannot be written.
    """
    with atomic_file(path) as stream:
        scheme, records = _with_scheme(records)
        stream.write(header(scheme))
        for record in records:
            stream.write(rows_of_record(record, scheme))
    return {}


def _point_columns(scheme: Scheme) -> list[str]:
    return [f"{name}_{axis}" for name in scheme.names for axis in ("x", "y", "sigma")]


def _face_row(record: Record, number: int, face: dict[str, Any], count: int) -> str:
    pose, openness = face.get("pose") or {}, face.get("openness") or {}
    points = [
        text
        for (x, y), sigma in zip(face["points"], face.get("sigma") or [None] * count)
        for text in (_number(x, 2), _number(y, 2), _number(sigma, 3))
    ]
    return line(
        [
            record["image"],
            number,
            _number(face.get("score"), 4),
            *(_number(value, 2) for value in face["box"]),
            *(_number(pose.get(angle), 2) for angle in Pose._fields),
            *points,
            face.get("track"),
            record.get("width"),
            record.get("height"),
            None,
            record.get("frame"),
            record.get("time"),
            *(openness.get(part) for part in Openness._fields),
            {True: "true", False: "false", None: ""}[face.get("blink")],
        ]
    )


def _number(value: float | None, decimals: int) -> str:
    """Text with this number of decimals, or with more where they would be lost."""
    if value is None:
        return ""
    text = f"{value:.{decimals}f}"
    return text if float(text) == value else repr(value)


def _with_scheme(records: Iterable[Record]) -> tuple[Scheme, Iterable[Record]]:
    """The scheme of the records, and all of them: photographs that failed do not name one."""
    records = iter(records)
    failed: list[Record] = []
    for record in records:
        if "error" not in record:
            return scheme_named(record), chain(failed, [record], records)
        failed.append(record)
    return IBUG68, failed


def _scheme(columns: Iterable[str], path: Path) -> Scheme:
    columns = list(columns)
    for scheme in SCHEMES.values():
        expected = [*LEADING, *_point_columns(scheme)]
        if columns[: len(expected)] == expected:
            return scheme
    raise FormatError(f"{display_name(path)}: not the columns of kpipe's CSV")


def _photographs(table: Iterable[dict[str, str]]) -> Iterator[list[dict[str, str]]]:
    """The rows of each photograph or frame: their faces are numbered from 1."""
    rows: list[dict[str, str]] = []
    for row in table:
        if rows and (row["face"] in ("", "1") or row["image"] != rows[-1]["image"]):
            yield rows
            rows = []
        rows.append(row)
    if rows:
        yield rows


def _record(rows: list[dict[str, str]], scheme: Scheme) -> Record:
    photo = {name: rows[0].get(name) or None for name in TRAILING}
    faces = [_face(row, scheme) for row in rows if row["face"]]
    width, height, frame = (
        None if photo[name] is None else int(str(photo[name]))
        for name in ("width", "height", "frame")
    )
    time = None if photo["time"] is None else float(str(photo["time"]))
    image, error = rows[0]["image"], photo["error"]
    return photo_record(image, width, height, faces, error, scheme.name, frame, time)


def _face(row: dict[str, str], scheme: Scheme) -> dict[str, Any]:
    points = [[float(row[f"{name}_{axis}"]) for axis in "xy"] for name in scheme.names]
    sigma = [row[f"{name}_sigma"] for name in scheme.names]
    pose = {angle: row[angle] for angle in Pose._fields}
    openness = {part: row.get(f"{part}_openness") for part in Openness._fields}
    return face_record(
        points,
        [float(row[name]) for name in ("x0", "y0", "x1", "y1")],
        float(row["score"]) if row["score"] else None,
        [float(value) for value in sigma] if all(sigma) else None,
        {name: float(v) for name, v in pose.items()} if all(pose.values()) else None,
        int(row["track"]) if row.get("track") else None,
        {name: float(str(v)) for name, v in openness.items()} if all(openness.values()) else None,
        row["blink"] == "true" if row.get("blink") else None,
    )
