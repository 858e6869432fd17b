"""Results in files: one module a format, each of which reads records and writes them.

A record is a photograph's line of JSON as a dict. Readers and writers go through it one by one, so
that files may be larger than memory - but COCO's and dlib's, which are one document.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

from kpipe.errors import FormatError
from kpipe.formats.records import Record

__all__ = ["FORMATS", "Format", "FormatError", "Record", "format_of", "load_format"]

FORMATS = {
    "jsonl": (".jsonl", ".ndjson"),
    "csv": (".csv",),
    "parquet": (".parquet",),
    "coco": (".json",),
    "dlib": (".xml",),
    "pts": ("",),
}
"""The formats and how the names of their files end; .pts files lie in a folder."""

_HOME = {"csv": "csv_rows", "dlib": "dlib_xml"}


class Format(Protocol):
    """What the module of a format offers."""

    def read(self, path: Path) -> Iterator[Record]:
        """The records of a file.

        Raises:
            FormatError: it cannot be read.
        """

    def write(self, path: Path, records: Iterable[Record]) -> dict[str, int]:
        """Writes records, and says what of them the format could not hold, and how often.

        Raises:
            FormatError: the file cannot be written.
        """


def load_format(name: str) -> Format:
    """The module of a format; those with heavy packages import them only now."""
    return cast(Format, cast(Any, import_module(f"kpipe.formats.{_HOME.get(name, name)}")))


def format_of(path: Path, *, new: bool = False) -> str:
    """The format that a file's name says. A .json file that is not new may hold JSON Lines, too.

    Raises:
        FormatError: none is named so.
    """
    suffix = path.suffix.lower()
    if path.is_dir():
        return "parquet" if suffix == ".parquet" else "pts"
    for name, suffixes in FORMATS.items():
        if suffix in suffixes:
            return "jsonl" if name == "coco" and not new and _has_records(path) else name
    endings = ", ".join(ending for endings in FORMATS.values() for ending in endings if ending)
    raise FormatError(f"{path}: no format ends so; choose one of {endings} or a folder for .pts")


def _has_records(path: Path) -> bool:
    """Whether a file begins as JSON Lines do, such as those of `kpipe annotate --json`."""
    try:
        with path.open("rb") as stream:
            return stream.read(100).lstrip().startswith(b'{"image":')
    except OSError:
        return False
