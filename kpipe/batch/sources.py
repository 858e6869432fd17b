"""What a job reads: folders, patterns, lists, archives and addresses, as one stream of photographs.

With one input, a photograph's name is its path inside that folder or archive. With several inputs
it is the path as given, so that names stay short and never clash.
"""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from kpipe.batch.archives import is_archive, open_archive
from kpipe.batch.layout import JOURNAL, RESULTS
from kpipe.batch.remote import is_address, list_files
from kpipe.batch.types import InputPhoto, Selection
from kpipe.errors import SourceError, reason_of
from kpipe.utils.files import display_name

LIST_ENDINGS = (".txt", ".lst", ".list")


STDIN = "-"
"""The input that is a list of names on standard input."""


@dataclass
class Scan:
    """Finds the photographs of a job.

    Attributes:
        inputs: folders, photographs, patterns, lists, archives, addresses, or - for a list on
            standard input.
        selection: which files are photographs of the job.
        results: the results folder of the job.
        unreadable: called with the name and the reason of each folder, list or archive that cannot
            be read.
        skipped: number of files that the selection does not include.

    Raises:
        SourceError: an input does not exist.
    """

    inputs: Sequence[str]
    selection: Selection
    results: Path
    unreadable: Callable[[str, str], None]
    skipped: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        for given in self.inputs:
            if given == STDIN and sys.stdin is None:
                raise SourceError("standard input: closed")
            if given == STDIN or is_address(given) or os.path.lexists(given):
                continue
            if not glob.has_magic(given):
                raise SourceError(
                    f"{display_name(given)}: no such folder, photograph, list or archive"
                )
            if next(glob.iglob(given, recursive=True), None) is None:
                raise SourceError(f"{display_name(given)}: nothing matches this pattern")

    def __iter__(self) -> Iterator[InputPhoto]:
        """The photographs, in no particular order; a name may come twice."""
        # Archives and lists may hold names with a NUL, and no file can be written under those.
        return (photo._replace(name=photo.name.replace("\0", "\ufffd")) for photo in self._photos())

    def _photos(self) -> Iterator[InputPhoto]:
        alone = len(self.inputs) == 1
        for given in self.inputs:
            if given == STDIN:
                yield from self._list(sys.stdin.buffer, "standard input")
            elif is_address(given):
                yield from self._address(given, alone)
            elif os.path.lexists(given):
                yield from self._path(given, alone)
            else:
                for match in sorted(glob.iglob(given, recursive=True)):
                    yield from self._path(match, alone=False, chosen=False)

    def _path(self, path: str, alone: bool, chosen: bool = True) -> Iterator[InputPhoto]:
        prefix = "" if alone else plain(path) + "/"
        if self._is_result(path):
            self.unreadable(path, "lies where the results go; choose another folder for them")
        elif os.path.isdir(path):
            yield from self._folder(path, "" if prefix == "./" else prefix)
        elif is_archive(path):
            yield from self._archive(path, prefix)
        elif chosen and is_list(path):
            try:
                with Path(path).open("rb") as stream:
                    yield from self._list(stream, display_name(path))
            except OSError as error:
                self.unreadable(path, reason_of(error))
        else:
            yield from self._file(path, plain(path), chosen)

    def _is_result(self, path: str) -> bool:
        if "\0" in path:
            return False
        place = os.path.join(os.path.realpath(path), "")
        results = os.path.realpath(self.results)
        return any(place.startswith(os.path.join(results, name, "")) for name in RESULTS)

    def _file(self, path: str, name: str, chosen: bool) -> Iterator[InputPhoto]:
        if self.selection.includes(name, chosen):
            yield InputPhoto(name, path, None, *_size_and_time(path))
        else:
            self.skipped += 1

    def _list(self, stream: IO[bytes], name: str) -> Iterator[InputPhoto]:
        """The photographs, and those of the folders and archives, that a list names."""
        try:
            for line in read_names(stream):
                path = os.fsdecode(line)
                if is_address(path):
                    yield from self._address(path, alone=False)
                elif os.path.isdir(path) or is_archive(path) or self._is_result(path):
                    yield from self._path(path, alone=False)
                else:
                    yield from self._file(path, plain(path), chosen=True)
        except (OSError, ValueError) as error:
            self.unreadable(name, reason_of(error))

    def _folder(self, top: str, prefix: str) -> Iterator[InputPhoto]:
        # Links to folders are followed after all real folders, and no folder is entered twice:
        # loops end, and a photograph keeps the name of its real folder.
        visited = set()
        folders: list[tuple[str, str]] = [(top, prefix)]
        links: list[tuple[str, str]] = []
        while folders or links:
            folder, inside = folders.pop() if folders else links.pop()
            identity = _identity(folder)
            if identity in visited:
                continue
            visited.add(identity)
            inner: list[tuple[str, str]] = []
            # Pictures that this job or another has written here are results, not photographs.
            own = RESULTS if os.path.exists(os.path.join(folder, JOURNAL)) else ()
            try:
                with os.scandir(folder) as entries:
                    for entry in entries:
                        name = inside + entry.name
                        if entry.name in own:
                            continue
                        if _is_folder(entry):
                            if not self.selection.excludes(name):
                                place = links if entry.is_symlink() else inner
                                place.append((entry.path, name + "/"))
                        elif self.selection.includes(name):
                            yield InputPhoto(name, entry.path, None, *_size_and_time(entry))
                        else:
                            self.skipped += 1
            except OSError as error:
                self.unreadable(inside or top, reason_of(error))
            folders.extend(sorted(inner, reverse=True))
            if not folders:
                links.sort(reverse=True)

    def _archive(self, path: str, prefix: str) -> Iterator[InputPhoto]:
        try:
            with open_archive(path) as archive:
                for member in archive:
                    name = prefix + plain(member.name)
                    if not member.name and member.problem is not None:
                        self.unreadable(path, member.problem)
                    elif self.selection.includes(name):
                        yield InputPhoto(
                            name, path, member.name, member.size, member.mtime, member.offset
                        )
                    else:
                        self.skipped += 1
        except SourceError as error:
            self.unreadable(path, str(error))

    def _address(self, address: str, alone: bool) -> Iterator[InputPhoto]:
        try:
            for inside, place, size, mtime in list_files(address):
                # `inside` is empty if the address is itself a photograph.
                name = inside if alone and inside else place
                if self.selection.includes(name, chosen=not inside):
                    yield InputPhoto(name, place, None, size, mtime)
                else:
                    self.skipped += 1
        except OSError as error:
            self.unreadable(address, reason_of(error))


