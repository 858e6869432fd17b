r"""CSV: one row a face, and one row for each photograph without faces.

A spreadsheet takes a cell that begins with `=`, `+`, `-` or `@` for a formula. Names that do are
written with `./` before them, which names the same file; in reasons the character is written as an
escape, `\u003d` for `=`. `read` takes both back.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from kpipe.errors import FormatError
from kpipe.formats.records import (
    FRAME_PARTS,
    Record,
    checked_record,
    face_record,
    photo_record,
    reading,
    results_file,
    scheme_named,
)
from kpipe.structures.faces import Openness, Pose
from kpipe.structures.schemes import IBUG68, SCHEMES, Scheme
from kpipe.utils.files import display_name
from kpipe.utils.limits import FACES, csv_rows

LEADING = ("image", "face", "score", "x0", "y0", "x1", "y1", *Pose._fields)
"""The columns before the points: photograph, number of the face (from 1), score, box (pixels), pose
(degrees).
"""

FRAME = ("frame", "time", *(f"{part}_openness" for part in Openness._fields), "blink")
"""The columns that only frames of a video fill; time in seconds."""

TRAILING = ("track", "width", "height", "error", *FRAME, "warning")
"""The columns after the points; files of older versions lack some."""

FORMULA = r"=+\-@\uff1d\uff0b\uff0d\uff20"
"""What spreadsheets take for the beginning of a formula, the full-width forms included."""

NAME = re.compile(rf"(?:\./)*\s*[{FORMULA}]")
"""A name that is a formula, or that looks like one that `guarded` has changed."""

REASON = re.compile(rf"(^\s*|[;\t\r\n]\s*)([{FORMULA}])")
"""Where formulas begin in a reason. Spreadsheets of some countries end cells at `;`, and then see
the quotes of the first cell alone.
"""

ESCAPE = re.compile(r"\\u(00(?:3d|2b|2d|40|5c)|ff(?:1d|0b|0d|20))")
"""The escapes of the characters of `FORMULA` and of the backslash."""

QUOTED = re.compile(r'[",;\t\r\n]|^\s|\s$')
"""What makes quotes necessary. Spreadsheets of some countries end cells at `;`."""


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
        error, warning = (guarded_reason(record.get(name) or "") for name in ("error", "warning"))
        photo = (*map(record.get, ("width", "height")), error, *map(record.get, FRAME_PARTS))
        empty = [""] * (len(FRAME) - len(FRAME_PARTS))
        return line([guarded(record["image"]), *blank, *photo, *empty, warning])
    if (own := scheme_named(record)) != scheme:
        raise FormatError(
            f"{display_name(record['image'])}: points of {own.name} in a table of {scheme.name}"
        )
    faces = enumerate(record["faces"], 1)
    return "".join(_face_row(record, number, face, len(scheme)) for number, face in faces)


def line(values: Iterable[Any]) -> str:
    """A line of CSV with its line end; None is an empty cell."""
    return ",".join(map(_cell, values)) + "\n"


def reason_line(cells: Iterable[str]) -> str:
    """A line of CSV of a name and a reason, neither of which is a formula."""
    name, *reasons = cells
    return line([guarded(name), *map(guarded_reason, reasons)])


def _cell(value: Any) -> str:
    text = "" if value is None else str(value)
    # Not `csv.writer`: it leaves `;` unquoted, and `a;=1` would be a formula in a cell of its own.
    return '"' + text.replace('"', '""') + '"' if QUOTED.search(text) else text


def guarded(name: str) -> str:
    """A name as no spreadsheet takes it for a formula; it still names the same file."""
    return f"./{name}" if NAME.match(name) else name


def unguarded(name: str) -> str:
    """The inverse of `guarded`; names that it would not have changed are left alone."""
    rest = name.removeprefix("./")
    return rest if rest != name and NAME.match(rest) else name


def guarded_reason(text: str) -> str:
    r"""A reason or warning as no spreadsheet takes a part of it for a formula: `\u003d` for `=`."""
    text = ESCAPE.sub(r"\\u005cu\1", text)
    return REASON.sub(lambda match: f"{match[1]}\\u{ord(match[2]):04x}", text)


def unguarded_reason(text: str) -> str:
    """The inverse of `guarded_reason`."""
    return ESCAPE.sub(lambda match: chr(int(match[1], 16)), text)


def read(path: Path) -> Iterator[Record]:
    """The records of a file; the rows of one photograph must follow each other.

    Raises:
        FormatError: the file cannot be read, its columns are not those of `header`, or a cell is
            not of its kind; the message has the line.
    """
    name = display_name(path)
    with reading(path) as stream:
        table = csv_rows(stream, name)
        _, columns = next(table, (0, []))
        scheme = _scheme(columns, path)
        for number, rows in _photographs(_rows(table, columns, name), name):
            where = f"{name}, line {number}"
            try:
                record = _record(rows, scheme)
            except ValueError as error:
                raise FormatError(f"{where}: {str(error)[:200]}") from None
            yield checked_record(record, where)


def write(path: Path, records: Iterable[Record], *, replace: bool = True) -> dict[str, int]:
    """Writes the records. Nothing is dropped: the dict is empty.

    Raises:
        FormatError: the records' points are of several schemes, or of an unknown one; or the file
            exists and may not be replaced.
        WriteError: the file cannot be written.
    """
    with results_file(path, replace=replace) as stream:
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
            guarded(record["image"]),
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
            guarded_reason(record.get("warning") or ""),
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


def _rows(
    table: Iterable[tuple[int, list[str]]], columns: list[str], name: str
) -> Iterator[tuple[int, dict[str, str]]]:
    """The cells of each row by column, with the row's line; empty lines are passed over."""
    for number, cells in table:
        if not cells:
            continue
        if len(cells) != len(columns):
            which = "fewer" if len(cells) < len(columns) else "more"
            raise FormatError(f"{name}, line {number}: {which} cells than columns")
        yield number, dict(zip(columns, cells))


def _photographs(
    table: Iterable[tuple[int, dict[str, str]]], name: str
) -> Iterator[tuple[int, list[dict[str, str]]]]:
    """The rows of each photograph or frame, with the line of the last: faces count from 1."""
    last, rows = 0, list[dict[str, str]]()
    for number, row in table:
        if rows and (row["face"] in ("", "1") or row["image"] != rows[-1]["image"]):
            yield last, rows
            rows = []
        rows.append(row)
        last = number
        FACES.check(len(rows), f"{name}, line {number}")
    if rows:
        yield last, rows


def _record(rows: list[dict[str, str]], scheme: Scheme) -> Record:
    photo = {name: rows[0].get(name) or None for name in TRAILING}
    faces = [_face(row, scheme) for row in rows if row["face"]]
    width, height, frame = (
        None if photo[name] is None else int(str(photo[name]))
        for name in ("width", "height", "frame")
    )
    time = None if photo["time"] is None else float(str(photo["time"]))
    image = unguarded(rows[0]["image"])
    error, warning = (
        None if photo[name] is None else unguarded_reason(str(photo[name]))
        for name in ("error", "warning")
    )
    return photo_record(image, width, height, faces, error, scheme.name, frame, time, warning)


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
