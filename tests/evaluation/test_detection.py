from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kpipe import HaarDetector, Pipeline, ProposalDetector, read_image
from kpipe.datasets import DatasetError, read_samples
from kpipe.evaluation.detection import (
    Detected,
    FoundBoxes,
    LabeledPhoto,
    compared,
    detect,
    empty_photos,
    find_alone,
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


def photo(
    boxes: list[list[float]], ignored: tuple[int, ...] = (), crowds: tuple[int, ...] = ()
) -> LabeledPhoto:
    numbers = np.arange(len(boxes))
    blur = np.array([str(k % 2) for k in numbers], np.str_)
    return LabeledPhoto(
        Path("a.jpg"),
        np.array(boxes, np.float64).reshape(-1, 4),
        np.isin(numbers, ignored),
        np.isin(numbers, crowds),
        {"blur": blur},
    )


def found(*rows: tuple[float, float, float, float, float]) -> FoundBoxes:
    table = np.array(rows, np.float64).reshape(-1, 5)
    return FoundBoxes(table[:, :4], table[:, 4])


def test_labels_that_do_not_count_make_a_face_neither_right_nor_false() -> None:
    labels = photo(
        [[0, 0, 40, 40], [100, 0, 140, 40], [200, 0, 210, 10], [300, 0, 400, 100]], (1,), (3,)
    )
    seen = found(
        (0, 0, 40, 40, 0.9),  # right
        (100, 0, 140, 40, 0.8),  # on an invalid one
        (200, 0, 210, 10, 0.7),  # on one that is too small
        (310, 10, 330, 30, 0.6),  # in a crowd
        (390, 90, 420, 120, 0.5),  # beside it
        (1, 1, 41, 41, 0.4),  # the first again
    )
    result = compared([labels], [seen], 0.3, 20)
    assert result.labeled == 1
    assert result.scores.tolist() == [0.9, 0.5, 0.4]
    assert result.right.tolist() == [True, False, False]
    assert compared([labels], [seen], 0.3, 0).labeled == 2


def test_a_counted_label_is_taken_before_one_that_does_not_count() -> None:
    labels = photo([[0, 0, 40, 40], [0, 10, 40, 50]], (1,))
    result = compared([labels], [found((0, 7, 40, 47, 0.9))], 0.3)
    assert result.right.tolist() == [True]


def test_the_best_recall_at_a_precision() -> None:
    right = np.array([True, True, False, True, False])
    scores = np.array([0.9, 0.8, 0.7, 0.7, 0.6])
    result = Detected(4, scores, right, np.arange(5), ())
    assert result.best(0.75) == (0.75, 0.7)
    # Of two equal scores one cannot be had without the other.
    assert result.best(0.8) == (0.5, 0.8)
    assert np.isnan(Detected(4, scores, ~right, np.arange(5), ()).best(0.9)).all()


def test_recall_by_group_and_how_far_scores_are_to_be_believed() -> None:
    labels = photo([[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10], [60, 0, 70, 10]])
    seen = found(
        (0, 0, 10, 10, 0.97), (20, 0, 30, 10, 0.6), (40, 0, 50, 10, 0.75), (80, 0, 90, 10, 0.72)
    )
    result = compared([labels, labels], [seen, found()])
    assert result.by_group(0.7) == [("blur", "0", 4, 0.5), ("blur", "1", 4, 0.0)]
    assert result.by_group(0.5) == [("blur", "0", 4, 0.5), ("blur", "1", 4, 0.25)]
    rows = result.reliability()
    assert [(low, count, share) for low, _, count, _, share in rows] == [
        (0.5, 1, 1.0),
        (0.7, 2, 0.5),
        (0.95, 1, 1.0),
    ]
    assert rows[1][3] == pytest.approx(0.735)


def test_a_detector_alone_is_measured_by_its_own_scores(boxed: Path) -> None:
    seen, boxes = find_alone(read_photos(boxed), ProposalDetector()) or ([], [])
    result = compared(seen, boxes)
    assert result.labeled == 7 and result.at(0.3)[0] == pytest.approx(6 / 7)
    assert result.at(0.3)[2] <= 1
    # A cascade gives no scores.
    assert find_alone(read_photos(boxed), HaarDetector()) is None


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
    assert result.labeled == 7
    assert result.at(0.9) == (pytest.approx(6 / 7), 1.0, 0)


def test_the_face_score_tells_faces_from_texture(
    labeled: Path, tmp_path: Path, pipeline: Pipeline
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    for seed in range(3):
        rng = np.random.default_rng(seed)
        Image.fromarray(rng.integers(0, 256, (40, 60, 3), np.uint8)).resize((600, 400)).save(
            empty / f"{seed}.png"
        )
    told = separation(read_samples(labeled), empty_photos(empty), pipeline)
    assert told.faces == 5 and told.threshold > 0.9
    assert told.others == 0 or told.rejected > 0.9


@pytest.mark.slow
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


@pytest.mark.slow
def test_the_command_leaves_small_and_ignored_faces_out(kpipe: Run, boxed: Path) -> None:
    content = json.loads(boxed.read_bytes())
    content["annotations"][-1]["ignore"] = 1
    for record in content["annotations"]:
        record["occlusion"] = record["id"] % 2
    boxed.write_text(json.dumps(content))
    done = kpipe("evaluate", "--detection", boxed)
    assert done.returncode == 0, done.stderr
    assert b"6 faces" in done.stderr and b"the detector alone" in done.stderr
    text = done.stdout.decode()
    assert "precision at least" in text and "occlusion" in text and "share of true faces" in text
    done = kpipe("evaluate", "--detection", boxed, "--min-face-px", "100000")
    assert done.returncode == 0, done.stderr
    assert b"1 photographs, 0 faces" in done.stderr


@pytest.mark.slow
def test_bad_pictures_among_those_without_faces(kpipe: Run, labeled: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    Image.new("RGB", (300, 200), "gray").save(empty / "a.png")
    (empty / "b.jpg").write_text("no picture")
    next(labeled.glob("*.jpg")).write_text("nor this")
    command = ("evaluate", labeled, "--negatives", empty, "--jitters", "1")
    assert kpipe(*command).returncode == 2
    done = kpipe(*command, "--skip-bad")
    assert done.returncode == 0, done.stderr
    assert b"2 pictures left out" in done.stderr and b"of 4 faces reach" in done.stderr


@pytest.mark.slow
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
