"""What a job reads: folders, patterns, lists, archives and addresses, as one stream of photographs.

A photograph is called by its path inside the folder (or archive) when there is one input, and by
the path as given when there are several, so that names are short and never clash.
"""

from __future__ import annotations

import glob
import os
import stat
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path, PurePath
from typing import IO, Any, NamedTuple

from kpipe.errors import ReadError, SourceError
from kpipe.utils.files import display_name

PICTURES = frozenset(
    f".{ending}"
    for ending in (
        *("jpg", "jpeg", "jpe", "jfif", "png", "webp", "tif", "tiff", "bmp", "dib", "gif", "avif"),
        *("heic", "heif", "jp2", "j2k", "ppm", "pgm", "pbm", "pnm", "tga", "ico", "psd", "sgi"),
    )
)
"""Endings of the names that are taken for photographs in folders, archives and patterns."""


ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")


LISTS = (".txt", ".lst", ".list")


STREAM = "-"


STATE, ANNOTATED, CROPS, POINTS, SHEET = ".kpipe", "annotated", "crops", "pts", "sheet.jpg"


RESULTS = (STATE, ANNOTATED, CROPS, POINTS, SHEET)
"""What is not to be taken for photographs in a folder of results."""


JOURNAL = f"{STATE}/journal.sqlite"
"""Marks a folder of results."""


LARGEST_MEMBER = 1 << 30
"""Bytes: what claims or turns out to be larger inside an archive is no photograph but a trap."""


class InputPhoto(NamedTuple):
    """A photograph that was found, not yet read.

    Attributes:
        name: what results call it; never the same twice in a job.
        place: path of its file, its address, or the path of the archive that it lies in.
        member: its name inside the archive, or None for a file.
        size: bytes, -1 where unknown.
        mtime: time of the last change, nanoseconds; 0 where unknown.
    """

    name: str
    place: str
    member: str | None
    size: int
    mtime: int


@dataclass(frozen=True)
class Selection:
    """Which of the files found are wanted.

    A pattern with a slash is compared with the whole name, one without with the last part of it and
    with each folder on the way; `*` matches slashes too.

    Attributes:
        include: patterns of which one must match; without any, the endings of pictures.
        exclude: patterns of which none may match.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def takes(self, name: str, chosen: bool = False) -> bool:
        """Whether a file is wanted; one that the user chose by name needs no picture's ending."""
        if self.leaves_out(name):
            return False
        last = name.rsplit("/", 1)[-1]
        if self.include:
            return any(fnmatchcase(name if "/" in p else last, p) for p in self.include)
        # A Mac's companion files have a picture's ending and are none.
        return chosen or (is_picture(last) and not last.startswith("._"))

    def leaves_out(self, name: str) -> bool:
        """Whether a file or folder is excluded, by itself or by a folder that it lies in."""
        if not self.exclude:
            return False
        parts = name.split("/")
        paths = ["/".join(parts[: k + 1]) for k in range(len(parts))]
        return any(
            fnmatchcase(each, pattern.rstrip("/"))
            for pattern in self.exclude
            for each in (paths if "/" in pattern else parts)
        )


