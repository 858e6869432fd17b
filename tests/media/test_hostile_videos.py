"""Videos as they come: HDR, many sound tracks, formats nobody asked for, decoders that hang."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from threading import Event

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.conftest import PATIENCE

av = pytest.importorskip("av")

from kpipe.errors import CameraError, VideoError
from kpipe.media.camera import Camera
from kpipe.media.frames import Frame
from kpipe.media.tonemap import HLG, PQ, TO_BT709
from kpipe.media.video_reader import VideoReader
from kpipe.media.video_writer import VideoWriter
from tests.films import RATE, pictures, write_film

BT2020 = 9


def hdr_film(path: Path, image: NDArray[np.uint8], transfer: int) -> None:
    """One frame of 10 bits in BT.2020 that shows a standard picture at ordinary brightness."""
    light = np.clip((image / 255) ** 2.4 @ np.linalg.inv(TO_BT709.astype(float)).T, 0, 1)
    if transfer == PQ:
        power = (light * 203 / 10_000) ** (2610 / 16384)
        signal_ = ((3424 / 4096 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** (2523 / 32)
    elif transfer == HLG:
        shown = light * 203 / 1000
        luminance = shown @ [0.2627, 0.6780, 0.0593]
        scene = shown * np.maximum(luminance, 1e-6)[..., None] ** (1 / 1.2 - 1)
        high = 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-6)) + 0.55991073
        signal_ = np.where(scene <= 1 / 12, np.sqrt(3 * scene), high)
    else:
        signal_ = light ** (1 / 2.4)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "4"})
        stream.height, stream.width = image.shape[:2]
        stream.pix_fmt = "yuv444p10le"
        context = stream.codec_context
        context.color_trc, context.color_primaries = transfer, BT2020
        context.colorspace, context.color_range = 9, 1
        deep = (np.clip(signal_, 0, 1) * 65535).astype(np.uint16)
        frame = av.VideoFrame.from_ndarray(deep, format="rgb48le").reformat(
            format="yuv444p10le", dst_colorspace=9, dst_color_range=1
        )
        frame.pts = 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@pytest.mark.parametrize("transfer", [PQ, HLG, 14])
def test_hdr_and_wide_gamut_look_as_the_picture_they_show(tmp_path: Path, transfer: int) -> None:
    image = pictures(1)[0]
    hdr_film(tmp_path / "hdr.mp4", image, transfer)
    with VideoReader(tmp_path / "hdr.mp4") as reader:
        (frame,) = reader
    shown, meant = frame.image.astype(float), image.astype(float)
    # Highlights are rolled off; the rest, skin included, keeps its brightness and color.
    middle = meant.max(axis=2) < 150
    assert middle.mean() > 0.1
    assert np.abs(shown - meant)[middle].mean() < 7
    assert np.abs(shown - meant).mean() < 16
    assert np.corrcoef(shown.ravel(), meant.ravel())[0, 1] > 0.98


# Sound


def add_sound(path: Path, layouts: list[str], codec: str, languages: list[str]) -> None:
    """A film with a sound track for each layout of channels."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25)
        video.width = video.height = 64
        tracks = []
        for layout, language in zip(layouts, languages):
            tracks.append(container.add_stream(codec, rate=RATE, layout=layout))
            tracks[-1].metadata["language"] = language
        for k in range(5):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 90, np.uint8), "rgb24")
            frame.pts = k
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        for number, (track, layout) in enumerate(zip(tracks, layouts), 1):
            channels = len(av.AudioLayout(layout).channels)
            tone = np.full((1, channels * RATE // 5), 1000 * number, np.int16)
            sound = av.AudioFrame.from_ndarray(tone, "s16", layout)
            sound.sample_rate, sound.pts, sound.time_base = RATE, 0, Fraction(1, RATE)
            container.mux(track.encode(sound))
            container.mux(track.encode(None))


def rewritten(source: Path, target: Path) -> str | None:
    with VideoReader(source) as reader:
        writer = VideoWriter(target, reader.width, reader.height, sound=source)
        for frame in reader:
            writer.write(frame.image, frame.time)
        writer.close()
    return writer.problem


@pytest.mark.parametrize("layout", ["5.1", "5.1(side)", "quad", "7.1"])
def test_the_channels_of_sound_that_is_encoded_are_kept(tmp_path: Path, layout: str) -> None:
    add_sound(tmp_path / "film.mkv", [layout], "pcm_s16le", ["eng"])
    problem = rewritten(tmp_path / "film.mkv", tmp_path / "result.mp4")
    with av.open(str(tmp_path / "result.mp4")) as container:
        (track,) = container.streams.audio
        assert track.codec_context.name == "aac"
        assert problem is None
        assert track.channels == len(av.AudioLayout(layout).channels)


def test_channels_that_cannot_be_kept_are_said(tmp_path: Path) -> None:
    add_sound(tmp_path / "film.mov", ["9.1.6"], "pcm_s16le", ["eng"])
    problem = rewritten(tmp_path / "film.mov", tmp_path / "result.mp4")
    assert problem == f"{tmp_path}/film.mov: its sound of 16 channels becomes stereo"
    with av.open(str(tmp_path / "result.mp4")) as container:
        assert container.streams.audio[0].channels == 2


@pytest.mark.parametrize(("codec", "ending"), [("pcm_s16le", ".mkv"), ("pcm_s16le", ".avi")])
def test_every_track_of_sound_is_kept(tmp_path: Path, codec: str, ending: str) -> None:
    source = tmp_path / f"film{ending}"
    add_sound(source, ["stereo", "5.1", "mono"], codec, ["eng", "deu", "fra"])
    assert rewritten(source, tmp_path / "result.mp4") is None
    with av.open(str(tmp_path / "result.mp4")) as container:
        tracks = container.streams.audio
        assert [track.channels for track in tracks] == [2, 6, 1]
        if ending == ".mkv":
            assert [track.metadata["language"] for track in tracks] == ["eng", "deu", "fra"]
        for number, track in enumerate(tracks, 1):
            container.seek(0)
            values = [np.abs(f.to_ndarray()[0]) for f in container.decode(track)]
            loudness = np.median(np.concatenate(values))
            assert loudness == pytest.approx(1000 * number / 32768, rel=0.3)


# Formats that open further files


@pytest.mark.parametrize(
    "content",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfilm.ts\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile film.ts\n",
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"></MPD>\n',
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 96\n"
        "a=rtpmap:96 H264/90000\n",
    ],
)
@pytest.mark.parametrize("name", ["list.mp4", "list.m3u8", "list.ffconcat", "list.sdp"])
def test_lists_of_other_files_are_not_read(tmp_path: Path, content: str, name: str) -> None:
    write_film(tmp_path / "film.ts", pictures(5))
    (tmp_path / name).write_text(content)
    with pytest.raises(VideoError, match=r"not a video in a format that is read"):
        VideoReader(tmp_path / name)
    with pytest.raises(CameraError, match="not a video in a format"):
        Camera(str(tmp_path / name))
    assert "OPENCV_FFMPEG_CAPTURE_OPTIONS" not in os.environ


def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "film.mp4")
    with pytest.raises(VideoError, match="a pipe or device"):
        VideoReader(tmp_path / "film.mp4")


