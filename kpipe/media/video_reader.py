"""Video files in, by PyAV."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from fractions import Fraction
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import Any, Generic, NamedTuple, TypeVar

import av.error
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from av.video.reformatter import Colorspace
from av.video.stream import VideoStream
from numpy.typing import NDArray

from kpipe.errors import VideoError
from kpipe.media.ffmpeg import frames_ahead, open_input, reason_of
from kpipe.media.frames import Frame
from kpipe.media.limits import check_frame
from kpipe.media.tonemap import ToneMap, needs_tone_map
from kpipe.utils.files import display_name

T = TypeVar("T")

UNSPECIFIED = 2
"""FFmpeg's code of a color space that the file does not name."""

SHORT = 0.25
"""Seconds that a file may be shorter than it says without being called incomplete."""

JOIN = 0.5
"""Seconds that time must go back by for another recording to begin there."""


POLL = 0.2
"""Seconds between two looks at whether to stop, while a frame is waited for."""

HANGING = 2.0
"""Seconds that the decoding thread has to end; then it is left behind."""


class VideoReader:
    """The frames of a video file, upright, with their times.

    Iterating decodes in a thread of its own, a few frames ahead. Damaged places are passed over,
    and at a cut the frames end; `problem` then says so.

    Args:
        path: anything FFmpeg reads, MP4, MOV, MKV, WebM, AVI, GIF, MPEG …; a path or a URL.
        start, stop: seconds; frames before the one and from the other on are left out.
        stopped: asked while a frame is waited for, so that a decoder that hangs can be left.

    Attributes:
        width, height: of the upright frames, pixels.
        rate: frames a second, on average.
        duration: seconds, as the file says; None if it does not.
        time_base: the unit in which the file counts time, seconds.
        pixel_aspect: width of a pixel over its height, in the upright frames.
        problem: one line on what was wrong with the file, once its frames have been read.

    Raises:
        VideoError: there is no such file, or no picture in it that can be decoded.
        KeyboardInterrupt: stopped before there was a frame.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        start: float = 0.0,
        stop: float = math.inf,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self.path = os.fspath(path)
        self.start, self.stop = start, stop
        self.problem: str | None = None
        self._stopped = stopped
        self._tone_map: tuple[tuple[int, int], ToneMap] | None = None
        self._decoding: Thread | None = None
        self._container, self._stream = self._waited(lambda: _open_video(self.path))
        self._began = self._container.start_time or 0
        self.time_base = Fraction(self._stream.time_base or Fraction(1, 1000))
        rate = self._stream.average_rate or self._stream.guessed_rate
        self.rate = float(rate) if rate else 30.0
        total = self._container.duration
        self.duration = total / av.time_base if total and total > 0 else None
        self._decoder = _Decoder(self._container, self._stream, stopped)
        # The first frame alone tells how the pictures are turned.
        frame = self._head = self._waited(self._first)
        self._orientation = Orientation.of(frame)
        transposed = self._orientation.transposed
        size = (frame.width, frame.height)
        self.width, self.height = size[::-1] if transposed else size
        aspect = self._stream.sample_aspect_ratio or Fraction(1)
        self.pixel_aspect = Fraction(1) / aspect if transposed else Fraction(aspect)

    def __len__(self) -> int:
        """About how many frames there are between start and stop; 0 if that is not known."""
        if self.start == 0 and self.stop == math.inf and self._stream.frames:
            return self._stream.frames
        if self.duration is None:
            return 0
        return max(round((min(self.stop, self.duration) - self.start) * self.rate), 0)

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file, unless a decoder hangs in it."""
        if self._decoding is None or not self._decoding.is_alive():
            self._container.close()

    def __iter__(self) -> Iterator[Frame]:
        """The frames, decoded in a thread of its own. Once only."""
        items = _Ahead(self._frames(), frames_ahead(self.width, self.height), self._stopped)
        self._decoding = items.thread
        return iter(items)

    def _waited(self, act: Callable[[], T]) -> T:
        """The result of an act, done in a thread of its own, so that Ctrl-C is heard meanwhile."""
        for result in _Ahead((do() for do in (act,)), 1, self._stopped):
            return result
        raise KeyboardInterrupt

    def _first(self) -> av.VideoFrame:
        """The first frame that can be decoded."""
        try:
            frame = self._decoder.next()
            reason = self._decoder.problem or "no frame in it"
        except av.error.FFmpegError as error:
            frame, reason = None, reason_of(error)
        if frame is not None:
            return frame
        self._container.close()
        if self._stopped():
            raise KeyboardInterrupt
        raise VideoError(f"{display_name(self.path)}: no picture can be decoded ({reason})")

    def _frames(self) -> Iterator[Frame]:
        """The frames from start to stop, with times that grow."""
        frame, number = self._begin()
        last, later = -math.inf, 0.0
        while frame is not None:
            time = max(self._time(frame, number) + later, 0.0)
            if time < last - JOIN:
                # Here another recording begins: its times go on from the last one's.
                later += last + 1 / self.rate - time
                time = last + 1 / self.rate
            # Damaged files have times that stand still or go back a little.
            time = max(time, last + float(self.time_base))
            if time >= self.stop:
                return
            # Times are rounded, by some programs to microseconds.
            if time >= self.start - 1e-6:
                yield Frame(self._upright(frame), time, number)
            last = time
            number += 1
            frame = self._decoder.next()
        if self._stopped():
            return
        self.problem = self._ends_early(last) or self._decoder.problem

    def _begin(self) -> tuple[av.VideoFrame | None, int]:
        """The frame to begin with, at the last key frame before `start`, and its number."""
        if self.start <= 0:
            return self._head, 0
        with suppress(av.error.FFmpegError):
            self._container.seek(self._began + int(self.start * av.time_base))
            # After a seek the first frames may lack what they refer to: that is no damage.
            self._decoder = _Decoder(
                self._container, self._stream, self._stopped, corrupt_counts=False
            )
            first = self._decoder.next()
            # Where the file has no index, a seek may land anywhere.
            if first is not None and first.pts is not None and self._time(first, 0) <= self.start:
                # The frames before are not decoded: this one's number follows from its time.
                since = self._time(first, 0) - self._time(self._head, 0)
                return first, round(since * self.rate)
        self._container.close()
        self._container, self._stream = _open_video(self.path)
        self._decoder = _Decoder(self._container, self._stream, self._stopped, corrupt_counts=False)
        return self._decoder.next(), 0

    def _ends_early(self, last: float) -> str | None:
        """How far the file went, if that is less than it says.

        It is said instead of the number of damaged places: whether the last packet of a cut file
        counts as damaged depends on the version of the decoder.

        Args:
            last: time of the last frame (seconds).
        """
        if self.duration is None or last == -math.inf:
            return None
        end = last + 1 / self.rate
        expected = min(self.duration, self._stream_end())
        if expected - end <= max(SHORT, 2 / self.rate):
            return None
        reason = f" ({self._decoder.unread})" if self._decoder.unread else ""
        return f"ends after {end:.1f} of {expected:.1f} s: cut off or damaged{reason}"

    def _stream_end(self) -> float:
        if self._stream.duration is None:
            return self.duration or math.inf
        begin = (self._stream.start_time or 0) * self.time_base - Fraction(
            self._began, av.time_base
        )
        return float(begin + self._stream.duration * self.time_base)

    def _time(self, frame: av.VideoFrame, number: int) -> float:
        if frame.pts is None or frame.time_base is None:
            return number / self.rate
        return float(frame.pts * frame.time_base - Fraction(self._began, av.time_base))

    def _upright(self, frame: av.VideoFrame) -> NDArray[np.uint8]:
        # Where the file does not say, high definition is BT.709 and all else BT.601.
        space: int = frame.colorspace
        if space == UNSPECIFIED:
            space = Colorspace.ITU709 if frame.height >= 720 else Colorspace.ITU601
        tone_map = self._tone_map_of(frame)
        if tone_map is not None:
            deep = frame.reformat(format="rgb48le", src_colorspace=space)
            image = tone_map(np.asarray(deep.to_ndarray(), np.uint16))
        else:
            picture = frame.reformat(format="rgb24", src_colorspace=space)
            image = np.asarray(picture.to_ndarray(), np.uint8)
        image = self._orientation(image)
        if image.shape[:2] != (self.height, self.width):
            # The picture changes size half way: rare, and the result has one size.
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            image = np.asarray(picture.reformat(self.width, self.height).to_ndarray(), np.uint8)
        return np.ascontiguousarray(image, np.uint8)

    def _tone_map_of(self, frame: av.VideoFrame) -> ToneMap | None:
        """What brings a frame to BT.709; None if it needs nothing."""
        transfer, primaries = self._code(frame, "color_trc"), self._code(frame, "color_primaries")
        if not needs_tone_map(transfer, primaries):
            return None
        if self._tone_map is None or self._tone_map[0] != (transfer, primaries):
            self._tone_map = ((transfer, primaries), ToneMap(transfer, primaries))
        return self._tone_map[1]

    def _code(self, frame: av.VideoFrame, name: str) -> int:
        """One of FFmpeg's codes for the colors of a frame, from it or else from its stream."""
        codes = (getattr(owner, name, None) for owner in (frame, self._stream.codec_context))
        return next((int(code) for code in codes if code and code != UNSPECIFIED), UNSPECIFIED)


