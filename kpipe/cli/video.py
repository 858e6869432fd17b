"""`kpipe video`: a video to an annotated video and data."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from kpipe.cli.options import MinFace, Model
from kpipe.cli.signals import interruptible
from kpipe.errors import KpipeError

if TYPE_CHECKING:
    from kpipe.cli.outputs import OutputGuard
    from kpipe.media.frames import Frame
    from kpipe.media.video_reader import VideoReader
    from kpipe.media.video_writer import VideoWriter
    from kpipe.rendering.draw import Style
    from kpipe.rendering.timeline import Timeline
    from kpipe.structures.faces import Faces
    from kpipe.tracking.tracker import Tracker


PLOTS = (".png", ".svg", ".pdf")


def video(
    source: Annotated[str, typer.Argument(metavar="VIDEO", help="A video file, or a URL.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="The annotated video, .mp4, .mov or .mkv. [default: VIDEO_annotated.mp4]",
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Replace results that exist.")
    ] = False,
    draw: Annotated[
        str, typer.Option(metavar="PARTS", help="Any of boxes,lines,points,numbers,index.")
    ] = "boxes,lines,points,index",
    no_video: Annotated[
        bool, typer.Option("--no-video", help="Write data, no annotated video.")
    ] = False,
    json: Annotated[
        str | None, typer.Option(metavar="FILE|-", help="Faces as JSON, one line a frame.")
    ] = None,
    chips: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Each face of each frame, upright: TRACK/FRAME.jpg."),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Pose, eyes and mouth over time, as a picture."),
    ] = None,
    every: Annotated[
        int, typer.Option(min=1, help="Take each n-th frame; the video that is written has those.")
    ] = 1,
    from_: Annotated[
        str | None, typer.Option("--from", metavar="TIME", help="Seconds, or MM:SS, or HH:MM:SS.")
    ] = None,
    to: Annotated[str | None, typer.Option("--to", metavar="TIME", help="As --from.")] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="Points as the network sees them, not steadied.")
    ] = False,
    min_score: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Least probability of a new face.")
    ] = 0.9,
    min_face: MinFace = 0.0125,
    model: Model = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No talk, errors alone.")] = False,
) -> None:
    """Follow the faces of a video; draw their points on a copy and write them as data.

    Each face has a number that it keeps. The written video is H.264 with the sound of the
    original. Stopped by Ctrl-C, it holds what was done so far. Exit code 1 if the video is cut off
    or damaged: what can be read is done all the same.
    """
    from kpipe.cli.console import error
    from kpipe.cli.extras import require
    from kpipe.cli.outputs import OutputGuard
    from kpipe.rendering.draw import Style

    require("video", "av", *(["matplotlib"] if plot else []))
    from kpipe.media.video_reader import VideoReader

    try:
        style = Style(tuple(part for part in draw.split(",") if part))
    except ValueError as problem:
        raise typer.BadParameter(str(problem), param_hint="--draw") from None
    start, stop = _seconds(from_, 0.0, "--from"), _seconds(to, math.inf, "--to")
    if start >= stop:
        raise typer.BadParameter("must be before --to", param_hint="--from")
    if plot is not None and plot.suffix.lower() not in PLOTS:
        raise typer.BadParameter(f"plots are written as {', '.join(PLOTS)}", param_hint="--plot")
    target = None if no_video else output or _result_name(source)
    outputs = OutputGuard([source], force, "video")
    for path in (target, json, plot):
        outputs.claim(path)
    stopped = False
    try:
        with VideoReader(source, start=start, stop=stop) as reader:
            tracker = make_tracker(raw, min_score, min_face, model)
            with Results(source, reader, outputs, style, every) as results:
                results.open(target, json, chips, plot)
                with interruptible() as asked_to_stop:
                    for number, frame in enumerate(_progress(reader, quiet)):
                        if number % every == 0:
                            results.add(frame, tracker(frame.image, frame.time))
                        if stopped := asked_to_stop():
                            break
                results.finish(whole=not stopped)
    except KpipeError as problem:
        error(str(problem))
        raise typer.Exit(1) from None
    problems = results.problems()
    for line in problems:
        error(line)
    if not quiet:
        results.report()
    if stopped:
        error("stopped; what was done so far is kept")
        raise typer.Exit(130)
    if problems:
        raise typer.Exit(1)


def make_tracker(raw: bool, min_score: float, min_face: float, model: Path | None) -> Tracker:
    """The tracker as the options of a command want it."""
    from kpipe.detectors.proposals import ProposalDetector
    from kpipe.networks.landmarker import Landmarker
    from kpipe.pipeline import Pipeline
    from kpipe.tracking.filters import KalmanPoints, UnfilteredPoints
    from kpipe.tracking.tracker import Tracker

    detector = ProposalDetector(min_face=min_face)
    pipeline = Pipeline(detector, Landmarker(model), min_score=min_score)
    return Tracker(pipeline, smoothing=UnfilteredPoints if raw else KalmanPoints)


class Results:
    """What a run writes, frame by frame.

    Args:
        source: the video, as the user named it.
        reader: of the video.
        outputs: guards the files.
        style: how faces are drawn.
        every: of so many frames one is taken.
    """

    def __init__(
        self, source: str, reader: VideoReader, outputs: OutputGuard, style: Style, every: int
    ) -> None:
        self._source, self._reader, self._outputs = source, reader, outputs
        self._style, self._every = style, every
        self._stack = ExitStack()
        self._writer: VideoWriter | None = None
        self._json: TextIO | None = None
        self._chips: Path | None = None
        self._plot: tuple[Path, Timeline] | None = None
        self._written: list[str] = []
        self._tracks: set[int] = set()
        self._frames = 0
        self._began = self._elapsed = 0.0

    def __enter__(self) -> Results:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def open(
        self, video: Path | None, json: str | None, chips: Path | None, plot: Path | None
    ) -> None:
        """Opens what is to be written. Raises VideoError or ImageError where that cannot be."""
        from kpipe.media.video_writer import VideoWriter

        if video is not None:
            self._writer = VideoWriter(
                video,
                self._reader.width,
                self._reader.height,
                rate=self._reader.rate / self._every,
                time_base=self._reader.time_base,
                pixel_aspect=self._reader.pixel_aspect,
                sound=self._source,
                start=self._reader.start,
            )
            self._stack.callback(self._writer.close)
            self._written.append(str(video))
        if json is not None:
            self._json = self._stack.enter_context(self._outputs.open(json))
            self._written += [json] if json != "-" else []
        self._chips = chips
        if plot is not None:
            from kpipe.rendering.timeline import Timeline

            self._plot = plot, Timeline()
        self._began = time.perf_counter()

    def add(self, frame: Frame, faces: Faces) -> None:
        from kpipe.formats.jsonl import to_json
        from kpipe.measures.alignment import aligned_chip
        from kpipe.media.images import encode
        from kpipe.utils.files import write_file

        faces = dataclasses.replace(faces, path=self._source, frame=frame.number, time=frame.time)
        self._frames += 1
        self._tracks |= {face.track for face in faces if face.track is not None}
        if self._json is not None:
            self._json.write(to_json(faces) + "\n")
        if self._plot is not None:
            self._plot[1].add(faces)
        if self._chips is not None:
            for face in faces:
                path = self._chips / f"{face.track}" / f"{frame.number:06d}.jpg"
                self._outputs.claim(path)
                write_file(path, encode(aligned_chip(frame.image, face.points), ".jpg"))
        if self._writer is not None:
            drawn = faces.render(frame.image, self._style)
            self._writer.write(drawn, frame.time - self._reader.start)

    def finish(self, whole: bool) -> None:
        """Completes the files; of a whole video the sound is kept to its end."""
        self._elapsed = time.perf_counter() - self._began
        reader = self._reader
        if self._writer is not None:
            end = min(reader.stop, reader.duration or reader.stop) - reader.start
            self._writer.close(end if whole and reader.problem is None else None)
        if self._plot is not None:
            from kpipe.utils.files import write_file

            path, timeline = self._plot
            write_file(path, timeline.plot(Path(self._source).name, path.suffix[1:].lower()))
            self._written.append(str(path))

    def problems(self) -> list[str]:
        """One line for each thing that was wrong with the video."""
        from kpipe.utils.files import display_name

        found = [self._writer.problem] if self._writer is not None and self._writer.problem else []
        if self._reader.problem is not None:
            found.insert(0, f"{display_name(self._source)}: {self._reader.problem}")
        elif not self._frames:
            found.append(f"{display_name(self._source)}: no frame between --from and --to")
        return found

    def report(self) -> None:
        """Says what was seen, how fast, and where it is."""
        from kpipe.cli.console import say
        from kpipe.utils.files import display_name

        count = len(self._tracks)
        rate = self._frames / max(self._elapsed, 1e-9)
        say(
            f"{display_name(Path(self._source).name)}: {self._frames} frames, "
            f"{count or 'no'} face{'' if count == 1 else 's'}, {rate:.1f} frames/s"
        )
        if self._written and self._frames:
            say(f"written: {', '.join(display_name(path) for path in self._written)}")


def _result_name(source: str) -> Path:
    path = Path(source)
    folder = Path() if "://" in source else path.parent
    return folder / f"{path.stem}_annotated.mp4"


def _seconds(text: str | None, default: float, option: str) -> float:
    """A time as people write it: 75, 75.5, 1:15, 0:01:15.5."""
    if text is None:
        return default
    try:
        parts = [float(part) for part in text.split(":")]
        if len(parts) > 3 or not all(0 <= part < math.inf for part in parts):
            raise ValueError
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is no time; write seconds, MM:SS or HH:MM:SS", param_hint=option
        ) from None
    return sum(part * 60.0**power for power, part in enumerate(reversed(parts)))


def _progress(reader: VideoReader, quiet: bool) -> Iterator[Frame]:
    """The frames, with a progress bar where someone is there to see it."""
    from kpipe.cli.console import console

    if quiet or not console.is_terminal:
        yield from reader
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    rate = TextColumn("{task.fields[rate]:.1f} frames/s")
    columns = (TextColumn("frames"), BarColumn(), MofNCompleteColumn(), rate, TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("frames", total=len(reader) or None, rate=0.0)
        for frame in reader:
            yield frame
            speed = progress.tasks[0].speed or 0.0
            progress.update(task, advance=1, rate=speed)
