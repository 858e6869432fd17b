"""The entries of a tar archive, read as a stream in bounded memory.

Python's `tarfile` trusts what it reads: it loads a name of any length, follows negative sizes
backwards for ever, and takes a damaged header for the end. An archive may come from anybody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import IO, NamedTuple

BLOCK = 512
"""Bytes: headers and contents begin at multiples of it."""

PIECE = 1 << 18
"""Bytes that are read at a time."""

LARGEST_HEADER = 1 << 20
"""Bytes of a member's name or extended header. A path has at most 4096 on Linux; extended headers
also hold attributes of the file, up to 64 KiB each."""

FILES, LINKS, SPARSE = b"0\x007", b"12", b"S"
"""Types of members: regular files (three codes), links, files stored without their holes."""

LONG_NAME, EXTENDED, IGNORED = b"L", b"xX", b"Kg"
"""Types of entries that say more about what follows: the next member's long name (GNU), its
extended header (pax); the target of a link and a header for all members, which nothing here needs.
"""

WITHOUT_CONTENT = b"123456"
"""Types that are followed by no content, whatever size their header has."""


class Entry(NamedTuple):
    """A regular file in a tar archive, or a link.

    Attributes:
        name: its path; empty if it is longer than any path.
        size: bytes.
        mtime: time of the last change, nanoseconds; 0 where the archive has none that can be used.
        offset: position of its content in the (decompressed) archive, bytes.
        problem: why its content cannot be read, or None.
        pieces: yields its content; to be called before the next entry is asked for.
    """

    name: str
    size: int
    mtime: int
    offset: int
    problem: str | None
    pieces: Callable[[], Iterator[bytes]]


class Position:
    """A place in a stream that only moves forward.

    Args:
        stream: an open file at its beginning.
        length: of the file (bytes) if it can be searched; None if it must be read through.
    """

    def __init__(self, stream: IO[bytes], length: int | None) -> None:
        self._stream, self._length = stream, length
        self.value = 0

    def read(self, size: int) -> bytes:
        """The next bytes, fewer at the end."""
        content = b""
        while len(content) < size and (piece := self._stream.read(size - len(content))):
            content += piece
        self.value += len(content)
        return content

    def pieces(self, size: int) -> Iterator[bytes]:
        """The next `size` bytes, a piece at a time.

        Raises:
            EOFError: the stream ends before.
        """
        end = self.value + size
        while self.value < end:
            piece = self.read(min(PIECE, end - self.value))
            if not piece:
                raise EOFError("the archive ends in the middle of a file")
            yield piece

    def advance(self, value: int) -> None:
        """Goes to a position.

        Raises:
            EOFError: the stream ends before.
        """
        if self._length is None:
            for _ in self.pieces(value - self.value):
                pass
        elif value > self._length:
            raise EOFError("the archive ends in the middle of a file")
        else:
            self._stream.seek(value)
            self.value = value


def entries(position: Position) -> Iterator[Entry]:
    """The files and links of an archive, in its order.

    Raises:
        ValueError: a header is damaged.
        EOFError: the archive is cut.
        OSError: it cannot be read.
    """
    extended: dict[str, str] = {}
    oversized = False
    while (block := position.read(BLOCK)) and block.strip(b"\0"):
        start = position.value
        kind, size = _type_and_size(block, start - BLOCK)
        if kind in FILES:
            size = _whole(extended.get("size"), size)
        end = start if kind in WITHOUT_CONTENT else start + -(-size // BLOCK) * BLOCK
        if kind in LONG_NAME + EXTENDED + IGNORED:
            if kind not in IGNORED and size > LARGEST_HEADER:
                oversized = True
            elif kind in LONG_NAME:
                extended["path"] = _text(position.read(size).partition(b"\0")[0])
            elif kind in EXTENDED:
                extended |= _pax(position.read(size))
            position.advance(end)
            continue
        if kind in SPARSE:
            end += _pass_map(position, block)
        name = extended.get("GNU.sparse.name") or extended.get("path") or _name(block)
        if kind in FILES + LINKS + SPARSE and not (kind == b"\0" and name.endswith("/")):
            problem = None
            if oversized:
                name, problem = "", f"a member's name takes more than {LARGEST_HEADER >> 20} MiB"
            elif kind in LINKS:
                problem = "a link inside the archive, not a file"
            elif kind in SPARSE or any(key.startswith("GNU.sparse.") for key in extended):
                problem = "a sparse file inside the archive; pack it without --sparse"
            mtime = _nanoseconds(extended.get("mtime"), block[136:148])
            pieces = lambda size=size: position.pieces(size)  # noqa: E731
            yield Entry(name, size, mtime, start, problem, pieces)
        extended, oversized = {}, False
        position.advance(end)


def _type_and_size(block: bytes, place: int) -> tuple[bytes, int]:
    """The type of an entry and the size in its header.

    Raises:
        ValueError: the header is damaged.
        EOFError: it is cut.
    """
    if len(block) < BLOCK:
        raise EOFError("the archive ends in the middle of a header")
    # Eight spaces stand for the check sum; some old programs add signed bytes.
    counted = block[:148] + b" " * 8 + block[156:]
    signed = sum(counted) - 256 * sum(byte > 127 for byte in counted)
    try:
        size = _number(block[124:136])
        if size >= 0 and _number(block[148:156]) in (sum(counted), signed):
            return block[156:157], size
    except ValueError:
        pass
    raise ValueError(f"a damaged header at byte {place}")


def _pass_map(position: Position, block: bytes) -> int:
    """Goes to the content of a sparse file; the size of the map before it, bytes."""
    start = position.value
    more = block[482:483]
    while more not in (b"", b"\0"):
        more = position.read(BLOCK)[504:505]
    return position.value - start


def _number(field: bytes) -> int:
    """A number in a header: octal digits or, for large ones, bytes after a mark.

    Raises:
        ValueError: it is neither.
    """
    if field[0] in (0o200, 0o377):
        return int.from_bytes(field[1:], "big") - (
            256 ** len(field[1:]) if field[0] == 0o377 else 0
        )
    return int(field.partition(b"\0")[0].strip() or b"0", 8)


def _whole(text: str | None, default: int) -> int:
    """The size in an extended header. Without it, or if it is no number, the one in the header."""
    return int(text) if text is not None and text.isdecimal() and len(text) < 20 else default


def _nanoseconds(text: str | None, field: bytes) -> int:
    """The time in an extended header or in the header, 0 if it cannot be used."""
    try:
        return int((_number(field) if text is None else float(text)) * 10**9)
    except (ValueError, OverflowError):  # no number, or one that is not finite
        return 0


def _name(block: bytes) -> str:
    """The name in a header itself, which has two fields for it."""
    name = block[:100].partition(b"\0")[0]
    prefix = block[345:500].partition(b"\0")[0] if block[257:263] == b"ustar\0" else b""
    return _text(prefix + b"/" + name if prefix else name)


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _pax(content: bytes) -> dict[str, str]:
    """The values in an extended header, as far as it can be read: `LENGTH KEY=VALUE` lines."""
    values, start = {}, 0
    while start < len(content):
        digits = content[start : start + 20].partition(b" ")[0]
        if not digits.isdigit() or not len(digits) < int(digits) <= len(content) - start:
            break
        line = content[start + len(digits) + 1 : start + int(digits) - 1]
        key, _, value = line.partition(b"=")
        values[_text(key)] = _text(value)
        start += int(digits)
    return values
