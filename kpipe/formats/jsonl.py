"""JSON Lines: kpipe's own format, one record a line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from kpipe.errors import FormatError
from kpipe.formats.records import Record, checked_record, reading
from kpipe.utils.files import atomic_file, display_name


def read(path: Path) -> Iterator[Record]:
    """The records of a file, line by line; empty lines are passed over.

    Raises:
        FormatError: the file cannot be read, or a line is no record; the message has its number.
    """
    with reading(path, "rb") as stream:
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            where = f"{display_name(path)}, line {number}"
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                raise FormatError(f"{where}: not the record of a photograph (not JSON)") from None
            yield checked_record(record, where)


def write(path: Path, records: Iterable[Record]) -> dict[str, int]:
    """Writes one line a record. Nothing is dropped: the dict is empty.

    Raises:
        WriteError: the file cannot be written.
    """
    with atomic_file(path) as stream:
        for record in records:
            stream.write(to_json(record) + "\n")
    return {}


def to_json(record: Record) -> str:
    r"""A record as one line of ASCII, without its line end.

    Bytes of a file name that are not UTF-8 (lone surrogates in Python) are kept as `\udc…` escapes.
    """
    return json.dumps(record, separators=(", ", ": "))
