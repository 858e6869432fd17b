"""The bytes of one photograph, from a file or an address."""

from __future__ import annotations

import os
import stat
from typing import NamedTuple

from kpipe.batch.remote import download, is_address
from kpipe.errors import ReadError, reason_of

ATTEMPTS = 3
"""Times that a file is read if it changes meanwhile."""


LARGEST_FILE = 1 << 30
"""Bytes of a photograph's file at most, unless the user sets another limit. The largest picture
that is decoded, 179 megapixels of 48 bits, takes as much without compression."""


FLAGS = (
    os.O_RDONLY
    # A pipe opened without O_NONBLOCK would wait for a writer.
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_CLOEXEC", 0)
    # Windows would change line ends.
    | getattr(os, "O_BINARY", 0)
)
"""How files are opened; not every system has every flag."""


class Content(NamedTuple):
    """The bytes of a photograph, with the size and time of the file when they were read.

    See `kpipe.batch.types.InputPhoto` for the units.
    """

    content: bytes
    size: int
    mtime: int


def check_size(size: int, largest: int) -> None:
    """Refuses a file before it is read.

    Args:
        size: of the file, bytes.
        largest: that it may have.

    Raises:
        ReadError: it is larger.
    """
    if size > largest:
        raise ReadError(f"larger than {largest / 2**30:.3g} GB (--size-limit)")


def open_regular(place: str) -> tuple[int, os.stat_result]:
    """A descriptor of a regular file, open for reading, and the state of the file.

    Raises:
        ReadError: it is a folder, a pipe or a device.
        OSError: it cannot be opened.
        ValueError: the path holds a NUL character.
    """
    descriptor = os.open(place, FLAGS)
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode):
        return descriptor, status
    os.close(descriptor)
    folder = stat.S_ISDIR(status.st_mode)
    raise ReadError("a folder, not a picture" if folder else "a pipe or device, not a file")


def read_content(place: str, largest: int = LARGEST_FILE) -> Content:
    """Reads a file or an address.

    Args:
        place: path or address.
        largest: bytes that it may have.

    Raises:
        ReadError: the file does not exist, is not a regular file, may not be read, is larger, or
            changes each time it is read.
    """
    if is_address(place):
        content = download(place, largest)
        check_size(len(content), largest)
        return Content(content, len(content), 0)
    try:
        for _ in range(ATTEMPTS):
            descriptor, before = open_regular(place)
            try:
                check_size(before.st_size, largest)
                with os.fdopen(descriptor, "rb", closefd=False) as stream:
                    content = stream.read(before.st_size + 1)
                after = os.fstat(descriptor)
            finally:
                os.close(descriptor)
            if len(content) == after.st_size and before.st_mtime_ns == after.st_mtime_ns:
                return Content(content, after.st_size, after.st_mtime_ns)
        raise ReadError("changes while it is read; run again when it is whole")
    except ReadError:  # itself an OSError
        raise
    except FileNotFoundError:
        raise ReadError("no such file") from None
    except PermissionError:
        raise ReadError("no permission to read it") from None
    except (OSError, ValueError) as error:
        raise ReadError(reason_of(error)) from None
