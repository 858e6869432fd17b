"""CSV: one row a face."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from typing import Any

from kpipe.faces import Faces, Openness
from kpipe.schemes import Scheme

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
