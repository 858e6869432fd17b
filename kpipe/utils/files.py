"""Files: names that can be printed, and files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from kpipe.errors import WriteError


def display_name(path: str | os.PathLike[str]) -> str:
    """A file name as it can be printed on one line, whatever bytes it is made of."""
    name = os.fspath(path)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def open_file(path: Path, mode: str) -> IO[Any]:
    """An open file. Text is UTF-8; bytes of names that are no valid text, and line ends, are kept.

    Raises:
        OSError: it cannot be opened.
    """
    if "b" in mode:
        return path.open(mode)
    return path.open(mode, encoding="utf-8", errors="surrogateescape", newline="")


STALE = 86400.0
"""Seconds without a write after which a temporary file of a process that is gone is removed."""


PREFIX = ".kpipe-"
"""Of the names of temporary files."""


TEMPORARY = re.compile(r"\.kpipe-(?:([0-9]{1,9})(?:-[0-9a-f]+)?|[0-9a-f]{16})(?:\.\w{1,8})?")
"""Their names, with the number of the process or without."""


def temporary_beside(path: Path) -> Path:
    """A new name in a file's folder, for its content until it is complete.

    The name is short whatever the file's is, cannot be guessed, and has the number of the process.
    """
    return path.with_name(f"{PREFIX}{os.getpid()}-{secrets.token_hex(8)}{path.suffix.lower()[:8]}")


@functools.lru_cache(maxsize=64)
def remove_stale(folder: Path) -> None:
    """Removes what killed processes have left in a folder: see `STALE`. Once in each process.

    A file that another process may still write to has changed within a day, or that process lives.
    """
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            temporary = TEMPORARY.fullmatch(entry.name)
            if temporary is None:
                continue
            with contextlib.suppress(OSError):
                status = entry.stat(follow_symlinks=False)
                old = time.time() - status.st_mtime > STALE
                running = temporary[1] is not None and _is_running(int(temporary[1]))
                if old and stat.S_ISREG(status.st_mode) and not running:
                    Path(entry.path).unlink()


def _is_running(process: int) -> bool:
    """Whether a process of this number exists, on systems that can be asked without harm."""
    if os.name != "posix":
        return False
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # of another user
        pass
    return True


@contextmanager
def atomic_file(path: Path, mode: str = "w", temporary: Path | None = None) -> Iterator[IO[Any]]:
    """A file that takes its place when it is complete; a failure leaves what was there before.

    Args:
        path: of the file; its folder is made if it is not there.
        mode: `w` or `wb`, see `open_file`.
        temporary: a new file on the same disk where it is written first; without it one beside its
            place, see `temporary_beside`.

    Raises:
        WriteError: it cannot be written.
    """
    if "\0" in os.fspath(path):
        raise WriteError(f"{display_name(path)}: cannot be written (a NUL character in its name)")
    made = False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if temporary is None:
            remove_stale(path.parent)
            temporary = temporary_beside(path)
        try:
            # No other program can have put a file or a link there: "x" makes a new one.
            with open_file(temporary, mode.replace("w", "x")) as stream:
                made = True
                yield stream
            temporary.replace(path)
        finally:
            if made:
                temporary.unlink(missing_ok=True)
    except OSError as error:
        reason = f"cannot be written ({error.strerror or error})"
        raise WriteError(f"{display_name(path)}: {reason}", error.errno) from None


def write_file(path: Path, content: bytes, temporary: Path | None = None) -> None:
    """Writes a file, whole or not at all: see `atomic_file`.

    Raises:
        WriteError: it cannot be written.
    """
    with atomic_file(path, "wb", temporary) as stream:
        stream.write(content)
