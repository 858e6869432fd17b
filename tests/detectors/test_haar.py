from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from kpipe import Faces
from kpipe.detectors.haar import (
    FRONTAL_ALT2,
    PROFILE,
    PROFILE_MIRRORED,
    UPRIGHT,
    HaarDetector,
    View,
    load_cascade,
    merged,
    opencv_data,
)
from kpipe.errors import CascadeError
from kpipe.preprocessing.boxes import landmark_box
from kpipe.preprocessing.crops import to_gray


def hit(boxes: NDArray[np.float32], box: NDArray[np.float32]) -> bool:
    centers, center = (boxes[:, :2] + boxes[:, 2:]) / 2, (box[:2] + box[2:]) / 2
    near = np.abs(centers - center).max(axis=1) < 0.25 * (box[2] - box[0])
    return bool(near.any())


def test_the_face_is_among_the_candidates(
    portrait: NDArray[np.uint8], portrait_faces: Faces
) -> None:
    found = HaarDetector(UPRIGHT)(to_gray(portrait))
    assert found.boxes.dtype == found.rolls.dtype == np.float32
    assert hit(found.boxes, landmark_box(portrait_faces[0].points))


def test_the_size_of_the_picture_does_not_move_the_boxes(
    portrait: NDArray[np.uint8], portrait_faces: Faces
) -> None:
    large = np.repeat(np.repeat(to_gray(portrait), 3, axis=0), 3, axis=1)
    assert hit(HaarDetector()(large).boxes, landmark_box(portrait_faces[0].points) * 3 + 1)


def test_mirrored_cascades_see_the_mirror_image(portrait: NDArray[np.uint8]) -> None:
    gray = to_gray(portrait)
    gray = np.ascontiguousarray(gray[:, : gray.shape[1] // 2 * 2])
    left = HaarDetector((View(PROFILE),))(gray).boxes
    right = HaarDetector((View(PROFILE_MIRRORED),))(np.ascontiguousarray(gray[:, ::-1])).boxes
    assert len(left) > 0
    mirrored = gray.shape[1] - 1 - right[:, [2, 1, 0, 3]]
    mirrored[:, [1, 3]] = right[:, [1, 3]]
    assert len(mirrored) == len(left)
    assert all(hit(mirrored, box) for box in left)


def test_nothing_in_an_empty_picture_or_a_pixel() -> None:
    for shape in ((300, 400), (1, 1), (3000, 1), (1, 3000)):
        found = HaarDetector()(np.full(shape, 128, np.uint8))
        assert found.boxes.shape == (0, 4)
        assert found.rolls.shape == (0,)


def test_windows_on_each_other_become_one() -> None:
    boxes = np.array([[0, 0, 100, 100], [4, 0, 104, 100], [300, 0, 400, 100]], float)
    found = merged(boxes, np.zeros(3))
    assert found.boxes.tolist() == [[2, 0, 102, 100], [300, 0, 400, 100]]
    assert len(merged(boxes, np.array([0.0, 35.0, 0.0])).boxes) == 3


@pytest.mark.slow
def test_many_threads_find_what_one_finds(portrait: NDArray[np.uint8]) -> None:
    detector, gray = HaarDetector(), to_gray(portrait)
    expected = detector(gray)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(detector, [gray] * 12):
            assert (found.boxes == expected.boxes).all()


def test_other_processes_can_have_it(portrait: NDArray[np.uint8]) -> None:
    detector, gray = HaarDetector(), to_gray(portrait)
    copy = pickle.loads(pickle.dumps(detector))
    assert (copy(gray).boxes == detector(gray).boxes).all()


def test_a_changed_cascade_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(CascadeError, match="not the cascade that kpipe was measured with"):
        load_cascade(replace(FRONTAL_ALT2, sha256="0" * 64))
    with pytest.raises(CascadeError, match="No such file"):
        load_cascade(FRONTAL_ALT2, tmp_path)
    (tmp_path / FRONTAL_ALT2.file).write_text("<opencv_storage>")
    with pytest.raises(CascadeError, match="not a Haar cascade"):
        load_cascade(FRONTAL_ALT2, tmp_path)


def test_a_cascade_from_another_folder(tmp_path: Path) -> None:
    content = (opencv_data() / FRONTAL_ALT2.file).read_bytes()
    (tmp_path / "mine.xml").write_bytes(content)
    mine = replace(FRONTAL_ALT2, file="mine.xml", sha256="")
    HaarDetector((View(mine),), folder=tmp_path)
