"""The sound of one video file copied to another, by PyAV."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction

import av.error
from av.audio.stream import AudioStream
from av.container import OutputContainer

from kpipe.media.ffmpeg import open_input, reason_of
from kpipe.utils.files import display_name

SOUND_KEPT = {"aac", "mp3", "ac3", "eac3", "alac"}
"""Kinds of sound that are copied as they are: what players take in MP4; others become AAC."""


class SoundCopier:
    """The sound of a file, added to another piece by piece. A file may well have none.

    Attributes:
        problem: one line on what was wrong with it, or None.
    """

    def __init__(self, path: str, start: float, target: OutputContainer) -> None:
        self.problem: str | None = None
        self._path, self._target = path, target
        self._container = open_input(path)
        self._packets: Iterator[av.Packet[AudioStream]] = iter(())
        self._next: av.Packet[AudioStream] | None = None
        self._resampler: av.AudioResampler | None = None
        self._zero = Fraction(self._container.start_time or 0, av.time_base) + Fraction(start)
        if not self._container.streams.audio:
            return
        source = self._container.streams.audio[0]
        # Without a decoder PyAV has no context, whatever its annotations say.
        if source.codec_context is None:
            self.problem = f"{display_name(path)}: no decoder for its kind of sound: left out"
            return
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
            self.problem = f"{display_name(self._path)}: its sound is damaged ({reason_of(error)})"
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
