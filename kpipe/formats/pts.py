"""A folder of iBUG's `.pts` files."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from kpipe.datasets.pts import PICTURES, read_pts
from kpipe.errors import DatasetError, FormatError
from kpipe.formats.records import FACE_PARTS, Record, face_record, inside, photo_record, scheme_of
from kpipe.structures.faces import Face
from kpipe.utils.files import atomic_file, display_name


def read(path: Path) -> Iterator[Record]:
    if not path.is_dir():
        raise FormatError(f"{display_name(path)}: not a folder of .pts files")
    files = sorted(path.rglob("*.pts"))
    if not files:
        raise FormatError(f"{display_name(path)}: no .pts files in it")
    for picture, members in _pictures(files).items():
        faces = [_face(member) for member in members]
        name = picture.relative_to(path).as_posix()
        scheme = scheme_of(len(faces[0]["points"]), display_name(members[0]))
        yield photo_record(name, None, None, faces, scheme=scheme.name)


def _pictures(files: list[Path]) -> dict[Path, list[Path]]:
    """The files of each photograph, by its path: found beside them or, failing that, guessed."""
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


def _guessed(stem: Path, stems: set[Path]) -> Path:
    """A picture of that name, but none that has a `.pts` file of its own."""
    endings = (".jpg", *PICTURES)
    guesses = [stem.with_name(stem.name + ending) for ending in endings]
    return next((guess for guess in guesses if guess not in stems), guesses[0])


def _face_number(file: Path) -> int:
    number = file.stem.rpartition("_")[2]
    return int(number) if number.isdecimal() else 0


def _beside(stem: Path, stems: set[Path]) -> Path | None:
    if stem.suffix.lower() in PICTURES:  # `b.jpg.pts`
        return stem
    candidates = (stem.with_name(stem.name + ending) for ending in PICTURES)
    # One that has a `.pts` file of its own is none of this name's.
    return next((path for path in candidates if path.is_file() and path not in stems), None)


def _face(file: Path) -> dict[str, Any]:
    try:
        points = read_pts(file)
    except DatasetError as error:
        raise FormatError(str(error)) from None
    # Counting from 0 again must not leave 0.30000000000000004.
    return face_record([[round(x, 6), round(y, 6)] for x, y in points])


def write(path: Path, records: Iterable[Record]) -> dict[str, int]:
    lost: Counter[str] = Counter()
    taken: set[int] = set()
    for record in records:
        if not record["faces"]:
            lost["errors" if "error" in record else "photographs without a face"] += 1
        else:
            lost["sizes of photographs"] += "width" in record
            lost["times of frames"] += "time" in record
        name = inside(record["image"])
        frame = f"_frame{record['frame']}" if "frame" in record else ""
        names = _names((name.rpartition(".")[0] or name) + frame, len(record["faces"]))
        if any(hash(n) in taken for n in names):
            names = _names(name + frame, len(record["faces"]))
            if any(hash(n) in taken for n in names):
                raise FormatError(
                    f"{display_name(name)}: would have the same files as another photograph"
                )
        for file, face in zip(names, record["faces"]):
            taken.add(hash(file))
            with atomic_file(path / f"{file}.pts") as stream:
                stream.write(to_text(face["points"]))
            lost["boxes of faces"] += 1
            for part in FACE_PARTS:
                lost[f"{part} of faces"] += part in face
    return {what: count for what, count in lost.items() if count}


def _names(stem: str, count: int) -> list[str]:
    return [stem] if count == 1 else [f"{stem}_{index + 1}" for index in range(count)]


def to_text(points: list[list[float]]) -> str:
    """A `.pts` file: pixels are counted from 1."""
    lines = "".join(f"{_number(x + 1)} {_number(y + 1)}\n" for x, y in points)
    return f"version: 1\nn_points: {len(points)}\n{{\n{lines}}}\n"


def _number(value: float) -> str:
    text = f"{value:.3f}"
    return text if abs(float(text) - value) < 1e-9 else f"{value:.9f}"


def to_pts(face: Face) -> str:
    points = "".join(f"{x:.3f} {y:.3f}\n" for x, y in face.points + 1)
    return f"version: 1\nn_points: {len(face.points)}\n{{\n{points}}}\n"
