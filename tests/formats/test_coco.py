from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kpipe.errors import FormatError
from kpipe.formats import coco

POINTS = [float(v) for k in range(68) for v in (10 + k, 20 + k % 7, 2)]


def document(**changes: Any) -> dict[str, Any]:
    image = {"id": 1, "file_name": "a.jpg", "width": 90, "height": 50}
    annotation = {"image_id": 1, "keypoints": POINTS, "bbox": [10, 20, 67, 6]}
    return {"images": [image], "annotations": [annotation | changes]}


def read(path: Path, content: object) -> list[dict[str, Any]]:
    path.write_text(json.dumps(content))
    return list(coco.read(path))


def test_annotations_without_labeled_points_are_no_faces(tmp_path: Path) -> None:
    (record,) = read(tmp_path / "c.json", document())
    assert len(record["faces"]) == 1
    (record,) = read(tmp_path / "c.json", document(num_keypoints=0))
    assert record["faces"] == []
    (record,) = read(tmp_path / "c.json", document(face_valid=True))
    assert record["faces"] == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "c.json: not COCO's JSON"),
        ({"images": [1], "annotations": []}, "c.json: not COCO's JSON"),
        ({**document(), "images": document()["images"] * 2}, "two images have the id 1"),
        (document(image_id=7), "annotation 1 is of no image in the file"),
        (document(image_id=[7]), "c.json: not COCO's JSON"),
        (document(keypoints=7), "annotation 1: not COCO's keypoints of a face"),
        (document(bbox=[1, 2, 3]), "annotation 1: not COCO's keypoints of a face"),
        (document(bbox=[10**400, 0.5, 0.5, 1]), "annotation 1: not COCO's keypoints of a face"),
        (document(bbox="four"), "annotation 1: not COCO's keypoints of a face"),
        (document(keypoints=POINTS[:-3]), "c.json, a.jpg: 67 points on a face"),
        (document(keypoints=["x", *POINTS[1:]]), "c.json, a.jpg: not the record of a photograph"),
        (document(score=[]), "c.json, a.jpg: not the record of a photograph"),
    ],
)
def test_a_bad_document_is_one_line(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(FormatError) as caught:
        read(tmp_path / "c.json", content)
    assert message in str(caught.value) and "\n" not in str(caught.value)
