"""A camera in a window, or as data."""

from __future__ import annotations

import dataclasses
import time
from collections import deque
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kpipe.apps.outputs import OutputGuard
from kpipe.apps.sinks import Run, Sink, Sinks, write_picture
from kpipe.errors import KpipeError, VideoError
from kpipe.formats.jsonl import to_json
from kpipe.media.camera import Camera
from kpipe.media.frames import Frame
from kpipe.rendering.window import Window, write_over
from kpipe.structures.faces import Faces
from kpipe.structures.style import Style
from kpipe.tracking.tracker import Tracker
from kpipe.utils.files import write_file

if TYPE_CHECKING:
    from kpipe.media.video_writer import VideoWriter

KEYS = "q quit  s snapshot  r record  space pause  m mirror  n numbers  b boxes  l lines  h help"

LAYERS = {"n": "numbers", "b": "boxes", "l": "lines"}
"""Layers of the drawing by the key that switches them."""

WAIT = 0.05
"""Longest wait for a picture before the keys are read again (seconds)."""

SILENCE = 3.0
"""Time without a picture after which the user is told (seconds)."""

MESSAGE = 3.0
"""How long a message stays in the window (seconds)."""

RATE_FRAMES = 30
"""Frames that the shown rate is averaged over."""

Say = Callable[[str], None]


class Session:
    """One run of a camera: shows each picture, writes its faces, does what the keys ask for.

    Args:
        camera: gives the pictures; closed with the session.
        tracker: follows the faces.
        sinks: where the faces of each frame go.
        window: shows the pictures and gives the keys, or None for data alone.
        style: how faces are drawn.
        folder: where snapshots and recordings go.
        mirror: whether the window shows the picture as a mirror does.
        say: told what happened, in one line.
        error: told what went wrong, in one line.

    Attributes:
        failed: whether the session ended because the camera did, or a file could not be written.

    Raises:
        WriteError: a file exists already or cannot be opened.
    """

    def __init__(
        self,
        camera: Camera,
        tracker: Tracker,
        sinks: tuple[Sink, ...] = (),
        window: Window | None = None,
        *,
        style: Style | None = None,
        folder: Path = Path(),
        mirror: bool = False,
        say: Say = print,
        error: Say = print,
    ) -> None:
        guard = OutputGuard([camera.source], what="video", otherwise="name another")
        self._outputs = Sinks(sinks, Run(guard, [camera.source]))
        self._camera, self._tracker, self._window = camera, tracker, window
        self._style, self._folder = style or Style(), folder
        self._say, self._error = say, error
        self._mirror, self._help, self._paused = mirror, True, False
        self._recording: Recording | None = None
        self._last: tuple[Frame, Faces] | None = None
        self._message, self._message_until = "", 0.0
        self._silence = _Silence(camera, say, error)
        self._shown: deque[float] = deque(maxlen=RATE_FRAMES)
        self._frames, self._dropped, self._number = 0, 0, -1
        self.failed = False

    def step(self) -> bool:
        """Does one picture and the keys that were pressed meanwhile; whether to go on."""
        if not self._paused:
            frame = self._camera.newest(WAIT)
            if frame is not None:
                self._take(frame)
            elif self._camera.ended:
                self._end()
                return False
            self._silence.heard(frame is not None)
        if self._window is None:
            return not self._outputs.idle
        self._show(self._window)
        key = self._window.key()
        if key in ("q", "esc") or self._window.closed():
            return False
        self._press(key)
        if self._paused:
            time.sleep(WAIT)
        return True

    def summary(self) -> str:
        """One line on what was done."""
        frames = f"{self._frames} frame{'' if self._frames == 1 else 's'}"
        return f"{self._camera.name}: {frames}, {self._dropped} dropped"

    def close(self) -> None:
        """Completes all files and closes camera and window."""
        try:
            self._stop_recording()
            self._report(self._outputs.close())
        finally:
            self._outputs.abandon()
            self._camera.close()
            if self._window is not None:
                self._window.close()

    def _take(self, frame: Frame) -> None:
        faces = self._tracker(frame.image, frame.time)
        faces = dataclasses.replace(faces, path=self._camera.name, frame=frame.number)
        self._last = frame, faces
        self._frames += 1
        self._dropped += max(frame.number - self._number - 1, 0)
        self._number = frame.number
        self._shown.append(time.monotonic())
        self._report(self._outputs.append(faces, frame))
        if self._recording is not None and not self._recording.add(frame, faces, self._style):
            self._stop_recording()

    def _report(self, problems: list[str]) -> None:
        for problem in problems:
            self.failed = True
            self._error(problem)

    def _end(self) -> None:
        if not self._camera.is_file:
            self.failed = True
            self._error(f"{self._camera.problem}; --reconnect waits for it to come back")

    def _show(self, window: Window) -> None:
        if self._last is None:
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
        window.show(image)

    def _status(self) -> str:
        rate = 0.0
        if len(self._shown) > 1:
            rate = (len(self._shown) - 1) / max(self._shown[-1] - self._shown[0], 1e-6)
        count = len(self._last[1]) if self._last is not None else 0
        parts = [f"{rate:.1f} frames/s", f"{count} face{'' if count == 1 else 's'}"]
        if self._recording is not None:
            parts.append("recording")
        if self._paused:
            parts.append("paused")
        return "  ".join(parts)

    def _press(self, key: str) -> None:
        if key == "s":
            self._snapshot()
        elif key == "r":
            self._toggle_recording()
        elif key in ("p", " "):
            self._paused = not self._paused
            self._silence.restart()
        elif key == "m":
            self._mirror = not self._mirror
        elif key == "h":
            self._help = not self._help
        elif key in LAYERS:
            layer, draw = LAYERS[key], self._style.draw
            draw = tuple(p for p in draw if p != layer) if layer in draw else (*draw, layer)
            self._style = dataclasses.replace(self._style, draw=draw)

    def _snapshot(self) -> None:
        """Saves the picture as the camera gave it, annotated, and its data beside it."""
        if self._last is None:
            return
        frame, faces = self._last
        path = self._free("snapshot", ".jpg")
        try:
            write_picture(str(path), faces.render(frame.image, self._style))
            line = to_json(faces.at(path.name).to_dict()) + "\n"
            write_file(path.with_suffix(".json"), line.encode())
        except KpipeError as problem:
            self._tell(str(problem))
            return
        self._tell(f"saved: {path}")

    def _toggle_recording(self) -> None:
        if self._recording is not None:
            self._stop_recording()
            return
        if self._last is None:
            return
        frame, faces = self._last
        try:
            self._recording = Recording(self._free("recording", ".mp4"), frame)
        except ImportError:
            self._tell("recording needs av: pip install 'kpipe[video]'")
            return
        except VideoError as problem:
            self._tell(str(problem))
            return
        self._recording.add(frame, faces, self._style)

    def _stop_recording(self) -> None:
        if self._recording is None:
            return
        recording, self._recording = self._recording, None
        try:
            self._tell(f"recorded: {recording.close()}")
        except VideoError as problem:
            self._tell(str(problem))

    def _free(self, what: str, suffix: str) -> Path:
        """A file name by the time of day that is not taken."""
        stem = f"{what}_{datetime.now():%Y%m%d_%H%M%S}"
        names = [f"{stem}{suffix}", *(f"{stem}_{k}{suffix}" for k in range(2, 1000))]
        return next(path for name in names if not (path := self._folder / name).exists())

    def _tell(self, message: str) -> None:
        """Shows a message in the window for a moment, and says it."""
        self._message, self._message_until = message, time.monotonic() + MESSAGE
        self._say(message)


