"""iBUG's `.pts` files: the points of one face in text, pixels counted from 1.

Results in this format are a folder. The file of a photograph's only face has the photograph's name,
`PHOTO.pts`; those of several faces are `PHOTO_1.pts`, `PHOTO_2.pts` …
"""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from kpipe.errors import FormatError
from kpipe.formats.records import (
    FACE_PARTS,
    Record,
    check_new,
    checked_record,
    face_record,
    photo_record,
    reading,
    scheme_of,
)
from kpipe.utils.files import atomic_file, display_name
from kpipe.utils.limits import FACES, POINTS_FILE
from kpipe.utils.paths import inside, is_file, result_path

PICTURES = (".jpg", ".jpeg", ".png", ".bmp")
"""Endings of the pictures that lie beside `.pts` files."""


def read_pts(path: Path) -> list[list[float]]:
    """The points of one file: x, y (pixels, counted from 0; the file counts from 1).

    Raises:
        FormatError: the file cannot be read, is not a `.pts` file, or its number of points is not
            the one in its header.
    """
    where = display_name(path)
    if not is_file(path) and os.path.lexists(path):  # a pipe would be waited for
        raise FormatError(f"{where}: not a file")
    with reading(path, "rb") as stream:
        content: bytes = stream.read(POINTS_FILE.value + 1)
    POINTS_FILE.check(len(content), where)
    try:
        text = content.decode("ascii")
    except UnicodeDecodeError:
        raise FormatError(f"{where}: not a text file") from None
    match = re.search(r"n_points\s*:\s*(\d{1,9})\s*\{([^{}]*)\}", text)
    if match is None:
        raise FormatError(f"{where}: no 'n_points: N {{ … }}' in it")
    try:
        points = [[float(v) - 1 for v in line.split()] for line in match[2].strip().splitlines()]
    except ValueError:
        raise FormatError(f"{where}: a coordinate is not a number") from None
    if any(len(point) != 2 for point in points):
        raise FormatError(f"{where}: a line without exactly two numbers")
    if not all(math.isfinite(value) for point in points for value in point):
        raise FormatError(f"{where}: a coordinate is not finite")
    if not points:
        raise FormatError(f"{where}: no points in it")
    if len(points) != int(match[1]):
        raise FormatError(f"{where}: {len(points)} points, its header says {match[1]}")
    return points


def to_pts(points: Iterable[Sequence[float]]) -> str:
    """The text of a `.pts` file.

    Args:
        points: x, y of each (pixels, counted from 0). Three decimals are written, nine where three
            do not hold the value.
    """
    lines = [f"{_number(x + 1)} {_number(y + 1)}\n" for x, y in points]
    return f"version: 1\nn_points: {len(lines)}\n{{\n{''.join(lines)}}}\n"


def _number(value: float) -> str:
    text = f"{value:.3f}"
    return text if abs(float(text) - value) < 1e-9 else f"{value:.9f}"


def read(path: Path) -> Iterator[Record]:
    """The records of a folder and its subfolders, one a photograph.

    A photograph is named after the picture beside its files. Without one, its ending is taken to be
    `.jpg`.

    Raises:
        FormatError: there are no `.pts` files, or one of them cannot be read.
    """
    if not path.is_dir():
        raise FormatError(f"{display_name(path)}: not a folder of .pts files")
    try:
        files = sorted(path.rglob("*.pts"))
    except RecursionError:
        raise FormatError(f"{display_name(path)}: its folders are nested too deeply") from None
    except OSError as error:
        raise FormatError(f"{display_name(path)}: {error.strerror or error}") from None
    if not files:
        raise FormatError(f"{display_name(path)}: no .pts files in it")
    for picture, members in _pictures(files).items():
        FACES.check(len(members), display_name(picture))
        # Subtracting 1 leaves values such as 0.30000000000000004.
        faces = [
            face_record([[round(x, 6), round(y, 6)] for x, y in read_pts(member)])
            for member in members
        ]
        where = display_name(members[0])
        scheme = scheme_of(faces, where)
        name = picture.relative_to(path).as_posix()
        yield checked_record(photo_record(name, None, None, faces, scheme=scheme.name), where)