class Orientation(NamedTuple):
    """How stored frames are turned and mirrored to be shown: one of eight ways.

    Attributes:
        transposed: rows become columns, first.
        left_right, up_down: mirrored, then.
    """

    transposed: bool = False
    left_right: bool = False
    up_down: bool = False

    @classmethod
    def of(cls, frame: av.VideoFrame) -> Orientation:
        """The orientation by the frame's display matrix; turns that are no quarter are ignored.

        The matrix (a, b, u, c, d, v, x, y, w) takes a stored pixel (x, y) to (ax + cy, bx + dy).
        Front cameras write reflections, phones quarter turns.
        """
        side_data: Any = frame.side_data  # whose annotations are not what it is
        matrix = side_data.get("DISPLAYMATRIX")
        if matrix is None:
            return cls()
        a, b, _, c, d = np.frombuffer(bytes(matrix), "<i4")[:5].tolist()
        if abs(b) > abs(a) and abs(c) > abs(d):
            return cls(True, c < 0, b < 0)
        return cls(False, a < 0, d < 0)

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A stored frame (h, w, 3) as it is to be shown."""
        if self.transposed:
            image = image.swapaxes(0, 1)
        return image[:: -1 if self.up_down else 1, :: -1 if self.left_right else 1]


class _Decoder:
    """The frames of a video stream, one by one, from where its container stands.

    Args:
        container, stream: what is decoded.
        stopped: asked before each packet; true ends the frames.
        corrupt_counts: whether frames that the decoder calls corrupt count as damage.

    Attributes:
        damaged: places that were passed over.
        unread: why reading stopped before the end, or None.
    """

    def __init__(
        self,
        container: InputContainer,
        stream: VideoStream,
        stopped: Callable[[], bool],
        *,
        corrupt_counts: bool = True,
    ) -> None:
        self._stopped = stopped
        self.damaged = 0
        self.unread: str | None = None
        self._corrupt_counts = corrupt_counts
        self._context = stream.codec_context
        self._packets = container.demux(stream)
        self._frames = self._decoded()

    def next(self) -> av.VideoFrame | None:
        """The next frame, or None at the end."""
        return next(self._frames, None)

    @property
    def problem(self) -> str | None:
        """One line on what was wrong so far."""
        if self.unread is not None:
            return f"cannot be read to its end ({self.unread})"
        if self.damaged:
            return f"damaged in {self.damaged} place{'' if self.damaged == 1 else 's'}"
        return None

    def _decoded(self) -> Iterator[av.VideoFrame]:
        while not self._stopped():
            packet: av.Packet[VideoStream] | None = None
            try:
                packet = next(self._packets, None)
            except av.error.FFmpegError as error:
                self.unread = reason_of(error)
            if packet is not None:
                self.damaged += packet.is_corrupt
            try:
                # Without a packet come the frames that the decoder still holds.
                for frame in self._context.decode(packet):
                    self.damaged += frame.is_corrupt and self._corrupt_counts
                    yield frame
            except av.error.EOFError:
                return
            except av.error.FFmpegError:
                self.damaged += 1
            # Whatever came of them, after them nothing comes any more.
            if packet is None:
                return


class _Ahead(Generic[T]):
    """Items that are made in a thread of its own, ahead of time. To be iterated once.

    Args:
        items: makes them.
        count: at most so many of them wait.
        stopped: asked while an item is waited for; true ends the iteration.

    Attributes:
        thread: that makes them. It is left behind if it hangs.
    """

    def __init__(self, items: Iterator[T], count: int, stopped: Callable[[], bool]) -> None:
        self._items, self._stopped = items, stopped
        self._ready: Queue[tuple[T] | BaseException | None] = Queue(count)
        self._left = Event()
        self.thread = Thread(target=self._make, name="kpipe-decode", daemon=True)

    def __iter__(self) -> Iterator[T]:
        self.thread.start()
        try:
            while (item := self._next()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item[0]
        finally:
            self._left.set()
            with suppress(Empty):
                self._ready.get_nowait()
            self.thread.join(HANGING)

    def _next(self) -> tuple[T] | BaseException | None:
        while True:
            try:
                return self._ready.get(timeout=POLL)
            except Empty:
                if self._stopped():
                    return None

    def _make(self) -> None:
        try:
            for item in self._items:
                if not self._put((item,)):
                    return
            self._put(None)
        except BaseException as error:  # for whoever iterates
            self._put(error)

    def _put(self, item: tuple[T] | BaseException | None) -> bool:
        while not self._left.is_set():
            with suppress(Full):
                self._ready.put(item, timeout=0.1)
                return True
        return False


def _open_video(path: str) -> tuple[InputContainer, VideoStream]:
    """The opened file and its first video stream.

    Raises:
        VideoError: it cannot be opened, or holds no video.
    """
    container = open_input(path)
    streams = [stream for stream in container.streams.video if not _is_cover(stream)]
    if not streams:
        container.close()
        raise VideoError(f"{display_name(path)}: no video in it")
    # Without a decoder PyAV has no context, whatever its annotations say.
    if streams[0].codec_context is None:
        container.close()
        raise VideoError(f"{display_name(path)}: no decoder for the kind of video in it")
    context = streams[0].codec_context
    try:
        check_frame(context.width, context.height, display_name(path))
    except VideoError:
        container.close()
        raise
    streams[0].thread_type = "AUTO"
    return container, streams[0]


def _is_cover(stream: VideoStream) -> bool:
    """Whether it is no video but the picture of an album."""
    return bool(stream.disposition & Disposition.attached_pic)
