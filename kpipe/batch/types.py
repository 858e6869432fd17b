"""The plain data that the parts of a batch job hand to each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, NamedTuple, Protocol

from kpipe.batch.reading import LARGEST_FILE

if TYPE_CHECKING:
    from kpipe.options import PipelineOptions

IMAGE_ENDINGS = frozenset(
    f".{ending}"
    for ending in (
        *("jpg", "jpeg", "jpe", "jfif", "png", "webp", "tif", "tiff", "bmp", "dib", "gif", "avif"),
        *("heic", "heif", "jp2", "j2k", "ppm", "pgm", "pbm", "pnm", "tga", "ico", "psd", "sgi"),
    )
)
"""Endings by which files in folders, archives and patterns are recognized as photographs."""


class InputPhoto(NamedTuple):
    """A photograph that the scan found and that is not read yet.

    Attributes:
        name: its name in the results, unique in a job.
        place: path of the file, its address, or the path of the archive that holds it.
        member: its name inside the archive, or None for a file.
        size: bytes, -1 where unknown.
        mtime: time of the last change, nanoseconds; 0 where unknown.
        offset: place of a member in the archive, see `kpipe.batch.archives.Member`.
    """

    name: str
    place: str
    member: str | None
    size: int
    mtime: int
    offset: int | None = None


class Pending(NamedTuple):
    """A photograph without a valid result.

    Attributes:
        id: its row in the journal.
        photo: where it lies.
        digest: of its content when it was last processed with the same options, or None.
    """

    id: int
    photo: InputPhoto
    digest: bytes | None


class Task(NamedTuple):
    """One photograph for a worker.

    Attributes:
        id: its row in the journal.
        name: its name in the results.
        place: its path or address, or the path of its archive.
        content: its bytes, or None: the worker reads them.
        size, mtime: as the scan found them.
        digest: of its content when it was last processed with the same options, or None.
        thumbnail: a record. The worker then draws its faces on a thumbnail and detects nothing.
        offset: its place in the archive, see `InputPhoto`.
        saved: path of a copy of its content, for a member of an archive that has no place; who gave
            the task removes it after the answer.
    """

    id: int
    name: str
    place: str
    content: bytes | None
    size: int
    mtime: int
    digest: bytes | None
    thumbnail: str | None = None
    offset: int | None = None
    saved: str | None = None


class PhotoResult(NamedTuple):
    """The result of one photograph.

    Attributes:
        id: its row in the journal.
        name: its name in the results.
        record: its line of JSON.
        faces: number of faces.
        error: why it failed, or None.
        retry: whether the next run tries again although the photograph has not changed.
        size, mtime, digest: of the photograph as it was read; None if it could not be read.
        unchanged: the content is that of the journal's record, which stays; `record` is empty.
        warning: what is missing of it, or None.
    """

    id: int
    name: str
    record: str
    faces: int = 0
    error: str | None = None
    retry: bool = False
    size: int | None = None
    mtime: int | None = None
    digest: bytes | None = None
    unchanged: bool = False
    warning: str | None = None


Answer = PhotoResult | bytes | None
"""A worker's answer: the result of a photograph; or a thumbnail (JPEG), None if that failed."""


class ResultKey(NamedTuple):
    """What a stored result must have been made with to be valid.

    Attributes:
        options: everything that the record depends on, see `PipelineOptions.fingerprint`.
        drawn: parts drawn on the annotated picture; None if none is wanted.
        cropped: kind and size of the crops; None if none are wanted.
    """

    options: dict[str, object]
    drawn: str | None
    cropped: str | None


class Totals(NamedTuple):
    """Counts over all photographs of a job."""

    photographs: int
    done: int
    faces: int
    faceless: int
    errors: int


class Progress(NamedTuple):
    """How far a job is.

    Attributes:
        photographs: number of photographs.
        done: how many have a result, `kept` of them from earlier runs.
        faces, errors: over all that have a result.
        problems: the reasons of the photographs that failed since the last report.
    """

    photographs: int
    done: int
    kept: int
    faces: int
    errors: int
    problems: tuple[str, ...] = ()


