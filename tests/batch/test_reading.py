"""Reading one photograph."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kpipe.batch import reading
from kpipe.batch.reading import read_content
from kpipe.errors import KpipeError, ReadError


def test_content_comes_with_the_size_and_time_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"content")
    os.utime(path, ns=(0, 123_456_789))
    assert read_content(str(path)) == (b"content", 7, 123_456_789)


def test_what_is_no_file_is_an_error_with_a_reason(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    reasons = {
        "gone": "no such file",
        ".": "a folder, not a picture",
        "pipe": "a pipe or device, not a file",
        "loop": "Too many levels of symbolic links",
    }
    for name, reason in reasons.items():
        with pytest.raises(ReadError, match=reason) as caught:
            read_content(str(tmp_path / name))
        assert isinstance(caught.value, KpipeError) and str(caught.value) == reason
    with pytest.raises(ReadError, match="null"):
        read_content("a\0b")


def test_a_file_that_changes_each_time_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"begin")
    opened: list[int] = []
    true_fstat = os.fstat

    def grow(descriptor: int) -> os.stat_result:
        status = true_fstat(descriptor)
        opened.append(descriptor)
        with path.open("ab") as stream:
            stream.write(b"more")
        return status

    monkeypatch.setattr(reading.os, "fstat", grow)
    with pytest.raises(ReadError, match="changes while it is read"):
        read_content(str(path))
    assert len(opened) == 2 * reading.ATTEMPTS


def test_an_address_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    (tmp_path / "photo.jpg").write_bytes(b"content")
    assert read_content(f"file://{tmp_path}/photo.jpg") == (b"content", 7, 0)
    with pytest.raises(ReadError, match="no such file"):
        read_content(f"file://{tmp_path}/gone.jpg")
    with pytest.raises(ReadError, match="nosuchscheme"):
        read_content("nosuchscheme://x/y.jpg")
