"""JSON Lines: kpipe's own format, one photograph a line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from kpipe.errors import FormatError
from kpipe.formats.records import Record, reading
from kpipe.structures.faces import Faces
from kpipe.utils.files import atomic_file, display_name


def read(path: Path) -> Iterator[Record]:
    with reading(path, "rb") as stream:
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
                if not isinstance(record["image"], str) or not isinstance(record["faces"], list):
                    raise TypeError
            except (ValueError, KeyError, TypeError):
                raise FormatError(
                    f"{display_name(path)}, line {number}: not the record of a photograph"
                ) from None
            yield record


def line(record: Record) -> str:
    """ASCII alone: file names that are no valid text survive as escapes."""
    return json.dumps(record, separators=(", ", ": ")) + "\n"


def write(path: Path, records: Iterable[Record]) -> dict[str, int]:
    with atomic_file(path) as stream:
        for record in records:
            stream.write(line(record))
    return {}


def to_json(faces: Faces) -> str:
    """One line of JSON. ASCII alone: file names that are no valid text survive as escapes."""
    return json.dumps(faces.to_dict(), separators=(", ", ": "))


def error_to_json(path: str, reason: str) -> str:
    """The line of a photograph that failed."""
    return json.dumps({"image": path, "error": reason, "faces": []}, separators=(", ", ": "))