class Recording:
    """An annotated video of what the camera shows, from one key press to the next.

    Raises:
        VideoError: the file cannot be written.
        ImportError: PyAV is not installed.
    """

    def __init__(self, path: Path, first: Frame) -> None:
        from kpipe.media.video_writer import VideoWriter

        height, width = first.image.shape[:2]
        self._writer: VideoWriter = VideoWriter(path, width, height)
        self._since = first.time

    def add(self, frame: Frame, faces: Faces, style: Style) -> bool:
        """Adds a frame with its faces drawn; whether the recording can go on.

        It cannot if the file fails, or if the camera came back with another picture size.
        """
        if frame.image.shape[:2] != self._writer.shape:
            return False
        try:
            self._writer.write(faces.render(frame.image, style), frame.time - self._since)
        except VideoError:
            return False
        return True

    def close(self) -> Path:
        """Completes the file.

        Raises:
            VideoError: it could not be written.
        """
        self._writer.close()
        return self._writer.path


class _Silence:
    """Says once that pictures stay away, and once that they are back."""

    def __init__(self, camera: Camera, say: Say, error: Say) -> None:
        self._camera, self._say, self._error = camera, say, error
        self._said: str | None = None
        self.restart()

    def restart(self) -> None:
        self._since = time.monotonic()

    def heard(self, picture: bool) -> None:
        """Takes note of whether a picture came."""
        camera, problem = self._camera, self._camera.problem
        if picture:
            self.restart()
            if self._said is not None:
                self._say(f"{camera.name}: connected")
            self._said = None
        elif problem is None and time.monotonic() - self._since > SILENCE:
            problem = f"{camera.name}: no picture for {SILENCE:.0f} seconds"
        if not picture and problem is not None and problem != self._said and not camera.ended:
            self._error(f"{problem}; waiting")
            self._said = problem


def mirrored(image: NDArray[np.uint8], faces: Faces) -> tuple[NDArray[np.uint8], Faces]:
    """A picture and its faces as a mirror shows them. Each point keeps its number."""
    return np.ascontiguousarray(image[:, ::-1]), faces.mirror()
