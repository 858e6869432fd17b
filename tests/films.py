"""Small videos for the tests, made of the example portrait."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from kpipe import read_image
from kpipe.utils.opencv import cv2
from tests.conftest import PORTRAIT

SIDE = 192
RATE = 48_000

IDENTITY = ((1, 0), (0, 1))
QUARTER = ((0, 1), (-1, 0))
"""Display matrices: (a, b), (c, d) take a stored pixel (x, y) to (ax + cy, bx + dy)."""


def pictures(count: int, width: int = SIDE, height: int = SIDE) -> list[NDArray[np.uint8]]:
    """A face that moves a little to the right in each of them."""
    portrait = cv2.resize(read_image(PORTRAIT)[:340, 60:400], (SIDE, SIDE))
    frames = []
    for k in range(count):
        matrix = np.array([[1.0, 0, k / 4 + (width - SIDE) / 2], [0, 1, (height - SIDE) / 2]])
        size = (width, height)
        frames.append(cv2.warpAffine(portrait, matrix, size, borderMode=cv2.BORDER_REPLICATE))
    return frames


def write_film(
    path: Path,
    frames: Sequence[NDArray[np.uint8]],
    times: Sequence[float] | None = None,
    codec: str = "libx264",
    sound: str | None = None,
    pixels: str = "yuv420p",
    options: dict[str, str] | None = None,
) -> None:
    """Frames at their times, 25 a second if not given, with a tone of 440 Hz as sound."""
    times = times or [k / 25 for k in range(len(frames))]
    with av.open(str(path), "w", container_options=options or {}) as container:
        video = container.add_stream(codec, rate=25)
        video.height, video.width = frames[0].shape[:2]
        video.pix_fmt = pixels
        if path.suffix not in (".avi", ".gif", ".mpg"):
            video.codec_context.time_base = Fraction(1, 1000)
        unit = video.codec_context.time_base or Fraction(1, 25)
        audio = container.add_stream(sound, rate=RATE, layout="mono") if sound else None
        for image, time in zip(frames, times):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format=pixels)
            frame.pts, frame.time_base = round(Fraction(time) / unit), unit
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if audio is not None:
            for packet in _tone(audio, times[-1] + 0.04):
                container.mux(packet)


def _tone(audio: av.AudioStream, seconds: float) -> list[av.Packet]:
    wave = np.sin(np.arange(round(seconds * RATE)) / RATE * 440 * 2 * np.pi) * 0.3
    frame = av.AudioFrame.from_ndarray(wave[None].astype(np.float32), "fltp", "mono")
    frame.sample_rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
    size = audio.codec_context.frame_size or 960
    resampler = av.AudioResampler(audio.codec_context.format, "mono", RATE, size)
    packets = []
    for part in [*resampler.resample(frame), *resampler.resample(None), None]:
        packets += audio.encode(part)
    return packets


def turn(path: Path, matrix: tuple[tuple[int, int], tuple[int, int]] = QUARTER) -> None:
    """Notes in an MP4 file how its pictures are to be shown: by default turned clockwise."""
    content = bytearray(path.read_bytes())
    before, after = _matrix_bytes(IDENTITY), _matrix_bytes(matrix)
    place = content.index(before, content.index(b"tkhd"))
    content[place : place + len(after)] = after
    path.write_bytes(content)


def _matrix_bytes(matrix: tuple[tuple[int, int], tuple[int, int]]) -> bytes:
    (a, b), (c, d) = matrix
    return np.array([a << 16, b << 16, 0, c << 16, d << 16, 0], ">i4").tobytes()
