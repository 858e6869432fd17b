"""Photographs in zip and tar archives.

A member of a zip archive or of an uncompressed tar archive has a place in the file, where a worker
reads it. A compressed tar archive can only be read from beginning to end: its members are saved one
by one, in pieces, so that no process holds one in memory but the worker that decodes it.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import secrets
import struct
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, NamedTuple, cast

from kpipe.batch import tar
from kpipe.batch.reading import LARGEST_FILE, check_size, open_regular
from kpipe.errors import OutputError, ReadError, SourceError, reason_of
from kpipe.utils.files import display_name

ARCHIVE_ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")


LARGEST_DIRECTORY = 128 << 20
"""Bytes. The directory of a zip archive of a million photographs takes about 100 MB."""


LONGEST_COMMENT = 1 << 17
"""Bytes at the end of a zip archive that can hold a comment (64 KiB) and what follows it."""


XZ_MEMORY = 128 << 20
"""Bytes that decompressing xz may take: `xz -9` needs 65 MiB, a hostile file asks for 1.5 GiB."""


class Member(NamedTuple):
    """A file in an archive.

    Attributes:
        name: its path in the archive; empty if it has none that can be used.
        size: bytes.
        mtime: time of the last change, nanoseconds; in a zip archive the file's check sum, which
            tells two versions of a file apart better than zip's time.
        offset: its place in the archive, for `read_member`; None if the archive must be read from
            the beginning, or the member cannot be read.
        problem: why it cannot be read, or None.
        pieces: yields its content, or raises ReadError.
    """

    name: str
    size: int
    mtime: int
    offset: int | None
    problem: str | None
    pieces: Callable[[], Iterator[bytes]]

    def read(self, largest: int = LARGEST_FILE) -> bytes:
        """Its content.

        Args:
            largest: bytes that it may have.

        Raises:
            ReadError: it cannot be read, or is larger.
        """
        if self.problem is not None:
            raise ReadError(self.problem)
        check_size(self.size, largest)
        return b"".join(self.pieces())

    def save(self, folder: Path, largest: int = LARGEST_FILE) -> Path:
        """Writes its content to a new file in a folder, a piece at a time.

        Args:
            folder: of temporary files.
            largest: bytes that it may have.

        Raises:
            ReadError: it cannot be read, or is larger.
            OutputError: the file cannot be written.
        """
        if self.problem is not None:
            raise ReadError(self.problem)
        check_size(self.size, largest)
        path = folder / secrets.token_hex(8)
        try:
            with path.open("xb") as stream:
                for piece in self.pieces():
                    stream.write(piece)
        except ReadError:  # itself an OSError
            path.unlink(missing_ok=True)
            raise
        except OSError as error:
            path.unlink(missing_ok=True)
            name = display_name(folder)
            raise OutputError(f"{name}: cannot be written ({reason_of(error)})") from None
        return path


def is_archive(path: str) -> bool:
    return path.lower().endswith(ARCHIVE_ENDINGS)


@contextmanager
def open_archive(path: str) -> Iterator[Iterator[Member]]:
    """The members of a zip or tar archive, in its order. A member is read before the next one.

    Raises:
        SourceError: the archive, or while its members are iterated the rest of it, cannot be read.
    """
    is_zip = path.lower().endswith(".zip")
    with ExitStack() as opened:
        with _archive_errors(path):
            raw = opened.enter_context(os.fdopen(open_regular(path)[0], "rb", buffering=0))
            if is_zip:
                members = _zip_members(zipfile.ZipFile(cast("IO[bytes]", _Directory(raw))), path)
            else:
                position, seekable = _tar_position(raw)
                members = _tar_members(position, seekable, path)
        yield members


@contextmanager
def _archive_errors(path: str) -> Iterator[None]:
    try:
        yield
    # Damaged archives raise EOFError, zlib.error, LZMAError, ValueError and more.
    except Exception as error:
        reason = reason_of(error)
        raise SourceError(f"{display_name(path)}: not a readable archive ({reason})") from None


@contextmanager
def _member_errors() -> Iterator[None]:
    try:
        yield
    except ReadError:
        raise
    except MemoryError:
        raise
    except Exception as error:  # as in _archive_errors
        raise ReadError(f"cannot be taken from the archive ({reason_of(error)})") from None


# Zip


class _Directory(io.BufferedReader):
    """A zip archive whose directory is read: zipfile loads all of it, whatever its size."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            size = LONGEST_COMMENT  # zipfile reads the rest of the file only for that
        if size > LARGEST_DIRECTORY:
            limit = LARGEST_DIRECTORY >> 20
            raise ValueError(f"its directory takes more than {limit} MiB; split the archive")
        return super().read(size)


def _zip_members(archive: zipfile.ZipFile, path: str) -> Iterator[Member]:
    for info in archive.infolist():
        if not info.filename.endswith("/"):  # a folder
            place = (info.header_offset, info.file_size, info.CRC)
            pieces = lambda place=place: _member_pieces(path, *place)  # noqa: E731
            yield Member(info.filename, info.file_size, info.CRC, info.header_offset, None, pieces)


