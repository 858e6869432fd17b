"""Records: the plain dicts that every format reads and writes, and the helpers the formats share.

A record is one photograph or one frame of a video, as in a line of kpipe's JSON:

    {"image": "a.jpg", "width": 640, "height": 480, "scheme": "ibug68",
     "faces": [{"box": [x0, y0, x1, y1], "score": 0.98, "points": [[x, y], …], "sigma": [s, …],
                "pose": {"yaw": 3.1, "pitch": -8.0, "roll": 0.4}}]}

Coordinates are pixels of the upright photograph, the center of its top-left pixel at (0, 0). Score,
sigma and pose are missing where the file has none. A frame also has `frame` (its number, from 0)
and `time` (seconds), its faces `track`, `openness` and `blink`. A photograph that failed has
`image`, `error` (the reason) and no faces; one that is incomplete has a `warning`.

Records from files go through `checked_record`, those from JSON through `parse_record`.
`kpipe.formats.schema` has the same rules as JSON Schema.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NoReturn

import numpy as np

from kpipe.errors import FormatError
from kpipe.structures.faces import Openness, Pose
from kpipe.structures.schemes import IBUG68, SCHEMES, Scheme
from kpipe.utils.files import atomic_file, display_name, open_file
from kpipe.utils.limits import DOCUMENT, FACES
from kpipe.utils.paths import inside as inside

Record = dict[str, Any]
"""One photograph or one frame: see the module's docstring."""

FACE_PARTS = ("score", "sigma", "pose", "track", "openness", "blink")
"""The optional keys of a face."""

FRAME_PARTS = ("frame", "time")
"""The keys of a video's frame that a photograph lacks."""

RECORD_KEYS = {"image", "error", "warning", "scheme", "width", "height", "faces", *FRAME_PARTS}

FACE_KEYS = {"points", "box", *FACE_PARTS}

MAX_NUMBER = 1e12
"""Absolute value of any coordinate, time or score: sums and products of two stay finite."""

MAX_PIXELS = 2**31 - 1
"""Width or height of a photograph: what Parquet's column holds."""

MAX_INTEGER = 2**63 - 1
"""Number of a frame or track: what Parquet's columns and SQLite hold."""

MAX_TEXT = 32_768
"""Characters of a name or reason. A cell of CSV holds 131,072, a path on Linux 4,096 bytes."""

SCHEME_NAME = r"[A-Za-z0-9_.-]{1,64}"
"""Regular expression of the name of a scheme."""

MAX_POINTS = 1_000
"""Points of a face in a scheme that only a later version knows."""

MAX_DEPTH = 32
"""Lists and objects inside each other under a key that kpipe does not know."""


def scheme_of(faces: Sequence[dict[str, Any]], where: str, default: Scheme = IBUG68) -> Scheme:
    """The scheme of a photograph's faces, by their number of points.

    Args:
        faces: with `points`.
        where: file and photograph, for the message.
        default: the scheme of a photograph without faces.

    Raises:
        FormatError: no scheme has that many points, or the faces differ in their number.
    """
    counts = sorted({len(face["points"]) for face in faces})
    if not counts:
        return default
    if len(counts) > 1:
        raise FormatError(f"{where}: faces of {counts[0]} and of {counts[1]} points")
    for scheme in SCHEMES.values():
        if len(scheme) == counts[0]:
            return scheme
    known = " or ".join(str(len(scheme)) for scheme in SCHEMES.values())
    raise FormatError(f"{where}: {counts[0]} points on a face, {known} expected")


def scheme_named(record: Record) -> Scheme:
    """The scheme that a record names; IBUG68 if it names none.

    Raises:
        FormatError: the name is unknown.
    """
    name = record.get("scheme", IBUG68.name)
    if name not in SCHEMES:
        where = display_name(record["image"])
        raise FormatError(f"{where}: unknown scheme {name!r}; choose one of {', '.join(SCHEMES)}")
    return SCHEMES[name]


def photo_record(
    image: str,
    width: int | None,
    height: int | None,
    faces: list[dict[str, Any]],
    error: str | None = None,
    scheme: str = IBUG68.name,
    frame: int | None = None,
    time: float | None = None,
    warning: str | None = None,
) -> Record:
    """A record with its keys in the order of kpipe's JSON; what is None is left out."""
    if error is not None:
        return error_record(image, error)
    moment = {"frame": frame, "time": time}
    parts: Record = {name: value for name, value in moment.items() if value is not None}
    sizes = {"width": width, "height": height}
    parts |= {name: int(value) for name, value in sizes.items() if value}
    remark = {} if warning is None else {"warning": warning}
    return {"image": image, **parts, "scheme": scheme, **remark, "faces": faces}


