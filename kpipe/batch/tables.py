"""Text files of results that grow while a job runs."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from kpipe.errors import BatchError, reason_of
from kpipe.formats.csv import header, rows_of_record
from kpipe.formats.csv import reason_line as line
from kpipe.formats.records import checked_record
from kpipe.structures.schemes import IBUG68
from kpipe.utils.files import display_name

FLAGS = (
    os.O_WRONLY
    | os.O_APPEND
    # A link that takes the file's place is not followed.
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_CLOEXEC", 0)
    # Windows would change line ends.
    | getattr(os, "O_BINARY", 0)
)
"""How a table is opened; not every system has every flag."""


class GrowingTable:
    """A text file that grows by whole lines. If a write fails, the half line is cut off again.

    Args:
        path: of the file.
        kind: a key of `KINDS`.
    """

    def __init__(self, path: Path, kind: str) -> None:
        self._path = path
        self._head, self._lines = KINDS[kind]
        self._descriptor: int | None = None

    def begin(self, records: Iterable[str], temporary: Path) -> None:
        """Replaces the file by one with these records, and opens it for more.

        Args:
            records: lines of JSON.
            temporary: a folder on the same disk, where the file is completed first.

        Raises:
            BatchError: it cannot be written.
        """
        fresh = temporary / self._path.name
        with self._errors():
            with fresh.open("xb") as stream:
                stream.write(_bytes(self._head))
                for record in records:
                    stream.write(_bytes(self._lines(record)))
            fresh.replace(self._path)
            self._descriptor = os.open(self._path, FLAGS)

    def add(self, records: Iterable[str]) -> None:
        """Adds records, given as lines of JSON.

        Raises:
            BatchError: they cannot be written.
        """
        self._append("".join(map(self._lines, records)))

    def add_row(self, *cells: str) -> None:
        """Adds one row of a table."""
        self._append(line(cells))

    def _append(self, text: str) -> None:
        if self._descriptor is None or not text:
            return
        rest = memoryview(_bytes(text))
        before = os.fstat(self._descriptor).st_size
        with self._errors():
            try:
                while rest:
                    rest = rest[os.write(self._descriptor, rest) :]
            except OSError:
                # The journal has all records: the next run makes the file anew.
                with contextlib.suppress(OSError):
                    os.ftruncate(self._descriptor, before)
                raise

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise BatchError(
                f"{display_name(self._path)}: cannot be written ({reason_of(error)}); the same "
                "command goes on when it can"
            ) from None


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _json_line(record: str) -> str:
    return record + "\n"


def _csv_rows(record: str) -> str:
    values = json.loads(record)
    where = f"the record of {display_name(values['image'])} in the journal"
    return rows_of_record(checked_record(values, where), IBUG68)


def _error_row(record: str) -> str:
    # Most records are large and no errors: a search is quicker than parsing them.
    if '"error": ' not in record and not has_warning(record):
        return ""
    values = json.loads(record)
    reason = values.get("error", values.get("warning"))
    return "" if reason is None else line((values["image"], reason))


def has_warning(record: str) -> bool:
    """Whether a record, as a line of JSON, has a `warning`; in text its quotes are escaped."""
    return '"warning": ' in record


KINDS: dict[str, tuple[str, Callable[[str], str]]] = {
    "jsonl": ("", _json_line),
    "csv": (header(IBUG68), _csv_rows),
    "errors": (line(("image", "reason")), _error_row),
}
"""By kind: the first line of the file, and the function from a record to the text it adds."""
