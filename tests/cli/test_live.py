"""`kpipe live`, run as a user runs it, with a video file as its camera."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from kpipe.errors import CameraError
from kpipe.media.camera import Camera
from tests.conftest import PATIENCE, Run, wait_for

av = pytest.importorskip("av")

from kpipe.media.video_reader import VideoReader
from tests.films import SIDE, pictures, write_film


def lines(stream: bytes) -> list[str]:
    return stream.decode().splitlines()


def test_headless_streams_one_line_a_frame(kpipe: Run, tmp_path: Path) -> None:
    write_film(tmp_path / "film.mp4", pictures(40))
    done = kpipe("live", "--camera", "film.mp4", "--headless", "--json", "-")
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in lines(done.stdout)]
    assert records
    times = [record["time"] for record in records]
    assert times == sorted(times)
    frames = [record["frame"] for record in records]
    assert frames == sorted(set(frames)) and frames[-1] == 39
    assert [face["track"] for face in records[-1]["faces"]] == [1]
    (summary,) = lines(done.stderr)
    assert summary == f"film.mp4: {len(frames)} frames, {40 - len(frames)} dropped"


def test_without_a_display_that_is_said(kpipe: Run, tmp_path: Path) -> None:
    write_film(tmp_path / "film.mp4", pictures(2))
    nowhere = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY")}
    if not sys.platform.startswith("linux"):
        pytest.skip("elsewhere there is always a display")
    for environment in (nowhere, nowhere | {"DISPLAY": ":987"}):
        done = kpipe("live", "--camera", "film.mp4", env=environment)
        assert done.returncode == 2
        (line,) = lines(done.stderr)
        assert line.startswith("kpipe: no window: ") and "--headless --json -" in line


def test_no_camera(kpipe: Run) -> None:
    done = kpipe("live", "--camera", "87", "--headless", "--json", "-")
    assert done.returncode == 1
    (line,) = lines(done.stderr)
    assert line.startswith("kpipe: camera 87: ") and "--reconnect" in line
    done = kpipe("live", "--camera", "missing.mp4", "--headless", "--json", "-")
    assert done.returncode == 1 and b"missing.mp4: no such file" in done.stderr
    done = kpipe("live", "--headless")
    assert done.returncode == 2 and b"add --json -" in done.stderr


@pytest.mark.slow
def test_a_camera_that_comes_later_and_goes(tmp_path: Path) -> None:
    write_film(tmp_path / "ready.mp4", pictures(20))
    path = tmp_path / "film.mp4"
    with pytest.raises(CameraError, match="no such file"):
        Camera(str(path))
    with Camera(str(path), reconnect=True) as camera:
        assert camera.newest(0.1) is None
        assert camera.problem is not None and "no such file" in camera.problem
        os.rename(tmp_path / "ready.mp4", path)
        wait_for(lambda: camera.newest(0.5))
        assert camera.problem is None
        # It ends, and is connected again.
        wait_for(lambda: (frame := camera.newest(0.5)) is not None and frame.number > 25)
        assert not camera.ended


@pytest.mark.slow
def test_the_newest_frame_is_given_and_late_ones_are_dropped(tmp_path: Path) -> None:
    write_film(tmp_path / "film.mp4", pictures(50))
    with Camera(str(tmp_path / "film.mp4")) as camera:
        first = camera.newest(PATIENCE)
        assert first is not None and first.number < 49
        # Nobody asks, and it plays to its end at its own pace.
        wait_for(lambda: camera.ended)
        last = camera.newest(0.0)
        assert last is not None and last.number == 49
        assert last.time > 49 / 25 - 0.1
        assert camera.newest(0.0) is None


@pytest.fixture
def display() -> Iterator[str]:
    """A display that nobody sees."""
    if shutil.which("Xvfb") is None or shutil.which("xdotool") is None:
        pytest.skip("needs Xvfb and xdotool")
    reader, writer = os.pipe()
    command = ["Xvfb", "-displayfd", str(writer), "-screen", "0", "800x600x24"]
    with subprocess.Popen(command, pass_fds=[writer], stderr=subprocess.DEVNULL) as server:
        os.close(writer)
        with os.fdopen(reader) as answer:
            number = answer.readline().strip()
        try:
            yield f":{number}"
        finally:
            server.terminate()


def test_a_window_and_its_keys(display: str, tmp_path: Path) -> None:
    write_film(tmp_path / "film.mp4", pictures(8) * 60)
    environment = os.environ | {"DISPLAY": display}
    command = [sys.executable, "-m", "kpipe", "live", "--camera", "film.mp4", "--reconnect"]

    def keys(*names: str) -> bytes:
        press = ["xdotool", "search", "--name", "kpipe live", "windowfocus", "key", *names]
        return subprocess.run(press, env=environment, capture_output=True, check=False).stdout

    def saved(kind: str) -> list[Path]:
        return sorted(tmp_path.glob(f"{kind}_*"))

    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE
    ) as process:
        # A key that comes before the first picture does nothing: until it does, again.
        wait_for(lambda: keys("s") is None or time.sleep(0.5) or len(saved("snapshot")) >= 2)
        keys("m", "n", "b", "h")
        keys("r")
        wait_for(lambda: list(tmp_path.glob(".kpipe-*")))
        time.sleep(2)
        keys("r")
        wait_for(lambda: [p for p in saved("recording") if not p.name.startswith(".")])
        keys("space")
        keys("q")
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    picture = next(path for path in saved("snapshot") if path.suffix == ".jpg")
    assert Image.open(picture).size == (SIDE, SIDE)
    record = json.loads(picture.with_suffix(".json").read_text())
    assert record["image"] == picture.name
    recording = list(VideoReader(saved("recording")[0]))
    assert recording and recording[0].image.shape == (SIDE, SIDE, 3)
    report = lines(err)
    assert f"saved: {picture.name}" in report
    assert f"recorded: {saved('recording')[0].name}" in report
    assert "Traceback" not in err.decode()