class JobResult(NamedTuple):
    """The end of a job.

    Attributes:
        totals: over all photographs.
        kept: how many results are from earlier runs.
        seconds: duration of this run.
        complete: False if the run was stopped.
        unreadable: number of folders, lists and archives that could not be read.
        lost: what a format could not hold and how often, by format.
        warnings: number of photographs that are cut short and were done as far as they go.
    """

    totals: Totals
    kept: int
    seconds: float
    complete: bool
    unreadable: int
    lost: dict[str, dict[str, int]]
    warnings: int = 0


@dataclass(frozen=True)
class Selection:
    """Which files are photographs of the job.

    A pattern with a slash is compared with the whole name, one without with the last part of the
    name (`include`) or with each part (`exclude`); `*` matches slashes too.

    Attributes:
        include: patterns, one of which must match; without any, the endings of pictures count.
        exclude: patterns, none of which may match.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def includes(self, name: str, chosen: bool = False) -> bool:
        """Whether a file belongs to the job.

        Args:
            name: of the file, with `/` between its parts.
            chosen: the user named this very file, which then needs no picture's ending.
        """
        if self.excludes(name):
            return False
        last = name.rsplit("/", 1)[-1]
        if self.include:
            return any(fnmatchcase(name if "/" in p else last, p) for p in self.include)
        # macOS writes companion files `._photo.jpg`, which are not pictures.
        return chosen or (
            PurePath(last).suffix.lower() in IMAGE_ENDINGS and not last.startswith("._")
        )

    def excludes(self, name: str) -> bool:
        """Whether a pattern excludes a file or folder, or a folder that holds it."""
        if not self.exclude:
            return False
        parts = name.split("/")
        paths = ["/".join(parts[: k + 1]) for k in range(len(parts))]
        return any(
            fnmatchcase(each, pattern.rstrip("/"))
            for pattern in self.exclude
            for each in (paths if "/" in pattern else parts)
        )


@dataclass(frozen=True)
class PictureOptions:
    """Which pictures a worker writes.

    Attributes:
        results: the results folder.
        draw: parts drawn on an annotated picture; None for no annotated picture.
        crops: `square` or `aligned`; None for no crops.
        crop_size: side of a crop, pixels.
    """

    results: str
    draw: tuple[str, ...] | None = None
    crops: str | None = None
    crop_size: int = 224

    @property
    def drawn_key(self) -> str | None:
        """The journal's name of the annotated picture: see `ResultKey.drawn`."""
        return None if self.draw is None else ",".join(self.draw)

    @property
    def cropped_key(self) -> str | None:
        """The journal's name of the crops: see `ResultKey.cropped`."""
        return None if self.crops is None else f"{self.crops} {self.crop_size}"


@dataclass(frozen=True)
class JobOptions:
    """Everything about a job but the engine that processes it.

    Attributes:
        inputs: see `kpipe.batch.sources.Scan`.
        results: the results folder.
        pipeline: how faces are found.
        pictures: which pictures are written, in the same folder.
        selection: which files are photographs of the job.
        formats: of the results, keys of `kpipe.batch.layout.FILES`.
        compare: whether `time` (with the size) or `content` tells that a photograph has changed.
        retry: process the photographs again that failed.
        sheet: make a contact sheet.
        shard: photographs in one Parquet file; 0 for one file of all.
        largest: bytes of a photograph's file at most.
    """

    inputs: Sequence[str]
    results: Path
    pipeline: PipelineOptions
    pictures: PictureOptions
    selection: Selection = field(default_factory=Selection)
    formats: tuple[str, ...] = ("jsonl",)
    compare: str = "time"
    retry: bool = False
    sheet: bool = False
    shard: int = 0
    largest: int = LARGEST_FILE


class Engine(Protocol):
    """Processes the photographs of a job, on whatever machines."""

    def run(self, tasks: Iterator[Task]) -> Iterator[list[tuple[Task, Answer]]]:
        """The tasks with their answers, in any order, as workers finish them.

        An engine yields an empty list from time to time, so that the job can stop between results.

        Raises:
            EngineError: workers do not start.
            OutputError: results cannot be written.
        """
