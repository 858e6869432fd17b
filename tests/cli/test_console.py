"""No text from outside reaches the terminal as it is: not from arguments, files or libraries."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from kpipe import Faces
from kpipe.cli import console
from tests.conftest import Run

HOSTILE = "a\x1b]0;owned\x07\x1b[2J\r\x9b31m\x85\u202egpj\u2066\u200f\u2028b\x7f"
"""Escape sequences, bell, return, C1 controls, bidirectional overrides, a line separator."""


def assert_harmless(done: subprocess.CompletedProcess[bytes]) -> list[str]:
    """The lines of standard error, after a look at all that a terminal would get."""
    for text in (done.stdout.decode(), done.stderr.decode()):
        assert all(line.isprintable() for line in text.split("\n")), text
        assert "Traceback" not in text
    lines = done.stderr.decode().splitlines()
    assert any("owned" in line for line in lines)
    return lines


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ("annotate", "p.jpg", "--no-picture", "--json", "j", "--model", f"{HOSTILE}.onnx"),
        ("annotate", f"{HOSTILE}.jpg", "--no-picture", "--json", "j"),
        ("annotate", "p.jpg", "-o", f"x.{HOSTILE}"),
        ("annotate", "p.jpg", "--no-picture", "--json", "j", "--boxes", f"{HOSTILE}.csv"),
        ("annotate", "p.jpg", "--cascades", HOSTILE),
        ("convert", f"{HOSTILE}.jsonl", "b.csv"),
        ("evaluate", HOSTILE),
        ("kaggle", "report", f"{HOSTILE}.csv", "-o", "r"),
        ("batch", HOSTILE, "-o", "out"),
    ],
)
def test_names_in_messages_are_escaped(kpipe: Run, tmp_path: Path, arguments: tuple[str]) -> None:
    (tmp_path / "p.jpg").touch()
    done = kpipe(*arguments)
    assert done.returncode in (1, 2)
    assert_harmless(done)


@pytest.mark.parametrize(
    "arguments",
    [
        (HOSTILE,),
        ("annotate", f"--{HOSTILE}"),
        ("annotate", "a.jpg", "--tilt", HOSTILE),
        ("annotate", "a.jpg", "--draw", HOSTILE),
        ("annotate", "a.jpg", "--detector", HOSTILE),
        ("convert", "a", "b", HOSTILE),
        ("kaggle", HOSTILE),
        ("video", "a.mp4", "--from", HOSTILE),
    ],
)
def test_arguments_that_wrong_usage_repeats_are_escaped(
    kpipe: Run, arguments: tuple[str, ...]
) -> None:
    done = kpipe(*arguments)
    assert done.returncode == 2
    for text in (done.stdout.decode(), done.stderr.decode()):
        assert all(line.isprintable() for line in text.split("\n")), text
    assert b"Traceback" not in done.stderr


@pytest.mark.slow
def test_names_in_files_are_escaped(kpipe: Run, tmp_path: Path, portrait_faces: Faces) -> None:
    record = portrait_faces.at(f"{HOSTILE}.jpg").to_dict()
    (tmp_path / "twice.jsonl").write_text(f"{json.dumps(record)}\n" * 3)
    (tmp_path / "later.jsonl").write_text(json.dumps({**record, "scheme": "later"}) + "\n")
    coco = {
        "images": [{"id": 1, "file_name": f"{HOSTILE}.jpg"}],
        "annotations": [{"image_id": 1, "keypoints": [1, 1, 2] * 5}],
    }
    (tmp_path / "c.json").write_text(json.dumps(coco))
    (tmp_path / "x.xml").write_text(
        "<dataset><image file='&#x9b;owned&#x202e;'><box left='&#x9b;'><part/></box></image>"
        "</dataset>"
    )
    for arguments in (
        ("twice.jsonl", "points"),
        ("later.jsonl", "a.csv"),
        ("c.json", "b.jsonl"),
        ("x.xml", "b.jsonl"),
    ):
        done = kpipe("convert", *arguments)
        assert done.returncode == 1 and len(assert_harmless(done)) == 1, arguments
    assert_harmless(kpipe("evaluate", "c.json"))


def test_messages_of_a_library_are_escaped(kpipe: Run, tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.table({HOSTILE: [1], "image": [HOSTILE]}), tmp_path / "a.parquet")
    done = kpipe("convert", "a.parquet", "b.jsonl")
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert done.stderr.decode().rstrip("\n").isprintable()


def test_every_way_to_the_terminal_escapes(capsys: pytest.CaptureFixture[str]) -> None:
    text = HOSTILE + "\n[red]x[/red]" + os.fsdecode(b"\xff\xfe") + "\ud800"
    console.say(text)
    console.error(text)
    console.table([text, "n"], [(text, text)])
    console.print_table([text, "n"], [(text, text)])
    taken = capsys.readouterr()
    for stream in (taken.out, taken.err):
        assert stream and all(line.isprintable() for line in stream.split("\n"))
    assert "[red]x[/red]" in taken.err


def test_ordinary_text_is_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    text = "Fotos/größe 照片 é…-😀 [1] × 2.jpg"
    console.say(text)
    assert console.printable(text) == text and capsys.readouterr().err == text + "\n"
