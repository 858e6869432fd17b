"""The published JSON Schema and the rules of the code are the same."""

from __future__ import annotations

import copy
import json
import math
import random
from collections.abc import Callable
from typing import Any

import pytest

from kpipe import Faces
from kpipe.errors import FormatError
from kpipe.formats.records import checked_record, error_record
from kpipe.formats.schema import record_schema, schema_text
from tests.conftest import ROOT
from tests.formats.test_records import WRONG

HARD = [
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        0.5,
        -0.0,
        1e12,
        1e13,
        -1e300,
        2**31 - 1,
        2**31,
        2**63,
        -(2**70),
    ),
    *("", "a", "../x", "a\0b", "x" * 32_769, "ibug68", "kaggle15", "wflw98", "a b", "Ä"),
    *([], [1], [1, 2], [1, 2, 3, 4], [True] * 4, [[1, 2]] * 68, [[1, 2]] * 15, [1.5] * 68, [None]),
    *({}, {"yaw": 1, "pitch": 2, "roll": 3}, {"yaw": 1, "pitch": 2, "roll": "3"}, {"box": []}),
]
"""Values that are put in all places of a record."""

WHOLE = ("width", "height", "frame", "track")


@pytest.fixture(scope="module")
def fits() -> Callable[[Any], bool]:
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft202012Validator.check_schema(record_schema())
    validator = jsonschema.Draft202012Validator(record_schema())
    return lambda record: bool(validator.is_valid(record))


def accepted(record: Any) -> bool:
    try:
        checked_record(record, "f")
    except FormatError as error:
        assert "\n" not in str(error) and len(str(error)) < 300
        return False
    return True


def test_the_published_file_is_the_schema() -> None:
    assert (ROOT / "docs/records.schema.json").read_text() == schema_text()


def test_the_records_of_kpipe_fit(fits: Callable[[Any], bool], portrait_faces: Faces) -> None:
    good = portrait_faces.at("a.jpg").to_dict()
    face = {**good["faces"][0], "track": 3, "blink": True}
    face["openness"] = {"right_eye": 0.3, "left_eye": 0.2, "mouth": 0}
    frame = {**good, "frame": 0, "time": 0.0, "faces": [face]}
    for record in (good, frame, error_record("b.jpg", "b.jpg: empty"), {**good, "later": [1]}):
        assert fits(json.loads(json.dumps(record))) and accepted(record)


def test_what_the_code_refuses_does_not_fit(
    fits: Callable[[Any], bool], portrait_faces: Faces
) -> None:
    for place, value, _ in WRONG:
        if value == "a\ud800.jpg" or (isinstance(value, list) and any(map(_has_nan, value))):
            continue  # JSON Schema has no word for either
        record = _changed(portrait_faces.at("a.jpg").to_dict(), place, value)
        assert not fits(record) and not accepted(record), place


def test_schema_and_code_agree_on_3000_changed_records(
    fits: Callable[[Any], bool], portrait_faces: Faces
) -> None:
    dice = random.Random(17)
    good = portrait_faces.at("a.jpg").to_dict()
    good["faces"] = [dict(good["faces"][0], track=1, blink=False)]
    good["faces"][0]["openness"] = {"right_eye": 0.3, "left_eye": 0.2, "mouth": 0}
    both = {True: 0, False: 0}
    for number in range(3000):
        record = good
        for _ in range(dice.randint(1, 2)):
            place, value = _place(record, dice), dice.choice(HARD)
            # JSON Schema takes 3.0 for a whole number.
            if not (isinstance(value, float) and place[-1] in WHOLE):
                record = _changed(record, place, value)
        verdict = accepted(record)
        assert fits(record) == verdict, f"change {number}: {place} {str(value)[:60]}"
        both[verdict] += 1
    assert min(both.values()) > 100


def _has_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _place(record: dict[str, Any], dice: random.Random) -> tuple[str | int, ...]:
    """Somewhere in a record: an existing key or index, or a known key that it lacks."""
    keys = ["image", "error", "warning", "scheme", "width", "height", "frame", "time", "faces", "x"]
    first = dice.choice(keys)
    faces = record.get("faces")
    if first != "faces" or not isinstance(faces, list) or not faces or dice.random() < 0.2:
        return (first,)
    if not isinstance(faces[0], dict):
        return ("faces", 0)
    name = dice.choice(
        ["box", "score", "points", "sigma", "pose", "track", "openness", "blink", "age"]
    )
    inner = faces[0].get(name)
    if isinstance(inner, list) and inner and dice.random() < 0.5:
        index = dice.randrange(len(inner))
        if isinstance(inner[index], list) and inner[index] and dice.random() < 0.5:
            return ("faces", 0, name, index, 0)
        return ("faces", 0, name, index)
    if isinstance(inner, dict) and inner and dice.random() < 0.5:
        return ("faces", 0, name, dice.choice(list(inner)))
    return ("faces", 0, name)


def _changed(record: dict[str, Any], place: tuple[str | int, ...], value: Any) -> dict[str, Any]:
    record = copy.deepcopy(record)
    part: Any = record
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = copy.deepcopy(value)
    return record