LOCAL_HEADER = struct.Struct("<4s2xHH4x4x4x4xHH")
"""Of a member of a zip archive: magic number, flags, method, lengths of name and extra field."""

ENCRYPTED = 1


def _zip_pieces(stream: IO[bytes], offset: int, size: int, check_sum: int) -> Iterator[bytes]:
    """The content of the member whose header is at `offset`.

    The sizes in that header may be missing; those in the directory are the ones that count.
    """
    stream.seek(offset)
    header = stream.read(LOCAL_HEADER.size)
    if len(header) < LOCAL_HEADER.size:
        raise EOFError("the archive ends before it")
    magic, flags, method, name_length, extra_length = LOCAL_HEADER.unpack(header)
    if magic != b"PK\3\4":
        raise ValueError("the archive has changed, or is damaged")
    if flags & ENCRYPTED:
        raise ReadError("encrypted in the archive")
    start = stream.seek(name_length + extra_length, os.SEEK_CUR)
    rest = os.fstat(stream.fileno()).st_size - start
    info = zipfile.ZipInfo("member")
    info.compress_type, info.file_size, info.CRC = method, size, check_sum
    info.compress_size = size if method == zipfile.ZIP_STORED else max(rest, 0)
    count = 0
    with zipfile.ZipExtFile(stream, "r", info) as content:
        while piece := content.read(tar.PIECE):
            count += len(piece)
            yield piece
    if count < size:
        raise EOFError("shorter than the archive says")


# Tar


def _tar_position(raw: IO[bytes]) -> tuple[tar.Position, bool]:
    """The beginning of a tar archive, decompressed, and whether it can be searched."""
    magic = raw.read(6)
    raw.seek(0)
    stream: IO[bytes]
    if magic.startswith(b"\x1f\x8b"):
        stream = cast("IO[bytes]", gzip.GzipFile(fileobj=raw))
    elif magic.startswith(b"BZh"):
        stream = cast("IO[bytes]", bz2.BZ2File(raw))
    elif magic.startswith((b"\xfd7zXZ\0", b"]\0\0")):
        stream = cast("IO[bytes]", io.BufferedReader(_XzStream(raw), tar.PIECE))
    elif not magic:
        raise EOFError("empty file")
    else:
        return tar.Position(raw, os.fstat(raw.fileno()).st_size), True
    return tar.Position(stream, None), False


def _tar_members(position: tar.Position, seekable: bool, path: str) -> Iterator[Member]:
    entries = tar.entries(position)
    while True:
        with _archive_errors(path):
            entry = next(entries, None)
        if entry is None:
            return
        offset = entry.offset if seekable and entry.problem is None else None
        pieces = lambda entry=entry: _entry_pieces(entry)  # noqa: E731
        yield Member(entry.name, entry.size, entry.mtime, offset, entry.problem, pieces)


def _entry_pieces(entry: tar.Entry) -> Iterator[bytes]:
    with _member_errors():
        yield from entry.pieces()


class _XzStream(io.RawIOBase):
    """A decompressed xz file. `lzma.LZMAFile` has no limit on memory."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw = raw
        self._decoder = self._new()

    @staticmethod
    def _new() -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(lzma.FORMAT_AUTO, memlimit=XZ_MEMORY)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while True:
            data = b""
            if self._decoder.eof:
                # Another stream may follow, after zeros.
                data = (self._decoder.unused_data or self._raw.read(tar.PIECE)).lstrip(b"\0")
                if not data:
                    return 0
                self._decoder = self._new()
            elif self._decoder.needs_input:
                data = self._raw.read(tar.PIECE)
                if not data:
                    raise EOFError("the archive ends in the middle of a file")
            try:
                content = self._decoder.decompress(data, len(buffer))
            except lzma.LZMAError as error:
                if "limit" not in str(error):
                    raise
                size = XZ_MEMORY >> 20
                raise ValueError(f"needs more than {size} MiB; compress it with xz -9") from None
            if content:
                buffer[: len(content)] = content
                return len(content)


# Members by their place


def read_member(
    path: str, offset: int, size: int, mtime: int, largest: int = LARGEST_FILE
) -> bytes:
    """The content of a member.

    Args:
        path: of the archive.
        offset, size, mtime: see `Member`.
        largest: bytes that it may have.

    Raises:
        ReadError: it cannot be read, or is larger.
    """
    check_size(size, largest)
    content = io.BytesIO()
    for piece in _member_pieces(path, offset, size, mtime):
        content.write(piece)
    return content.getvalue()


def _member_pieces(path: str, offset: int, size: int, mtime: int) -> Iterator[bytes]:
    with _member_errors(), os.fdopen(open_regular(path)[0], "rb") as stream:
        if path.lower().endswith(".zip"):
            yield from _zip_pieces(stream, offset, size, mtime)
        else:
            position = tar.Position(stream, os.fstat(stream.fileno()).st_size)
            position.advance(offset)
            yield from position.pieces(size)
