"""Cameras, streams and files played as if they were cameras, by OpenCV: always the newest frame."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from threading import Condition, Event, Lock, Thread

import numpy as np

from kpipe.errors import CameraError
from kpipe.media.formats import FILE_OPTIONS
from kpipe.media.frames import Frame
from kpipe.utils.files import display_name
from kpipe.utils.opencv import cv2

RETRY = 0.5
"""Seconds from one try to connect again to the next."""


PATIENCE_MS = 5000
"""Of a stream: how long it may take to open or to send the next picture."""


FFMPEG_SETTING = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
"""The environment variable from which OpenCV takes FFmpeg's options, its only way in."""

_setting_lock = Lock()


class Camera:
    """The newest picture of a camera. A thread of its own takes every picture, so that none waits.

    Args:
        source: the number of a camera, from 0; the URL of a stream; or a video file, which is
            played at its own pace.
        size: width and height to ask the camera for, pixels; it may choose others.
        reconnect: whether to wait for a camera that is missing, or stops, and connect again.

    Attributes:
        name: of the camera, as messages call it.
        problem: one line on why there are no pictures now; None while there are.
        ended: whether no more will come.
        is_file: whether it is a video file.

    Raises:
        CameraError: there is no such camera, or it cannot be used, and it is not to be waited for.
    """

    def __init__(
        self, source: str, *, size: tuple[int, int] | None = None, reconnect: bool = False
    ) -> None:
        self.source, self.size, self.reconnect = source, size, reconnect
        self.name = f"camera {source}" if source.isdecimal() else display_name(source)
        self.problem: str | None = None
        self.ended = False
        self.is_file = not source.isdecimal() and "://" not in source
        self._newest: Frame | None = None
        self._arrived = Condition()
        self._left = Event()
        capture = self._connect()
        if capture is None and not reconnect:
            raise CameraError(self.problem)
        self._thread = Thread(target=self._run, args=(capture,), name="kpipe-camera", daemon=True)
        self._thread.start()

    def __enter__(self) -> Camera:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._left.set()
        # A camera that hangs is left to the end of the process.
        self._thread.join(timeout=2.0)

    def newest(self, timeout: float) -> Frame | None:
        """The newest frame that was not returned yet; None if none comes in time (seconds)."""
        with self._arrived:
            self._arrived.wait_for(lambda: self._newest is not None or self.ended, timeout)
            frame, self._newest = self._newest, None
            return frame

    def _run(self, capture: cv2.VideoCapture | None) -> None:
        began, number = time.monotonic(), 0
        while not self._left.is_set():
            if capture is None:
                self._left.wait(RETRY)
                capture = self._connect()
                continue
            opened = time.monotonic()
            while not self._left.is_set():
                taken, picture = capture.read()
                if not taken:
                    break
                self.problem = None
                if self.is_file:
                    due = opened + capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
                    self._left.wait(max(due - time.monotonic(), 0))
                image = np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8)
                with self._arrived:
                    self._newest = Frame(image, time.monotonic() - began, number)
                    self._arrived.notify_all()
                number += 1
            capture.release()
            capture = None
            self.problem = f"{self.name}: {'ended' if self.is_file else 'stopped sending pictures'}"
            if not self.reconnect:
                break
        with self._arrived:
            self.ended = True
            self._arrived.notify_all()

    def _connect(self) -> cv2.VideoCapture | None:
        """The camera, ready; or None, and `problem` says why."""
        # What OpenCV and FFmpeg say of it is not for the user; we say it in one line.
        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        capture = cv2.VideoCapture()
        capture.setExceptionMode(False)
        if self.source.isdecimal():
            if (missing := self._missing()) is not None:
                self.problem = missing
                return None
            opened = capture.open(int(self.source))
            for property_, value in zip(
                (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT), self.size or ()
            ):
                capture.set(property_, value)
        elif self.is_file and not Path(self.source).is_file():
            self.problem = f"{self.name}: no such file; a camera is named by its number, such as 0"
            return None
        else:
            limits = (cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, cv2.CAP_PROP_READ_TIMEOUT_MSEC)
            parameters = [value for limit in limits for value in (limit, PATIENCE_MS)]
            # As a whole path: FFmpeg takes what stands before a colon for a protocol.
            place = str(Path(self.source).absolute()) if self.is_file else self.source
            with _as_file() if self.is_file else nullcontext():
                opened = capture.open(place, cv2.CAP_FFMPEG, parameters)
        if opened:
            return capture
        capture.release()
        if self.source.isdecimal():
            self.problem = f"{self.name}: cannot be opened; is another program using it?"
        elif self.is_file:
            self.problem = f"{self.name}: not a video in a format known here"
        else:
            self.problem = f"{self.name}: cannot be reached, or shows no video"
        return None

    def _missing(self) -> str | None:
        """What is wrong with a camera before it is opened, where the system tells."""
        if not sys.platform.startswith("linux"):
            return None
        device = Path(f"/dev/video{self.source}")
        if not device.exists():
            there = sorted(path.name[5:] for path in Path("/dev").glob("video[0-9]*"))
            others = f"; there is {', '.join(there)}" if there else "; no camera is connected"
            return f"{self.name}: not found ({device}){others}"
        if not os.access(device, os.R_OK | os.W_OK):
            return f"{self.name}: no permission to use {device}; the group video has it"
        return None


@contextmanager
def _as_file() -> Iterator[None]:
    """What OpenCV opens meanwhile is a file in a format that is read, and opens no other."""
    options = "|".join(f"{name};{value}" for name, value in FILE_OPTIONS.items())
    with _setting_lock:
        before = os.environ.get(FFMPEG_SETTING)
        os.environ[FFMPEG_SETTING] = options
        try:
            yield
        finally:
            if before is None:
                del os.environ[FFMPEG_SETTING]
            else:
                os.environ[FFMPEG_SETTING] = before
