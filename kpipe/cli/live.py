"""`kpipe live`: a camera in a window, or as data."""

from __future__ import annotations

import dataclasses
import math
import time
from collections import deque
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from kpipe.cli.options import MinFace, Model
from kpipe.cli.signals import interruptible
from kpipe.cli.video import make_tracker
from kpipe.errors import KpipeError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from kpipe.media.camera import Camera
    from kpipe.media.frames import Frame
    from kpipe.media.video_writer import VideoWriter
    from kpipe.rendering.draw import Style
    from kpipe.rendering.window import Window
    from kpipe.structures.faces import Faces
    from kpipe.tracking.tracker import Tracker

KEYS = "q quit  s snapshot  r record  space pause  m mirror  n numbers  b boxes  l lines  h help"

WAIT = 0.05
"""Seconds to wait for a picture before keys are looked at again."""

SILENCE = 3.0
"""Seconds without a picture after which that is said."""


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
    json: Annotated[
        str | None, typer.Option(metavar="FILE|-", help="Faces as JSON, one line a frame.")
    ] = None,
    folder: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Where snapshots and recordings go.")
    ] = Path(),
    draw: Annotated[
        str, typer.Option(metavar="PARTS", help="Any of boxes,lines,points,numbers,index.")
    ] = "boxes,lines,points",
    mirror: Annotated[
        bool, typer.Option("--mirror", help="Show the picture as a mirror does.")
    ] = False,
    seconds: Annotated[
        float, typer.Option("--for", min=0.0, metavar="SECONDS", help="Stop after so long.")
    ] = math.inf,
    raw: Annotated[
        bool, typer.Option("--raw", help="Points as the network sees them, not steadied.")
    ] = False,
    min_score: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Least probability of a new face.")
    ] = 0.9,
    min_face: MinFace = 0.1,
    model: Model = None,
) -> None:
    """Follow the faces that a camera sees, in a window or as a stream of data.

    The window lists its keys: q quits, s saves a snapshot (picture and JSON), r records, space or p
    pauses, m mirrors, n numbers, b boxes, l lines, h hides the help. Always the newest picture is
    shown; those that come while it is worked on are dropped.
    """
    from kpipe.cli.console import error, say
    from kpipe.cli.outputs import OutputGuard
    from kpipe.errors import CameraError, WindowError
    from kpipe.media.camera import Camera
    from kpipe.rendering.draw import Style
    from kpipe.rendering.window import Window

    if headless and json is None:
        raise typer.BadParameter("--headless shows nothing; add --json - or --json FILE")
    try:
        style = Style(tuple(part for part in draw.split(",") if part))
    except ValueError as problem:
        raise typer.BadParameter(str(problem), param_hint="--draw") from None
    outputs = OutputGuard([camera], False, "video", "name another")
    outputs.claim(json)
    window = None
    if not headless:
        try:
            window = Window()
        except WindowError as problem:
            error(f"no window: {problem}; kpipe live --headless --json - streams data instead")
            raise typer.Exit(2) from None
    try:
        source = Camera(camera, size=_size(size), reconnect=reconnect)
    except CameraError as problem:
        hint = "" if reconnect else "; --reconnect waits for it"
        error(f"{problem}{hint if camera.isdecimal() or '://' in camera else ''}")
        raise typer.Exit(1) from None
    tracker = make_tracker(raw, min_score, min_face, model)
    text = outputs.open(json) if json is not None else None
    session = Session(source, tracker, style, window, text, folder, mirror)
    try:
        with interruptible() as asked_to_stop:
            end = time.monotonic() + seconds
            while not asked_to_stop() and time.monotonic() < end and session.step():
                pass
        stopped = asked_to_stop()
    finally:
        session.close()
        if text is not None:
            text.close()
    say(session.summary())
    if stopped:
        error("stopped")
        raise typer.Exit(130)
    if session.failed:
        raise typer.Exit(1)


