"""Jobs on hostile inputs, run as a user runs them."""

from __future__ import annotations

import csv
import gzip
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from kpipe.batch.layout import temporary_folder
from tests.batch.test_archives import FILE, LAST, header, padded, pax
from tests.cli.test_batch import FAST, linux
from tests.conftest import PATIENCE

MEASURED = """
import atexit, sys
from pathlib import Path
def peak():
    status = Path("/proc/self/status").read_text()
    print(status.partition("VmHWM:")[2].split()[0])
if __name__ == "__main__":
    from kpipe.cli import app
    atexit.register(peak)
    app()
"""
"""The program; at its end it prints the most memory (KiB) that this process, the parent, had.

`ru_maxrss` would be that of the process that started it, if that is larger.
"""

FLAT = 160 << 10
"""KiB. A job on ten photographs in a folder takes half of it."""


def measured(folder: Path, *arguments: object) -> tuple[str, int]:
    """Runs `kpipe batch`. Returns what it says and its peak memory (KiB)."""
    (folder / "measured.py").write_text(MEASURED)
    command = [sys.executable, "measured.py", "batch", *map(str, arguments), *FAST]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode in (0, 1), done.stderr
    return done.stderr, int(done.stdout)


def names(out: Path, errors: bool) -> set[str]:
    """Of the photographs with or without an error."""
    lines = map(json.loads, (out / "faces.jsonl").read_text().splitlines())
    return {line["image"] for line in lines if ("error" in line) == errors}


def zeros(stream: gzip.GzipFile, size: int) -> None:
    for _ in range(size >> 20):
        stream.write(bytes(1 << 20))


@pytest.mark.slow
@linux
def test_members_and_headers_of_any_size_take_no_memory(tmp_path: Path, small_photo: Path) -> None:
    jpeg = small_photo.read_bytes()
    good = header("good.jpg", size=b"%011o" % len(jpeg)) + padded(jpeg)
    huge = b"%011o" % (3 << 30)
    with (tmp_path / "sparse.tar").open("wb") as stream:
        stream.write(good + header("huge.jpg", size=huge))
        stream.seek(3 << 30, 1)
        stream.write(LAST)
    old = bytearray(header("old.jpg", b"S", b"%011o" % 512))
    old[386:410] = b"%011o\0%011o\0" % ((3 << 30) - 512, 512)
    old[483:495] = b"%011o\0" % (3 << 30)
    old[148:156] = b" " * 8
    old[148:156] = b"%06o\0 " % sum(old)
    (tmp_path / "holes.tar").write_bytes(bytes(old) + bytes(512) + good + bytes(1024))
    with gzip.open(tmp_path / "name.tar.gz", "wb", 1) as packed:
        packed.write(good + header("long", b"L", b"%011o" % (1 << 30)))
        zeros(packed, 1 << 30)
        packed.write(FILE + LAST)
    with gzip.open(tmp_path / "content.tgz", "wb", 1) as packed:
        packed.write(header("huge.jpg", size=b"%011o" % (1 << 29)))
        zeros(packed, 1 << 29)
        packed.write(good + bytes(1024))
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as z:
        with z.open("bomb.jpg", "w", force_zip64=True) as member:
            for _ in range(700):
                member.write(bytes(1 << 20))
        z.write(small_photo, "good.jpg")
    archives = ("sparse.tar", "holes.tar", "name.tar.gz", "content.tgz", "bomb.zip")
    said, peak = measured(tmp_path, *archives, "-o", "out", "--size-limit", 0.5)
    assert peak < FLAT, said
    assert names(tmp_path / "out", errors=False) == {f"{name}/good.jpg" for name in archives}
    assert "sparse.tar/huge.jpg: larger than 0.5 GB (--size-limit)" in said
    assert "bomb.zip/bomb.jpg: larger than 0.5 GB (--size-limit)" in said
    assert "holes.tar/old.jpg: a sparse file inside the archive" in said
    assert "name.tar.gz: a member's name takes more than 1 MiB" in said
    assert "content.tgz/huge.jpg: " in said
    assert list(temporary_folder(tmp_path / "out").iterdir()) == []


@pytest.mark.slow
def test_odd_values_and_names_in_archives_cost_no_run(tmp_path: Path, small_photo: Path) -> None:
    jpeg = small_photo.read_bytes()
    content = header("0.jpg", size=b"%011o" % len(jpeg)) + padded(jpeg)
    odd = (
        pax(mtime=b"nan"), pax(mtime=b"inf"), pax(mtime=b"1e400"), pax(mtime=b"-1"),
        pax(path=b"nul\0.jpg"), pax(path=b"/absolute.jpg"), pax(path=b"../../up.jpg"),
        pax(path=b"same.jpg"), pax(path=b"same.jpg"), pax(path="樹".encode() * 80 + b".jpg"),
    )  # fmt: skip
    plain = b"".join(extended + content for extended in odd) + bytes(1024)
    (tmp_path / "odd.tar").write_bytes(plain)
    (tmp_path / "odd.tgz").write_bytes(gzip.compress(plain))
    with zipfile.ZipFile(tmp_path / "odd.zip", "w") as archive:
        for name in ("same.jpg", "same.jpg", "/absolute.jpg", "../../up.jpg", "nul.jpg"):
            archive.write(small_photo, name)
    directory = bytearray((tmp_path / "odd.zip").read_bytes())
    # Month 15, day 31 at 31:63:62; and a NUL in a name.
    for place in range(len(directory)):
        if directory[place : place + 4] == b"PK\1\2":
            directory[place + 12 : place + 16] = b"\xff" * 4
    (tmp_path / "odd.zip").write_bytes(directory.replace(b"nul.jpg", b"\0ul.jpg"))
    (tmp_path / "list.txt").write_bytes(b"photo.jpg\n" * 7000 + b"a\0b.jpg\n")
    inputs = ("odd.tar", "odd.tgz", "odd.zip", "list.txt")
    arguments = (*inputs, "-o", "out", "--render", "--crops", "square", "--format", "jsonl,csv,pts")
    said, _ = measured(tmp_path, *arguments)
    tree = "樹" * 80
    members = (
        "0.jpg",
        "nul\ufffd.jpg",
        "//absolute.jpg",
        "../../up.jpg",
        "same.jpg",
        f"{tree}.jpg",
    )
    expected = {f"odd.{kind}/{name}" for kind in ("tar", "tgz") for name in members}
    assert names(tmp_path / "out", errors=False) >= {n.replace("//", "/") for n in expected}
    assert names(tmp_path / "out", errors=True) == {"a\ufffdb.jpg"}
    assert (tmp_path / f"out/annotated/odd.tar/{tree}.jpg").is_file()
    # Neither the first run nor a later one, which removes what is gone, fails.
    (tmp_path / "odd.tar").write_bytes(pax(path=b"nul\0.jpg") + content + bytes(1024))
    said, _ = measured(tmp_path, *inputs[:3], "-o", "out", "--render")
    said, _ = measured(tmp_path, *inputs[:3], "-o", "out", "--render")
    assert " 0 done now" in said