def is_list(name: str) -> bool:
    """Whether an input names other inputs, which may be others each time."""
    return name == STDIN or name.lower().endswith(LIST_ENDINGS)


def plain(path: str) -> str:
    """A path without `./`, doubled slashes and the like, with `/` between its parts."""
    # Some versions of Python cut a path at a NUL here.
    return "\0".join(os.path.normpath(p) for p in path.split("\0")).replace(os.sep, "/")


def _identity(path: str) -> tuple[int, int] | None:
    """Equal for two names of one file or folder."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether this is a folder; a link to itself is none, and reading it gives the error."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _size_and_time(entry: str | os.DirEntry[str]) -> tuple[int, int]:
    """Size (bytes) and time (nanoseconds); -1 and 0 if unknown: reading then gives the error."""
    try:
        status = entry.stat() if isinstance(entry, os.DirEntry) else os.stat(entry)
    except (OSError, ValueError):
        return -1, 0
    return status.st_size, status.st_mtime_ns


BOM = b"\xef\xbb\xbf"
"""The byte order mark with which some programs on Windows begin a text file."""


LONGEST_NAME = 1 << 16
"""Bytes of a name in a list: paths have at most 4096 on Linux, addresses hardly more."""


def read_names(stream: IO[bytes]) -> Iterator[bytes]:
    """The names in a list: one a line, or each followed by a zero byte (`find -print0`).

    Raises:
        ValueError: a name is longer than any path.
    """
    rest, separator, mark = b"", None, BOM
    while block := stream.read(1 << 16):
        rest, mark = rest + block.removeprefix(mark), b""
        if separator is None:
            separator = b"\0" if b"\0" in rest else b"\n" if b"\n" in rest else None
        if separator is not None:
            *whole, rest = rest.split(separator)
            names = map(_without_line_end, whole) if separator == b"\n" else whole
            yield from filter(None, names)
        if len(rest) > LONGEST_NAME:
            raise ValueError(f"a line of more than {LONGEST_NAME >> 10} KiB: not a list of names")
    if last := _without_line_end(rest):
        yield last


def _without_line_end(line: bytes) -> bytes:
    return line.rstrip(b"\r\n")
