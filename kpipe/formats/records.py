"""Records: the plain dicts that every format reads and writes, and the helpers the formats share.

A record is one photograph or one frame of a video, as in a line of kpipe's JSON:

    {"image": "a.jpg", "width": 640, "height": 480, "scheme": "ibug68",
     "faces": [{"box": [x0, y0, x1, y1], "score": 0.98, "points": [[x, y], …], "sigma": [s, …],
                "pose": {"yaw": 3.1, "pitch": -8.0, "roll": 0.4}}]}

Coordinates are pixels of the upright photograph, the center of its top-left pixel at (0, 0). Score,
sigma and pose are missing where the file has none. A frame also has `frame` (its number, from 0)
and `time` (seconds), its faces `track`, `openness` and `blink`. A photograph that failed has
`image`, `error` (the reason) and no faces.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from kpipe.errors import FormatError
from kpipe.structures.faces import Openness, Pose
from kpipe.structures.schemes import IBUG68, SCHEMES, Scheme
from kpipe.utils.files import display_name, open_file

Record = dict[str, Any]
"""One photograph or one frame: see the module's docstring."""

FACE_PARTS = ("score", "sigma", "pose", "track", "openness", "blink")
"""The optional keys of a face."""

FRAME_PARTS = ("frame", "time")
"""The keys of a video's frame that a photograph lacks."""


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
) -> Record:
    """A record with its keys in the order of kpipe's JSON; what is None is left out."""
    if error is not None:
        return error_record(image, error)
    moment = {"frame": frame, "time": time}
    parts: Record = {name: value for name, value in moment.items() if value is not None}
    sizes = {"width": width, "height": height}
    parts |= {name: int(value) for name, value in sizes.items() if value}
    return {"image": image, **parts, "scheme": scheme, "faces": faces}


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
    with np.errstate(invalid="ignore"):  # of infinite points, which `checked_record` refuses
        middle = (values.min(axis=0) + values.max(axis=0)) / 2
        half = np.ptp(values, axis=0).max() / 2
        sides = (*(middle - half), *(middle + half))
    return [round(float(v), 2) for v in sides]


def checked_record(record: Any, where: str) -> Record:
    """A record from a file of free structure; unknown keys are left alone.

    Args:
        record: any value.
        where: file and line or photograph, for the message.

    Raises:
        FormatError: a key is missing or its value is of the wrong kind.
    """
    reason = _record_fault(record)
    if reason:
        raise FormatError(f"{where}: not the record of a photograph ({reason})")
    checked: Record = record
    return checked


def _record_fault(record: Any) -> str | None:
    if not isinstance(record, dict):
        return "not an object"
    if "image" not in record:
        return "no `image`"
    if not isinstance(record.get("faces"), list):
        return "no list as `faces`"
    for name in ("image", "error", "scheme"):
        if name in record and not _is_text(record[name]):
            return f"`{name}` is not text"
    for name in ("width", "height", "frame"):
        if name in record and type(record[name]) is not int:
            return f"`{name}` is not a whole number"
    if "time" in record and not _is_numeric(record["time"], ()):
        return "`time` is not a number"
    scheme = SCHEMES.get(record.get("scheme", IBUG68.name))
    for number, face in enumerate(record["faces"], 1):
        reason = _face_fault(face, scheme)
        if reason:
            return f"face {number}: {reason}"
    return None


def _face_fault(face: Any, scheme: Scheme | None) -> str | None:
    if not isinstance(face, dict) or not isinstance(face.get("points"), list):
        return "no list as `points`"
    # A scheme that only a later version knows has any number of points.
    count = len(face["points"]) if scheme is None else len(scheme)
    if not _is_numeric(face["points"], (count, 2)):
        return f"`points` are not {count} pairs of numbers"
    if not _is_numeric(face.get("box"), (4,)):
        return "`box` is not four numbers"
    for name, shape in (("score", ()), ("sigma", (count,)), ("track", ())):
        if name in face and not _is_numeric(face[name], shape):
            return f"`{name}` is not {'a number' if shape == () else f'{count} numbers'}"
    for name, fields in (("pose", Pose._fields), ("openness", Openness._fields)):
        if name in face:
            values = face[name] if isinstance(face[name], dict) else {}
            if not _is_numeric([values.get(field) for field in fields], (len(fields),)):
                return f"`{name}` is not the numbers {', '.join(fields)}"
    if not isinstance(face.get("blink", False), bool):
        return "`blink` is neither true nor false"
    return None


def _is_text(value: Any) -> bool:
    """Whether a value is text that a file can hold, names that are not UTF-8 included."""
    if not isinstance(value, str) or "\0" in value:
        return False
    try:
        value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half of a surrogate pair, written as an escape in JSON
        return False
    return True


def _is_numeric(values: Any, shape: tuple[int, ...]) -> bool:
    """Whether values are finite numbers, nested in lists to this shape; () is one number."""
    try:
        if shape == ():
            return type(values) in (int, float) and math.isfinite(values)
        array = np.array(values)
    except (ValueError, OverflowError):  # rows of unequal length, an integer of 400 digits
        return False
    return array.dtype.kind in "if" and array.shape == shape and bool(np.isfinite(array).all())


def inside(name: str) -> str:
    """A photograph's name as a relative path that cannot leave the folder it is joined to."""
    parts = [part for part in name.replace("://", "/").split("/") if part not in ("", ".")]
    return "/".join("__" if part == ".." else part for part in parts)


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