def digest(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.slow
def test_files_of_the_user_are_never_replaced(tmp_path: Path, small_photo: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    small_photo.rename(photos / "a.jpg")
    before = digest(photos)
    measured(tmp_path, "photos", "-o", "out")
    out = tmp_path / "out"
    (out / "annotated").symlink_to(photos)
    said, _ = measured(tmp_path, "photos", "-o", "out", "--render")
    assert "out/annotated: exists and is no result of kpipe batch" in said
    (out / "annotated").unlink()
    for name, option in (
        ("sheet.jpg", ("--sheet",)),
        ("faces.parquet", ("--format", "parquet")),
        ("faces.csv", ("--format", "csv")),
        ("faces.json", ("--format", "coco")),
    ):
        (out / name).write_text("precious")
        said, _ = measured(tmp_path, "photos", "-o", "out", *option)
        assert f"out/{name}: exists and is no result of kpipe batch; move it away" in said
        assert (out / name).read_text() == "precious"
    (out / "pts").mkdir()
    (out / "pts/mine.pts").write_text("precious")
    said, _ = measured(tmp_path, "photos", "-o", "out", "--format", "pts")
    assert "out/pts: exists" in said and (out / "pts/mine.pts").read_text() == "precious"
    assert digest(photos) == before


@pytest.mark.slow
def test_a_link_among_the_pictures_costs_the_picture(tmp_path: Path, small_photo: Path) -> None:
    photos = tmp_path / "photos/deep"
    photos.mkdir(parents=True)
    small_photo.rename(photos / "a.jpg")
    before = digest(photos)
    measured(tmp_path, "photos", "-o", "out")
    out = tmp_path / "out"
    (out / "crops").mkdir()
    measured(tmp_path, "photos", "-o", "other", "--render")
    shutil.rmtree(tmp_path / "other/annotated/deep")
    (tmp_path / "other/annotated/deep").symlink_to(photos)
    # Done again with other options, and then gone: neither touches what lies behind the link.
    said, _ = measured(tmp_path, "photos", "-o", "other", "--render", "--min-score", 0.5)
    assert "deep/a.jpg: its annotated picture: not written, because a folder in its path" in said
    assert digest(photos) == before
    assert len(json.loads((tmp_path / "other/faces.jsonl").read_text())["faces"]) == 1
    (photos / "a.jpg").rename(photos / "b.jpg")
    shutil.copy(photos / "b.jpg", tmp_path / "photos/c.jpg")
    (photos / "a.jpg").write_text("precious")
    said, _ = measured(tmp_path, "photos", "-o", "other", "--render", "--exclude", "a.jpg")
    said, _ = measured(tmp_path, "photos", "-o", "other", "--render", "--exclude", "a.jpg")
    assert (photos / "a.jpg").read_text() == "precious"


@pytest.mark.slow
def test_a_picture_that_cannot_be_written_costs_the_picture(
    tmp_path: Path, small_photo: Path
) -> None:
    (tmp_path / "photos").mkdir()
    longest = "a" * 251 + ".jpg"
    tree = "樹" * 80 + ".jpg"
    for name in (longest, tree):
        shutil.copy(small_photo, tmp_path / "photos" / name)
    arguments = ("photos", "-o", "out", "--render", "--crops", "square")
    said, _ = measured(tmp_path, *arguments)
    out = tmp_path / "out"
    reason = f"{longest}: its crop 1: cannot be written (File name too long)"
    assert reason in said.replace("\n", "")
    found = {r["image"]: r for r in map(json.loads, (out / "faces.jsonl").read_text().splitlines())}
    assert [len(found[name]["faces"]) for name in (longest, tree)] == [1, 1]
    assert "File name too long" in found[longest]["warning"] and "warning" not in found[tree]
    with (out / "errors.csv").open() as stream:
        assert [row["image"] for row in csv.DictReader(stream)] == [longest]
    assert (out / "annotated" / longest).is_file() and (out / "annotated" / tree).is_file()
    assert [p.name for p in (out / "crops").iterdir()] == [f"{tree}_1.jpg"]
    assert list(temporary_folder(out).iterdir()) == []
    again = subprocess.run(
        [sys.executable, "-m", "kpipe", "batch", *arguments, *FAST], cwd=tmp_path, check=False
    )
    assert again.returncode == 1
