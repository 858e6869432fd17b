"""Photographs in zip and tar archives."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import tarfile
import zipfile
from pathlib import Path
from random import Random

import pytest

from kpipe.batch import archives
from kpipe.batch.archives import is_archive, open_archive, read_member
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


def test_a_member_larger_than_the_limit_is_not_read(tree: Path) -> None:
    path = tree / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(tree / "a.jpg", "a.jpg")
        archive.write(tree / "b.jpg", "b.jpg")
    with open_archive(str(path)) as members:
        assert next(members).read(largest=7) == b"first"
        second = next(members)
        with pytest.raises(ReadError, match=r"larger than .* GB \(--size-limit\)"):
            second.read(largest=7)
        with pytest.raises(ReadError, match="larger than"):
            second.save(tree, largest=7)
    with pytest.raises(ReadError, match="larger than 1 GB"):
        read_member(str(path), 0, 2**30 + 1, 0)


def test_a_member_is_read_at_its_place(tree: Path) -> None:
    methods = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    contents = {f"{k}.jpg": bytes(range(256)) * 700 * k for k in range(4)}
    with zipfile.ZipFile(tree / "x.zip", "w") as archive:
        for (name, content), method in zip(contents.items(), methods):
            archive.writestr(name, content, method)
    # Written to a pipe, sizes follow the content.
    with Pipe(tree / "y.zip") as pipe, zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    with tarfile.open(tree / "x.tar", "w") as tar:
        for name, content in contents.items():
            tar.addfile(info(name, len(content)), io.BytesIO(content))
    for archive_name in ("x.zip", "y.zip", "x.tar"):
        path = str(tree / archive_name)
        with open_archive(path) as members:
            places = {m.name: (m.offset, m.size, m.mtime) for m in members}
        assert {name: read_member(path, *places[name]) for name in places} == contents
        # What lies there now is something else.
        offset, size, mtime = places["2.jpg"]
        (tree / archive_name).write_bytes((tree / archive_name).read_bytes()[: offset + 20])
        with pytest.raises(ReadError, match="cannot be taken from the archive"):
            read_member(path, offset, size, mtime)


class Pipe:
    """A file that can only be written on."""

    def __init__(self, path: Path) -> None:
        self._stream = path.open("wb")

    def __enter__(self) -> Pipe:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def write(self, content: bytes) -> int:
        return self._stream.write(content)

    def flush(self) -> None:
        self._stream.flush()


def info(name: str, size: int = 0, **values: object) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size = size
    for key, value in values.items():
        setattr(entry, key, value)
    return entry


def header(
    name: str, kind: bytes = b"0", size: bytes = b"00000000005", mtime: bytes = b"7"
) -> bytes:
    """A header of a tar archive with any values, and the right check sum."""
    block = bytearray(info(name).tobuf(tarfile.USTAR_FORMAT))
    block[124:136] = size.ljust(12, b"\0")
    block[136:148] = mtime.ljust(12, b"\0")
    block[156:157] = kind
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % 512)


def pax(**values: bytes) -> bytes:
    """An extended header with any values."""
    content = b""
    for key, value in values.items():
        line = b" " + key.replace("__", ".").encode() + b"=" + value + b"\n"
        length = len(line) + 1
        while len(b"%d" % length) + len(line) != length:
            length = len(b"%d" % length) + len(line)
        content += b"%d" % length + line
    return header("pax", b"x", b"%011o" % len(content)) + padded(content)


FILE = header("a.jpg") + padded(b"first")
LAST = header("z.jpg") + padded(b"last!") + bytes(1024)


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        (pax(mtime=b"nan") + FILE, ("a.jpg", 5, 0)),
        (pax(mtime=b"-inf") + FILE, ("a.jpg", 5, 0)),
        (pax(mtime=b"1e400") + FILE, ("a.jpg", 5, 0)),
        (pax(mtime=b"never") + FILE, ("a.jpg", 5, 0)),
        (pax(mtime=b"-1.5") + FILE, ("a.jpg", 5, -1_500_000_000)),
        (pax(size=b"nan") + FILE, ("a.jpg", 5, 7 * 10**9)),
        (pax(size=b"-512") + FILE, ("a.jpg", 5, 7 * 10**9)),
        (pax(size=b"9" * 5000) + FILE, ("a.jpg", 5, 7 * 10**9)),
        (pax(path=b"a\0b.jpg") + FILE, ("a\0b.jpg", 5, 7 * 10**9)),
        (pax(path=b"\xff.jpg") + FILE, ("\udcff.jpg", 5, 7 * 10**9)),
        (pax(path=b"/etc/a.jpg") + FILE, ("/etc/a.jpg", 5, 7 * 10**9)),
        (pax(path=b"") + FILE, ("a.jpg", 5, 7 * 10**9)),
        (header("x", b"x") + padded(b"99 a=b") + FILE, ("a.jpg", 5, 7 * 10**9)),
        (header("a.jpg", mtime=b"soon") + padded(b"first"), ("a.jpg", 5, 0)),
        (
            header("a.jpg", mtime=b"\xff" * 11 + b"\xfe") + padded(b"first"),
            ("a.jpg", 5, -2 * 10**9),
        ),
        (
            header("k", b"L", b"6")
            + padded(b"b.jpg\0")
            + header("l", b"K")
            + padded(b"a/b/c")
            + FILE,
            ("b.jpg", 5, 7 * 10**9),
        ),
        (header("g", b"g") + padded(b"12345") + FILE, ("a.jpg", 5, 7 * 10**9)),
        (header("d", b"5") + header("p", b"6") + FILE, ("a.jpg", 5, 7 * 10**9)),
    ],
)
@pytest.mark.parametrize("ending", ["tar", "tar.gz"])
def test_values_of_a_tar_that_cannot_be_used_are_ignored(
    tmp_path: Path, before: bytes, expected: tuple[str, int, int], ending: str
) -> None:
    path = tmp_path / f"x.{ending}"
    path.write_bytes(before + LAST if ending == "tar" else gzip.compress(before + LAST))
    with open_archive(str(path)) as members:
        found = [(m.name, m.size, m.mtime, m.read()) for m in members]
    assert found == [(*expected, b"first"), ("z.jpg", 5, 7 * 10**9, b"last!")]


def test_sparse_files_and_endless_names_cost_one_member(tmp_path: Path) -> None:
    path = tmp_path / "x.tar.gz"
    old = bytearray(header("s.jpg", b"S"))
    old[482:483] = b"1"
    old[148:156] = b" " * 8
    old[148:156] = b"%06o\0 " % sum(old)
    more = bytearray(512)
    more[504:505] = b"1"
    with gzip.open(path, "wb", 1) as stream:
        stream.write(old + more * 3 + bytes(512) + padded(b"first"))
        stream.write(pax(GNU__sparse__realsize=b"9999999999", GNU__sparse__name=b"p.jpg") + FILE)
        for kind in (b"L", b"x"):
            stream.write(header("long", kind, b"%011o" % (3 << 20)) + bytes(3 << 20) + FILE)
        stream.write(LAST)
    with open_archive(str(path)) as members:
        found = [(m.name, m.problem) for m in members]
    sparse = "a sparse file inside the archive; pack it without --sparse"
    endless = "a member's name takes more than 1 MiB"
    assert found == [
        ("s.jpg", sparse), ("p.jpg", sparse), ("", endless), ("", endless), ("z.jpg", None)
    ]  # fmt: skip


@pytest.mark.parametrize(
    "content",
    [
        FILE + header("n.jpg", size=b"\xff" * 12) + LAST,
        FILE + header("n.jpg", size=b"-1") + LAST,
        FILE + header("n.jpg", size=b"eight") + LAST,
        FILE + header("n.jpg", size=b"\x80" + b"\x7f" * 11) + LAST,
        FILE + pax(size=b"9" * 19) + FILE + LAST,
        FILE + b"no header".ljust(512) + LAST,
        FILE + LAST[:400],
        FILE + header("long", b"L", b"\xff" * 12) + LAST,
        FILE + header("long", b"x", b"%011o" % 2**20)[:512],
        FILE + header("s.jpg", b"S")[:482] + b"1" + bytes(29),
    ],
)
def test_a_damaged_tar_ends_with_an_error_after_its_first_members(
    tmp_path: Path, content: bytes
) -> None:
    for path in (tmp_path / "x.tar", tmp_path / "x.tgz"):
        path.write_bytes(content if path.suffix == ".tar" else gzip.compress(content))
        found = []
        with (
            pytest.raises(SourceError, match="not a readable archive"),
            open_archive(str(path)) as members,
        ):
            found.extend(member.name for member in members)
        assert found[0] == "a.jpg" and "z.jpg" not in found


def test_a_damaged_archive_never_gives_anything_but_its_errors(tree: Path) -> None:
    with tarfile.open(tree / "x.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(info("ü" * 200, 5, mtime=1.5), io.BytesIO(b"first"))
        tar.add(tree / "c.jpg", "c.jpg")
    with zipfile.ZipFile(tree / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(tree / "a.jpg", "ü.jpg")
        archive.write(tree / "b.jpg", "b.jpg")
    plain = (tree / "x.tar").read_bytes()
    seeds = {
        "tar": plain, "zip": (tree / "x.zip").read_bytes(), "tgz": gzip.compress(plain),
        "tbz2": bz2.compress(plain), "txz": lzma.compress(plain),
    }  # fmt: skip
    random = Random(17)
    for ending, seed in seeds.items():
        for _ in range(200):
            content = bytearray(seed)
            for _ in range(random.randrange(1, 4)):
                content[random.randrange(len(content))] = random.choice(
                    (0, 255, random.randrange(256))
                )
            path = tree / f"mutated.{ending}"
            path.write_bytes(content[: random.choice((None, random.randrange(len(content))))])
            with contextlib.suppress(SourceError), open_archive(str(path)) as members:
                for member in members:
                    with contextlib.suppress(ReadError):
                        assert len(member.read()) == member.size


def test_xz_has_a_limit_on_memory(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tarfile.open(tree / "x.tar.xz", "w:xz") as tar:
        tar.add(tree / "a.jpg", "a.jpg")
    whole = (tree / "x.tar.xz").read_bytes()
    # Two streams with zeros between them, as some programs write them.
    (tree / "two.tar.xz").write_bytes(lzma.compress(FILE) + bytes(8) + lzma.compress(LAST))
    with open_archive(str(tree / "two.tar.xz")) as members:
        assert [m.read() for m in members] == [b"first", b"last!"]
    monkeypatch.setattr(archives, "XZ_MEMORY", 1 << 20)
    with (
        pytest.raises(SourceError, match="needs more than 1 MiB; compress it with xz -9"),
        open_archive(str(tree / "x.tar.xz")) as members,
    ):
        list(members)
    assert whole == (tree / "x.tar.xz").read_bytes()


def test_the_directory_of_a_zip_has_a_limit(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tree / "x.zip", "w") as archive:
        archive.writestr("a" * 1000 + ".jpg", b"")
        archive.comment = b"with a comment"
    monkeypatch.setattr(archives, "LARGEST_DIRECTORY", 1000)
    with (
        pytest.raises(SourceError, match="split the archive"),
        open_archive(str(tree / "x.zip")) as members,
    ):
        list(members)


def test_a_saved_member_is_a_new_file(tree: Path) -> None:
    with tarfile.open(tree / "x.tgz", "w:gz") as tar:
        tar.add(tree / "a.jpg", "a.jpg")
        tar.add(tree / "c.jpg", "c.jpg")
    folder = tree / "new"
    folder.mkdir()
    with open_archive(str(tree / "x.tgz")) as members:
        saved = next(members).save(folder)
        assert saved.parent == folder and saved.read_bytes() == b"first"
        with pytest.raises(ReadError, match="a link"):
            next(members).save(folder)
    assert list(folder.iterdir()) == [saved]


def test_archives_are_recognized_by_name() -> None:
    assert is_archive("x.ZIP") and is_archive("a.tar.xz") and not is_archive("tar.jpg")