def error_record(image: str, reason: str) -> Record:
    """The record of a photograph that failed."""
    return {"image": image, "error": reason, "faces": []}


def face_record(
    points: list[list[float]],
    box: list[float] | None = None,
    score: float | None = None,
    sigma: list[float] | None = None,
    pose: dict[str, float] | None = None,
    track: int | None = None,
    openness: dict[str, float] | None = None,
    blink: bool | None = None,
) -> dict[str, Any]:
    """A face of a record, its keys in the order of kpipe's JSON.

    What is None is left out, except the box, which is then the square around the points.
    """
    if box is None:
        box = square_around(points)
    parts: dict[str, Any] = {"box": box, "score": score, "points": points, "sigma": sigma}
    if pose is not None:
        parts["pose"] = {name: pose[name] for name in Pose._fields}
    parts["track"] = track
    if openness is not None:
        parts["openness"] = {name: openness[name] for name in Openness._fields}
    parts["blink"] = blink
    return {name: value for name, value in parts.items() if value is not None}


def square_around(points: list[list[float]]) -> list[float]:
    """x0, y0, x1, y1 of the square around points (n, 2), pixels to two decimals."""
    values = np.array(points, np.float64)
    with np.errstate(all="ignore"):  # of points that `checked_record` refuses
        middle = (values.min(axis=0) + values.max(axis=0)) / 2
        half = np.ptp(values, axis=0).max() / 2
        sides = (*(middle - half), *(middle + half))
    return [round(float(v), 2) for v in sides]


def parse_record(text: str | bytes, where: str) -> Record:
    """A record from its line of JSON.

    Args:
        text: the line.
        where: file and line or photograph, for the message.

    Raises:
        FormatError: it is not JSON, or `checked_record` refuses it.
    """
    try:
        record = json.loads(text, parse_constant=_not_json)
    except RecursionError:
        raise _fault(where, "not JSON: nested too deeply") from None
    except ValueError:
        raise _fault(where, "not JSON") from None
    return checked_record(record, where)


