"""The same faces, written in each format, are read as the same faces."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from kpipe import IBUG68
from kpipe.datasets import DatasetError, Sample, read_samples
from kpipe.datasets.samples import photograph_of
from kpipe.datasets.wflw import TO_IBUG68


def as_dlib_xml(samples: list[Sample], folder: Path) -> Path:
    images = ""
    for sample in samples:
        parts = "".join(
            f"<part name='{k:02d}' x='{x}' y='{y}'/>" for k, (x, y) in enumerate(sample.points)
        )
        box = f"<box top='1' left='1' width='9' height='9'>{parts}</box>"
        ignored = "<box top='1' left='1' width='9' height='9' ignore='1'/>"
        images += f"<image file='{sample.path.name}'>{box}{ignored}</image>"
    path = folder / "faces.xml"
    path.write_text(f"<?xml version='1.0'?><dataset><images>{images}</images></dataset>")
    return path


def as_wflw_text(samples: list[Sample], folder: Path) -> Path:
    lines = []
    for sample in samples:
        points = np.full((98, 2), 5.0)
        points[list(TO_IBUG68)] = sample.points
        numbers = [*points.ravel(), 1, 2, 3, 4, 0, 0, 0, 0, 0, 0]
        lines.append(" ".join(f"{v}" for v in numbers) + f" {sample.path.name}\n")
    path = folder / "list.txt"
    path.write_text("".join(lines))
    return path


def as_coco(samples: list[Sample], folder: Path) -> Path:
    content = {
        "images": [{"id": k, "file_name": s.path.name} for k, s in enumerate(samples)],
        "annotations": [
            {"image_id": k, "keypoints": [v for x, y in s.points.tolist() for v in (x, y, 2)]}
            for k, s in enumerate(samples)
        ],
    }  # fmt: skip
    path = folder / "faces.json"
    path.write_text(json.dumps(content))
    return path


FORMATS = [as_dlib_xml, as_wflw_text, as_coco]


@pytest.mark.parametrize("write", FORMATS)
def test_the_same_faces_in_every_format(labeled: Path, write) -> None:  # type: ignore[no-untyped-def]
    samples = read_samples(labeled)
    again = read_samples(write(samples, labeled))
    assert [s.path for s in again] == [s.path for s in samples]
    for a, b in zip(again, samples):
        assert a.points == pytest.approx(b.points, abs=1e-3)


@pytest.mark.parametrize("write", FORMATS)
def test_bad_tables_are_one_line(labeled: Path, write) -> None:  # type: ignore[no-untyped-def]
    table = write(read_samples(labeled), labeled)
    whole = table.read_text()
    missing = whole.replace("collins", "nobody")
    broken = {"cut": whole[: len(whole) // 2], "binary": None, "missing": missing}
    for what, text in broken.items():
        if text is None:
            table.write_bytes(bytes(range(128, 256)))
        else:
            table.write_text(text)
        with pytest.raises(DatasetError) as caught:
            read_samples(table)
        assert str(table) in str(caught.value) and "\n" not in str(caught.value), what
    table.write_text(missing)
    left_out: list[DatasetError] = []
    assert len(read_samples(table, left_out.append)) == 4
    assert len(left_out) == 1 and "nobody" in str(left_out[0])


def test_unknown_tables(tmp_path: Path) -> None:
    (tmp_path / "faces.mat").touch()
    with pytest.raises(DatasetError, match="not a format of labeled faces"):
        read_samples(tmp_path / "faces.mat")


def test_the_98_points_map_to_their_namesakes() -> None:
    assert len(TO_IBUG68) == len(set(TO_IBUG68)) == 68
    place = {name: TO_IBUG68[k] for k, name in enumerate(IBUG68.names)}
    # As the figure of the WFLW paper numbers them.
    assert place["chin"] == 16 and place["nose_tip"] == 54 and place["nose_base"] == 57
    assert place["right_eye_outer"] == 60 and place["right_eye_inner"] == 64
    assert place["left_eye_inner"] == 68 and place["left_eye_outer"] == 72
    assert place["mouth_right"] == 76 and place["mouth_left"] == 82


@pytest.mark.parametrize(
    ("write", "old", "new", "message"),
    [
        (as_dlib_xml, "name='07'", "name='chin'", "a part is not a number"),
        (as_dlib_xml, "name='07'", "title='07'", "a part is not a number"),
        (as_coco, '"keypoints": [', '"keypoints": ["x", ', "not x, y, visibility"),
        (as_coco, '"keypoints": [', '"keypoints": [1, 1, 2, ', "69 points"),
    ],
)
def test_one_bad_face_is_left_out_by_name(  # type: ignore[no-untyped-def]
    labeled: Path, write, old: str, new: str, message: str
) -> None:
    table = write(read_samples(labeled), labeled)
    table.write_text(table.read_text().replace(old, new, 1))
    left_out: list[DatasetError] = []
    assert len(read_samples(table, left_out.append)) == 4
    (error,) = left_out
    assert str(error).startswith(f"{table}, ") and message in str(error)


def test_coco_points_without_labels_are_no_labels(labeled: Path) -> None:
    table = as_coco(read_samples(labeled), labeled)
    content = json.loads(table.read_text())
    content["annotations"][0]["keypoints"][5] = 0
    table.write_text(json.dumps(content))
    with pytest.raises(DatasetError, match="a point is not labeled"):
        read_samples(table)


def test_coco_whole_body_has_its_faces_elsewhere(labeled: Path) -> None:
    samples = read_samples(labeled)
    table = as_coco(samples, labeled)
    content = json.loads(table.read_text())
    for k, record in enumerate(content["annotations"]):
        record["face_kpts"] = record.pop("keypoints")
        record |= {"face_valid": k > 0, "keypoints": [1.0, 2.0, 2] * 17, "num_keypoints": 17}
    del content["annotations"][1]["face_kpts"]
    table.write_text(json.dumps(content))
    assert [s.path for s in read_samples(table)] == [s.path for s in samples[2:]]


def test_faces_of_one_photograph_share_its_group() -> None:
    assert photograph_of("afw_123456_1") == photograph_of("afw_123456_12") == "afw_123456"
    assert photograph_of("helen_train_99_1") == photograph_of("helen_train_99_2_mirror")
    assert photograph_of("lfpw_train_image_0001") != photograph_of("lfpw_train_image_0002")
