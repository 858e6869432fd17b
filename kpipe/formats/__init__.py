"""Files of results: one module a format, each of which reads and writes records.

A record is a plain dict of one photograph or one video frame, see `kpipe.formats.records`. Records
are read and written one by one, so that a file may be larger than memory. COCO's and dlib's are
single documents: reading them needs memory for the whole. `kpipe.utils.limits` has the bounds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

from kpipe.errors import FormatError
from kpipe.formats.records import Record
from kpipe.utils.files import display_name

__all__ = ["FORMATS", "Format", "FormatError", "Record", "format_of", "load_format"]

FORMATS = {
    "jsonl": (".jsonl", ".ndjson"),
    "csv": (".csv",),
    "parquet": (".parquet",),
    "coco": (".json",),
    "dlib": (".xml",),
    "pts": ("",),
}
"""The formats, named as their modules are, and the endings of their files. `.pts` files hold one
face each, so that results in this format are a folder.
"""


class Format(Protocol):
    """The functions of a format's module."""

    def read(self, path: Path) -> Iterator[Record]:
        """The records of a file, or of a folder.

        Raises:
            FormatError: it cannot be read, or is not of this format.
        """

    def write(
        self, path: Path, records: Iterable[Record], *, replace: bool = True
    ) -> dict[str, int]:
        """Writes records to a file, or to a folder.

        Args:
            path: of the file or folder.
            records: from a file, or checked by `kpipe.formats.records.checked_record`.
            replace: whether files that exist may be replaced.

        Returns:
            What the format has no place for, and how often it was dropped.

        Raises:
            FormatError: the format cannot hold a record, or a file may not be replaced.
            WriteError: the file cannot be written.
        """


def load_format(name: str) -> Format:
    """The module of a format, imported now: Parquet's is slow to import.

    Args:
        name: a key of `FORMATS`.

    Raises:
        FormatError: there is no such format.
        ImportError: the format needs a package that is not installed; the message says which.
    """
    if name not in FORMATS:
        raise FormatError(f"unknown format {name!r}; choose one of {', '.join(FORMATS)}")
    return cast(Format, cast(Any, import_module(f"kpipe.formats.{name}")))


def format_of(path: Path, *, new: bool = False) -> str:
    """The format of a file by the ending of its name.

    Args:
        path: a file or a folder.
        new: it is to be written. A `.json` file that exists may also hold JSON Lines.

    Returns:
        A key of `FORMATS`.

    Raises:
        FormatError: no format has this ending.
    """
    suffix = path.suffix.lower()
    if path.is_dir():
        return "parquet" if suffix == ".parquet" else "pts"
    for name, suffixes in FORMATS.items():
        if suffix in suffixes:
            return "jsonl" if name == "coco" and not new and _is_jsonl(path) else name
    endings = ", ".join(ending for endings in FORMATS.values() for ending in endings if ending)
    raise FormatError(
        f"{display_name(path)}: unknown format '{display_name(path.suffix)}'; choose one of "
        f"{endings}, or a folder for .pts"
    )


def _is_jsonl(path: Path) -> bool:
    """Whether a file begins as `kpipe annotate --json` begins one."""
    try:
        with path.open("rb") as stream:
            return stream.read(100).lstrip().startswith(b'{"image":')
    except OSError:
        return False