def test_frames_that_need_too_much_memory_are_refused_by_the_header(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_film(tmp_path / "film.mp4", pictures(2))
    monkeypatch.setenv("KPIPE_MAX_MEMORY_GB", "0.001")
    with pytest.raises(VideoError, match=r"192 x 192 pixels need about .* KPIPE_MAX_MEMORY_GB"):
        VideoReader(tmp_path / "film.mp4")


# Decoders that hang


class Hanging(VideoReader):
    """Never gets to its second frame."""

    def _frames(self) -> Iterator[Frame]:
        yield next(super()._frames())
        Event().wait()


@pytest.mark.slow
def test_a_decoder_that_hangs_can_be_left(tmp_path: Path) -> None:
    write_film(tmp_path / "film.mp4", pictures(3))
    frames: list[Frame] = []
    with Hanging(tmp_path / "film.mp4", stopped=lambda: bool(frames)) as reader:
        for frame in reader:
            frames.append(frame)  # noqa: PERF402
    assert len(frames) == 1 and reader.problem is None


HANG = """
import sys
from threading import Event
import kpipe.media.video_reader as video_reader
def hang(self):
    print("hangs", flush=True)
    Event().wait()
setattr(video_reader.VideoReader, sys.argv.pop(1), hang)
from kpipe.cli import main
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("where", ["_first", "_begin"])
def test_control_c_is_heard_while_a_decoder_hangs(tmp_path: Path, where: str) -> None:
    write_film(tmp_path / "film.mp4", pictures(3), sound="aac")
    command = [sys.executable, "-c", HANG, where, "video", "film.mp4", "-q"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == b"hangs\n"
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert error.startswith(b"kpipe: stopped") and error.count(b"\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["film.mp4"]


# Temporary files


def test_a_writer_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    black = np.zeros((64, 64, 3), np.uint8)
    (tmp_path / "text.mp4").write_text("no sound in it")
    with pytest.raises(VideoError, match=r"text\.mp4: not a video"):
        VideoWriter(tmp_path / "film.mp4", 64, 64, sound=tmp_path / "text.mp4")
    writer = VideoWriter(tmp_path / "film.mp4", 10**6, 64)
    writer.write(np.zeros((64, 10**6, 3), np.uint8), 0.0)
    with pytest.raises(VideoError, match=r"film\.mp4: cannot be written"):
        writer.close()
    (tmp_path / "taken.mp4").mkdir()
    writer = VideoWriter(tmp_path / "taken.mp4", 64, 64)
    writer.write(black, 0.0)
    with pytest.raises(VideoError, match=r"taken\.mp4: cannot be written"):
        writer.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["taken.mp4", "text.mp4"]


def test_a_file_under_way_has_a_name_that_nobody_can_foresee(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        writers = [VideoWriter(tmp_path / "film.mp4", 64, 64) for _ in range(2)]
    finally:
        os.umask(before)
    names = {path.name for path in tmp_path.iterdir()}
    assert len(names) == 2 and all(str(os.getpid()) not in name for name in names)
    for writer in writers:
        writer.write(np.zeros((64, 64, 3), np.uint8), 0.0)
        writer.close()
    (film,) = tmp_path.iterdir()
    assert film.name == "film.mp4" and film.stat().st_mode & 0o777 == 0o640
