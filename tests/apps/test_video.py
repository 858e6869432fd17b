"""`kpipe.process_video` and its sinks, from Python."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("av")

import kpipe
from kpipe import Pipeline, Tracker
from kpipe.apps.live import Session
from kpipe.apps.sinks import Chips, Crops, JsonLines, Pictures, Sink, TimelinePlot, Video
from kpipe.errors import VideoError, WriteError
from kpipe.media.camera import Camera
from kpipe.media.frames import Frame
from kpipe.media.video_reader import VideoReader
from kpipe.preprocessing.crops import face_crop
from kpipe.structures.faces import Faces
from tests.films import SIDE, pictures, write_film


@pytest.fixture
def film(tmp_path: Path) -> Path:
    write_film(tmp_path / "film.mp4", pictures(6))
    return tmp_path / "film.mp4"


def count(path: Path) -> int:
    return len(path.read_text().splitlines())


def test_the_frames_go_to_every_sink(pipeline: Pipeline, film: Path, tmp_path: Path) -> None:
    sinks: list[Sink] = [
        JsonLines(tmp_path / "faces.jsonl"),
        Video(),
        Crops(tmp_path / "crops", size=80),
        Chips(tmp_path / "chips"),
        Pictures(tmp_path / "frames"),
    ]
    seen: list[int] = []

    def progress(frames: VideoReader) -> Iterator[Frame]:
        for frame in frames:
            seen.append(frame.number)
            yield frame

    tracker = Tracker(pipeline)
    result = kpipe.process_video(film, tracker, sinks, every=2, progress=progress)
    assert seen == list(range(6))
    assert (result.frames, result.tracks, result.complete) == (3, {1}, True)
    assert result.problems == [] and result.seconds > 0
    lines = (tmp_path / "faces.jsonl").read_text().splitlines()
    every = [Faces.from_dict(json.loads(line)) for line in lines]
    assert [(faces.path, faces.frame) for faces in every] == [(str(film), k) for k in (0, 2, 4)]
    written = list(VideoReader(tmp_path / "film_annotated.mp4"))
    assert [frame.time for frame in written] == pytest.approx([0, 0.08, 0.16], abs=0.002)
    names = sorted(path.name for path in (tmp_path / "frames").iterdir())
    assert names == [f"film_frame{k}_annotated.jpg" for k in (0, 2, 4)]
    assert Image.open(tmp_path / "frames" / names[0]).size == (SIDE, SIDE)
    assert sorted(p.name for p in (tmp_path / "chips" / "1").iterdir()) == [
        f"{k:06d}.jpg" for k in (0, 2, 4)
    ]
    crop = np.asarray(Image.open(tmp_path / "crops" / "film_frame4.jpg")).astype(float)
    frame = list(VideoReader(film))[4].image
    expected, _ = face_crop(frame, every[2][0].points, size=80)
    assert np.corrcoef(crop.ravel(), expected.ravel())[0, 1] > 0.9


def test_a_sink_that_fails_is_reported_once_and_costs_the_others_nothing(
    pipeline: Pipeline, film: Path, tmp_path: Path
) -> None:
    (tmp_path / "crops").write_text("a file where the folder would be")
    sinks = [Crops(tmp_path / "crops"), JsonLines(tmp_path / "faces.jsonl")]
    result = kpipe.process_video(film, Tracker(pipeline), sinks)
    (problem,) = result.problems
    assert "crops" in problem and "cannot be written" in problem
    assert (result.frames, result.complete) == (6, True)
    assert count(tmp_path / "faces.jsonl") == 6


def test_with_nothing_left_to_write_it_stops(
    pipeline: Pipeline, film: Path, tmp_path: Path
) -> None:
    (tmp_path / "crops").write_text("a file where the folder would be")
    result = kpipe.process_video(film, Tracker(pipeline), [Crops(tmp_path / "crops")])
    assert (result.frames, result.complete, len(result.problems)) == (1, False, 1)


def test_stopped_amid_the_video_its_files_are_whole(
    pipeline: Pipeline, film: Path, tmp_path: Path
) -> None:
    sinks = [JsonLines(tmp_path / "faces.jsonl"), Video(tmp_path / "out.mp4")]
    result = kpipe.process_video(
        film, Tracker(pipeline), sinks, stopped=lambda: (tmp_path / "faces.jsonl").exists()
    )
    assert (result.frames, result.complete, result.problems) == (1, False, [])
    assert count(tmp_path / "faces.jsonl") == len(list(VideoReader(tmp_path / "out.mp4"))) == 1


def test_wrong_arguments(pipeline: Pipeline, film: Path, tmp_path: Path) -> None:
    tracker = Tracker(pipeline)
    with pytest.raises(ValueError, match="every: at least 1"):
        kpipe.process_video(film, tracker, every=0)
    with pytest.raises(ValueError, match=r"plots are written as \.png"):
        TimelinePlot("plot.txt")
    with pytest.raises(WriteError, match="is an input video"):
        kpipe.process_video(film, tracker, [JsonLines(film)], force=True)
    with pytest.raises(VideoError, match=r"videos are written as \.mp4"):
        kpipe.process_video(film, tracker, [Video(tmp_path / "out.webp")])
    with pytest.raises(VideoError, match="No such file"):
        kpipe.process_video(tmp_path / "missing.mp4", tracker, [Video(tmp_path / "out.mp4")])
    assert [path.name for path in tmp_path.iterdir()] == ["film.mp4"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_session_without_a_window_ends_when_its_data_cannot_be_written(
    pipeline: Pipeline, film: Path
) -> None:
    said: list[str] = []
    sinks = (JsonLines("/dev/full"),)
    session = Session(Camera(str(film)), Tracker(pipeline), sinks, error=said.append)
    while session.step():
        pass
    session.close()
    assert session.failed
    assert said == ["/dev/full: cannot be written (No space left on device)"]
