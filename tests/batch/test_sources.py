"""What a job reads: scanning inputs, selecting files, reading lists."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import pytest

from kpipe.batch.layout import JOURNAL
from kpipe.batch.sources import BOM, Scan, is_list, read_names
from kpipe.batch.types import InputPhoto, Selection
from kpipe.errors import SourceError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder `in` with a few (empty) files, in the current directory."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.jpg", "b/c.PNG", "b/notes.md", "b/._c.png"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"12345")
    return tmp_path / "in"


def scan(*inputs: str, selection: Selection | None = None) -> tuple[list[InputPhoto], Scan]:
    def fail(name: str, reason: str) -> None:
        raise AssertionError(f"{name}: {reason}")

    found = Scan(inputs, selection or Selection(), Path("out"), fail)
    return sorted(found), found


def test_names_are_short_with_one_input_and_as_given_with_several(folder: Path) -> None:
    photos, found = scan("in")
    assert [photo.name for photo in photos] == ["a.jpg", "b/c.PNG"]
    assert found.skipped == 2
    (folder.parent / "more.jpg").touch()
    assert [p.name for p in scan("./in", "more.jpg")[0]] == ["in/a.jpg", "in/b/c.PNG", "more.jpg"]


def test_a_photo_has_its_size_and_time(folder: Path) -> None:
    os.utime(folder / "a.jpg", ns=(0, 1_500_000_000_123_456_789))
    photo = scan("in")[0][0]
    assert photo == InputPhoto("a.jpg", "in/a.jpg", None, 5, 1_500_000_000_123_456_789)


def test_results_of_another_job_in_the_folder_are_skipped_whole(folder: Path) -> None:
    for name in (f"b/{JOURNAL}", "b/annotated/c.png", "b/sheet.jpg", "annotated/mine.jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    assert [p.name for p in scan("in")[0]] == ["a.jpg", "annotated/mine.jpg", "b/c.PNG"]


def test_members_of_an_archive_have_the_names_of_files(folder: Path) -> None:
    with zipfile.ZipFile("all.zip", "w") as archive:
        archive.writestr("./x//a.jpg", b"12345")
        archive.write("in/b/notes.md", "notes.md")
    photos, found = scan("all.zip")
    assert [(p.name, p.member, p.size) for p in photos] == [("x/a.jpg", "./x//a.jpg", 5)]
    assert found.skipped == 1
    assert [p.name for p in scan("all.zip", "in/a.jpg")[0]] == ["all.zip/x/a.jpg", "in/a.jpg"]


def test_a_list_may_name_folders_and_missing_files(folder: Path) -> None:
    Path("list.txt").write_text("in/b\nin/a.jpg\nmissing.jpg\n")
    photos, _ = scan("list.txt")
    assert [photo.name for photo in photos] == ["in/a.jpg", "in/b/c.PNG", "missing.jpg"]
    assert (photos[2].size, photos[2].mtime) == (-1, 0)


@pytest.mark.parametrize(
    ("name", "message"),
    [("gone", "gone: no such folder"), ("no*thing", "no\\*thing: nothing matches this pattern")],
)
def test_a_missing_input_is_an_error_before_anything_is_scanned(name: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        Scan([name], Selection(), Path("out"), lambda *_: None)


@pytest.mark.parametrize("content", [b"a\nb", b"a\0b", b"a\nb\n", b"a\0b\0", BOM + b"a\r\nb"])
def test_a_short_list_is_read_whole(content: bytes) -> None:
    assert list(read_names(io.BytesIO(content))) == [b"a", b"b"]


def test_a_long_list_is_read_whole() -> None:
    names = [b"%06d.jpg" % number for number in range(20_000)]
    for end in (b"\n", b"\r\n", b"\0"):
        assert list(read_names(io.BytesIO(end.join(names)))) == names
    # With zero bytes as separators a line end is part of a name.
    assert list(read_names(io.BytesIO(b"a\nb\0c\0"))) == [b"a\nb", b"c"]


def test_lists_are_recognized_by_name() -> None:
    assert is_list("-") and is_list("photos.TXT") and not is_list("photos.jpg")


@pytest.mark.parametrize(
    ("name", "include", "exclude", "chosen", "expected"),
    [
        ("a/b.jpg", (), (), False, True),
        ("a/b.md", (), (), False, False),
        ("a/b.md", (), (), True, True),
        ("a/._b.jpg", (), (), False, False),
        ("a/b.md", ("*.md",), (), False, True),
        ("a/b.jpg", ("*.md",), (), True, False),
        ("a/b/c.jpg", ("a/*.jpg",), (), False, True),
        ("a/b.jpg", (), ("a",), False, False),
        ("a/b.jpg", (), ("b*",), True, False),
        ("a/b/c.jpg", (), ("a/b/",), False, False),
        ("a/bb/c.jpg", (), ("a/b",), False, True),
    ],
)
def test_selection(
    name: str, include: tuple[str, ...], exclude: tuple[str, ...], chosen: bool, expected: bool
) -> None:
    assert Selection(include, exclude).includes(name, chosen) is expected
