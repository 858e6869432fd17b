"""Sinks: where the faces of one photograph or frame after another go.

A sink is opened, gets the faces of each picture, and is closed. Several work side by side in
`Sinks`, where a failure of one costs its own file and nothing else.
"""

from __future__ import annotations

import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, TextIO

import numpy as np
from numpy.typing import NDArray

from kpipe.apps.outputs import STREAM, OutputGuard, open_text
from kpipe.errors import ImageError, KpipeError, WriteError
from kpipe.formats import csv, jsonl
from kpipe.formats.pts import to_pts
from kpipe.formats.records import error_record
from kpipe.measures.alignment import aligned_chip
from kpipe.media.frames import Frame
from kpipe.media.images import Photo, can_write, encode
from kpipe.rendering.draw import face_picture
from kpipe.structures.faces import Faces
from kpipe.structures.schemes import IBUG68, Scheme
from kpipe.structures.style import Style
from kpipe.utils.files import display_name, write_file
from kpipe.utils.opencv import cv2

if TYPE_CHECKING:
    from kpipe.media.video_reader import VideoReader
    from kpipe.media.video_writer import VideoWriter
    from kpipe.rendering.timeline import Timeline

PLOTS = (".png", ".svg", ".pdf")
"""Endings of the files that a plot can be written to."""

FAILURES = (KpipeError, MemoryError, cv2.error)
"""What one photograph, or one file of results, can fail with while the others go on."""


@dataclass(frozen=True)
class Run:
    """What sinks are told of the run that they are opened for.

    Attributes:
        guard: decides which files may be written.
        inputs: the photographs, or the one video, as the user named them.
        scheme: what the points of the faces are.
        video: the video that the frames come from, or None for photographs and cameras.
        every: one frame in so many of the video is taken.
    """

    guard: OutputGuard
    inputs: Sequence[str]
    scheme: Scheme = IBUG68
    video: VideoReader | None = None
    every: int = 1


class Sink(ABC):
    """Base of all sinks.

    Attributes:
        goes_on: whether the sink can take the next picture after a failure: true where each picture
            has files of its own.
        written: files that were written, standard output left out.
    """

    goes_on: ClassVar[bool] = False

    def __init__(self) -> None:
        self.written: list[str] = []

    def targets(self, inputs: Sequence[str]) -> Sequence[str]:
        """The files that will be written whatever the pictures show."""
        return ()

    def open(self, run: Run) -> None:
        """Begins a run, for which `targets` have been claimed.

        Raises:
            KpipeError: a file cannot be written.
            ValueError: the target does not suit the inputs.
        """

    def begin(self, name: str) -> None:
        """Claims the files of a photograph before work goes into it.

        Raises:
            WriteError: the file must not be written.
        """

    @abstractmethod
    def append(self, faces: Faces, picture: Photo | Frame) -> None:
        """Takes the faces of the next photograph or frame.

        Args:
            faces: with the path of the photograph or video; of a frame also its number and time.
            picture: the photograph or frame that they were found in.

        Raises:
            KpipeError: a file cannot be written.
        """

    def fail(self, name: str, reason: str) -> None:
        """Takes note of a photograph that could not be used."""

    def close(self, complete: bool = True) -> None:
        """Ends the run.

        Args:
            complete: whether the input was done to its end.

        Raises:
            KpipeError: a file could not be written, or not all of it.
        """


class _Text(Sink):
    """A text file, or standard output, that grows picture by picture."""

    def __init__(self, target: str | os.PathLike[str]) -> None:
        super().__init__()
        self._target = os.fspath(target)
        self._stream: TextIO | None = None

    def targets(self, inputs: Sequence[str]) -> Sequence[str]:
        return (self._target,)

    def open(self, run: Run) -> None:
        self._stream = open_text(self._target)
        if self._target != STREAM:
            self.written.append(self._target)

    def close(self, complete: bool = True) -> None:
        if self._stream is not None:
            stream, self._stream = self._stream, None
            self._guarded(stream.close)

    def _write(self, text: str) -> None:
        if self._stream is not None:
            self._guarded(self._stream.write, text)
            self._guarded(self._stream.flush)

    def _guarded(self, act: Callable[..., object], *arguments: str) -> None:
        """A file that fails is an error of its own. Standard output is not: whoever reads it is
        the one the whole run is for, so its errors end the run.
        """
        try:
            act(*arguments)
        except OSError as problem:
            if self._target == STREAM:
                raise
            reason = problem.strerror or problem
            name = display_name(self._target)
            raise WriteError(f"{name}: cannot be written ({reason})", problem.errno) from None


