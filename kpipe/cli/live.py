"""`kpipe live`: a camera in a window, or as data."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Annotated

import typer

from kpipe.cli import options


def live(
    camera: Annotated[
        str, typer.Option(metavar="NUMBER|URL|FILE", help="Which camera, stream or video file.")
    ] = "0",
    size: Annotated[
        str | None, typer.Option(metavar="WxH", help="Picture size to ask the camera for.")
    ] = None,
    reconnect: Annotated[
        bool, typer.Option("--reconnect", help="Wait for a camera that is missing or stops.")
    ] = False,
    headless: Annotated[bool, typer.Option("--headless", help="No window, data alone.")] = False,
    json: options.FrameJson = None,
    folder: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Where snapshots and recordings go.")
    ] = Path(),
    draw: options.Draw = "boxes,lines,points",
    mirror: Annotated[
        bool, typer.Option("--mirror", help="Show the picture as a mirror does.")
    ] = False,
    seconds: Annotated[
        float, typer.Option("--for", min=0.0, metavar="SECONDS", help="Stop after this time.")
    ] = math.inf,
    raw: options.Raw = False,
    min_score: options.NewFaceMinScore = 0.9,
    min_face: options.MinFace = 0.1,
    model: options.Model = None,
) -> None:
    """Follow the faces that a camera sees, in a window or as a stream of data.

    The window lists its keys: q quits, s saves a snapshot (picture and JSON), r records, space or p
    pauses, m mirrors, n numbers, b boxes, l lines, h hides the help. The window always shows the
    newest picture; pictures that come while one is worked on are dropped.
    """
    from kpipe.apps.live import Session
    from kpipe.apps.sinks import JsonLines
    from kpipe.cli.console import error, say
    from kpipe.cli.signals import interruptible
    from kpipe.errors import CameraError, WindowError
    from kpipe.media.camera import Camera
    from kpipe.options import PipelineOptions, TrackerOptions
    from kpipe.rendering.window import Window

    if headless and json is None:
        raise typer.BadParameter("--headless shows nothing; add --json - or --json FILE")
    picture_size = options.checked("--size", _size, size)
    try:
        window = None if headless else Window()
    except WindowError as problem:
        error(f"no window: {problem}; kpipe live --headless --json - streams data instead")
        raise typer.Exit(2) from None
    try:
        source = Camera(camera, size=picture_size, reconnect=reconnect)
    except CameraError as problem:
        hint = "" if reconnect else "; --reconnect waits for it"
        error(f"{problem}{hint if camera.isdecimal() or '://' in camera else ''}")
        raise typer.Exit(1) from None
    settings = PipelineOptions(model=options.text(model), min_score=min_score, min_face=min_face)
    session = Session(
        source,
        TrackerOptions(settings, raw=raw).build(),
        (JsonLines(json),) if json else (),
        window,
        style=options.style_of(draw),
        folder=folder,
        mirror=mirror,
        say=say,
        error=error,
    )
    try:
        with interruptible() as asked_to_stop:
            end = time.monotonic() + seconds
            while not asked_to_stop() and time.monotonic() < end and session.step():
                pass
        stopped = asked_to_stop()
    finally:
        session.close()
    say(session.summary())
    if stopped:
        error("stopped")
        raise typer.Exit(130)
    if session.failed:
        raise typer.Exit(1)


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    width, cross, height = text.lower().partition("x")
    if not (cross and width.isdecimal() and height.isdecimal()):
        raise ValueError(f"{text!r} is no size; write 1280x720")
    return int(width), int(height)
