"""Files of results, guarded: no input, nothing twice, nothing that exists without being asked."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TextIO

from kpipe.errors import WriteError
from kpipe.utils.files import display_name

STREAM = "-"
"""Stands for standard input or standard output where a file's name is expected."""


class OutputGuard:
    """Decides which files a run may write: no input, none twice, no existing one without force.

    Args:
        inputs: the files that the run reads, as the user named them.
        force: whether existing files may be replaced.
        what: what errors call an input.
        otherwise: what errors tell the user to do about an existing file.
    """

    def __init__(
        self,
        inputs: Iterable[str],
        force: bool = False,
        what: str = "photograph",
        otherwise: str = "--force replaces it",
    ) -> None:
        self.force, self.what, self.otherwise = force, what, otherwise
        self._inputs = {identity(Path(name)) for name in inputs if name != STREAM}
        self._claimed: set[str] = set()

    def claim(self, target: str | Path) -> None:
        """Reserves a file for one result. Standard output (`-`) can always be written.

        Raises:
            WriteError: the file must not be written.
        """
        if str(target) == STREAM:
            return
        path = Path(target)
        name, place = display_name(path), os.path.realpath(path)
        if identity(path) in self._inputs:
            raise WriteError(f"{name}: is an input {self.what}; name another result")
        if place in self._claimed:
            raise WriteError(f"{name}: would be the result of two {self.what}s or options")
        if path.is_dir():
            raise WriteError(f"{name}: is a folder")
        if path.is_file() and not self.force:
            raise WriteError(f"{name}: exists; {self.otherwise}")
        self._claimed.add(place)


def open_text(target: str) -> TextIO:
    """A text file to write, or standard output (`-`), which stays open when this is closed.

    Raises:
        WriteError: it cannot be opened.
    """
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


def identity(path: Path) -> object:
    """Equal for two names of one file: links, and upper and lower case where they are the same."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return os.path.realpath(path)
    return status.st_dev, status.st_ino
