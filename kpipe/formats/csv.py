"""CSV: one row a face, and one for each photograph without."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from kpipe.errors import FormatError
from kpipe.formats.records import SCHEMES, Record, face_record, photo_record, reading, scheme_named
from kpipe.structures.faces import Faces, Openness, Pose
from kpipe.structures.schemes import Scheme
from kpipe.utils.files import atomic_file, display_name

LEADING = ("image", "face", "score", "x0", "y0", "x1", "y1", "yaw", "pitch", "roll")


FRAME = ("frame", "time", "right_eye_openness", "left_eye_openness", "mouth_openness", "blink")


TRAILING = ("track", "width", "height", "error", *FRAME)


def header(scheme: Scheme) -> str:
    """The line of column names: box and pose, the points, then photograph and frame."""
    points = [f"{name}_{axis}" for name in scheme.names for axis in ("x", "y", "sigma")]
    return line([*LEADING, *points, *TRAILING])


def rows(faces: Faces) -> str:
    """The lines of one photograph's faces, numbered from 1."""
    return "".join(_face_rows(faces.to_dict(), len(faces.scheme)))


def rows_of_record(record: dict[str, Any], scheme: Scheme) -> str:
    """The lines of one photograph's record: one with no number if it has no face."""
    lines = _face_rows(record, len(scheme))
    if not lines:
        blank = [""] * (len(LEADING) - 1 + 3 * len(scheme) + 1)
        names = ("width", "height", "error", "frame", "time")
        lines = [line([record["image"], *blank, *map(record.get, names), *[""] * 4])]
    return "".join(lines)


def _face_rows(record: dict[str, Any], count: int) -> list[str]:
    lines = []
    for number, face in enumerate(record["faces"], 1):
        pose, openness = face.get("pose") or {}, face.get("openness") or {}
        points = [
            text
            for (x, y), sigma in zip(face["points"], face.get("sigma") or [None] * count)
            for text in (_number(x, 2), _number(y, 2), _number(sigma, 3))
        ]
        lines.append(
            line(
                [
                    record["image"],
                    number,
                    _number(face.get("score"), 4),
                    *(_number(value, 2) for value in face["box"]),
                    *(_number(pose.get(angle), 2) for angle in ("yaw", "pitch", "roll")),
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
        )
    return lines


def _number(value: float | None, decimals: int) -> str:
    """So many decimals; more only where they would be lost."""
    if value is None:
        return ""
    text = f"{value:.{decimals}f}"
    return text if float(text) == value else repr(value)


def line(values: Iterable[Any]) -> str:
    """A line of CSV."""
    buffer = io.StringIO()
    # The writer quotes what it ends lines with, alone: a carriage return in a name must be, too.
    csv.writer(buffer, lineterminator="\r\n").writerow(values)
    return buffer.getvalue().removesuffix("\r\n") + "\n"


def read(path: Path) -> Iterator[Record]:
    with reading(path) as stream:
        table = csv.DictReader(stream)
        scheme = _scheme(table.fieldnames or [], path)
        try:
            for rows in _together(table):
                yield _record(rows, scheme)
        except (ValueError, TypeError, csv.Error) as error:
            raise FormatError(f"{display_name(path)}, line {table.line_num}: {error}") from None


def _scheme(columns: Iterable[str], path: Path) -> Scheme:
    columns = list(columns)
    first = len(LEADING)
    for scheme in SCHEMES.values():
        names = [f"{name}_{axis}" for name in scheme.names for axis in ("x", "y", "sigma")]
        # The columns about the photograph itself may be missing.
        if columns[: first + len(names)] == [*LEADING, *names]:
            return scheme
    raise FormatError(f"{display_name(path)}: not the columns of kpipe's CSV")


def _together(table: Iterable[dict[str, str]]) -> Iterator[list[dict[str, str]]]:
    """The rows of each photograph, or frame: their faces are counted from 1."""
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


def write(path: Path, records: Iterable[Record]) -> dict[str, int]:
    with atomic_file(path) as stream:
        scheme = None
        for record in records:
            if scheme is None:
                scheme = scheme_named(record, record["image"])
                stream.write(header(scheme))
            stream.write(rows_of_record(record, scheme))
        if scheme is None:
            stream.write(header(next(iter(SCHEMES.values()))))
    return {}
