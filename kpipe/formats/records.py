"""What all formats share: records as plain dicts, their points, files written whole or not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from kpipe.errors import FormatError
from kpipe.structures import schemes
from kpipe.structures.faces import Openness, Pose
from kpipe.structures.schemes import Scheme
from kpipe.utils.files import display_name, open_file

Record = dict[str, Any]
"""One photograph's line of JSON, or one frame's."""


FACE_PARTS = ("score", "sigma", "pose", "track", "openness", "blink")
"""Of a face, beside its box and points."""


FRAME_PARTS = ("frame", "time")
"""Of a video's frame, beside what a photograph has."""


SCHEMES = {s.name: s for s in vars(schemes).values() if isinstance(s, Scheme)}


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


@contextmanager
def reading(path: Path, mode: str = "r") -> Iterator[IO[Any]]:
    """An open file, whose failures are FormatErrors."""
    try:
        with open_file(path, mode) as stream:
            yield stream
    except OSError as error:
        raise FormatError(f"{display_name(path)}: {error.strerror or error}") from None