def _not_json(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _fault(where: str, reason: str) -> FormatError:
    return FormatError(f"{where}: not the record of a photograph ({reason})")


def checked_record(record: Any, where: str) -> Record:
    """A record from a file of free structure; unknown keys are left alone.

    Args:
        record: any value.
        where: file and line or photograph, for the message.

    Raises:
        FormatError: a key is missing, or its value is of the wrong kind or beyond its bounds.
    """
    reason = _record_fault(record)
    if reason:
        raise _fault(where, reason)
    FACES.check(len(record["faces"]), where)
    checked: Record = record
    return checked


def _record_fault(record: Any) -> str | None:
    if not isinstance(record, dict):
        return "not an object"
    if "image" not in record:
        return "no `image`"
    if not isinstance(record.get("faces"), list):
        return "no list as `faces`"
    for name in ("image", "error", "warning"):
        if name in record and not is_text(record[name]):
            return f"`{name}` is not text of at most {MAX_TEXT} characters that a file can hold"
    if not record["image"]:
        return "`image` is empty"
    if "scheme" in record and not is_scheme_name(record["scheme"]):
        return "`scheme` is not text of at most 64 letters, digits, `_`, `-` and `.`"
    for name, most in (("width", MAX_PIXELS), ("height", MAX_PIXELS), ("frame", MAX_INTEGER)):
        if name in record and not _is_whole(record[name], 0, most):
            return f"`{name}` is not a whole number from 0 to {most}"
    if "time" in record and not is_number(record["time"]):
        return "`time` is not a number"
    if "error" in record and record["faces"]:
        return "an `error` and faces"
    scheme = SCHEMES.get(record.get("scheme", IBUG68.name))
    for number, face in enumerate(record["faces"], 1):
        reason = _face_fault(face, scheme)
        if reason:
            return f"face {number}: {reason}"
    return _foreign_fault(record, RECORD_KEYS)


def _face_fault(face: Any, scheme: Scheme | None) -> str | None:
    if not isinstance(face, dict) or not isinstance(face.get("points"), list):
        return "no list as `points`"
    # A scheme that only a later version knows has any number of points.
    count = len(face["points"]) if scheme is None else len(scheme)
    if not (0 < count <= MAX_POINTS):
        return f"`points` are not 1 to {MAX_POINTS} pairs of numbers"
    points = face["points"]
    if len(points) != count or not all(_are_numbers(point, 2) for point in points):
        return f"`points` are not {count} pairs of numbers"
    if not _are_numbers(face.get("box"), 4):
        return "`box` is not four numbers"
    if "score" in face and not is_number(face["score"]):
        return "`score` is not a number"
    if "sigma" in face and not _are_numbers(face["sigma"], count):
        return f"`sigma` is not {count} numbers"
    if "track" in face and not _is_whole(face["track"], -MAX_INTEGER, MAX_INTEGER):
        return "`track` is not a whole number of 64 bits"
    for name, fields in (("pose", Pose._fields), ("openness", Openness._fields)):
        if name in face:
            values = face[name] if isinstance(face[name], dict) else {}
            if not all(is_number(values.get(field)) for field in fields):
                return f"`{name}` is not the numbers {', '.join(fields)}"
            if reason := _foreign_fault(values, set(fields)):
                return reason
    if not isinstance(face.get("blink", False), bool):
        return "`blink` is neither true nor false"
    return _foreign_fault(face, FACE_KEYS)


def _foreign_fault(values: dict[str, Any], known: set[str]) -> str | None:
    """What is wrong under the keys that are not known: a writer of JSON could not write it."""
    for name, value in values.items():
        if name not in known and not (is_text(name) and _is_plain(value, MAX_DEPTH)):
            shown = display_name(str(name)[:40])
            return f"`{shown}` holds text or numbers beyond their bounds, or is nested too deeply"
    return None


def _is_plain(value: Any, depth: int) -> bool:
    """Whether a value of JSON is within the bounds of text and numbers, and so deep at most."""
    if value is None or isinstance(value, bool):
        return True
    if isinstance(value, str):
        return is_text(value)
    if isinstance(value, list):
        return depth > 0 and all(_is_plain(part, depth - 1) for part in value)
    if isinstance(value, dict):
        parts = value.items()
        return depth > 0 and all(is_text(k) and _is_plain(part, depth - 1) for k, part in parts)
    return type(value) in (int, float) and -MAX_INTEGER <= value <= MAX_INTEGER


def is_text(value: Any) -> bool:
    """Whether a value is text that a file can hold, names that are not UTF-8 included."""
    if not isinstance(value, str) or len(value) > MAX_TEXT or "\0" in value:
        return False
    try:
        value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half of a surrogate pair, written as an escape in JSON
        return False
    return True


def is_scheme_name(value: Any) -> bool:
    """Whether a value can be the name of a scheme, of a later version too."""
    return isinstance(value, str) and re.fullmatch(SCHEME_NAME, value) is not None


def is_number(value: Any) -> bool:
    """Whether a value is a number, true and false left out, of at most `MAX_NUMBER`."""
    return type(value) in (int, float) and -MAX_NUMBER <= value <= MAX_NUMBER


def _are_numbers(values: Any, count: int) -> bool:
    return isinstance(values, list) and len(values) == count and all(map(is_number, values))


def _is_whole(value: Any, least: int, most: int) -> bool:
    return type(value) is int and least <= value <= most


@contextmanager
def reading(path: Path, mode: str = "r") -> Iterator[IO[Any]]:
    """An open file, see `kpipe.utils.files.open_file`.

    Raises:
        FormatError: it cannot be opened or read.
    """
    try:
        with open_file(path, mode) as stream:
            yield stream
    except OSError as error:
        raise FormatError(f"{display_name(path)}: {error.strerror or error}") from None


def read_document(path: Path) -> bytes:
    """The content of a file that has to be read whole.

    Raises:
        FormatError: it cannot be read, or is larger than the limit.
    """
    return b"".join(document_pieces(path))


def document_pieces(path: Path) -> Iterator[bytes]:
    """The content of a file that has to be read whole, a megabyte at a time.

    Raises:
        FormatError: it cannot be read, or is larger than the limit.
    """
    size = 0
    with reading(path, "rb") as stream:
        while piece := stream.read(2**20):
            size += len(piece)
            DOCUMENT.check(size, display_name(path))
            yield piece


@contextmanager
def results_file(path: Path, mode: str = "w", *, replace: bool = True) -> Iterator[IO[Any]]:
    """A file of results that takes its place when it is complete, see `atomic_file`.

    Args:
        path: of the file.
        mode: `w` or `wb`.
        replace: whether a file of this name, or a link, may be replaced.

    Raises:
        FormatError: it exists and may not be replaced. It is looked for before and after writing.
        WriteError: it cannot be written.
    """
    check_new(path, replace)
    with atomic_file(path, mode) as stream:
        yield stream
        check_new(path, replace)


def check_new(path: Path, replace: bool) -> None:
    """Raises FormatError if a path exists and may not be replaced."""
    if not replace and os.path.lexists(path):
        raise FormatError(f"{display_name(path)}: exists; --force replaces it")
