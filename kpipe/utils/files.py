"""Files: names that can be printed, and files that are written whole or not at all."""

from __future__ import annotations

import os
import threading
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


@contextmanager
def atomic_file(path: Path, mode: str = "w", temporary: Path | None = None) -> Iterator[IO[Any]]:
    """A file that takes its place when it is complete; a failure leaves what was there before.

    Args:
        path: of the file; its folder is made if it is not there.
        mode: `w` or `wb`, see `open_file`.
        temporary: where it is written first, on the same disk; without it beside its place.

    Raises:
        WriteError: it cannot be written.
    """
    if temporary is None:
        temporary = path.with_name(f".kpipe-{os.getpid()}-{threading.get_ident()}")
    try:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open_file(temporary, mode) as stream:
                yield stream
            temporary.replace(path)
        finally:
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