class Session:
    """One run of the camera: what is shown, what is written, and what the keys changed.

    Attributes:
        failed: whether it ended because the camera did.
    """

    def __init__(
        self,
        camera: Camera,
        tracker: Tracker,
        style: Style,
        window: Window | None,
        json: TextIO | None,
        folder: Path,
        mirror: bool,
    ) -> None:
        self._camera, self._tracker, self._style = camera, tracker, style
        self._window, self._json, self._folder = window, json, folder
        self._mirror, self._help, self._paused = mirror, True, False
        self._writer: VideoWriter | None = None
        self._recording_since = 0.0
        self._last: tuple[Frame, Faces] | None = None
        self._message, self._message_until = "", 0.0
        self._said: str | None = None
        self._heard = time.monotonic()
        self._shown: deque[float] = deque(maxlen=30)
        self._frames, self._dropped, self._number = 0, 0, -1
        self.failed = False

    def step(self) -> bool:
        """One picture and the keys that were pressed meanwhile; whether to go on."""
        if not self._paused:
            frame = self._camera.newest(WAIT)
            if frame is not None:
                self._take(frame)
            elif self._camera.ended:
                self._end()
                return False
            self._tell_silence(frame is not None)
        if self._window is None:
            return True
        self._show()
        key = self._window.key()
        if key in ("q", "esc") or self._window.closed():
            return False
        self._press(key)
        if self._paused:
            time.sleep(WAIT)
        return True

    def _take(self, frame: Frame) -> None:
        from kpipe.formats.jsonl import to_json

        faces = self._tracker(frame.image, frame.time)
        faces = dataclasses.replace(faces, path=self._camera.name, frame=frame.number)
        self._last = frame, faces
        self._frames += 1
        self._dropped += max(frame.number - self._number - 1, 0)
        self._number = frame.number
        self._shown.append(time.monotonic())
        if self._json is not None:
            self._json.write(to_json(faces) + "\n")
            self._json.flush()
        if self._writer is not None:
            self._record(frame, faces)

    def _show(self) -> None:
        from kpipe.rendering.window import write_over

        if self._window is None:
            return
        if self._last is None:
            import numpy as np

            image = np.zeros((480, 640, 3), np.uint8)
        else:
            frame, faces = self._last
            image = frame.image
            if self._mirror:
                image, faces = mirrored(image, faces)
            image = faces.render(image, self._style)
        status = [self._status()]
        if time.monotonic() < self._message_until:
            status.append(self._message)
        elif self._camera.problem is not None:
            status.append(f"{self._camera.problem}; waiting")
        write_over(image, status)
        if self._help:
            middle = KEYS.index("m mirror")
            write_over(image, [KEYS[:middle].rstrip(), KEYS[middle:]], bottom=True)
        self._window.show(image)

    def _status(self) -> str:
        rate = 0.0
        if len(self._shown) > 1:
            rate = (len(self._shown) - 1) / max(self._shown[-1] - self._shown[0], 1e-6)
        count = len(self._last[1]) if self._last is not None else 0
        parts = [f"{rate:.1f} frames/s", f"{count} face{'' if count == 1 else 's'}"]
        if self._writer is not None:
            parts.append("recording")
        if self._paused:
            parts.append("paused")
        return "  ".join(parts)

    def _press(self, key: str) -> None:
        actions = {
            "s": self._snapshot,
            "r": self._toggle_recording,
            "p": self._toggle_pause,
            " ": self._toggle_pause,
        }
        layers = {"n": "numbers", "b": "boxes", "l": "lines"}
        if key in actions:
            actions[key]()
        elif key == "m":
            self._mirror = not self._mirror
        elif key == "h":
            self._help = not self._help
        elif key in layers:
            self._toggle(layers[key])

    def _toggle(self, layer: str) -> None:
        draw = self._style.draw
        draw = tuple(p for p in draw if p != layer) if layer in draw else (*draw, layer)
        self._style = dataclasses.replace(self._style, draw=draw)

    def _toggle_pause(self) -> None:
        self._paused = not self._paused
        self._heard = time.monotonic()

    def _snapshot(self) -> None:
        """The picture as the camera saw it, annotated, and its data beside it."""
        from kpipe.formats.jsonl import to_json
        from kpipe.media.images import encode
        from kpipe.utils.files import write_file

        if self._last is None:
            return
        frame, faces = self._last
        path = self._free("snapshot", ".jpg")
        try:
            write_file(path, encode(faces.render(frame.image, self._style), ".jpg"))
            write_file(path.with_suffix(".json"), f"{to_json(faces.at(path.name))}\n".encode())
        except KpipeError as problem:
            self._tell(str(problem))
            return
        self._tell(f"saved: {path}")

    def _toggle_recording(self) -> None:
        if self._writer is not None:
            self._stop_recording()
            return
        if self._last is None:
            return
        try:
            from kpipe.errors import VideoError
            from kpipe.media.video_writer import VideoWriter
        except ImportError:
            self._tell("recording needs av: pip install 'kpipe[video]'")
            return
        frame, faces = self._last
        try:
            self._writer = VideoWriter(self._free("recording", ".mp4"), faces.width, faces.height)
        except VideoError as problem:
            self._tell(str(problem))
            return
        self._recording_since = frame.time
        self._record(frame, faces)

    def _record(self, frame: Frame, faces: Faces) -> None:
        from kpipe.errors import VideoError

        if self._writer is None:
            return
        if frame.image.shape[:2] != self._writer.shape:
            # After a camera came back with another picture size.
            self._stop_recording()
            return
        try:
            drawn = faces.render(frame.image, self._style)
            self._writer.write(drawn, frame.time - self._recording_since)
        except VideoError:
            self._stop_recording()

    def _stop_recording(self) -> None:
        from kpipe.errors import VideoError

        if self._writer is None:
            return
        writer, self._writer = self._writer, None
        try:
            writer.close()
        except VideoError as problem:
            self._tell(str(problem))
            return
        self._tell(f"recorded: {writer.path}")

    def _free(self, what: str, suffix: str) -> Path:
        """A file name by the time of day that is not taken."""
        stem = f"{what}_{datetime.now():%Y%m%d_%H%M%S}"
        names = [f"{stem}{suffix}", *(f"{stem}_{k}{suffix}" for k in range(2, 1000))]
        return next(path for name in names if not (path := self._folder / name).exists())

    def _tell(self, message: str) -> None:
        """On the screen for a moment, and on standard error."""
        from kpipe.cli.console import say

        self._message, self._message_until = message, time.monotonic() + 3.0
        say(message)

    def _tell_silence(self, heard: bool) -> None:
        """Says once that pictures stay away, and once that they are back."""
        from kpipe.cli.console import error, say

        problem = self._camera.problem
        if heard:
            self._heard = time.monotonic()
            if self._said is not None:
                say(f"{self._camera.name}: connected")
            self._said = None
        elif problem is None and time.monotonic() - self._heard > SILENCE:
            problem = f"{self._camera.name}: no picture for {SILENCE:.0f} seconds"
        if not heard and problem is not None and problem != self._said and not self._camera.ended:
            error(f"{problem}; waiting")
            self._said = problem

    def _end(self) -> None:
        from kpipe.cli.console import error

        if self._camera.is_file:
            return
        self.failed = True
        error(f"{self._camera.problem}; --reconnect waits for it to come back")

    def summary(self) -> str:
        return f"{self._camera.name}: {self._frames} frames, {self._dropped} dropped"

    def close(self) -> None:
        self._stop_recording()
        self._camera.close()
        if self._window is not None:
            self._window.close()


def mirrored(image: NDArray[np.uint8], faces: Faces) -> tuple[NDArray[np.uint8], Faces]:
    """A picture and its faces as a mirror shows them. Each point keeps its number."""
    import numpy as np

    return np.ascontiguousarray(image[:, ::-1]), faces.mirror()


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    width, cross, height = text.lower().partition("x")
    if not (cross and width.isdecimal() and height.isdecimal()):
        raise typer.BadParameter(f"{text!r} is no size; write 1280x720", param_hint="--size")
    return int(width), int(height)
