"""A session of `kpipe live`, with a video file as its camera and keys that no one has to press."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

pytest.importorskip("av")

from kpipe import Face, Faces, Pipeline, Tracker
from kpipe.apps.live import Session, mirrored
from kpipe.apps.sinks import JsonLines
from kpipe.media.camera import Camera
from kpipe.media.video_reader import VideoReader
from kpipe.rendering.window import Window
from tests.films import SIDE, pictures, write_film


class Keys(Window):
    """A window without a screen: keeps the pictures and presses keys, one a picture with a face."""

    def __init__(self, keys: str) -> None:
        self.keys = list(keys)
        self.shown: list[NDArray[np.uint8]] = []
        self.left = False

    def show(self, image: NDArray[np.uint8]) -> None:
        self.shown.append(image.copy())

    def key(self) -> str:
        # The first picture is black: the camera has sent nothing yet.
        ready = self.shown[-1].shape == (SIDE, SIDE, 3)
        return self.keys.pop(0) if ready and self.keys else ""

    def closed(self) -> bool:
        return False

    def close(self) -> None:
        self.left = True


def test_keys_save_record_and_change_what_is_shown(pipeline: Pipeline, tmp_path: Path) -> None:
    write_film(tmp_path / "film.mp4", pictures(60))
    said: list[str] = []
    window = Keys("sr" + " " * 6 + "rhpmbq")
    session = Session(
        Camera(str(tmp_path / "film.mp4"), reconnect=True),
        Tracker(pipeline),
        (JsonLines(tmp_path / "faces.jsonl"),),
        window,
        folder=tmp_path,
        say=said.append,
        error=said.append,
    )
    while session.step():
        pass
    session.close()
    assert not session.failed and window.left and not window.keys
    (picture,) = tmp_path.glob("snapshot_*.jpg")
    (recording,) = tmp_path.glob("recording_*.mp4")
    assert said[:2] == [f"saved: {picture}", f"recorded: {recording}"]
    assert Image.open(picture).size == (SIDE, SIDE)
    record = json.loads(picture.with_suffix(".json").read_text())
    assert record["image"] == picture.name and len(record["faces"]) == 1
    frames = list(VideoReader(recording))
    assert frames and frames[0].image.shape == (SIDE, SIDE, 3)
    lines = (tmp_path / "faces.jsonl").read_text().splitlines()
    assert session.summary().startswith(f"{tmp_path / 'film.mp4'}: {len(lines)} frames, ")
    # Paused before the last three keys: the same frame, mirrored, then without boxes.
    plain, turned, bare = window.shown[-3:]
    below = slice(2 * 22 + 8, None)
    assert (plain[below] != turned[below]).any()
    assert (turned[below] != bare[below]).any()


def test_mirrored_twice_is_as_before() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (20, 30, 3)).astype(np.uint8)
    points = rng.uniform(0, 20, (68, 2)).astype(np.float32)
    box = np.array([2, 3, 12, 13], np.float32)
    faces = Faces((Face(box, 1.0, points, np.ones(68, np.float32)),), 30, 20)
    once = mirrored(image, faces)
    assert once[1][0].box.tolist() == [17, 3, 27, 13]
    assert (once[0][:, 0] == image[:, -1]).all()
    again = mirrored(*once)
    assert (again[0] == image).all()
    assert again[1][0].points == pytest.approx(points, abs=1e-4)
