"""Photographs in zip and tar archives."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path

import pytest

from kpipe.batch import archives
from kpipe.batch.archives import is_archive, open_archive
from kpipe.errors import ReadError, SourceError


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(b"first")
    (folder / "b.jpg").write_bytes(b"second one")
    (folder / "c.jpg").symlink_to("a.jpg")
    return folder


def test_members_of_a_zip_have_their_check_sum_as_time(tree: Path) -> None:
    path = tree / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.mkdir("p") if hasattr(archive, "mkdir") else None
        archive.write(tree / "a.jpg", "p/a.jpg")
        archive.write(tree / "b.jpg", "b.jpg")
        sums = [info.CRC for info in archive.infolist() if not info.is_dir()]
    with open_archive(str(path)) as members:
        found = [(m.name, m.size, m.mtime, m.read()) for m in members]
    assert found == [("p/a.jpg", 5, sums[0], b"first"), ("b.jpg", 10, sums[1], b"second one")]


@pytest.mark.parametrize("ending", ["tar", "tar.gz", "tbz2", "tar.xz"])
def test_members_of_a_tar_are_its_files_and_links(tree: Path, ending: str) -> None:
    path = tree / f"x.{ending}"
    kind = {"tar": "w", "tar.gz": "w:gz", "tbz2": "w:bz2", "tar.xz": "w:xz"}[ending]
    with tarfile.open(path, kind) as archive:
        for name in ("a.jpg", "b.jpg", "c.jpg"):
            archive.add(tree / name, name)
        archive.add(tree, "empty", recursive=False)
    with open_archive(str(path)) as members:
        found = {member.name: member for member in members if member.name == "a.jpg"}
    assert found["a.jpg"].size == 5
    with open_archive(str(path)) as members:
        contents = []
        for member in members:
            try:
                contents.append((member.name, member.read()))
            except ReadError as error:
                contents.append((member.name, str(error)))
    assert contents == [
        ("a.jpg", b"first"),
        ("b.jpg", b"second one"),
        ("c.jpg", "a link inside the archive, not a file"),
    ]


@pytest.mark.parametrize("name", ["x.zip", "x.tar.gz", "x.tar"])
def test_what_is_no_archive_is_one_error(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"no archive " * 100)
    with (
        pytest.raises(SourceError, match=f"{name}: not a readable archive"),
        open_archive(str(tmp_path / name)) as members,
    ):
        list(members)


def test_a_cut_tar_gives_its_first_members_then_an_error(tree: Path) -> None:
    path = tree / "x.tar"
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        archive.add(tree / "a.jpg", "a.jpg")
        archive.add(tree / "b.jpg", "b.jpg")
    # A block of header and one of content each: the content of b.jpg is cut.
    path.write_bytes(path.read_bytes()[: 3 * 512 + 4])
    contents: list[bytes] = []
    with (
        pytest.raises(SourceError, match="not a readable archive"),
        open_archive(str(path)) as members,
    ):
        contents.append(next(members).read())
        with pytest.raises(ReadError, match="cannot be taken from the archive"):
            next(members).read()
        next(members)
    assert contents == [b"first"]


def test_a_member_larger_than_the_limit_is_not_read(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "LARGEST_MEMBER", 7)
    path = tree / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(tree / "a.jpg", "a.jpg")
        archive.write(tree / "b.jpg", "b.jpg")
    with open_archive(str(path)) as members:
        assert next(members).read() == b"first"
        with pytest.raises(ReadError, match="larger than 1 GiB"):
            next(members).read()


def test_archives_are_recognized_by_name() -> None:
    assert is_archive("x.ZIP") and is_archive("a.tar.xz") and not is_archive("tar.jpg")
