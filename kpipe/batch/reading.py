"""The bytes of one photograph, from a file or an address."""

from __future__ import annotations

import os
import stat
from typing import NamedTuple

from kpipe.batch.remote import download, is_address
from kpipe.errors import ReadError, reason_of

ATTEMPTS = 3
"""Times that a file is read if it changes meanwhile."""


class Content(NamedTuple):
    """The bytes of a photograph, with the size and time of the file when they were read.

    See `kpipe.batch.types.InputPhoto` for the units.
    """

    content: bytes
    size: int
    mtime: int


def read_content(place: str) -> Content:
    """Reads a file or an address.

    Raises:
        ReadError: the file does not exist, is not a regular file, may not be read, or changes each
            time it is read.
    """
    if is_address(place):
        content = download(place)
        return Content(content, len(content), 0)
    try:
        for _ in range(ATTEMPTS):
            # A pipe opened without O_NONBLOCK would wait for a writer.
            descriptor = os.open(place, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                before = os.fstat(descriptor)
                if stat.S_ISDIR(before.st_mode):
                    raise ReadError("a folder, not a picture")
                if not stat.S_ISREG(before.st_mode):
                    raise ReadError("a pipe or device, not a file")
                with os.fdopen(descriptor, "rb", buffering=0, closefd=False) as stream:
                    content = stream.read()
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
