"""CSV: one row a face, and one for each photograph without."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from kpipe.faces import Openness, Pose
from kpipe.formats.records import (
    SCHEMES,
    FormatError,
    Record,
    face_record,
    photo_record,
    reading,
    scheme_named,
    whole_file,
)
from kpipe.media.images import shown
from kpipe.schemes import Scheme
from kpipe.writers.csv_table import LEADING, TRAILING, header, rows_of_record


def read(path: Path) -> Iterator[Record]:
    with reading(path) as stream:
        table = csv.DictReader(stream)
        scheme = _scheme(table.fieldnames or [], path)
        try:
            for rows in _together(table):
                yield _record(rows, scheme)
        except (ValueError, TypeError, csv.Error) as error:
            raise FormatError(f"{shown(path)}, line {table.line_num}: {error}") from None


def _scheme(columns: Iterable[str], path: Path) -> Scheme:
    columns = list(columns)
    first = len(LEADING)
    for scheme in SCHEMES.values():
        names = [f"{name}_{axis}" for name in scheme.names for axis in ("x", "y", "sigma")]
        # The columns about the photograph itself may be missing.
        if columns[: first + len(names)] == [*LEADING, *names]:
            return scheme
    raise FormatError(f"{shown(path)}: not the columns of kpipe's CSV")


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
    with whole_file(path) as stream:
        scheme = None
        for record in records:
            if scheme is None:
                scheme = scheme_named(record, record["image"])
                stream.write(header(scheme))
            stream.write(rows_of_record(record, scheme))
        if scheme is None:
            stream.write(header(next(iter(SCHEMES.values()))))
    return {}
