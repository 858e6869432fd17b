"""`kpipe video`: a video to an annotated video and data."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kpipe.cli import options
from kpipe.errors import VideoError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kpipe.media.frames import Frame
    from kpipe.media.video_reader import VideoReader


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
    force: options.Force = False,
    draw: options.Draw = "boxes,lines,points,index",
    no_video: Annotated[
        bool, typer.Option("--no-video", help="Write data, no annotated video.")
    ] = False,
    json: options.FrameJson = None,
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
    raw: options.Raw = False,
    min_score: options.NewFaceMinScore = 0.9,
    min_face: options.MinFace = 0.0125,
    model: options.Model = None,
    quiet: options.Quiet = False,
) -> None:
    """Follow the faces of a video; draw their points on a copy and write them as data.

    Each face has a number that it keeps. The written video is H.264 with the sound of the
    original. Stopped by Ctrl-C, it holds what was done so far. Exit code 1 if the video is cut off
    or damaged: what can be read is done all the same.
    """
    from kpipe.cli.console import error, progress, say
    from kpipe.cli.extras import require
    from kpipe.cli.signals import interruptible
    from kpipe.options import PipelineOptions, TrackerOptions
    from kpipe.utils.files import display_name

    require("video", "av", *(["matplotlib"] if plot else []))
    from kpipe.apps.sinks import Chips, JsonLines, Sink, TimelinePlot, Video
    from kpipe.apps.video import process_video

    start = options.checked("--from", _seconds, from_, 0.0)
    stop = options.checked("--to", _seconds, to, math.inf)
    if start >= stop:
        raise typer.BadParameter("must be before --to", param_hint="--from")
    sinks: list[Sink] = [] if no_video else [Video(output, options.style_of(draw))]
    sinks += [JsonLines(json)] if json else []
    sinks += [Chips(chips)] if chips else []
    sinks += [options.checked("--plot", TimelinePlot, plot)] if plot else []
    settings = PipelineOptions(model=options.text(model), min_score=min_score, min_face=min_face)
    tracker = TrackerOptions(settings, raw=raw).build()

    def frames(reader: VideoReader) -> Iterable[Frame]:
        return reader if quiet else progress(reader, len(reader) or None, "frames", rate=True)

    try:
        with interruptible() as asked_to_stop:
            result = process_video(
                source,
                tracker,
                sinks,
                start=start,
                stop=stop,
                every=every,
                force=force,
                progress=frames,
                stopped=asked_to_stop,
            )
            stopped = asked_to_stop() and not result.complete
    except KeyboardInterrupt:  # before there was a frame
        error("stopped")
        raise typer.Exit(130) from None
    except VideoError as problem:
        error(str(problem))
        raise typer.Exit(1) from None
    if not result.frames and not result.problems and not stopped:
        result.problems.append(f"{display_name(source)}: no frame between --from and --to")
    for line in result.problems:
        error(line)
    if not quiet:
        count = len(result.tracks)
        speed = result.frames / max(result.seconds, 1e-9)
        say(
            f"{display_name(Path(source).name)}: {result.frames} "
            f"frame{'' if result.frames == 1 else 's'}, "
            f"{count or 'no'} face{'' if count == 1 else 's'}, {speed:.1f} frames/s"
        )
        written = [display_name(path) for sink in sinks for path in sink.written]
        if written and result.frames:
            say(f"written: {', '.join(written)}")
    if stopped:
        error("stopped; what was done so far is kept")
        raise typer.Exit(130)
    if result.problems:
        raise typer.Exit(1)


def _seconds(text: str | None, default: float) -> float:
    """A time as people write it: 75, 75.5, 1:15, 0:01:15.5.

    Raises:
        ValueError: it is none.
    """
    if text is None:
        return default
    try:
        parts = [float(part) for part in text.split(":")]
    except ValueError:
        parts = []
    if not 0 < len(parts) <= 3 or not all(0 <= part < math.inf for part in parts):
        raise ValueError(f"{text!r} is no time; write seconds, MM:SS or HH:MM:SS")
    return sum(part * 60.0**power for power, part in enumerate(reversed(parts)))
