import json

import numpy as np
import pytest

from kpipe import Face, Faces


def face(**changes: object) -> Face:
    values = {
        "box": np.zeros(4, np.float32),
        "score": 0.9,
        "points": np.zeros((68, 2), np.float32),
        "sigma": np.ones(68, np.float32),
    }
    return Face(**(values | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"box": np.zeros(3, np.float32)}, r"box: expected float32 \(4,\), got float32 \(3,\)"),
        ({"points": np.zeros((68, 3), np.float32)}, r"points: expected float32 \(68, 2\)"),
        ({"points": np.zeros((68, 2))}, r"points: .* got float64"),
        ({"sigma": np.zeros(67, np.float32)}, r"sigma: expected float32 \(68,\)"),
        ({"sigma": [1.0] * 68}, "sigma: expected"),
    ],
)
def test_wrong_arrays_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        face(**changes)


def test_json_there_and_back(portrait_faces: Faces) -> None:
    record = json.loads(json.dumps(portrait_faces.at("a/b.jpg").to_dict()))
    assert list(record) == ["image", "width", "height", "scheme", "faces"]
    assert record["image"] == "a/b.jpg"
    assert record["scheme"] == "ibug68"
    for before, data in zip(portrait_faces, record["faces"]):
        after = Face.from_dict(data)
        assert after.points == pytest.approx(before.points, abs=0.006)
        assert after.sigma == pytest.approx(before.sigma, abs=0.0006)
        assert after.pose == pytest.approx(before.pose, abs=0.006)
    assert Faces.from_dict(record).to_dict() == record
    record["warning"] = "cut short"
    assert Faces.from_dict(record).to_dict() == record


def test_filter_keeps_the_rest_as_it_was() -> None:
    small = face(box=np.array([0, 0, 10, 10], np.float32))
    large = face(box=np.array([0, 0, 90, 90], np.float32), score=0.6)
    faces = Faces((large, small), 100, 100, "x.jpg")
    assert faces.filter(min_size=20).faces == (large,)
    assert faces.filter(min_score=0.8).faces == (small,)
    assert faces.filter().path == "x.jpg"
