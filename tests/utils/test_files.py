"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from pathlib import Path

import pytest

from kpipe.errors import WriteError
from kpipe.utils import files
from kpipe.utils.files import STALE, atomic_file, remove_stale, temporary_beside, write_file


def aged(path: Path, seconds: float) -> Path:
    path.write_bytes(b"half")
    now = path.stat().st_mtime
    os.utime(path, (now - seconds, now - seconds))
    return path


def test_a_temporary_name_is_new_short_and_cannot_be_guessed(tmp_path: Path) -> None:
    path = tmp_path / ("樹" * 80 + ".MP4")
    first, second = temporary_beside(path), temporary_beside(path)
    assert first != second and first.parent == tmp_path and first.suffix == ".mp4"
    assert len(os.fsencode(first.name)) < 60
    write_file(tmp_path / ("樹" * 83), b"content")
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"content"]


def test_a_link_in_the_place_of_the_temporary_file_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "precious").write_text("precious")
    monkeypatch.setattr(secrets, "token_hex", lambda _: "guessed")
    link = temporary_beside(tmp_path / "a")
    link.symlink_to("precious")
    with pytest.raises(WriteError, match="a: cannot be written"):
        write_file(tmp_path / "a", b"content")
    assert link.is_symlink() and (tmp_path / "precious").read_text() == "precious"


def test_a_name_that_no_file_can_have_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(WriteError, match="a NUL character in its name"):
        write_file(tmp_path / "a\0b", b"")
    with pytest.raises(WriteError, match="File name too long"):
        write_file(tmp_path / ("a" * 256), b"")
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_whoever_writes_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"before")
    with pytest.raises(ValueError, match="mine"), atomic_file(tmp_path / "a"):
        raise ValueError("mine")
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"before"]


def test_what_killed_processes_have_left_is_removed_after_a_day(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    gone, alive = ended.pid, os.getpid()
    left = [
        f".kpipe-{gone}-0123",
        f".kpipe-{gone}.mp4",
        f".kpipe-{gone}",
        ".kpipe-0123456789abcdef.mkv",
    ]
    for name in left:
        aged(tmp_path / name, STALE + 60)
    kept = [
        aged(tmp_path / f".kpipe-{alive}-0123", STALE + 60),
        aged(tmp_path / f".kpipe-{gone}-new", STALE - 600),
        aged(tmp_path / ".kpipe-mine", STALE + 60),
        aged(tmp_path / "mine", STALE + 60),
    ]
    (tmp_path / f".kpipe-{gone}-folder").mkdir()
    remove_stale.cache_clear()
    write_file(tmp_path / "result", b"")
    assert {p.name for p in tmp_path.iterdir()} == {
        *(p.name for p in kept), "result", f".kpipe-{gone}-folder"
    }  # fmt: skip


KILLED = """
import os, signal, sys
from pathlib import Path
from kpipe.utils.files import atomic_file
with atomic_file(Path(sys.argv[1]), "wb") as stream:
    stream.write(b"half")
    stream.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_process_leaves_a_file_that_is_recognized(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED, tmp_path / "result"], check=False)
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(files.PREFIX)
    aged(left, STALE + 60)
    remove_stale.cache_clear()
    write_file(tmp_path / "result", b"whole")
    assert [p.name for p in tmp_path.iterdir()] == ["result"]
