"""Video files out, by PyAV."""

from __future__ import annotations

import os
import secrets
from contextlib import ExitStack, suppress
from fractions import Fraction
from pathlib import Path
from queue import Queue
from threading import Thread

import av.error
import numpy as np
from av.container import OutputContainer
from av.video.reformatter import ColorRange, Colorspace
from numpy.typing import NDArray

from kpipe.errors import VideoError
from kpipe.media.ffmpeg import CONTAINERS, frames_ahead, reason_of
from kpipe.media.video_audio import SoundCopier
from kpipe.utils.files import display_name

CRF = 20
"""x264's constant rate factor: at 20 hardly a difference can be seen."""


PRESET = "veryfast"


class VideoWriter:
    """An H.264 file that plays in browsers, frame by frame, with the sound of another file.

    Frames are encoded in a thread of their own. The file is written beside its place and put there
    by `close`, whole and playable, however few frames there were.

    Args:
        path: `.mp4`, `.m4v`, `.mov` or `.mkv`.
        width, height: of the frames, pixels.
        rate: frames a second, about.
        time_base: the unit in which times are kept.
        pixel_aspect: width of a pixel over its height.
        sound: a file whose sound is kept; None for silence.
        start: seconds; where in that file time 0 is.

    Attributes:
        shape: height and width of the frames.
        problem: one line on what was wrong with the sound, once closed.

    Raises:
        VideoError: the file cannot be written, or its format is not known.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        width: int,
        height: int,
        *,
        rate: float = 30.0,
        time_base: Fraction = Fraction(1, 90_000),
        pixel_aspect: Fraction = Fraction(1),
        sound: str | os.PathLike[str] | None = None,
        start: float = 0.0,
    ) -> None:
        self.path = Path(path)
        if self.path.suffix.lower() not in CONTAINERS:
            raise VideoError(f"{display_name(path)}: videos are written as {', '.join(CONTAINERS)}")
        self.problem: str | None = None
        self.shape = (height, width)
        self._last = -1
        self._closed = False
        self._sound: SoundCopier | None = None
        self._opened = ExitStack()
        try:
            self._container = self._open_container()
            self._add_stream(rate, time_base, pixel_aspect)
            if sound:
                self._sound = SoundCopier(os.fspath(sound), start, self._container)
                self._opened.callback(self._sound.close)
        except BaseException as error:
            self._opened.close()
            if isinstance(error, (OSError, ValueError, av.error.FFmpegError)) and not isinstance(
                error, VideoError
            ):
                raise VideoError(
                    f"{display_name(path)}: cannot be written ({reason_of(error)})"
                ) from None
            raise
        waiting = frames_ahead(width, height)
        self._waiting: Queue[tuple[NDArray[np.uint8], float] | None] = Queue(waiting)
        self._failure: BaseException | None = None
        self._thread = Thread(target=self._encode, name="kpipe-encode", daemon=True)
        self._thread.start()

    def _open_container(self) -> OutputContainer:
        """The file under its temporary name, open; closed and removed with `_opened`."""
        format_ = CONTAINERS[self.path.suffix.lower()]
        options = {} if format_ == "matroska" else {"movflags": "+faststart"}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._temporary = _new_file(self.path)
        self._opened.callback(_remove, self._temporary)
        container = av.open(str(self._temporary), "w", format=format_, container_options=options)
        self._opened.callback(_close, container)
        return container

    def _add_stream(self, rate: float, time_base: Fraction, pixel_aspect: Fraction) -> None:
        # MP4 counts time in at most 32 bits of its unit's denominator; some files have odd units.
        self._unit = time_base if 1 < time_base.denominator <= 10**6 else Fraction(1, 90_000)
        rate = min(max(rate, 1.0), 240.0)
        stream = self._container.add_stream(
            "libx264", rate=Fraction(rate).limit_denominator(1001), options=_x264(rate)
        )
        height, width = self.shape
        stream.width, stream.height = width + width % 2, height + height % 2
        stream.pix_fmt = "yuv420p"
        stream.thread_type = "AUTO"
        context = stream.codec_context
        context.time_base = self._unit
        context.sample_aspect_ratio = pixel_aspect
        context.colorspace = context.color_primaries = context.color_trc = 1  # BT.709
        context.color_range = 1  # 16 to 235
        self._stream, self._rate = stream, rate

    def write(self, image: NDArray[np.uint8], time: float) -> None:
        """Adds a frame (h, w, 3) RGB; times must grow.

        Raises:
            VideoError: the file cannot be written to any more.
        """
        if image.shape != (*self.shape, 3) or image.dtype != np.uint8:
            raise ValueError(f"image: expected uint8 {(*self.shape, 3)}, got {image.shape}")
        self._check()
        self._waiting.put((image, time))

    def close(self, sound_to: float | None = None) -> None:
        """Finishes the file. A second time it does nothing.

        Args:
            sound_to: seconds; where the sound ends, without it with the last frame.

        Raises:
            VideoError: it could not be written.
        """
        if self._closed:
            return
        self._closed = True
        if self._thread.is_alive():
            self._waiting.put(None)
        self._thread.join()
        try:
            if self._failure is None and self._last >= 0:
                self._finish(sound_to)
                if self._failure is None:
                    self._temporary.replace(self.path)
        except OSError as error:
            self._failure = error
        finally:
            if self._sound is not None:
                self.problem = self._sound.problem
            self._opened.close()
        self._check()

    def _finish(self, sound_to: float | None) -> None:
        try:
            for packet in self._stream.encode(None):
                self._container.mux(packet)
            if self._sound is not None:
                end = float(self._last * self._unit) + 1 / self._rate
                self._sound.up_to(end if sound_to is None else sound_to)
                self._sound.finish()
            self._container.close()
        except (av.error.FFmpegError, OSError) as error:
            self._failure = error

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check(self) -> None:
        if self._failure is not None:
            reason = reason_of(self._failure)
            raise VideoError(f"{display_name(self.path)}: cannot be written ({reason})") from None

    def _encode(self) -> None:
        while (item := self._waiting.get()) is not None:
            if self._failure is not None:
                continue  # whoever writes must not wait for ever
            try:
                self._add(*item)
            except BaseException as error:  # for whoever writes
                self._failure = error

    def _add(self, image: NDArray[np.uint8], time: float) -> None:
        height, width = image.shape[:2]
        if width % 2 or height % 2:
            # H.264 halves the color's resolution: sides are even.
            image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        picture = av.VideoFrame.from_ndarray(image, format="rgb24")
        frame = picture.reformat(
            format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
        )
        self._last = max(self._last + 1, round(Fraction(time) / self._unit))
        frame.pts, frame.time_base = self._last, self._unit
        for packet in self._stream.encode(frame):
            self._container.mux(packet)
        if self._sound is not None:
            self._sound.up_to(time)


def _new_file(path: Path) -> Path:
    """A new, empty file beside another, of the same ending and with a name that nobody can foresee.

    Raises:
        OSError: it cannot be made.
    """
    # Not `tempfile`, whose files only their owner may read: this one becomes the result.
    temporary = path.with_name(f".kpipe-{secrets.token_hex(8)}{path.suffix.lower()}")
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    return temporary


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink(missing_ok=True)


def _close(container: OutputContainer) -> None:
    with suppress(av.error.FFmpegError, OSError):
        container.close()


def _x264(rate: float) -> dict[str, str]:
    # A key frame every two seconds: players can jump there.
    return {"preset": PRESET, "crf": str(CRF), "g": str(max(round(2 * rate), 1))}
