"""What holds for every format."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kpipe import Faces
from kpipe.errors import FormatError
from kpipe.formats import FORMATS, format_of, load_format
from kpipe.structures.schemes import KAGGLE15


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_imports_no_other(name: str) -> None:
    if name == "parquet":
        pytest.importorskip("pyarrow")
    code = (
        f"import sys, kpipe.formats.{name}\n"
        "print(*sorted(m for m in sys.modules if m.startswith('kpipe.formats.')))\n"
        "print(*(m for m in sys.modules if m.startswith('kpipe.datasets')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    formats, datasets = done.stdout.split("\n")[:2]
    assert formats.split() == sorted([f"kpipe.formats.{name}", "kpipe.formats.records"])
    assert datasets == ""


@pytest.mark.parametrize("name", ["csv", "coco", "parquet", "jsonl", "dlib"])
def test_no_photographs(tmp_path: Path, name: str) -> None:
    if name == "parquet":
        pytest.importorskip("pyarrow")
    assert load_format(name).write(tmp_path / "none", []) == {}
    assert list(load_format(name).read(tmp_path / "none")) == []


@pytest.mark.parametrize("name", ["csv", "coco", "parquet", "jsonl"])
def test_points_of_kaggle_come_back_though_the_first_photograph_failed(
    tmp_path: Path, portrait_faces: Faces, name: str
) -> None:
    if name == "parquet":
        pytest.importorskip("pyarrow")
    records: list[dict[str, Any]] = [
        {"image": "bad.jpg", "error": "bad.jpg: empty", "faces": []},
        portrait_faces.to_scheme(KAGGLE15).at("a.jpg").to_dict(),
    ]
    load_format(name).write(tmp_path / "f", records)
    assert list(load_format(name).read(tmp_path / "f")) == records


def test_dlib_of_kaggle_begins_with_a_photograph_without_a_face(
    tmp_path: Path, portrait_faces: Faces
) -> None:
    record = portrait_faces.to_scheme(KAGGLE15).at("a.jpg").to_dict()
    load_format("dlib").write(tmp_path / "f", [{**record, "faces": []}, record])
    found = list(load_format("dlib").read(tmp_path / "f"))
    assert [r["scheme"] for r in found] == ["kaggle15", "kaggle15"]


@pytest.mark.parametrize("name", ["csv", "coco"])
def test_an_unknown_scheme_is_named(tmp_path: Path, portrait_faces: Faces, name: str) -> None:
    record = {**portrait_faces.at("a.jpg").to_dict(), "scheme": "wflw98"}
    with pytest.raises(FormatError, match=r"a\.jpg: unknown scheme 'wflw98'; choose one of ibug68"):
        load_format(name).write(tmp_path / "f", [record])
    assert list(tmp_path.iterdir()) == []


def test_endings_say_the_format(tmp_path: Path) -> None:
    for name, endings in FORMATS.items():
        for ending in endings:
            assert format_of(tmp_path / f"a{ending.upper()}", new=True) == name
    (tmp_path / "shards.parquet").mkdir()
    assert format_of(tmp_path / "shards.parquet") == "parquet"
    assert format_of(tmp_path) == "pts"
    with pytest.raises(FormatError, match=r"a\.xlsx: unknown format '\.xlsx'; choose one of"):
        format_of(tmp_path / "a.xlsx")
    with pytest.raises(FormatError, match=r"unknown format 'word'; choose one of jsonl, csv"):
        load_format("word")