def _pictures(files: list[Path]) -> dict[Path, list[Path]]:
    """The `.pts` files of each photograph, in the order of its faces, by the photograph's path."""
    stems = {file.with_suffix("") for file in files}
    pictures: dict[Path, list[Path]] = {}
    for file in files:
        stem = file.with_suffix("")
        beside = _beside(stem, stems)
        numbered = re.fullmatch(r"(.+)_\d+", stem.name)
        if beside is None and numbered:
            whole = stem.with_name(numbered[1])
            first = stem.with_name(f"{numbered[1]}_1")
            if first in stems and whole not in stems:
                stem, beside = whole, _beside(whole, stems)
        pictures.setdefault(beside or _guessed(stem, stems), []).append(file)
    return {picture: sorted(members, key=_face_number) for picture, members in pictures.items()}


def _beside(stem: Path, stems: set[Path]) -> Path | None:
    """The picture beside a `.pts` file, or None."""
    if stem.suffix.lower() in PICTURES:  # `b.jpg.pts`
        return stem
    candidates = (stem.with_name(stem.name + ending) for ending in PICTURES)
    # `b.jpg` is not the picture of `b.pts` if there is a `b.jpg.pts`.
    return next((path for path in candidates if is_file(path) and path not in stems), None)


def _guessed(stem: Path, stems: set[Path]) -> Path:
    """A picture of this name that has no `.pts` file of its own."""
    guesses = [stem.with_name(stem.name + ending) for ending in PICTURES]
    return next((guess for guess in guesses if guess not in stems), guesses[0])


def _face_number(file: Path) -> int:
    number = file.stem.rpartition("_")[2]
    return int(number) if number.isdecimal() else 0


def write(path: Path, records: Iterable[Record], *, replace: bool = True) -> dict[str, int]:
    """Writes one file a face to a folder, in subfolders as the photographs' names have them.

    Each path is made and checked by `kpipe.utils.paths.result_path`. Other files of the folder are
    left alone.

    Returns:
        What the files have no place for, and how often it was dropped.

    Raises:
        FormatError: two photographs would have the same files, a file exists and may not be
            replaced, or a link leads out of the folder.
        WriteError: a file cannot be written.
    """
    lost: Counter[str] = Counter()
    # Hashes: the names of a million photographs would take much more memory.
    taken: set[int] = set()
    for record in records:
        if not record["faces"]:
            lost["errors" if "error" in record else "photographs without a face"] += 1
        else:
            lost["warnings"] += "warning" in record
            lost["sizes of photographs"] += "width" in record
            lost["times of frames"] += "time" in record
        name = inside(record["image"])
        frame = f"_frame{record['frame']}" if "frame" in record else ""
        folder, slash, last = name.rpartition("/")
        stem = folder + slash + (last.rpartition(".")[0] or last)
        targets = _targets(path, stem + frame, len(record["faces"]))
        if any(_key(target) in taken for target in targets):
            targets = _targets(path, name + frame, len(record["faces"]))
            if any(_key(target) in taken for target in targets):
                raise FormatError(
                    f"{display_name(name)}: would have the same files as another photograph"
                )
        for target, face in zip(targets, record["faces"]):
            taken.add(_key(target))
            check_new(target, replace)
            with atomic_file(target) as stream:
                stream.write(to_pts(face["points"]))
            lost["boxes of faces"] += 1
            for part in FACE_PARTS:
                lost[f"{part} of faces"] += part in face
    return {what: count for what, count in lost.items() if count}


def _targets(folder: Path, stem: str, count: int) -> list[Path]:
    """The files of a photograph's faces."""
    names = [stem] if count == 1 else [f"{stem}_{index + 1}" for index in range(count)]
    return [result_path(folder, name, ".pts") for name in names]


def _key(target: Path) -> int:
    """What two paths of one file have in common, on Windows whatever their case."""
    return hash(os.path.normcase(target))
