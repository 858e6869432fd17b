"""Video files in, by PyAV."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from itertools import chain
from queue import Empty, Full, Queue
from threading import Event, Thread

import av.error
import numpy as np
from av.stream import Disposition
from av.video.reformatter import Colorspace
from av.video.stream import VideoStream
from numpy.typing import NDArray

from kpipe.errors import VideoError
from kpipe.media.ffmpeg import AHEAD, open_input, reason_of
from kpipe.media.frames import Frame
from kpipe.utils.files import display_name

UNSPECIFIED = 2
"""FFmpeg's code of a colour space that the file does not name."""


SHORT = 0.25
"""Seconds that a file may be shorter than it says without being called incomplete."""


JOIN = 0.5
"""Seconds that time must go back by for another recording to begin there."""


class VideoReader:
    """The frames of a video file, upright, with their times.

    Iterating decodes in a thread of its own, a few frames ahead. What is damaged is passed over,
    and at a cut the frames end; `problem` then says so.

    Args:
        path: anything FFmpeg reads, MP4, MOV, MKV, WebM, AVI, GIF, MPEG …; a path or a URL.
        start, stop: seconds; frames before the one and from the other on are left out.

    Attributes:
        width, height: of the upright frames, pixels.
        rate: frames a second, on average.
        duration: seconds, as the file says; None if it does not.
        time_base: the unit in which the file counts time, seconds.
        pixel_aspect: width of a pixel over its height, in the upright frames.
        problem: one line on what was wrong with the file, once its frames have been read.

    Raises:
        VideoError: there is no such file, or no picture in it that can be decoded.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, start: float = 0.0, stop: float = math.inf
    ) -> None:
        self.path = os.fspath(path)
        self.start, self.stop = start, stop
        self.problem: str | None = None
        self._open()
        self._began = self._container.start_time or 0
        self.time_base = Fraction(self._stream.time_base or Fraction(1, 1000))
        rate = self._stream.average_rate or self._stream.guessed_rate
        self.rate = float(rate) if rate else 30.0
        total = self._container.duration
        self.duration = total / av.time_base if total and total > 0 else None
        self._pictures = self._decoded()
        frame = self._head = self._first()
        self._turns = round((frame.rotation or 0) / 90) % 4
        turned = self._turns % 2 == 1
        size = (frame.width, frame.height)
        self.width, self.height = size[::-1] if turned else size
        aspect = self._stream.sample_aspect_ratio or Fraction(1)
        self.pixel_aspect = Fraction(1) / aspect if turned else Fraction(aspect)

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
        self._container.close()

    def __iter__(self) -> Iterator[Frame]:
        """The frames, decoded in a thread of its own. Once only."""
        ready: Queue[Frame | BaseException | None] = Queue(AHEAD)
        left = Event()

        def put(item: Frame | BaseException | None) -> bool:
            while not left.is_set():
                with suppress(Full):
                    ready.put(item, timeout=0.1)
                    return True
            return False

        def decode() -> None:
            try:
                for frame in self._frames():
                    if not put(frame):
                        return
                put(None)
            except BaseException as error:  # for whoever iterates
                put(error)

        thread = Thread(target=decode, name="kpipe-decode", daemon=True)
        thread.start()
        try:
            while True:
                item = ready.get()
                if item is None:
                    return
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            left.set()
            with suppress(Empty):
                ready.get_nowait()
            thread.join()

    def _open(self) -> None:
        self._container = open_input(self.path)
        streams = [s for s in self._container.streams.video if not _is_cover(s)]
        if not streams:
            self._container.close()
            raise VideoError(f"{display_name(self.path)}: no video in it")
        self._stream = streams[0]
        self._stream.thread_type = "AUTO"

    def _first(self) -> av.VideoFrame:
        """The first frame that can be decoded: it alone tells how the pictures are turned."""
        try:
            for frame in self._pictures:
                return frame
        except av.error.FFmpegError as error:
            reason = reason_of(error)
        else:
            reason = self.problem or "no frame in it"
        self._container.close()
        raise VideoError(f"{display_name(self.path)}: no picture can be decoded ({reason})")

    def _frames(self) -> Iterator[Frame]:
        last, later = -math.inf, 0.0
        number, pictures = self._from(self.start)
        for frame in pictures:
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
        if self.problem is None and self.duration is not None:
            end = last + 1 / self.rate
            expected = min(self.duration, self._stream_end())
            if last > -math.inf and expected - end > max(SHORT, 2 / self.rate):
                self.problem = f"ends after {end:.1f} of {expected:.1f} s: cut off or damaged"

    def _from(self, start: float) -> tuple[int, Iterator[av.VideoFrame]]:
        """The frames from the last key frame before a time on, and the number of the first."""
        if start <= 0:
            return 0, chain([self._head], self._pictures)
        with suppress(av.error.FFmpegError):
            self._container.seek(self._began + int(start * av.time_base))
            pictures = self._decoded()
            first = next(pictures, None)
            # Where the file has no index, one may land anywhere.
            if first is not None and first.pts is not None and self._time(first, 0) <= start:
                # The frames before are not seen; the number of this one follows from its time.
                since = self._time(first, 0) - self._time(self._head, 0)
                return round(since * self.rate), chain([first], pictures)
        self._container.close()
        self._open()
        return 0, self._decoded()

    def _stream_end(self) -> float:
        if self._stream.duration is None:
            return self.duration or math.inf
        begin = (self._stream.start_time or 0) * self.time_base - Fraction(
            self._began, av.time_base
        )
        return float(begin + self._stream.duration * self.time_base)

    def _decoded(self) -> Iterator[av.VideoFrame]:
        damaged = 0
        packets = self._container.demux(self._stream)
        while True:
            packet: av.Packet[VideoStream] | None = None
            try:
                packet = next(packets, None)
            except av.error.FFmpegError as error:
                self.problem = f"cannot be read to its end ({reason_of(error)})"
            try:
                # Without a packet come the frames that the decoder still holds.
                if packet is None:
                    yield from self._stream.codec_context.decode(None)
                    break
                damaged += packet.is_corrupt
                for frame in packet.decode():
                    # After a seek the first ones may lack what they refer to.
                    damaged += frame.is_corrupt and self.start <= 0
                    yield frame
            except av.error.EOFError:
                break
            except av.error.FFmpegError:
                damaged += 1
        if damaged and self.problem is None:
            self.problem = f"damaged in {damaged} place{'' if damaged == 1 else 's'}"

    def _time(self, frame: av.VideoFrame, number: int) -> float:
        if frame.pts is None or frame.time_base is None:
            return number / self.rate
        return float(frame.pts * frame.time_base - Fraction(self._began, av.time_base))

    def _upright(self, frame: av.VideoFrame) -> NDArray[np.uint8]:
        # Where the file does not say, high definition is BT.709 and all else BT.601.
        space: int = frame.colorspace
        if space == UNSPECIFIED:
            space = Colorspace.ITU709 if frame.height >= 720 else Colorspace.ITU601
        picture = frame.reformat(format="rgb24", src_colorspace=space)
        image = np.asarray(picture.to_ndarray(), np.uint8)
        if self._turns:
            image = np.rot90(image, self._turns)
        if image.shape[:2] != (self.height, self.width):
            # The picture changes size half way: rare, and the result has one size.
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            image = np.asarray(picture.reformat(self.width, self.height).to_ndarray(), np.uint8)
        return np.ascontiguousarray(image, np.uint8)


def _is_cover(stream: VideoStream) -> bool:
    """Whether it is no video but the picture of an album."""
    return bool(stream.disposition & Disposition.attached_pic)
