"""The files that a command writes: guarded, opened, added to."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from kpipe.errors import WriteError

if TYPE_CHECKING:
    from kpipe.structures.faces import Faces
    from kpipe.structures.schemes import Scheme


STREAM = "-"


@dataclass
class OutputGuard:
    """Guards the files of a run: never an input, never one twice, no existing one without force.

    Attributes:
        photos: the inputs, as the user named them.
        force: whether files that exist may be replaced.
        what: the inputs are, as errors call them.
        otherwise: what to do about a file that exists.
    """

    photos: list[str]
    force: bool
    what: str = "photograph"
    otherwise: str = "--force replaces it"

    def __post_init__(self) -> None:
        self._inputs = {identity(Path(name)) for name in self.photos if name != STREAM}
        self._claimed: set[str] = set()

    def claim(self, target: str | Path | None) -> None:
        """Raises WriteError if the file must not be written."""
        from kpipe.utils.files import display_name

        if target is None or str(target) == STREAM:
            return
        path = Path(target)
        place = os.path.realpath(path)
        if identity(path) in self._inputs:
            raise WriteError(f"{display_name(path)}: is an input {self.what}; name another result")
        if place in self._claimed:
            raise WriteError(
                f"{display_name(path)}: would be the result of two {self.what}s or options"
            )
        if path.is_dir():
            raise WriteError(f"{display_name(path)}: is a folder")
        if path.is_file() and not self.force:
            raise WriteError(f"{display_name(path)}: exists; {self.otherwise}")
        self._claimed.add(place)

    def open(self, target: str) -> TextIO:
        """A text file that was claimed, or standard output, which stays open."""
        from kpipe.utils.files import display_name

        try:
            if target == STREAM and sys.stdout is None:
                raise WriteError("standard output: closed")
            if target == STREAM:
                destination: int | str = sys.stdout.fileno()
            else:
                Path(target).parent.mkdir(parents=True, exist_ok=True)
                destination = target
            return open(
                destination,
                "w",
                encoding="utf-8",
                errors="surrogateescape",
                newline="",
                closefd=target != STREAM,
            )
        except OSError as problem:
            reason = problem.strerror or problem
            raise WriteError(f"{display_name(target)}: cannot be written ({reason})") from None


@dataclass(frozen=True)
class Tables:
    """The text files that a run adds to, photograph by photograph."""

    json: TextIO | None
    csv: TextIO | None
    scheme: Scheme

    def __post_init__(self) -> None:
        if self.csv is not None:
            from kpipe.formats import csv

            self.csv.write(csv.header(self.scheme))

    def add(self, faces: Faces) -> None:
        from kpipe.formats import csv, jsonl

        if self.json is not None:
            self.json.write(jsonl.to_json(faces) + "\n")
            self.json.flush()
        if self.csv is not None:
            self.csv.write(csv.rows(faces))
            self.csv.flush()

    def add_error(self, name: str, reason: str) -> None:
        from kpipe.formats import jsonl

        if self.json is not None:
            self.json.write(jsonl.error_to_json(name, reason) + "\n")
            self.json.flush()


def identity(path: Path) -> object:
    """Equal for two names of one file: links, and upper and lower case where they are the same."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return os.path.realpath(path)
    return status.st_dev, status.st_ino
