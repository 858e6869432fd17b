from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path

import pytest

from kpipe import IBUG68, Faces
from kpipe.datasets.pts import read_pts
from kpipe.formats import csv as csv_format
from kpipe.formats import jsonl
from kpipe.formats.pts import to_pts


def test_json_is_one_line_and_keeps_any_file_name(portrait_faces: Faces) -> None:
    name = os.fsdecode(b"caf\xe9\n.jpg")
    line = jsonl.to_json(portrait_faces.at(name))
    assert "\n" not in line and line.isascii()
    assert json.loads(line)["image"] == name


def test_json_of_a_failed_photo() -> None:
    assert json.loads(jsonl.error_to_json("a.jpg", "a.jpg: empty")) == {
        "image": "a.jpg",
        "error": "a.jpg: empty",
        "faces": [],
    }


def test_csv_has_a_column_for_every_number(portrait_faces: Faces) -> None:
    text = csv_format.header(IBUG68) + csv_format.rows(portrait_faces.at("a,b.jpg"))
    row = next(csv.DictReader(io.StringIO(text)))
    face = portrait_faces[0]
    assert row["image"] == "a,b.jpg"
    assert float(row["nose_tip_x"]) == pytest.approx(face.points[30, 0], abs=0.006)
    assert float(row["x0"]) == pytest.approx(face.box[0], abs=0.006)
    assert face.pose is not None and float(row["yaw"]) == pytest.approx(face.pose.yaw, abs=0.006)
    assert None not in row and None not in row.values()


def test_pts_counts_pixels_from_one(portrait_faces: Faces, tmp_path: Path) -> None:
    path = tmp_path / "face.pts"
    path.write_text(to_pts(portrait_faces[0]))
    lines = path.read_text().splitlines()
    assert lines[:3] == ["version: 1", "n_points: 68", "{"] and lines[-1] == "}"
    assert float(lines[3].split()[0]) == pytest.approx(portrait_faces[0].points[0, 0] + 1, abs=1e-3)
    assert read_pts(path) == pytest.approx(portrait_faces[0].points, abs=1e-3)
