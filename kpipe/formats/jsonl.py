"""JSON Lines: kpipe's own format, one record a line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from kpipe.formats.records import Record, parse_record, reading, results_file
from kpipe.utils.files import display_name
from kpipe.utils.limits import bounded_lines


def read(path: Path) -> Iterator[Record]:
    """The records of a file, line by line; empty lines are passed over.

    Raises:
        FormatError: the file cannot be read, or a line is no record; the message has its number.
    """
    name = display_name(path)
    with reading(path, "rb") as stream:
        for number, line in enumerate(bounded_lines(stream, name), 1):
            if line.strip():
                yield parse_record(line, f"{name}, line {number}")


def write(path: Path, records: Iterable[Record], *, replace: bool = True) -> dict[str, int]:
    """Writes one line a record. Nothing is dropped: the dict is empty.

    Raises:
        FormatError: the file exists and may not be replaced.
        WriteError: the file cannot be written.
    """
    with results_file(path, replace=replace) as stream:
        for record in records:
            stream.write(to_json(record) + "\n")
    return {}


def to_json(record: Record) -> str:
    r"""A record as one line of ASCII, without its line end.

    Bytes of a file name that are not UTF-8 (lone surrogates in Python) are kept as `\udc…` escapes.
    """
    return json.dumps(record, separators=(", ", ": "))
