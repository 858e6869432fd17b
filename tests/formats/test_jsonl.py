from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from kpipe import Faces
from kpipe.errors import FormatError
from kpipe.formats import jsonl
from kpipe.formats.records import error_record


def test_json_is_one_line_and_keeps_any_file_name(portrait_faces: Faces) -> None:
    name = os.fsdecode(b"caf\xe9\n.jpg")
    line = jsonl.to_json(portrait_faces.at(name).to_dict())
    assert "\n" not in line and line.isascii()
    assert json.loads(line)["image"] == name


def test_json_of_a_failed_photo() -> None:
    assert json.loads(jsonl.to_json(error_record("a.jpg", "a.jpg: empty"))) == {
        "image": "a.jpg",
        "error": "a.jpg: empty",
        "faces": [],
    }


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"\xff", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[1]", "not an object"),
        (b'{"image": "a", "faces": [{}]}', "face 1: no list as `points`"),
    ],
)
def test_a_line_that_is_no_record_is_named_by_its_number(
    tmp_path: Path, line: bytes, reason: str
) -> None:
    path = tmp_path / "f.jsonl"
    path.write_bytes(b'{"image": "a.jpg", "faces": []}\n\n' + line + b"\n")
    records = jsonl.read(path)
    assert next(records)["image"] == "a.jpg"
    with pytest.raises(FormatError, match=r"f\.jsonl, line 3: not the record of a photograph") as e:
        next(records)
    assert reason in str(e.value) and "\n" not in str(e.value)
