"""What all formats share: records as plain dicts, their points, files written whole or not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from kpipe import schemes
from kpipe.faces import Openness, Pose
from kpipe.media.images import shown
from kpipe.schemes import Scheme

Record = dict[str, Any]
"""One photograph's line of JSON, or one frame's."""

FACE_PARTS = ("score", "sigma", "pose", "track", "openness", "blink")
"""Of a face, beside its box and points."""

FRAME_PARTS = ("frame", "time")
"""Of a video's frame, beside what a photograph has."""

SCHEMES = {s.name: s for s in vars(schemes).values() if isinstance(s, Scheme)}


class FormatError(ValueError):
    """A file of results cannot be read or written; the message is one line and names the file."""


def scheme_of(count: int, where: str) -> Scheme:
    """The scheme of so many points.

    Raises:
        FormatError: none has so many.
    """
    for scheme in SCHEMES.values():
        if len(scheme) == count:
            return scheme
    known = " or ".join(str(len(scheme)) for scheme in SCHEMES.values())
    raise FormatError(f"{where}: {count} points on a face, {known} expected")


def scheme_named(record: Record, where: str) -> Scheme:
    """The scheme of a record.

    Raises:
        FormatError: it is not known.
    """
    name = record.get("scheme", schemes.IBUG68.name)
    if name not in SCHEMES:
        raise FormatError(f"{where}: points of a scheme unknown here ({name})")
    return SCHEMES[name]


def photo_record(
    image: str,
    width: int | None,
    height: int | None,
    faces: list[dict[str, Any]],
    error: str | None = None,
    scheme: str = schemes.IBUG68.name,
    frame: int | None = None,
    time: float | None = None,
) -> Record:
    """A record in the order in which the JSON has its parts."""
    if error is not None:
        return {"image": image, "error": error, "faces": []}
    moment = {"frame": frame, "time": time}
    parts: Record = {name: value for name, value in moment.items() if value is not None}
    sizes = {"width": width, "height": height}
    parts |= {name: int(value) for name, value in sizes.items() if value}
    return {"image": image, **parts, "scheme": scheme, "faces": faces}


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
    """A face of a record; what is None is left out, but the box, which follows from the points."""
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
    """x0, y0, x1, y1 of the square around points."""
    values = np.array(points, np.float64)
    middle = (values.min(axis=0) + values.max(axis=0)) / 2
    half = np.ptp(values, axis=0).max() / 2
    return [round(float(v), 2) for v in (*(middle - half), *(middle + half))]


def inside(name: str) -> str:
    """A photograph's name as a path that cannot leave the folder it is put into."""
    parts = [part for part in name.replace("://", "/").split("/") if part not in ("", ".")]
    return "/".join("__" if part == ".." else part for part in parts)


def _open(path: Path, mode: str) -> IO[Any]:
    if "b" in mode:
        return path.open(mode)
    # Names that are no valid text go through; line ends are left to whoever writes.
    return path.open(mode, encoding="utf-8", errors="surrogateescape", newline="")


@contextmanager
def reading(path: Path, mode: str = "r") -> Iterator[IO[Any]]:
    """An open file, whose failures are FormatErrors."""
    try:
        with _open(path, mode) as stream:
            yield stream
    except OSError as error:
        raise FormatError(f"{shown(path)}: {error.strerror or error}") from None


@contextmanager
def whole_file(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """A file that takes its place when it is complete; a failure leaves none."""
    temporary = path.with_name(f".kpipe-{os.getpid()}-{path.name[:100]}")
    try:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with _open(temporary, mode) as stream:
                yield stream
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise FormatError(f"{shown(path)}: cannot be written ({error.strerror or error})") from None
