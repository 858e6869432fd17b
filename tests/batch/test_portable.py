"""Batch jobs on a system without the calls that POSIX, or Linux alone, has."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kpipe.batch.layout import temporary_folder
from tests.cli.test_batch import FAST
from tests.conftest import PATIENCE, ROOT

STRIPPED = """
import ctypes, errno, os, pathlib, signal, sys
for module, names in (
    (os, "O_NONBLOCK O_CLOEXEC O_NOFOLLOW sched_getaffinity setpgid killpg fork sysconf getpgrp"),
    (signal, "pthread_sigmask sigwait"),
    (errno, "EDQUOT"),
):
    for name in names.split():
        if hasattr(module, name):
            delattr(module, name)
sys.modules["resource"] = None
class NoC(ctypes.CDLL):
    def __init__(self, name, *more, **options):
        if name is None:
            raise TypeError("no C library of this name")
        super().__init__(name, *more, **options)
ctypes.CDLL = NoC
read_text = pathlib.Path.read_text
def without_proc(self, *more, **options):
    if str(self).startswith("/proc"):
        raise FileNotFoundError(2, "No such file or directory")
    return read_text(self, *more, **options)
pathlib.Path.read_text = without_proc
"""
"""What every process runs before anything else."""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    folder = tmp_path / "stripped"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(STRIPPED)
    return {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}


@pytest.mark.slow
def test_a_job_runs_without_the_calls_of_posix(
    small_photo: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    (tmp_path / "photos").mkdir()
    small_photo.rename(tmp_path / "photos/a.jpg")
    shutil.make_archive(str(tmp_path / "all"), "gztar", tmp_path / "photos")
    command = [sys.executable, "-m", "kpipe", "batch", "photos", "all.tar.gz", "-o", "out"]
    done = subprocess.run(
        [*command, "--render", "--crops", "aligned", "--sheet", "--format", "jsonl,csv,coco,pts"]
        + list(FAST),
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = map(json.loads, (tmp_path / "out/faces.jsonl").read_text().splitlines())
    assert {line["image"]: len(line["faces"]) for line in lines} == {
        "photos/a.jpg": 1, "all.tar.gz/a.jpg": 1
    }  # fmt: skip
    assert list(temporary_folder(tmp_path / "out").iterdir()) == []


@pytest.mark.slow
def test_the_parts_of_a_job_pass_their_tests_without_the_calls_of_posix(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    names = ("archives", "journal", "layout", "reading", "sources", "job")
    modules = [str(ROOT / f"tests/batch/test_{name}.py") for name in names]
    # A pipe can only be opened without waiting where there is O_NONBLOCK; the other is slow.
    without = "not what_is_no_file and not bits_lost"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", without]
        + [str(ROOT / "tests/utils/test_files.py"), *modules, f"--basetemp={tmp_path / 'inner'}"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:]
