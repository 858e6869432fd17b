from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from kpipe import Faces
from kpipe.errors import BoxesError
from kpipe.formats.boxes import GivenBoxes, read_boxes
from kpipe.preprocessing.boxes import landmark_box
from kpipe.structures.detections import Detections
from tests.conftest import Run


def test_csv_and_coco_say_the_same(tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_text(
        "image,score,x0,y0,x1,y1\na/1.jpg,.9,1,2,11,22\na/1.jpg,,0,0,5,5\n2.jpg,,,,,\n"
    )
    images = [{"id": 7, "file_name": "a/1.jpg"}, {"id": 8, "file_name": "2.jpg"}]
    boxes = [{"image_id": 7, "bbox": [1, 2, 10, 20]}, {"image_id": 7, "bbox": [0, 0, 5, 5]}]
    (tmp_path / "b.json").write_text(json.dumps({"images": images, "annotations": boxes}))
    for name in ("b.csv", "b.json"):
        read = read_boxes(tmp_path / name)
        assert list(read) == ["a/1.jpg", "2.jpg"]
        assert read["a/1.jpg"].tolist() == [[1, 2, 11, 22], [0, 0, 5, 5]]
        assert read["2.jpg"].shape == (0, 4)


def test_a_name_may_have_a_line_end_in_it(tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_text('image,x0,y0,x1,y1\n"a\u2028\n.jpg",1,2,3,4\n')
    assert list(read_boxes(tmp_path / "b.csv")) == ["a\u2028\n.jpg"]


def test_photographs_of_one_name_are_told_apart_by_their_folders() -> None:
    counts = {"d1/x.jpg": 1, "d2/x.jpg": 2, "y.jpg": 3}
    boxes = GivenBoxes({name: np.ones((count, 4)) for name, count in counts.items()})
    for photo, count in (("d1/x.jpg", 1), ("/photos/d2/x.jpg", 2), ("any/y.jpg", 3)):
        found = boxes.of(photo)
        assert found is not None and len(found) == count
    assert boxes.of("z.jpg") is None
    with pytest.raises(BoxesError, match=r"d3/x\.jpg: may be d1/x\.jpg or d2/x\.jpg"):
        boxes.of("d3/x.jpg")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("b.csv", "image,x0,y0,x1\n", "no column y1"),
        ("b.csv", "image,x0,y0,x1,y1\na,1,2,three,4\n", "line 2: a coordinate is not a number"),
        ("b.csv", "image,x0,y0,x1,y1\na,1,2,3\n", "line 2: a coordinate is not a number"),
        ("b.csv", "image,x0,y0,x1,y1\na,9,2,3,4\n", "line 2: not a box"),
        ("b.csv", "image,x0,y0,x1,y1\na,0,0,nan,4\n", "line 2: not a box"),
        ("b.csv", "", "no column image"),
        ("b.json", "{}", "not COCO's JSON"),
        ("b.json", "nonsense", "not COCO's JSON"),
        (
            "b.json",
            '{"images": [{"id": 1, "file_name": "a"}], "annotations": [{"image_id": 1}]}',
            "annotation 1: `bbox` is not x, y, width, height",
        ),
        ("b.csv", "image,x0,y0,x1,y1\n" + "x" * 200_000, "not a CSV file"),
        ("b.csv", b"\xff\xfe\xff", "not a text file"),
    ],
)
def test_bad_files(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(BoxesError, match=message):
        read_boxes(tmp_path / name)
    with pytest.raises(BoxesError, match="No such file"):
        read_boxes(tmp_path / "missing.csv")


def test_candidates_are_squares_around_the_boxes() -> None:
    found = Detections.from_face_boxes(np.array([[10.0, 20.0, 50.0, 80.0]]))
    sides = found.boxes[:, 2:] - found.boxes[:, :2]
    assert sides[:, 0] == pytest.approx(sides[:, 1])
    assert sides[:, 0].max() == pytest.approx(60)
    assert len(Detections.from_face_boxes(np.zeros((0, 4))).boxes) == 0


@pytest.mark.slow
def test_annotate_looks_where_the_file_says(
    kpipe: Run, small_photo: Path, tmp_path: Path, portrait_faces: Faces
) -> None:
    done = kpipe("annotate", "photo.jpg", "--json", "-", "--no-picture")
    face = json.loads(done.stdout)["faces"][0]
    points: NDArray[np.float64] = np.array(face["points"])
    for box in (face["box"], landmark_box(points).tolist()):
        (tmp_path / "b.csv").write_text(
            "image,x0,y0,x1,y1\nphoto.jpg," + ",".join(map(str, box)) + "\n"
        )
        done = kpipe("annotate", "photo.jpg", "--json", "-", "--no-picture", "--boxes", "b.csv")
        again = json.loads(done.stdout)["faces"]
        assert len(again) == 1
        away = np.linalg.norm(np.array(again[0]["points"]) - points, axis=1).mean()
        assert away < 0.03 * np.linalg.norm(points[36] - points[45])
    (tmp_path / "b.csv").write_text("image,x0,y0,x1,y1\nother.jpg,1,1,9,9\n")
    done = kpipe("annotate", "photo.jpg", "--json", "-", "--no-picture", "--boxes", "b.csv")
    assert json.loads(done.stdout)["faces"] == []
    assert b"photo.jpg: not in b.csv" in done.stderr
    done = kpipe("annotate", "photo.jpg", "--boxes", "missing.csv")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