@dataclass
class Scan:
    """Looks through the inputs of a job.

    Attributes:
        inputs: folders, photographs, patterns, lists, archives, addresses, or - for a list on
            standard input.
        selection: which files are wanted.
        results: the folder where the results of the job go.
        problem: told the name and the reason where a folder, list or archive cannot be read.
        left_aside: how many files were seen and not wanted.
    """

    inputs: Sequence[str]
    selection: Selection
    results: Path
    problem: Callable[[str, str], None]
    left_aside: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        for given in self.inputs:
            if given == STREAM and sys.stdin is None:
                raise SourceError("standard input: closed")
            if given == STREAM or is_address(given) or os.path.lexists(given):
                continue
            if not glob.has_magic(given):
                raise SourceError(
                    f"{display_name(given)}: no such folder, photograph, list or archive"
                )
            if next(glob.iglob(given, recursive=True), None) is None:
                raise SourceError(f"{display_name(given)}: nothing matches this pattern")

    def __iter__(self) -> Iterator[InputPhoto]:
        """The photographs as they are found; a name may come twice."""
        alone = len(self.inputs) == 1
        for given in self.inputs:
            if given == STREAM:
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
            self.problem(path, "lies where the results go; choose another folder for them")
        elif os.path.isdir(path):
            yield from self._folder(path, "" if prefix == "./" else prefix)
        elif is_archive(path):
            yield from self._archive(path, prefix)
        elif chosen and path.lower().endswith(LISTS):
            try:
                with Path(path).open("rb") as stream:
                    yield from self._list(stream, display_name(path))
            except OSError as error:
                self.problem(path, _reason(error))
        else:
            yield from self._file(path, plain(path), chosen)

    def _is_result(self, path: str) -> bool:
        place = os.path.join(os.path.realpath(path), "")
        results = os.path.realpath(self.results)
        return any(place.startswith(os.path.join(results, name, "")) for name in RESULTS)

    def _file(self, path: str, name: str, chosen: bool) -> Iterator[InputPhoto]:
        if self.selection.takes(name, chosen):
            yield InputPhoto(name, path, None, *_stamp(path))
        else:
            self.left_aside += 1

    def _list(self, stream: IO[bytes], name: str) -> Iterator[InputPhoto]:
        """One name a line; or, as `find -print0` writes them, with a zero byte after each."""
        try:
            for line in _lines(stream):
                path = os.fsdecode(line)
                if is_address(path):
                    yield from self._address(path, alone=False)
                elif os.path.isdir(path) or is_archive(path) or self._is_result(path):
                    yield from self._path(path, alone=False)
                else:
                    yield from self._file(path, plain(path), chosen=True)
        except (OSError, ValueError) as error:
            self.problem(name, _reason(error))

    def _folder(self, top: str, prefix: str) -> Iterator[InputPhoto]:
        # Links to folders are followed after all real folders, and no folder is entered twice: so
        # that loops end, and a photograph is met under its own name.
        seen = set()
        folders: list[tuple[str, str]] = [(top, prefix)]
        links: list[tuple[str, str]] = []
        while folders or links:
            folder, inside = folders.pop() if folders else links.pop()
            identity = _identity(folder)
            if identity in seen:
                continue
            seen.add(identity)
            found: list[tuple[str, str]] = []
            # What jobs have written into the folder, this one or another, are no photographs.
            own = RESULTS if os.path.exists(os.path.join(folder, JOURNAL)) else ()
            try:
                with os.scandir(folder) as entries:
                    for entry in entries:
                        name = inside + entry.name
                        if entry.name in own:
                            continue
                        if _is_folder(entry):
                            if not self.selection.leaves_out(name):
                                place = links if entry.is_symlink() else found
                                place.append((entry.path, name + "/"))
                        elif not self.selection.takes(name):
                            self.left_aside += 1
                        else:
                            yield InputPhoto(name, entry.path, None, *_stamp(entry))
            except OSError as error:
                self.problem(inside or top, _reason(error))
            folders.extend(sorted(found, reverse=True))
            if not folders:
                links.sort(reverse=True)

    def _archive(self, path: str, prefix: str) -> Iterator[InputPhoto]:
        try:
            with open_archive(path) as archive:
                for member in archive:
                    if self.selection.takes(prefix + plain(member.name)):
                        yield InputPhoto(
                            prefix + plain(member.name), path, member.name, member.size,
                            member.mtime,
                        )  # fmt: skip
                    else:
                        self.left_aside += 1
        except SourceError as error:
            self.problem(path, str(error))

    def _address(self, address: str, alone: bool) -> Iterator[InputPhoto]:
        from kpipe.batch.remote import find

        try:
            for inside, place, size, mtime in find(address):
                # Of an address that is one photograph nothing is inside.
                name = inside if alone and inside else place
                if self.selection.takes(name, chosen=not inside):
                    yield InputPhoto(name, place, None, size, mtime)
                else:
                    self.left_aside += 1
        except OSError as error:
            self.problem(address, _reason(error))


def is_picture(name: str) -> bool:
    return PurePath(name).suffix.lower() in PICTURES


def is_archive(path: str) -> bool:
    return path.lower().endswith(ARCHIVES)


def is_address(text: str) -> bool:
    """Whether this is `s3://…`, `https://…` and the like, not a path."""
    scheme, separator, _ = text.partition("://")
    return bool(separator) and scheme.replace("+", "").isalnum()


def plain(path: str) -> str:
    """A path without `./`, doubled slashes and the like, with `/` between its parts."""
    return os.path.normpath(path).replace(os.sep, "/")


