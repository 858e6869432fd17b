"""Limits on what is read from files, so that a hostile file costs one error line and no memory.

Each has a default that ordinary work does not reach. The message of a limit names the environment
variable that raises it.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, AnyStr

from kpipe.errors import FormatError


@dataclass(frozen=True)
class Limit:
    """An upper bound on one property of a file.

    Attributes:
        variable: environment variable with a whole number that takes the default's place.
        default: the bound if the variable is not set.
        what: is counted, for the message.
    """

    variable: str
    default: int
    what: str

    @property
    def value(self) -> int:
        """The bound.

        Raises:
            FormatError: the variable does not hold a whole number above 0.
        """
        text = os.environ.get(self.variable, "")
        if not text:
            return self.default
        if not (text.isascii() and text.isdecimal() and len(text) < 19 and int(text) > 0):
            raise FormatError(f"{self.variable}: {text[:40]!r} is not a whole number above 0")
        return int(text)

    def check(self, count: int, where: str) -> None:
        """Compares a count with the bound.

        Args:
            count: of what is bounded.
            where: file and line or photograph, for the message.

        Raises:
            FormatError: the count is higher; the message says how to raise the bound.
        """
        if count > (most := self.value):
            raise FormatError(
                f"{where}: more than {most} {self.what}; to read it all the same, set the "
                f"environment variable {self.variable} to a higher number"
            )


LINE = Limit("KPIPE_MAX_LINE_BYTES", 16 * 2**20, "bytes in one line")
"""Of JSON Lines and text lists. A face takes 3.5 KB: 4,000 of them fit."""

ROW = Limit("KPIPE_MAX_ROW_BYTES", 2**20, "characters in one row of CSV")
"""A row of Kaggle's files, the longest that are read, has 40,000 characters."""

DOCUMENT = Limit("KPIPE_MAX_DOCUMENT_BYTES", 512 * 2**20, "bytes in a file that is read whole")
"""Of COCO's JSON and dlib's XML. COCO's own keypoints of 2017 take 240 MB."""

RECORDS = Limit(
    "KPIPE_MAX_DOCUMENT_RECORDS", 2_000_000, "photographs and faces in a file that is read whole"
)
"""Of COCO's JSON and dlib's XML."""

FACES = Limit("KPIPE_MAX_FACES", 4_000, "faces on one photograph")
"""The fullest photograph of WIDER FACE has 1,968."""

BOXES = Limit("KPIPE_MAX_BOXES", 1_000, "boxes on one photograph")
"""Of a file of given boxes. Each takes about 6 ms."""

POINTS_FILE = Limit("KPIPE_MAX_PTS_BYTES", 2**20, "bytes in a .pts file")
"""A `.pts` file of 68 points has 2 KB."""


def bounded_lines(stream: IO[AnyStr], where: str, limit: Limit = LINE) -> Iterator[AnyStr]:
    """The lines of a file, none of which is read beyond the limit.

    Raises:
        FormatError: a line is longer; the message has its number.
    """
    most = limit.value
    number = 0
    while line := stream.readline(most + 1):
        number += 1
        limit.check(len(line), f"{where}, line {number}")
        yield line


class RowLines(Iterator[str]):
    """The lines of a CSV file for `csv.reader`. A quoted cell may hold line ends: the limit is on
    all lines of a row.

    Args:
        stream: the file, in text.
        where: its name, for the message.

    Attributes:
        used: characters since the last row began; whoever reads the rows sets it back to 0.
    """

    def __init__(self, stream: IO[str], where: str) -> None:
        self._stream, self._where = stream, where
        self._most = ROW.value
        self.used = 0

    def __next__(self) -> str:
        line = self._stream.readline(self._most + 1)
        if not line:
            raise StopIteration
        self.used += len(line)
        ROW.check(self.used, self._where)
        return line


def csv_rows(stream: IO[str], where: str) -> Iterator[tuple[int, list[str]]]:
    """The rows of a CSV file, header included, each with the number of its last line.

    Args:
        stream: the file, in text, opened with `newline=""`.
        where: its name, for the message.

    Raises:
        FormatError: it is not CSV, not text, or a row is longer than the limit.
    """
    lines = RowLines(stream, where)
    reader = csv.reader(lines)
    try:
        for cells in reader:
            lines.used = 0
            yield reader.line_num, cells
    except UnicodeDecodeError:
        raise FormatError(f"{where}: not a text file") from None
    except csv.Error as error:
        reason = f"{error}; not a CSV file"
        raise FormatError(f"{where}, line {reader.line_num}: {reason}") from None
