"""Jobs on hostile inputs, run as a user runs them."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import zipfile
from pathlib import Path

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
