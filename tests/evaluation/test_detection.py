from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kpipe import Pipeline, read_image
from kpipe.datasets import DatasetError, read_samples
from kpipe.evaluation.detection import (
    Detected,
    detect,
    empty_photos,
    matches,
    read_photos,
    separation,
)
from tests.conftest import EXAMPLES, GROUP, Run


def test_each_label_counts_once() -> None:
    label = np.array([[0.0, 0.0, 10.0, 10.0]])
    box, far = np.array([1.0, 0.0, 11.0, 10.0]), np.array([50.0, 50.0, 60.0, 60.0])
    assert matches([box, box, far], label, 0.3) == [True, False, False]
    assert matches([box], label, 0.95) == [False]
    assert matches([box], np.zeros((0, 4)), 0.3) == [False]


def test_recall_precision_and_their_area() -> None:
    right = np.array([True, True, False, True])
    result = Detected(4, np.array([0.9, 0.8, 0.7, 0.6]), right, np.arange(4), ())
    assert result.at(0.75) == (0.5, 1.0, 0)
    assert result.at(0.0) == (0.75, 0.75, 1)
    assert np.isnan(result.at(0.95)[1])
    assert result.average_precision == pytest.approx((1 + 1 + 0.75) / 4)


@pytest.fixture
def boxed(tmp_path: Path, pipeline: Pipeline) -> Path:
    """A COCO file of the group photograph, with one face that is not there."""
    shutil.copy(GROUP, tmp_path / "group.jpg")
    boxes = [face.box.tolist() for face in pipeline(read_image(GROUP))] + [[0, 0, 30, 30]]
    annotations = [
        {"id": k, "image_id": 1, "category_id": 1, "bbox": [a, b, c - a, d - b]}
        for k, (a, b, c, d) in enumerate(boxes)
    ]
    table = tmp_path / "boxes.json"
    images = [{"id": 1, "file_name": "group.jpg", "width": 1400, "height": 960}]
    table.write_text(json.dumps({"images": images, "annotations": annotations}))
    return table


def test_labels_that_are_our_own_boxes_are_all_found(boxed: Path, pipeline: Pipeline) -> None:
    result = detect(read_photos(boxed), pipeline, min_iou=0.9)
    assert result.labelled == 7
    assert result.at(0.9) == (pytest.approx(6 / 7), 1.0, 0)


def test_the_face_score_tells_faces_from_texture(
    labelled: Path, tmp_path: Path, pipeline: Pipeline
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    for seed in range(3):
        rng = np.random.default_rng(seed)
        Image.fromarray(rng.integers(0, 256, (40, 60, 3), np.uint8)).resize((600, 400)).save(
            empty / f"{seed}.png"
        )
    told = separation(read_samples(labelled), empty_photos(empty), pipeline)
    assert told.faces == 5 and told.threshold > 0.9
    assert told.others == 0 or told.rejected > 0.9


def test_the_command(kpipe: Run, boxed: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    Image.new("RGB", (300, 200), "gray").save(empty / "a.png")
    done = kpipe("evaluate", "--detection", boxed, "--negatives", empty, "--report", "page")
    assert done.returncode == 0, done.stderr
    text = done.stdout.decode()
    assert "0.70, the default" in text and "recall" in text and "in how many of 1" in text
    page = (tmp_path / "page" / "detection.html").read_text()
    assert "Precision over recall" in page and "1 mistakes" in page
    assert Image.open(tmp_path / "page" / "faces" / "detection_01.jpg").width == 640


def test_bad_pictures_among_those_without_faces(kpipe: Run, labelled: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    Image.new("RGB", (300, 200), "gray").save(empty / "a.png")
    (empty / "b.jpg").write_text("no picture")
    next(labelled.glob("*.jpg")).write_text("nor this")
    command = ("evaluate", labelled, "--negatives", empty, "--jitters", "1")
    assert kpipe(*command).returncode == 2
    done = kpipe(*command, "--skip-bad")
    assert done.returncode == 0, done.stderr
    assert b"2 pictures left out" in done.stderr and b"of 4 faces reach" in done.stderr


def test_bad_input(kpipe: Run, boxed: Path, tmp_path: Path) -> None:
    done = kpipe("evaluate")
    assert done.returncode == 2 and b"nothing to measure on" in done.stderr
    (tmp_path / "group.jpg").write_bytes(b"no picture")
    done = kpipe("evaluate", "--detection", boxed)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1 and b"group.jpg" in done.stderr
    done = kpipe("evaluate", "--detection", boxed, "--skip-bad")
    assert done.returncode == 0 and b"1 picture left out" in done.stderr
    (tmp_path / "group.jpg").unlink()
    done = kpipe("evaluate", "--detection", boxed, "--skip-bad")
    assert done.returncode == 0 and b"1 picture left out" in done.stderr
    (tmp_path / "bad.json").write_text('{"images": [{"id": 1}]}')
    with pytest.raises(DatasetError, match="not COCO's JSON"):
        read_photos(tmp_path / "bad.json")
    with pytest.raises(DatasetError, match="no folder with pictures"):
        empty_photos(EXAMPLES / "missing")