def _identity(path: str) -> tuple[int, int] | None:
    """Equal for two names of one file or folder."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Not a link to itself or to what may not be seen: that is noticed when it is read."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _stamp(entry: str | os.DirEntry[str]) -> tuple[int, int]:
    """Size and time of change; what is gone or unreadable is noticed when it is read."""
    try:
        status = entry.stat() if isinstance(entry, os.DirEntry) else os.stat(entry)
    except (OSError, ValueError):
        return -1, 0
    return status.st_size, status.st_mtime_ns


BOM = b"\xef\xbb\xbf"
"""What some programs on Windows begin a text file with."""


def _lines(stream: IO[bytes]) -> Iterator[bytes]:
    rest, end, mark = b"", None, BOM
    while block := stream.read(1 << 16):
        rest, mark = rest + block.removeprefix(mark), b""
        end = end or (b"\0" if b"\0" in rest else b"\n" if b"\n" in rest else None)
        if end is not None:
            *whole, rest = rest.split(end)
            yield from (line for line in map(_trimmed if end == b"\n" else bytes, whole) if line)
    if last := _trimmed(rest):
        yield last


def _trimmed(line: bytes) -> bytes:
    return line.rstrip(b"\r\n")


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)


class Content(NamedTuple):
    """The bytes of a photograph and the stamp of the file at that moment; see `InputPhoto`."""

    content: bytes
    size: int
    mtime: int


def read_content(place: str) -> Content:
    """Reads a file or an address.

    Raises:
        ReadError: it is not there, no file, not permitted, or changes all the time.
    """
    if is_address(place):
        from kpipe.batch.remote import read

        content = read(place)
        return Content(content, len(content), 0)
    try:
        for _ in range(3):
            # Without waiting for someone to write into what turns out to be a pipe.
            descriptor = os.open(place, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            with open(descriptor, "rb", buffering=0) as stream:
                before = os.fstat(descriptor)
                if stat.S_ISDIR(before.st_mode):
                    raise ReadError("a folder, not a picture")
                if not stat.S_ISREG(before.st_mode):
                    raise ReadError("a pipe or device, not a file")
                content = stream.readall()
                after = os.fstat(descriptor)
            if len(content) == after.st_size and before.st_mtime_ns == after.st_mtime_ns:
                return Content(content, after.st_size, after.st_mtime_ns)
        raise ReadError("changes while it is read; run again when it is whole")
    except FileNotFoundError:
        raise ReadError("no such file") from None
    except PermissionError:
        raise ReadError("no permission to read it") from None
    except ReadError:
        raise
    except (OSError, ValueError) as error:
        raise ReadError(_reason(error)) from None


class Member(NamedTuple):
    """A file in an archive; `read` gives its bytes or raises ReadError."""

    name: str
    size: int
    mtime: int
    read: Callable[[], bytes]


class open_archive:  # noqa: N801 - used as a function
    """The files of a zip or tar archive, in its order.

    Raises:
        SourceError: it cannot be read, or, while it is read, its rest cannot.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._archive: zipfile.ZipFile | tarfile.TarFile
        with self._errors():
            if path.lower().endswith(".zip"):
                self._archive = zipfile.ZipFile(path)
            else:
                self._archive = tarfile.open(path)  # noqa: SIM115 - closed in __exit__

    def __enter__(self) -> open_archive:
        return self

    def __exit__(self, *_: object) -> None:
        self._archive.close()

    def __iter__(self) -> Iterator[Member]:
        if isinstance(self._archive, zipfile.ZipFile):
            yield from self._zip(self._archive)
        else:
            yield from self._tar(self._archive)

    def _zip(self, archive: zipfile.ZipFile) -> Iterator[Member]:
        for info in archive.infolist():
            if not info.is_dir():
                stream = lambda info=info: archive.open(info)  # noqa: E731
                # The check sum tells two versions of a file apart better than zip's time.
                yield Member(info.filename, info.file_size, info.CRC, _reader(stream))

    def _tar(self, archive: tarfile.TarFile) -> Iterator[Member]:
        while True:
            with self._errors():
                info = archive.next()
            if info is None:
                return
            if info.isfile():
                stream = lambda info=info: archive.extractfile(info)  # noqa: E731
                yield Member(info.name, info.size, int(info.mtime * 10**9), _reader(stream))
            elif info.islnk() or info.issym():
                yield Member(info.name, 0, int(info.mtime * 10**9), _no_link)
            archive.members = []  # type: ignore[attr-defined]  # or they would all be kept

    def _errors(self) -> Any:
        return _ArchiveErrors(self._path)


class _ArchiveErrors:
    """Turns what the archive modules raise into SourceError."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        # Damaged archives raise nearly anything: EOFError, zlib.error, LZMAError, ValueError …
        if isinstance(error, Exception):
            reason = " ".join(_reason(error).split()) or type(error).__name__
            raise SourceError(
                f"{display_name(self._path)}: not a readable archive ({reason})"
            ) from None


def _no_link() -> bytes:
    raise ReadError("a link inside the archive, not a file")


def _reader(opened: Callable[[], IO[bytes] | None]) -> Callable[[], bytes]:
    def read() -> bytes:
        try:
            stream = opened()
            if stream is None:
                raise ReadError("not a file")
            with stream:
                content = stream.read(LARGEST_MEMBER + 1)
        except ReadError:
            raise
        except Exception as error:  # as above
            reason = " ".join(_reason(error).split()) or type(error).__name__
            raise ReadError(f"cannot be taken from the archive ({reason})") from None
        if len(content) > LARGEST_MEMBER:
            raise ReadError("larger than 1 GiB inside the archive")
        return content

    return read