class JsonLines(_Text):
    """JSON Lines: one line a photograph or frame, with an `error` where it could not be used.

    Args:
        target: the file, or `-` for standard output.
    """

    def append(self, faces: Faces, picture: Photo | Frame) -> None:
        self._write(jsonl.to_json(faces.to_dict()) + "\n")

    def fail(self, name: str, reason: str) -> None:
        self._write(jsonl.to_json(error_record(name, reason)) + "\n")


class Csv(_Text):
    """CSV: one row a face, below a row of column names.

    Args:
        target: the file, or `-` for standard output.
    """

    def open(self, run: Run) -> None:
        super().open(run)
        self._write(csv.header(run.scheme))

    def append(self, faces: Faces, picture: Photo | Frame) -> None:
        if faces:
            self._write(csv.rows_of_record(faces.to_dict(), faces.scheme))


class _PerFace(Sink):
    """A folder with a file for each face: PHOTO or, of several faces, PHOTO_1, PHOTO_2 …

    Args:
        folder: made when the first file is written.
    """

    goes_on = True
    suffix: ClassVar[str]

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        super().__init__()
        self._folder = Path(folder)

    def open(self, run: Run) -> None:
        self._guard = run.guard

    def append(self, faces: Faces, picture: Photo | Frame) -> None:
        stem = _stem(faces)
        for index in range(len(faces)):
            name = stem if len(faces) == 1 else f"{stem}_{index + 1}"
            path = self._folder / f"{name}{self.suffix}"
            self._guard.claim(path)
            write_file(path, self._content(faces, index, picture))
            self.written.append(str(path))

    @abstractmethod
    def _content(self, faces: Faces, index: int, picture: Photo | Frame) -> bytes: ...


class PtsFolder(_PerFace):
    """A folder of iBUG's .pts files, one a face.

    Args:
        folder: made when the first file is written.
    """

    suffix = ".pts"

    def _content(self, faces: Faces, index: int, picture: Photo | Frame) -> bytes:
        return to_pts(np.round(faces[index].points.astype(np.float64), 3)).encode()


class Crops(_PerFace):
    """A folder of square pictures, one a face, cut as `kpipe.preprocessing.crops.face_crop` does.

    Args:
        folder: made when the first file is written.
        style: how the face is drawn on its crop; without it points alone.
        size: side of a crop (pixels).
    """

    suffix = ".jpg"

    def __init__(
        self, folder: str | os.PathLike[str], style: Style | None = None, size: int = 224
    ) -> None:
        super().__init__(folder)
        self._style, self._size = style, size

    def _content(self, faces: Faces, index: int, picture: Photo | Frame) -> bytes:
        crop = face_picture(picture.image, faces, index, self._size, self._style)
        return encode(crop, ".jpg")


