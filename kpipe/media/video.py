"""Video files in and out, by PyAV (FFmpeg's libraries): the extra `kpipe[video]`."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from itertools import chain
from pathlib import Path
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import Any

import av
import av.error
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.stream import Disposition
from av.video.reformatter import ColorRange, Colorspace
from av.video.stream import VideoStream
from numpy.typing import NDArray

from kpipe.media.frames import Frame
from kpipe.media.images import shown

CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
"""Endings of the files that can be written, and FFmpeg's names of their formats."""

CRF = 20
"""x264's constant rate factor: at 20 hardly a difference can be seen."""

PRESET = "veryfast"

SOUND_KEPT = {"aac", "mp3", "ac3", "eac3", "alac"}
"""Kinds of sound that are copied as they are: what players take in MP4; others become AAC."""

AHEAD = 8
"""Frames that are decoded before they are asked for."""

UNSPECIFIED = 2
"""FFmpeg's code of a colour space that the file does not name."""

ODD_TITLES: dict[str, Any] = (
    {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
)
"""PyAV before 19 must be told to read a file whose title is not in UTF-8; 19 always does."""

SHORT = 0.25
"""Seconds that a file may be shorter than it says without being called incomplete."""


class VideoError(ValueError):
    """A video cannot be read or written; the message is one line and names the file."""


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
        self._unread: str | None = None  # why reading stopped before the file's end
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
        self._container = _opened(self.path)
        streams = [s for s in self._container.streams.video if not _is_cover(s)]
        if not streams:
            self._container.close()
            raise VideoError(f"{shown(self.path)}: no video in it")
        self._stream = streams[0]
        self._stream.thread_type = "AUTO"

    def _first(self) -> av.VideoFrame:
        """The first frame that can be decoded: it alone tells how the pictures are turned."""
        try:
            for frame in self._pictures:
                return frame
        except av.error.FFmpegError as error:
            reason = _reason(error)
        else:
            reason = self.problem or "no frame in it"
        self._container.close()
        raise VideoError(f"{shown(self.path)}: no picture can be decoded ({reason})")

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
        self._say_where_it_ends(last)

    def _say_where_it_ends(self, last: float) -> None:
        """Notes how far the file went, if that is less than it says; `last` is in seconds.

        It comes before a count of damaged places: where the file is cut decides whether the decoder
        calls the last packet damaged.
        """
        if self.duration is None or last == -math.inf:
            return
        end = last + 1 / self.rate
        expected = min(self.duration, self._stream_end())
        if expected - end > max(SHORT, 2 / self.rate):
            reason = f" ({self._unread})" if self._unread else ""
            self.problem = f"ends after {end:.1f} of {expected:.1f} s: cut off or damaged{reason}"

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
                self._unread = _reason(error)
                self.problem = f"cannot be read to its end ({self._unread})"
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
            raise VideoError(f"{shown(path)}: videos are written as {', '.join(CONTAINERS)}")
        self.problem: str | None = None
        self._temporary = self.path.with_name(f".kpipe-{os.getpid()}{self.path.suffix.lower()}")
        format_ = CONTAINERS[self.path.suffix.lower()]
        options = {} if format_ == "matroska" else {"movflags": "+faststart"}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._container = av.open(
                str(self._temporary), "w", format=format_, container_options=options
            )
        except (OSError, av.error.FFmpegError) as error:
            raise VideoError(f"{shown(path)}: cannot be written ({_reason(error)})") from None
        # MP4 counts time in at most 32 bits of its unit's denominator; some files have odd units.
        self._unit = time_base if 1 < time_base.denominator <= 10**6 else Fraction(1, 90_000)
        rate = min(max(rate, 1.0), 240.0)
        stream = self._container.add_stream(
            "libx264", rate=Fraction(rate).limit_denominator(1001), options=_x264(rate)
        )
        stream.width, stream.height = width + width % 2, height + height % 2
        stream.pix_fmt = "yuv420p"
        stream.thread_type = "AUTO"
        context = stream.codec_context
        context.time_base = self._unit
        context.sample_aspect_ratio = pixel_aspect
        context.colorspace = context.color_primaries = context.color_trc = 1  # BT.709
        context.color_range = 1  # 16 to 235
        self._stream = stream
        self.shape = (height, width)
        self._rate = rate
        self._last = -1
        self._closed = False
        self._sound = _Sound(os.fspath(sound), start, self._container) if sound else None
        self._waiting: Queue[tuple[NDArray[np.uint8], float] | None] = Queue(AHEAD)
        self._failure: BaseException | None = None
        self._thread = Thread(target=self._encode, name="kpipe-encode", daemon=True)
        self._thread.start()

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
        finally:
            with suppress(av.error.FFmpegError, OSError):
                self._container.close()
            if self._sound is not None:
                self._sound.close()
                self.problem = self._sound.problem
            if self._failure is not None or self._last < 0:
                self._temporary.unlink(missing_ok=True)
        self._check()
        if self._last >= 0:
            self._temporary.replace(self.path)

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
            reason = _reason(self._failure)
            raise VideoError(f"{shown(self.path)}: cannot be written ({reason})") from None

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
            # H.264 halves the colour's resolution: sides are even.
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


class _Sound:
    """The sound of a file, added to another piece by piece. A file may well have none.

    Attributes:
        problem: one line on what was wrong with it, or None.
    """

    def __init__(self, path: str, start: float, target: OutputContainer) -> None:
        self.problem: str | None = None
        self._path, self._target = path, target
        self._container = _opened(path)
        self._packets: Iterator[av.Packet[AudioStream]] = iter(())
        self._next: av.Packet[AudioStream] | None = None
        self._resampler: av.AudioResampler | None = None
        self._zero = Fraction(self._container.start_time or 0, av.time_base) + Fraction(start)
        if not self._container.streams.audio:
            return
        source = self._container.streams.audio[0]
        # AVI's times of sound are not fit to be copied.
        kept = source.codec_context.name in SOUND_KEPT or target.format.name == "matroska"
        if kept and self._container.format.name != "avi":
            self._copied = target.add_stream_from_template(source)
        else:
            rate = source.rate if source.rate in (44_100, 48_000) else 48_000
            layout = "mono" if source.channels == 1 else "stereo"
            self._encoded = target.add_stream("aac", rate=rate, layout=layout)
            self._resampler = av.AudioResampler("fltp", layout, rate, 1024)
        if start > 0:
            with suppress(av.error.FFmpegError):
                self._container.seek(int(self._zero * av.time_base))
        self._packets = self._container.demux(source)

    def up_to(self, time: float) -> None:
        """Adds what sounds before a time of the result, seconds."""
        try:
            while (packet := self._next or next(self._packets, None)) is not None:
                self._next = None
                if packet.pts is None or packet.time_base is None:
                    continue
                begins = packet.pts * packet.time_base - self._zero
                if begins > time:
                    self._next = packet
                    return
                if begins >= 0:
                    self._add(packet)
        except av.error.FFmpegError as error:
            self.problem = f"{shown(self._path)}: its sound is damaged ({_reason(error)})"
            self._packets = iter(())

    def _add(self, packet: av.Packet[AudioStream]) -> None:
        assert packet.pts is not None and packet.time_base is not None
        if self._resampler is None:
            shift = round(self._zero / packet.time_base)
            packet.pts -= shift
            packet.dts = packet.pts if packet.dts is None else packet.dts - shift
            packet.stream = self._copied
            self._target.mux(packet)
            return
        for frame in packet.decode():
            if frame.pts is not None and frame.time_base is not None:
                # In samples: some files count time in units longer than the encoder's frames.
                begins = frame.pts * frame.time_base - self._zero
                frame.time_base = Fraction(1, frame.sample_rate)
                frame.pts = round(begins * frame.sample_rate)
            self._encode(self._resampler.resample(frame))

    def _encode(self, frames: list[av.AudioFrame]) -> None:
        for frame in frames:
            for packet in self._encoded.encode(frame):
                self._target.mux(packet)

    def finish(self) -> None:
        """Adds what is still on its way."""
        if self._resampler is not None:
            with suppress(av.error.FFmpegError):
                self._encode(self._resampler.resample(None))
            for packet in self._encoded.encode(None):
                self._target.mux(packet)

    def close(self) -> None:
        self._container.close()


def _opened(path: str) -> InputContainer:
    name = shown(path)
    if "://" not in path:
        try:
            if Path(path).is_dir():
                raise VideoError(f"{name}: a folder, not a video")
            with Path(path).open("rb") as file:
                if not file.read(1):
                    raise VideoError(f"{name}: empty")
        except (OSError, ValueError) as error:
            if isinstance(error, VideoError):
                raise
            raise VideoError(f"{name}: {_reason(error)}") from None
    try:
        # As a whole path: FFmpeg takes what stands before a colon for a protocol.
        place = path if "://" in path else str(Path(path).absolute())
        container: InputContainer = av.open(place, **ODD_TITLES)
        return container
    except av.error.InvalidDataError:
        raise VideoError(
            f"{name}: not a video in a format known here, or cut off before its index"
        ) from None
    except (av.error.FFmpegError, OSError) as error:
        raise VideoError(f"{name}: cannot be opened ({_reason(error)})") from None


def _is_cover(stream: VideoStream) -> bool:
    """Whether it is no video but the picture of an album."""
    return bool(stream.disposition & Disposition.attached_pic)


def _x264(rate: float) -> dict[str, str]:
    # A key frame every two seconds: players can jump there.
    return {"preset": PRESET, "crf": str(CRF), "g": str(max(round(2 * rate), 1))}


def _reason(error: BaseException) -> str:
    return str(getattr(error, "strerror", None) or error or type(error).__name__)
