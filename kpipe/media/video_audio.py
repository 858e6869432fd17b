"""The sound of one video file copied to another, by PyAV."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from typing import Any

import av.error
from av.audio.codeccontext import AudioCodecContext
from av.audio.stream import AudioStream
from av.container import OutputContainer

from kpipe.media.ffmpeg import open_input, reason_of
from kpipe.utils.files import display_name

SOUND_KEPT = {"aac", "mp3", "ac3", "eac3", "alac"}
"""Kinds of sound that are copied as they are: what players take in MP4; others become AAC."""


USUAL_LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}
"""Layouts by their number of channels, by FFmpeg's names."""


class SoundCopier:
    """The sound of a file, all tracks of it, added to another piece by piece.

    A file may well have none.

    Attributes:
        problem: one line on what was wrong with it or is lost, or None.
    """

    def __init__(self, path: str, start: float, target: OutputContainer) -> None:
        self._path, self._problems = path, list[str]()
        self._container = open_input(path)
        self._packets: Iterator[av.Packet[AudioStream]] = iter(())
        self._next: av.Packet[AudioStream] | None = None
        self._tracks: dict[int, _Track] = {}
        self._zero = Fraction(self._container.start_time or 0, av.time_base) + Fraction(start)
        sources = self._container.streams.audio
        for number, source in enumerate(sources, 1):
            self._add_track(source, target, "" if len(sources) == 1 else f" (track {number})")
        if not self._tracks:
            return
        if start > 0:
            with suppress(av.error.FFmpegError):
                self._container.seek(int(self._zero * av.time_base))
        streams: list[Any] = [track.source for track in self._tracks.values()]
        self._packets = self._container.demux(*streams)

    @property
    def problem(self) -> str | None:
        if not self._problems:
            return None
        return f"{display_name(self._path)}: {'; '.join(self._problems)}"

    def _add_track(self, source: AudioStream, target: OutputContainer, which: str) -> None:
        # Without a decoder PyAV has no context, whatever its annotations say.
        if source.codec_context is None:
            self._problems.append(f"no decoder for its kind of sound{which}: left out")
            return
        # AVI's times of sound are not fit to be copied.
        kept = source.codec_context.name in SOUND_KEPT or target.format.name == "matroska"
        if kept and self._container.format.name != "avi":
            track: _Track = _CopiedTrack(source, target, self._zero)
        else:
            layout = _encodable_layout(source)
            if source.channels > 2 and layout == "stereo":
                self._problems.append(
                    f"its sound of {source.channels} channels{which} becomes stereo"
                )
            track = _EncodedTrack(source, target, self._zero, layout)
        if (language := source.metadata.get("language")) is not None:
            track.target.metadata["language"] = language
        self._tracks[source.index] = track

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
                    self._tracks[packet.stream_index].add(packet)
        except (av.error.FFmpegError, ValueError) as error:
            self._problems.append(f"its sound is damaged ({reason_of(error)})")
            self._packets = iter(())

    def finish(self) -> None:
        """Adds what is still on its way."""
        for track in self._tracks.values():
            track.finish()

    def close(self) -> None:
        self._container.close()


class _Track(ABC):
    """One track of sound on its way from a file to another.

    Args:
        source: where it comes from.
        container: that it is added to.
        zero: time in the source that is 0 in the result [s].

    Attributes:
        target: the stream that it is added to.
    """

    target: AudioStream

    def __init__(self, source: AudioStream, container: OutputContainer, zero: Fraction) -> None:
        self.source, self._container, self._zero = source, container, zero

    @abstractmethod
    def add(self, packet: av.Packet[AudioStream]) -> None:
        """Adds a packet with a time."""

    @abstractmethod
    def finish(self) -> None:
        """Adds what is still on its way."""


class _CopiedTrack(_Track):
    """A track whose packets stay as they are."""

    def __init__(self, source: AudioStream, container: OutputContainer, zero: Fraction) -> None:
        super().__init__(source, container, zero)
        self.target = container.add_stream_from_template(source)

    def add(self, packet: av.Packet[AudioStream]) -> None:
        assert packet.pts is not None and packet.time_base is not None
        shift = round(self._zero / packet.time_base)
        packet.pts -= shift
        packet.dts = packet.pts if packet.dts is None else packet.dts - shift
        packet.stream = self.target
        self._container.mux(packet)

    def finish(self) -> None:
        """Nothing is on its way."""


class _EncodedTrack(_Track):
    """A track that becomes AAC."""

    def __init__(
        self, source: AudioStream, container: OutputContainer, zero: Fraction, layout: str
    ) -> None:
        super().__init__(source, container, zero)
        rate = _encodable_rate(source)
        self.target = container.add_stream("aac", rate=rate, layout=layout)
        self._resampler = av.AudioResampler("fltp", layout, rate, 1024)

    def add(self, packet: av.Packet[AudioStream]) -> None:
        for frame in packet.decode():
            if frame.pts is not None and frame.time_base is not None:
                # In samples: some files count time in units longer than the encoder's frames.
                begins = frame.pts * frame.time_base - self._zero
                frame.time_base = Fraction(1, frame.sample_rate)
                frame.pts = round(begins * frame.sample_rate)
            self._encode(self._resampler.resample(frame))

    def _encode(self, frames: list[av.AudioFrame]) -> None:
        for frame in frames:
            for packet in self.target.encode(frame):
                self._container.mux(packet)

    def finish(self) -> None:
        with suppress(av.error.FFmpegError):
            self._encode(self._resampler.resample(None))
        for packet in self.target.encode(None):
            self._container.mux(packet)


def _encodable_rate(source: AudioStream) -> int:
    return source.rate if source.rate in (44_100, 48_000) else 48_000


def _encodable_layout(source: AudioStream) -> str:
    """The layout of a track's channels; stereo if AAC has none for them."""
    # Some files name only the number of channels.
    for layout in (source.layout.name, USUAL_LAYOUTS.get(source.channels)):
        # A layout that the encoder refuses is found out before it is part of the result.
        with suppress(av.error.FFmpegError, ValueError):
            encoder = av.CodecContext.create("aac", "w")
            assert isinstance(encoder, AudioCodecContext)
            encoder.layout, encoder.sample_rate = layout or "", _encodable_rate(source)
            encoder.format = "fltp"
            encoder.open()
            return layout or ""
    return "stereo"
