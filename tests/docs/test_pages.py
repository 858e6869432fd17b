"""What the pages of the documentation show, run as a reader would run it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.main import get_command

from kpipe.cli import app
from tests.conftest import EXAMPLES, GROUP, ROOT
from tests.docs.pages import DOCS, PAGES, Block, blocks, calls

PATIENCE = 900
"""Seconds after which a block is given up."""

SLOW = [page for page in PAGES if any(block.note == "slow" for block in blocks(DOCS / page))]
RUNNING = [page for page in PAGES if any(b.runs and not b.note for b in blocks(DOCS / page))]


@pytest.fixture
def reader(tmp_path: Path, small_photo: Path, labeled: Path) -> Path:
    """A reader's folder, with files of the names that the pages use."""
    films = pytest.importorskip("tests.films", reason="videos need their extra")
    folder = tmp_path / "reader"
    folder.mkdir()
    small_photo.rename(folder / "photo.jpg")
    labeled.rename(folder / "labeled")
    shutil.copy(GROUP, folder)
    shutil.copytree(EXAMPLES / "portraits", folder / "photos")
    with zipfile.ZipFile(folder / "photos.zip", "w") as archive:
        archive.write(folder / "photo.jpg", "scans/photo.jpg")
    (folder / "list.txt").write_text("photo.jpg\n")
    (folder / "boxes.csv").write_text("image,x0,y0,x1,y1\nphoto.jpg,60,20,185,150\n")
    (folder / "empty").mkdir()
    slope = np.linspace(0, 255, 320).astype(np.uint8)
    Image.fromarray(np.tile(slope, (240, 1))).save(folder / "empty" / "slope.png")
    films.write_film(folder / "clip.mp4", films.pictures(20))

    programs = tmp_path / "programs"
    programs.mkdir()
    kpipe = programs / "kpipe"
    kpipe.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m kpipe "$@"\n')
    kpipe.chmod(0o755)
    return folder


def run(page: str, folder: Path, notes: tuple[str, ...]) -> None:
    """The blocks of a page, one after the other; those of Python share their names."""
    names: dict[str, Any] = {"__name__": page}
    path = os.pathsep.join([str(folder.parent / "programs"), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    for block in blocks(DOCS / page):
        if not block.runs or block.note not in notes:
            continue
        if block.language == "python":
            code = "\n" * (block.line - 1) + block.code
            with warnings.catch_warnings():
                warnings.simplefilter("error", DeprecationWarning)
                exec(compile(code, DOCS / page, "exec"), names)
            continue
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block.code],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        where = f"{page}, line {block.line}: exit code {done.returncode}"
        assert done.returncode == 0, f"{where}\n{done.stderr}"


@pytest.mark.slow
@pytest.mark.parametrize("page", RUNNING)
def test_what_a_page_shows_runs(page: str, reader: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(reader)
    run(page, reader, ("",))


@pytest.mark.slow
@pytest.mark.parametrize("page", SLOW)
def test_what_takes_longer_on_a_page_runs_too(
    page: str, reader: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("torch", "onnx", "matplotlib"):
        pytest.importorskip(package)
    monkeypatch.chdir(reader)
    run(page, reader, ("", "slow"))


@pytest.mark.parametrize("page", PAGES)
def test_each_block_has_a_language_and_what_does_not_run_says_why(page: str) -> None:
    for block in blocks(DOCS / page):
        assert block.language in ("sh", "python", "json", "text"), f"{page}, line {block.line}"
        if block.note not in ("", "slow"):
            reason = block.note.removeprefix("not run: ")
            assert reason != block.note, f"{page}, line {block.line}: what is {block.note!r}?"
            assert len(reason.split()) >= 3, f"{page}, line {block.line}: no reason"


@pytest.mark.slow
@pytest.mark.parametrize("page", [*PAGES, "../README.md", "../CONTRIBUTING.md"])
def test_every_command_of_a_page_has_the_options_it_is_given(page: str) -> None:
    for block in blocks(DOCS / page):
        if block.language == "sh":
            for words in calls(block):
                check(words, f"{page}, line {block.line}: kpipe {' '.join(words)}")


def check(words: list[str], where: str) -> None:
    """Whether the command exists and has those options, be it run here or not."""
    command: Any = get_command(app)
    rest = list(words)
    while hasattr(command, "commands"):
        assert rest and rest[0] in command.commands, f"{where}: no such command"
        command = command.commands[rest.pop(0)]
    known = {"-h", "--help"}.union(
        *(each.opts for each in command.params if not getattr(each, "hidden", False))
    )
    for word in rest:
        if word.startswith("-") and word != "-":
            assert word in known, f"{where}: no option {word}"


def test_a_wrong_command_or_option_on_a_page_is_noticed() -> None:
    block = Block("sh", "", "cat a | kpipe annotate - --json - > b  # --nothing\n", 1)
    assert list(calls(block)) == [["annotate", "-", "--json", "-"]]
    check(["annotate", "-", "--json", "-"], "here")
    for wrong in (["anotate", "a.jpg"], ["annotate", "a.jpg", "--jason", "-"], ["kaggle", "mke"]):
        with pytest.raises(AssertionError, match="here: no "):
            check(wrong, "here")
