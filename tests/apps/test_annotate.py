"""`kpipe.annotate` and its sinks, from Python."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import kpipe
from kpipe import KAGGLE15, Faces, Pipeline
from kpipe.apps.annotate import AnnotatedPhoto
from kpipe.apps.sinks import Crops, Csv, JsonLines, Pictures, PtsFolder, Sink, Video
from kpipe.detectors.proposals import ProposalDetector
from kpipe.errors import BoxesError, WriteError
from kpipe.formats.pts import read_pts
from kpipe.media.frames import Frame
from kpipe.media.images import Photo


class Idle(Pipeline):
    """Must not be called."""

    def __init__(self) -> None:
        pass

    def __call__(self, *arguments: object, **options: object) -> Faces:
        raise AssertionError("work went into a photograph whose results cannot be written")


class Failing(Sink):
    """Cannot write anything."""

    def __init__(self, goes_on: bool) -> None:
        super().__init__()
        self.tried = 0
        self.closed: bool | None = None
        type(self).goes_on = goes_on

    def append(self, faces: Faces, picture: Photo | Frame) -> None:
        self.tried += 1
        raise WriteError("no room")

    def close(self, complete: bool = True) -> None:
        self.closed = complete


def records(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_faces_go_to_every_sink(pipeline: Pipeline, small_photo: Path, tmp_path: Path) -> None:
    sinks = [
        JsonLines(tmp_path / "faces.jsonl"),
        Csv(tmp_path / "faces.csv"),
        Pictures(tmp_path / "out.png"),
        PtsFolder(tmp_path / "points"),
        Crops(tmp_path / "crops", size=96),
    ]
    (result,) = kpipe.annotate([small_photo], pipeline, sinks)
    assert result.faces is not None and len(result.faces) == 1
    assert result.problems == [] and result.notes == [] and result.seconds > 0
    (record,) = records(tmp_path / "faces.jsonl")
    assert record == result.faces.to_dict() and record["image"] == str(small_photo)
    (row,) = csv.DictReader((tmp_path / "faces.csv").read_text().splitlines())
    assert float(row["nose_tip_x"]) == pytest.approx(result.faces[0].points[30, 0], abs=0.01)
    points = read_pts(tmp_path / "points" / "photo.pts")
    assert np.array(points) == pytest.approx(result.faces[0].points, abs=0.01)
    assert Image.open(tmp_path / "crops" / "photo.jpg").size == (96, 96)
    assert Image.open(tmp_path / "out.png").size == (256, 256)
    written = [[Path(path).name for path in sink.written] for sink in sinks]
    assert written == [["faces.jsonl"], ["faces.csv"], ["out.png"], ["photo.pts"], ["photo.jpg"]]


def test_without_sinks_the_faces_are_returned(pipeline: Pipeline, small_photo: Path) -> None:
    (result,) = kpipe.annotate([small_photo], pipeline, scheme=KAGGLE15)
    assert result.faces is not None and result.faces.scheme == KAGGLE15
    assert [path.name for path in small_photo.parent.iterdir()] == ["photo.jpg"]


def test_a_bad_photograph_is_an_error_of_its_own(
    pipeline: Pipeline, small_photo: Path, tmp_path: Path
) -> None:
    (tmp_path / "text.jpg").write_text("hello")
    seen: list[str] = []
    told: list[AnnotatedPhoto] = []

    def progress(names: Sequence[str]) -> Iterator[str]:
        for name in names:
            seen.append(name)
            yield name

    results = kpipe.annotate(
        [tmp_path / "text.jpg", tmp_path / "missing.jpg", small_photo],
        pipeline,
        [JsonLines(tmp_path / "faces.jsonl"), Pictures()],
        progress=progress,
        on_result=told.append,
    )
    assert told == results and [result.name for result in results] == seen
    text, missing, good = results
    assert text.faces is None and "not a picture" in text.problems[0]
    assert missing.faces is None and missing.problems == [f"{missing.name}: no such file"]
    assert good.faces is not None and good.problems == []
    first, second, third = records(tmp_path / "faces.jsonl")
    assert [first["error"], second["error"]] == [*text.problems, *missing.problems]
    assert "error" not in third and len(third["faces"]) == 1  # type: ignore[arg-type]
    assert (tmp_path / "photo_annotated.jpg").exists()


@pytest.mark.parametrize("goes_on", [False, True])
def test_a_sink_that_fails_costs_the_others_nothing(
    pipeline: Pipeline, small_photo: Path, tmp_path: Path, goes_on: bool
) -> None:
    failing = Failing(goes_on)
    shutil.copy(small_photo, tmp_path / "again.jpg")
    photos = [small_photo, tmp_path / "again.jpg"]
    results = kpipe.annotate(photos, pipeline, [failing, JsonLines(tmp_path / "faces.jsonl")])
    assert failing.tried == (2 if goes_on else 1)
    assert failing.closed is goes_on
    assert [result.problems for result in results] == [["no room"], ["no room"] * goes_on]
    assert len(records(tmp_path / "faces.jsonl")) == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_text_file_on_a_full_disk_is_given_up(
    pipeline: Pipeline, small_photo: Path, tmp_path: Path
) -> None:
    full = JsonLines("/dev/full")
    results = kpipe.annotate([small_photo], pipeline, [full, Pictures(tmp_path / "out.jpg")])
    (problem,) = results[0].problems
    assert problem == "/dev/full: cannot be written (No space left on device)"
    assert full.written == [] and (tmp_path / "out.jpg").exists()


def test_a_result_that_is_in_the_way_costs_no_work(small_photo: Path, tmp_path: Path) -> None:
    (tmp_path / "photo_annotated.jpg").write_bytes(b"precious")
    (result,) = kpipe.annotate([small_photo], Idle(), [Pictures()])
    assert result.faces is None and result.problems[0].endswith("exists; --force replaces it")
    assert (tmp_path / "photo_annotated.jpg").read_bytes() == b"precious"


def test_nothing_is_begun_if_a_file_of_data_is_in_the_way(
    small_photo: Path, tmp_path: Path
) -> None:
    (tmp_path / "old.csv").write_text("precious")
    sinks = [JsonLines(tmp_path / "new.jsonl"), Csv(tmp_path / "old.csv")]
    with pytest.raises(WriteError, match=r"old\.csv: exists"):
        kpipe.annotate([small_photo], Idle(), sinks)
    assert not (tmp_path / "new.jsonl").exists()
    with pytest.raises(WriteError, match="is an input photograph"):
        kpipe.annotate([small_photo], Idle(), [JsonLines(small_photo)], force=True)
    with pytest.raises(WriteError, match="two photographs or options"):
        kpipe.annotate([small_photo], Idle(), [sinks[0], Csv(tmp_path / "new.jsonl")])


def test_a_sink_that_does_not_suit_the_photographs(small_photo: Path, tmp_path: Path) -> None:
    first = JsonLines(tmp_path / "faces.jsonl")
    with pytest.raises(ValueError, match="needs the frames of a video"):
        kpipe.annotate([small_photo], Idle(), [first, Video(tmp_path / "film.mp4")])
    with pytest.raises(ValueError, match="several photographs need a folder"):
        kpipe.annotate([small_photo] * 2, Idle(), [Pictures("-")])
    with pytest.raises(ValueError, match="no picture format is named"):
        kpipe.annotate([small_photo], Idle(), [Pictures(tmp_path / "out.xyz")])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "smallest"),
    [((36_000, 900), 41), ((10_000, 400), None), ((4_000, 700), None), ((3_000, 2_000), None),
     ((1_000, 50), None)],
)  # fmt: skip
def test_what_was_not_looked_for_is_said(
    pipeline: Pipeline, tmp_path: Path, size: tuple[int, int], smallest: int | None
) -> None:
    name = str(tmp_path / "wide.png")
    Image.new("RGB", size).save(name)
    (result,) = kpipe.annotate([name], pipeline)
    remark = f"{name}: faces below {smallest} pixels were not looked for; --min-face 40 does"
    assert result.notes == [*([remark] if smallest else []), f"{name}: no face found"]


def test_who_names_the_smallest_face_hears_nothing_of_it(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    Image.new("RGB", (10_000, 400)).save(tmp_path / "wide.png")
    asked = Pipeline(ProposalDetector(min_face=200))
    for notes in (
        kpipe.annotate([tmp_path / "wide.png"], asked)[0].notes,
        kpipe.annotate([tmp_path / "wide.png"], boxes=_one_box(tmp_path))[0].notes,
    ):
        assert not any("looked for" in note for note in notes)


def _one_box(folder: Path) -> Path:
    (folder / "boxes.csv").write_text("image,x0,y0,x1,y1\nwide.png,60,40,200,200\n")
    return folder / "boxes.csv"


def test_boxes_are_used_in_place_of_the_detector(
    pipeline: Pipeline, small_photo: Path, tmp_path: Path
) -> None:
    shutil.copy(small_photo, tmp_path / "other.jpg")
    table = tmp_path / "boxes.csv"
    table.write_text("image,x0,y0,x1,y1\nphoto.jpg,60,40,200,200\n")
    photos = [small_photo, tmp_path / "other.jpg"]
    results = kpipe.annotate(photos, pipeline, boxes=table)
    # The second picture is the same, but the file has no box for it.
    assert [len(result.faces or ()) for result in results] == [1, 0]
    assert results[1].notes == [
        f"{photos[1]}: not in {table}",
        f"{photos[1]}: no face found",
    ]
    with pytest.raises(BoxesError, match=r"missing\.csv"):
        kpipe.annotate(photos, Idle(), boxes=tmp_path / "missing.csv")


def test_an_interrupt_keeps_what_was_done(
    pipeline: Pipeline, small_photo: Path, tmp_path: Path
) -> None:
    def interrupted(_: AnnotatedPhoto) -> None:
        raise KeyboardInterrupt

    failing = Failing(goes_on=True)
    sinks = [JsonLines(tmp_path / "faces.jsonl"), failing]
    with pytest.raises(KeyboardInterrupt):
        kpipe.annotate([small_photo] * 3, pipeline, sinks, on_result=interrupted)
    assert len(records(tmp_path / "faces.jsonl")) == 1
    assert failing.closed is False
