"""Videos in and out, and `kpipe video`, run as a user runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import wave
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import DATA, PATIENCE, Run, wait_for

av = pytest.importorskip("av")

from kpipe.errors import VideoError
from kpipe.media.video_reader import VideoReader
from kpipe.media.video_writer import VideoWriter
from tests.films import SIDE, pictures, turn, write_film


def lines(stream: bytes) -> list[str]:
    return stream.decode().splitlines()


def streams(path: Path) -> dict[str, tuple[str, float]]:
    """Kind of stream to its codec and how many seconds of packets it has."""
    found = {}
    with av.open(str(path)) as container:
        for stream in container.streams:
            ends = [
                float((p.pts + (p.duration or 0)) * p.time_base)
                for p in container.demux(stream)
                if p.pts is not None
            ]
            found[stream.type] = (stream.codec_context.name, max(ends))
            container.seek(0)
    return found


def test_the_main_job(kpipe: Run, tmp_path: Path) -> None:
    times = [0, 0.04, 0.1, 0.14, 0.2, 0.24, 0.3, 0.44, 0.48, 0.6]
    write_film(tmp_path / "film.mp4", pictures(10), times, sound="aac")
    done = kpipe(
        "video", "film.mp4", "--json", "faces.jsonl", "--chips", "chips", "--plot", "plot.png"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == b""
    report = lines(done.stderr)
    assert report[0].startswith("film.mp4: 10 frames, 1 face, ")
    assert report[1] == "written: film_annotated.mp4, faces.jsonl, plot.png"

    found = streams(tmp_path / "film_annotated.mp4")
    assert found["video"][0] == "h264" and found["audio"][0] == "aac"
    assert found["audio"][1] == pytest.approx(0.64, abs=0.05)
    with av.open(str(tmp_path / "film_annotated.mp4")) as container:
        assert container.streams.video[0].codec_context.pix_fmt == "yuv420p"
    # The index comes first, so that a browser can begin before it has all.
    content = (tmp_path / "film_annotated.mp4").read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")
    result = list(VideoReader(tmp_path / "film_annotated.mp4"))
    assert [frame.time for frame in result] == pytest.approx(times, abs=0.002)

    records = [json.loads(line) for line in (tmp_path / "faces.jsonl").read_text().splitlines()]
    assert [r["time"] for r in records] == pytest.approx(times, abs=0.002)
    assert [r["frame"] for r in records] == list(range(10))
    for record, frame, plain in zip(records, result, pictures(10)):
        assert record["image"] == "film.mp4"
        (face,) = record["faces"]
        assert face["track"] == 1
        assert len(face["points"]) == len(face["sigma"]) == 68
        assert set(face["pose"]) == {"yaw", "pitch", "roll"}
        assert set(face["openness"]) == {"right_eye", "left_eye", "mouth"}
        assert face["blink"] is False
        x0, y0, x1, y1 = (int(v) for v in face["box"])
        changed = np.abs(frame.image.astype(int) - plain).max(axis=2) > 40
        assert changed[y0:y1, x0:x1].mean() > 0.02
    chips = sorted((tmp_path / "chips" / "1").iterdir())
    assert [chip.name for chip in chips] == [f"{k:06d}.jpg" for k in range(10)]
    assert Image.open(chips[0]).size == (160, 160)
    assert Image.open(tmp_path / "plot.png").format == "PNG"


def test_turned_odd_and_part_of_it(kpipe: Run, tmp_path: Path) -> None:
    """Rotation metadata; sides that are odd after all; a part; every second frame; raw points."""
    upright = pictures(25, SIDE + 30, SIDE + 10)
    write_film(tmp_path / "film.mp4", [np.ascontiguousarray(np.rot90(f)) for f in upright])
    turn(tmp_path / "film.mp4")
    with VideoReader(tmp_path / "film.mp4") as reader:
        assert (reader.width, reader.height) == (SIDE + 30, SIDE + 10)
        first = next(iter(reader))
    assert np.abs(first.image.astype(int) - upright[0]).mean() < 6
    done = kpipe(
        "video", "film.mp4", "--from", "0.2", "--to", "0:00.6", "--every", "2", "--raw",
        "--json", "-", "-o", "out/part.mkv",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in lines(done.stdout)]
    assert [r["frame"] for r in records] == [5, 7, 9, 11, 13]
    assert [r["time"] for r in records] == pytest.approx([0.2, 0.28, 0.36, 0.44, 0.52])
    assert all((r["width"], r["height"]) == (SIDE + 30, SIDE + 10) for r in records)
    assert all(len(r["faces"]) == 1 for r in records)
    written = list(VideoReader(tmp_path / "out" / "part.mkv"))
    assert [f.time for f in written] == pytest.approx([0, 0.08, 0.16, 0.24, 0.32], abs=0.002)


@pytest.mark.parametrize(
    ("name", "codec", "sound", "pixels"),
    [
        ("film.webm", "libvpx", "libopus", "yuv420p"),
        ("film.mkv", "libx264", "libopus", "yuv444p"),
        ("film.avi", "mpeg4", "mp3", "yuv420p"),
        ("film.gif", "gif", None, "rgb8"),
        ("film.mov", "mjpeg", "pcm_s16le", "yuvj420p"),
    ],
)
def test_formats_in(tmp_path: Path, name: str, codec: str, sound: str, pixels: str) -> None:
    frames = pictures(6, SIDE + 1 if codec == "gif" else SIDE)
    write_film(tmp_path / name, frames, codec=codec, sound=sound, pixels=pixels)
    with VideoReader(tmp_path / name) as reader:
        result = tmp_path / "result.mp4"
        with VideoWriter(
            result, reader.width, reader.height, rate=reader.rate, sound=tmp_path / name
        ) as writer:
            times = []
            for frame in reader:
                writer.write(frame.image, frame.time)
                times.append(frame.time)
        assert reader.problem is None and writer.problem is None
    again = list(VideoReader(result))
    assert len(again) == 6
    assert times[-1] == pytest.approx(0.2, abs=0.05)
    assert [f.time for f in again] == pytest.approx(times, abs=0.002)
    for frame, image in zip(again, frames):
        shown = frame.image[:, : image.shape[1]].astype(int)
        tolerance = 25 if codec == "gif" else 8
        assert np.abs(shown.mean(axis=(0, 1)) - image.mean(axis=(0, 1))).max() < tolerance
    found = streams(result)
    assert found["video"][0] == "h264"
    if sound is not None:
        assert found["audio"][0] in ("aac", "mp3", "mp3float")
        assert found["audio"][1] == pytest.approx(0.24, abs=0.08)


@pytest.mark.parametrize("name", ["film.ts", "film.mpg", "film.mkv", "film.h264"])
def test_a_part_is_what_the_whole_has_there(tmp_path: Path, name: str) -> None:
    codec = "mpeg2video" if name == "film.mpg" else "libx264"
    write_film(tmp_path / name, pictures(75), codec=codec)
    with VideoReader(tmp_path / name) as reader:
        whole = [(frame.number, frame.time) for frame in reader]
    assert [number for number, _ in whole] == list(range(75))
    with VideoReader(tmp_path / name, start=1.2, stop=2.4) as reader:
        part = [(frame.number, frame.time) for frame in reader]
    assert part == pytest.approx(np.array([f for f in whole if 1.2 <= f[1] < 2.4]))


def test_joined_recordings_follow_each_other(tmp_path: Path) -> None:
    write_film(tmp_path / "one.ts", pictures(50))
    once = (tmp_path / "one.ts").read_bytes()
    (tmp_path / "two.ts").write_bytes(once + once)
    with VideoReader(tmp_path / "two.ts") as reader:
        times = [frame.time for frame in reader]
    assert len(times) == 100
    assert np.diff(times) == pytest.approx(0.04, abs=0.011)


def test_a_name_with_a_colon(kpipe: Run, tmp_path: Path) -> None:
    write_film(tmp_path / "2026-11-22T10:30:00.mkv", pictures(3))
    done = kpipe("video", "2026-11-22T10:30:00.mkv", "--no-video", "--json", "-")
    assert done.returncode == 0 and len(lines(done.stdout)) == 3


def test_a_plot_of_few_frames_has_lines() -> None:
    pytest.importorskip("matplotlib")
    from kpipe.rendering.timeline import Moment, Timeline, _line

    moments = [Moment(float(time), 0, 0, 0, 0.3, 0, False) for time in (0, 1, 2, 6, 7)]
    times, _ = _line(moments, "yaw", gap=2.5)
    assert times == [0, 1, 2, 6, 6, 7]
    assert Timeline().plot("none")


def test_a_cut_file_is_done_as_far_as_it_goes(kpipe: Run, tmp_path: Path) -> None:
    frames = pictures(50)
    write_film(tmp_path / "film.mp4", frames, sound="aac", options={"movflags": "+faststart"})
    content = (tmp_path / "film.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(content[: len(content) // 2])
    done = kpipe("video", "cut.mp4", "--json", "faces.jsonl", "-q")
    assert done.returncode == 1
    (line,) = lines(done.stderr)
    assert line.startswith("kpipe: cut.mp4: ") and "of 2.0 s: cut off or damaged" in line
    count = len((tmp_path / "faces.jsonl").read_text().splitlines())
    assert 5 < count < 45
    assert len(list(VideoReader(tmp_path / "cut_annotated.mp4"))) == count


def test_how_far_a_cut_file_went_is_said_wherever_the_cut_falls(tmp_path: Path) -> None:
    """Inside a packet the decoder also counts a damaged place; between two it does not."""
    write_film(tmp_path / "film.mp4", pictures(50), sound="aac", options={"movflags": "+faststart"})
    content = (tmp_path / "film.mp4").read_bytes()
    for end in range(len(content) * 2 // 5, len(content) * 4 // 5, len(content) // 80):
        (tmp_path / "cut.mp4").write_bytes(content[:end])
        with VideoReader(tmp_path / "cut.mp4") as reader:
            went = [frame.time for frame in reader][-1] + 1 / 25
        assert reader.problem == f"ends after {went:.1f} of 2.0 s: cut off or damaged"


def test_notes_in_the_file_need_not_be_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "film.mkv"
    write_film(path, pictures(5))
    content = path.read_bytes()
    assert b"Lavf" in content
    path.write_bytes(content.replace(b"Lavf", b"L\xe4vf"))
    with VideoReader(path) as reader:
        assert len(list(reader)) == 5


@pytest.mark.parametrize(("name", "goes_on"), [("film.ts", True), ("film.mkv", False)])
def test_damage_in_the_middle(tmp_path: Path, name: str, goes_on: bool) -> None:
    """A transport stream goes on after it; of a Matroska file the rest may be lost, and is said."""
    write_film(tmp_path / name, pictures(50))
    content = bytearray((tmp_path / name).read_bytes())
    middle = len(content) // 2
    content[middle : middle + 3000] = np.random.default_rng(0).bytes(3000)
    (tmp_path / name).write_bytes(content)
    with VideoReader(tmp_path / name) as reader:
        times = [frame.time for frame in reader]
    assert all(later > earlier for earlier, later in pairwise(times))
    if goes_on:
        assert len(times) >= 30 and times[-1] > 1.8
    else:
        assert times and reader.problem is not None


def test_what_is_no_video(kpipe: Run, tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("hello " * 100)
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "folder.mp4").mkdir()
    write_film(tmp_path / "film.mp4", pictures(20))
    content = (tmp_path / "film.mp4").read_bytes()
    (tmp_path / "headless.mp4").write_bytes(content[: len(content) // 2])
    with wave.open(str(tmp_path / "tone.wav"), "wb") as tone:
        tone.setparams((1, 2, 8000, 0, "NONE", ""))
        tone.writeframes(bytes(8000))
    expected = {
        "text.mp4": "not a video",
        "empty.mp4": "empty",
        "folder.mp4": "a folder",
        "missing.mp4": "No such file",
        "headless.mp4": "cut off before its index",
        "tone.wav": "no video in it",
    }
    for name, reason in expected.items():
        with pytest.raises(VideoError, match=reason) as caught:
            VideoReader(tmp_path / name)
        assert "\n" not in str(caught.value)
    done = kpipe("video", "text.mp4")
    assert (done.returncode, len(lines(done.stderr))) == (1, 1)
    assert not (tmp_path / "text_annotated.mp4").exists()


def test_inputs_and_results_are_safe(kpipe: Run, tmp_path: Path) -> None:
    write_film(tmp_path / "film.mp4", pictures(2))
    before = (tmp_path / "film.mp4").read_bytes()
    done = kpipe("video", "film.mp4", "-o", "film.mp4", "-f")
    assert done.returncode != 0 and b"is an input video" in done.stderr
    (tmp_path / "film_annotated.mp4").write_bytes(b"precious")
    done = kpipe("video", "film.mp4")
    assert done.returncode != 0
    assert lines(done.stderr) == ["kpipe: film_annotated.mp4: exists; --force replaces it"]
    assert (tmp_path / "film_annotated.mp4").read_bytes() == b"precious"
    assert (tmp_path / "film.mp4").read_bytes() == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--from", "x"), "'x' is no time"),
        (("--from", "3", "--to", "2"), "must be before --to"),
        (("--plot", "plot.txt"), "plots are written as .png"),
        (("-o", "film.webp"), "videos are written as .mp4"),
        (("--from", "99"), "no frame between --from and --to"),
    ],
)
def test_wrong_usage(kpipe: Run, tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    write_film(tmp_path / "film.mp4", pictures(2))
    done = kpipe("video", "film.mp4", *arguments)
    assert done.returncode != 0
    assert message in done.stderr.decode()
    assert b"Traceback" not in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["film.mp4"]


@pytest.mark.slow
def test_control_c_leaves_a_playable_file(tmp_path: Path) -> None:
    write_film(tmp_path / "film.mp4", pictures(8) * 200, sound="aac")
    command = [sys.executable, "-m", "kpipe", "video", "film.mp4", "--json", "faces.jsonl", "-q"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE) as process:
        written = tmp_path / "faces.jsonl"
        wait_for(lambda: written.exists() and written.stat().st_size)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert lines(err) == ["kpipe: stopped; what was done so far is kept"]
    count = len((tmp_path / "faces.jsonl").read_text().splitlines())
    result = list(VideoReader(tmp_path / "film_annotated.mp4"))
    assert 0 < len(result) == count < 1600
    assert streams(tmp_path / "film_annotated.mp4")["audio"][1] < result[-1].time + 0.2
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".kpipe")]


def test_a_writer_that_cannot_write(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="cannot be written"):
        VideoWriter(Path("/proc/nothing/film.mp4"), 64, 64)
    writer = VideoWriter(tmp_path / "film.mp4", 64, 64, time_base=Fraction(1, 1000))
    with pytest.raises(ValueError, match="expected uint8"):
        writer.write(np.zeros((64, 32, 3), np.uint8), 0.0)
    writer.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not (DATA / "media").exists(), reason="needs the shared videos")
def test_a_real_telephone_video_is_upright() -> None:
    with VideoReader(DATA / "media" / "video_selfie_rotate90.mp4", stop=0.2) as reader:
        assert (reader.width, reader.height) == (640, 480)
        frames = list(reader)
    assert len(frames) == 6
    assert frames[0].image.shape == (480, 640, 3)
