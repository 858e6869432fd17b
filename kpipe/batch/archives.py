"""Photographs in zip and tar archives."""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, NamedTuple

from kpipe.errors import ReadError, SourceError, reason_of
from kpipe.utils.files import display_name

ARCHIVE_ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")


LARGEST_MEMBER = 1 << 30
"""Bytes. A member that decompresses to more is not a photograph but a decompression bomb."""


class Member(NamedTuple):
    """A file in an archive.

    Attributes:
        name: its path in the archive.
        size: bytes.
        mtime: time of the last change, nanoseconds; in a zip archive the file's check sum, which
            tells two versions of a file apart better than zip's time.
        read: returns its bytes or raises ReadError.
    """

    name: str
    size: int
    mtime: int
    read: Callable[[], bytes]


def is_archive(path: str) -> bool:
    return path.lower().endswith(ARCHIVE_ENDINGS)


@contextmanager
def open_archive(path: str) -> Iterator[Iterator[Member]]:
    """The members of a zip or tar archive, in its order. A member is read before the next one.

    Raises:
        SourceError: the archive, or while its members are iterated the rest of it, cannot be read.
    """
    if path.lower().endswith(".zip"):
        with _archive_errors(path):
            zip_archive = zipfile.ZipFile(path)
        with zip_archive:
            yield _zip_members(zip_archive)
    else:
        with _archive_errors(path):
            tar_archive = tarfile.open(path)  # noqa: SIM115 - closed below
        with tar_archive:
            yield _tar_members(tar_archive, path)


@contextmanager
def _archive_errors(path: str) -> Iterator[None]:
    try:
        yield
    # Damaged archives raise EOFError, zlib.error, LZMAError, ValueError and more.
    except Exception as error:
        reason = reason_of(error)
        raise SourceError(f"{display_name(path)}: not a readable archive ({reason})") from None


def _zip_members(archive: zipfile.ZipFile) -> Iterator[Member]:
    for info in archive.infolist():
        if not info.is_dir():
            opener = lambda info=info: archive.open(info)  # noqa: E731
            yield Member(info.filename, info.file_size, info.CRC, _reader(opener))


def _tar_members(archive: tarfile.TarFile, path: str) -> Iterator[Member]:
    while True:
        with _archive_errors(path):
            info = archive.next()
        if info is None:
            return
        mtime = int(info.mtime * 10**9)
        if info.isfile():
            opener = lambda info=info: archive.extractfile(info)  # noqa: E731
            yield Member(info.name, info.size, mtime, _reader(opener))
        elif info.islnk() or info.issym():
            yield Member(info.name, 0, mtime, _read_link)
        # tarfile keeps every member otherwise, and memory grows with the archive.
        archive.members = []  # type: ignore[attr-defined]


def _read_link() -> bytes:
    raise ReadError("a link inside the archive, not a file")


def _reader(opener: Callable[[], IO[bytes] | None]) -> Callable[[], bytes]:
    def read() -> bytes:
        try:
            stream = opener()
            if stream is None:
                raise ReadError("not a file")
            with stream:
                content = stream.read(LARGEST_MEMBER + 1)
        except ReadError:
            raise
        except Exception as error:  # as in _archive_errors
            raise ReadError(f"cannot be taken from the archive ({reason_of(error)})") from None
        if len(content) > LARGEST_MEMBER:
            raise ReadError("larger than 1 GiB inside the archive")
        return content

    return read
