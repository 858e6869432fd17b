"""Records from files of free structure are checked, so that no writer stumbles over them."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from kpipe import Faces
from kpipe.errors import FormatError
from kpipe.formats.records import checked_record, error_record, inside, scheme_of

WRONG: list[tuple[tuple[str | int, ...], Any, str]] = [
    (("image",), 3, "`image` is not text"),
    (("image",), "a\0.jpg", "`image` is not text"),
    (("image",), "a\ud800.jpg", "`image` is not text"),
    (("faces",), None, "no list as `faces`"),
    (("width",), "9", "`width` is not a whole number"),
    (("scheme",), 68, "`scheme` is not text"),
    (("time",), "now", "`time` is not a number"),
    (("faces", 0), 7, "face 1: no list as `points`"),
    (("faces", 0, "points", 3), [1.0], "face 1: `points` are not 68 pairs of numbers"),
    (("faces", 0, "points", 3), ["1", "2"], "`points` are not 68 pairs"),
    (("faces", 0, "points", 3), [1.0, float("nan")], "`points` are not 68 pairs"),
    (("faces", 0, "points"), [[1.0, 2.0]] * 67, "`points` are not 68 pairs"),
    (("faces", 0, "box"), [1, 2, 3], "`box` is not four numbers"),
    (("faces", 0, "score"), "high", "`score` is not a number"),
    (("faces", 0, "score"), 10**400, "`score` is not a number"),
    (("faces", 0, "box"), [10**400, 1, 2, 3], "`box` is not four numbers"),
    (("faces", 0, "sigma"), [1.0], "`sigma` is not 68 numbers"),
    (("faces", 0, "pose"), {"yaw": 1}, "`pose` is not the numbers yaw, pitch, roll"),
    (("faces", 0, "blink"), "no", "`blink` is neither true nor false"),
]


@pytest.mark.parametrize(("place", "value", "message"), WRONG)
def test_a_wrong_value_is_named(
    portrait_faces: Faces, place: tuple[str | int, ...], value: Any, message: str
) -> None:
    record = copy.deepcopy(portrait_faces.at("a.jpg").to_dict())
    assert checked_record(record, "f") is record
    part: Any = record
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    with pytest.raises(FormatError, match=f"^f, line 3: not the record.*{message}"):
        checked_record(record, "f, line 3")


def test_keys_and_schemes_of_later_versions_are_left_alone(portrait_faces: Faces) -> None:
    record = portrait_faces.at("a.jpg").to_dict() | {"license": "CC BY"}
    record["faces"][0] |= {"age": 40}
    assert checked_record(record, "f") == record
    record["scheme"] = "wflw98"
    record["faces"][0]["points"] = [[1.0, 2.0]] * 98
    record["faces"][0]["sigma"] = [1.0] * 98
    assert checked_record(record, "f") == record


def test_the_record_of_a_failed_photograph() -> None:
    record = {"image": "a.jpg", "error": "a.jpg: empty", "faces": []}
    assert error_record("a.jpg", "a.jpg: empty") == checked_record(record, "f") == record


def test_faces_of_one_photograph_have_one_number_of_points() -> None:
    faces = [{"points": [[0.0, 0.0]] * count} for count in (15, 68)]
    assert scheme_of(faces[:1], "f").name == "kaggle15"
    assert scheme_of(faces[1:], "f").name == scheme_of([], "f").name == "ibug68"
    with pytest.raises(FormatError, match="f: faces of 15 and of 68 points"):
        scheme_of(faces, "f")
    with pytest.raises(FormatError, match="f: 3 points on a face, 68 or 15 expected"):
        scheme_of([{"points": [[0.0, 0.0]] * 3}], "f")


def test_names_stay_inside_their_folder() -> None:
    assert inside("/a/../b.jpg") == "a/__/b.jpg"
    assert inside("s3://bucket/./b.jpg") == "s3/bucket/b.jpg"