class Chips(Sink):
    """A folder of aligned chips, upright and 160 pixels wide: TRACK/FRAME.jpg.

    Args:
        folder: made when the first file is written.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        super().__init__()
        self._folder = Path(folder)

    def open(self, run: Run) -> None:
        self._guard = run.guard

    def append(self, faces: Faces, picture: Photo | Frame) -> None:
        for face in faces:
            path = self._folder / f"{face.track}" / f"{faces.frame or 0:06d}.jpg"
            self._guard.claim(path)
            write_file(path, encode(aligned_chip(picture.image, face.points), ".jpg"))


class Pictures(Sink):
    """Annotated pictures.

    Args:
        target: a folder (existing, or with a separator at its end), or the one file of a single
            photograph, or `-` for standard output; without it each PHOTO_annotated.jpg lies beside
            its photograph. Frames of a video go to FOLDER/VIDEO_frame7_annotated.jpg.
        style: how the faces are drawn; without it boxes, lines and points.
    """

    goes_on = True

    def __init__(
        self, target: str | os.PathLike[str] | None = None, style: Style | None = None
    ) -> None:
        super().__init__()
        self._target = None if target is None else os.fspath(target)
        self._style = style or Style()
        self._paths: dict[str, str] = {}

    def open(self, run: Run) -> None:
        self._guard = run.guard
        self._paths = {} if run.video else picture_paths(run.inputs, self._target)

    def begin(self, name: str) -> None:
        self._guard.claim(self._paths[name])

    def append(self, faces: Faces, picture: Photo | Frame) -> None:
        target = self._paths.get(str(faces.path))
        if target is None:
            folder = Path(str(faces.path)).parent if self._target is None else Path(self._target)
            target = str(folder / f"{_stem(faces)}_annotated.jpg")
            self._guard.claim(target)
        write_picture(target, faces.render(picture.image, self._style), picture)
        if target != STREAM:
            self.written.append(target)


class Video(Sink):
    """The annotated video, with the sound of the original. It is playable wherever it ends.

    Args:
        target: `.mp4`, `.m4v`, `.mov` or `.mkv`; without it VIDEO_annotated.mp4 beside the source.
        style: how the faces are drawn; without it boxes, lines, points and the number of the face.
    """

    def __init__(
        self, target: str | os.PathLike[str] | None = None, style: Style | None = None
    ) -> None:
        super().__init__()
        self._target = None if target is None else os.fspath(target)
        self._style = style or Style(("boxes", "lines", "points", "index"))
        self._writer: VideoWriter | None = None

    def targets(self, inputs: Sequence[str]) -> Sequence[str]:
        return (self._target or video_path(inputs[0]),)

    def open(self, run: Run) -> None:
        from kpipe.media.video_writer import VideoWriter

        if run.video is None:
            raise ValueError("Video: needs the frames of a video, see process_video")
        self._video = run.video
        (target,) = self.targets(run.inputs)
        self._writer = VideoWriter(
            target,
            run.video.width,
            run.video.height,
            rate=run.video.rate / run.every,
            time_base=run.video.time_base,
            pixel_aspect=run.video.pixel_aspect,
            sound=run.inputs[0],
            start=run.video.start,
        )
        self.written.append(target)

    def append(self, faces: Faces, picture: Photo | Frame) -> None:
        if self._writer is not None:
            drawn = faces.render(picture.image, self._style)
            self._writer.write(drawn, (faces.time or 0.0) - self._video.start)

    def close(self, complete: bool = True) -> None:
        """Completes the file; of a whole video the sound is kept to its end.

        Raises:
            VideoError: the file could not be written, or its sound is not whole.
        """
        from kpipe.errors import VideoError

        if self._writer is None:
            return
        writer, video, self._writer = self._writer, self._video, None
        end = min(video.stop, video.duration or video.stop) - video.start
        writer.close(end if complete and video.problem is None else None)
        if writer.problem is not None:
            raise VideoError(writer.problem)


class TimelinePlot(Sink):
    """Head pose, eyes and mouth of each face of a video over time, as a picture.

    Args:
        target: the file, .png, .svg or .pdf.

    Raises:
        ValueError: the file's name ends otherwise.
        ImportError: matplotlib is not installed.
    """

    def __init__(self, target: str | os.PathLike[str]) -> None:
        super().__init__()
        self._path = Path(target)
        if self._path.suffix.lower() not in PLOTS:
            raise ValueError(f"plots are written as {', '.join(PLOTS)}")
        self._timeline: Timeline | None = None

    def targets(self, inputs: Sequence[str]) -> Sequence[str]:
        return (str(self._path),)

    def open(self, run: Run) -> None:
        from kpipe.rendering.timeline import Timeline

        self._title, self._timeline = Path(run.inputs[0]).name, Timeline()

    def append(self, faces: Faces, picture: Photo | Frame) -> None:
        if self._timeline is not None:
            self._timeline.add(faces)

    def close(self, complete: bool = True) -> None:
        if self._timeline is not None:
            timeline, self._timeline = self._timeline, None
            write_file(self._path, timeline.plot(self._title, self._path.suffix[1:].lower()))
            self.written.append(str(self._path))


class Sinks:
    """Several sinks as one. A failure of one is a line of text and costs its own file alone.

    Args:
        sinks: opened here, after all of their files have been claimed.
        run: that they are opened for.

    Raises:
        KpipeError: a file must not or cannot be written; nothing is open then.
        ValueError: a sink does not suit the inputs.
    """

    def __init__(self, sinks: Sequence[Sink], run: Run) -> None:
        for sink in sinks:
            for target in sink.targets(run.inputs):
                run.guard.claim(target)
        self._wanted = bool(sinks)
        self._open: list[Sink] = []
        try:
            for sink in sinks:
                sink.open(run)
                self._open.append(sink)
        except BaseException:
            self.abandon()
            raise
        self._ready = list(self._open)

    @property
    def idle(self) -> bool:
        """Whether results were asked for, and none can be written: of this picture, or at all."""
        return self._wanted and not self._ready

    def begin(self, name: str) -> list[str]:
        """Prepares for a photograph; what goes wrong with it, one line each."""
        self._ready = list(self._open)
        return self._each(lambda sink: sink.begin(name), name)

    def append(self, faces: Faces, picture: Photo | Frame) -> list[str]:
        """Gives the faces of a picture to each sink; what goes wrong with it, one line each."""
        return self._each(lambda sink: sink.append(faces, picture), str(faces.path))

    def fail(self, name: str, reason: str) -> list[str]:
        """Tells each sink of a photograph that could not be used."""
        return self._each(lambda sink: sink.fail(name, reason), name)

    def close(self, complete: bool = True) -> list[str]:
        """Completes all files; what goes wrong with it, one line each."""
        problems = []
        while self._open:
            try:
                self._open.pop(0).close(complete)
            except FAILURES as problem:
                problems.append(reason_of(problem, "results"))
        return problems

    def abandon(self) -> None:
        """Closes what is still open as it is, in the midst of an error."""
        while self._open:
            with suppress(KpipeError, OSError):
                self._open.pop().close(complete=False)

    def _each(self, act: Callable[[Sink], None], name: str) -> list[str]:
        problems = []
        for sink in list(self._ready):
            try:
                act(sink)
            except FAILURES as problem:
                problems.append(reason_of(problem, name))
                self._ready.remove(sink)
                if not sink.goes_on:
                    self._drop(sink)
        return problems

    def _drop(self, sink: Sink) -> None:
        """Closes a sink whose only file has failed."""
        self._open.remove(sink)
        sink.written.clear()
        with suppress(*FAILURES):
            sink.close(complete=False)


def reason_of(problem: BaseException, name: str) -> str:
    """One line on what went wrong with a file; our own errors name it themselves."""
    if isinstance(problem, KpipeError):
        return str(problem)
    reason = " ".join(str(problem).split()) or "not enough memory"
    return f"{display_name(name)}: {reason}"


def picture_paths(photos: Iterable[str], target: str | None) -> dict[str, str]:
    """Where the annotated picture of each photograph goes: see `Pictures`.

    Raises:
        ValueError: several photographs would go to one file, or no picture format has its ending.
    """
    names = list(photos)
    if target is None:
        return {name: _annotated(name, Path(name).parent) for name in names}
    if target != STREAM and (target.endswith(os.sep) or Path(target).is_dir()):
        return {name: _annotated(name, Path(target)) for name in names}
    if len(names) > 1:
        if target == STREAM or Path(target).exists():
            raise ValueError("several photographs need a folder")
        return {name: _annotated(name, Path(target)) for name in names}
    if target != STREAM and not can_write(Path(target).suffix):
        raise ValueError(f"no picture format is named {target}")
    return dict.fromkeys(names, target)


def video_path(source: str) -> str:
    """Where the annotated video goes if nothing else is said: beside the video, or here."""
    path = Path(source)
    folder = Path() if "://" in source else path.parent
    return str(folder / f"{path.stem}_annotated.mp4")


def write_picture(target: str, image: NDArray[np.uint8], like: Photo | Frame | None = None) -> None:
    """Writes a picture to a file or to standard output (`-`, as JPEG).

    Args:
        target: its ending decides the format.
        image: (h, w, 3) uint8, RGB.
        like: where EXIF, ICC profile and JPEG quality come from, if it is a photograph.

    Raises:
        ImageError: the format cannot hold the picture.
        WriteError: the file cannot be written.
        OSError: standard output cannot be written.
    """
    suffix = ".jpg" if target == STREAM else Path(target).suffix
    try:
        content = encode(image, suffix, like if isinstance(like, Photo) else None)
    except ImageError as problem:
        raise ImageError(f"{display_name(target)}: {problem}") from None
    if target == STREAM:
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
    else:
        write_file(Path(target), content)


def _annotated(name: str, folder: Path) -> str:
    return str(folder / f"{'stdin' if name == STREAM else Path(name).stem}_annotated.jpg")


def _stem(faces: Faces) -> str:
    """Of the files of a photograph or frame."""
    name = str(faces.path)
    stem = "stdin" if name == STREAM else Path(name).stem
    return stem if faces.frame is None else f"{stem}_frame{faces.frame}"
