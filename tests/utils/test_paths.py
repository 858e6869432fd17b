"""A name from a record never leads out of the folder of results."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from kpipe.errors import FormatError
from kpipe.utils.files import write_file
from kpipe.utils.paths import MAX_PART, MAX_PARTS, inside, is_file, result_path

HOSTILE = [
    *("../../../PWNED", "/../../../PWNED", "a/../../b.jpg", "..", "../", "/", "//x//y", "."),
    *("/etc/passwd", "s3://bucket/../../k.jpg", "a/./../.././b", "..\\..\\x.jpg", "C:\\x.jpg"),
    *("C:/x.jpg", "C:x.jpg", "\\\\server\\share\\x.jpg", "//server/share/x.jpg", "~/x", "-x"),
    *("CON", "con.jpg", "a/NUL.txt", "LPT1", "com9.a.b", "AUX .jpg", "a./b. /c..jpg.", "x ", "x."),
    *("a\0b", "a\0/../b", "\x1b[2J.jpg", "x:stream", "a|b?c*d<e>f", "....//....//x", ". ./x"),
    *("e\u0301.jpg", "\u202egpj.exe", "\udcff\udcfe/..\udcff", "x" * 5000, "é" * 200, "a/" * 900),
]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_stays_in_its_folder_on_every_system(tmp_path: Path, name: str) -> None:
    for windows in (False, True):
        parts = inside(name, windows).split("/")
        assert ".." not in parts and "." not in parts
        assert parts == [""] or all(parts)
        if windows:
            assert not set('\\:*?"<>|\0') & set("".join(parts))
            assert not any(part.endswith((".", " ")) for part in parts)
            stems = {part.split(".")[0].strip().lower() for part in parts}
            assert not stems & {"con", "nul", "aux", "prn", "lpt1", "com9"}
    if not inside(name):
        with pytest.raises(FormatError, match="no name for a file"):
            result_path(tmp_path, name, ".pts")
        return
    path = result_path(tmp_path, name, ".pts")
    assert Path(os.path.realpath(path)).is_relative_to(os.path.realpath(tmp_path))
    assert all(len(os.fsencode(part)) <= MAX_PART for part in path.relative_to(tmp_path).parts)


def test_random_names_of_dangerous_parts_stay_in_their_folder(tmp_path: Path) -> None:
    dice = random.Random(17)
    parts = ["..", ".", "/", "\\", "a", "C:", "://", "\0", " ", "...", "~", "con", "\udc80", "é"]
    for _ in range(3000):
        name = "".join(dice.choices(parts, k=dice.randint(1, 9)))
        if inside(name):
            path = result_path(tmp_path, name, ".pts")
            assert Path(os.path.normpath(path)).is_relative_to(tmp_path), name
        windows = inside(name, windows=True)
        assert not windows.startswith("/") and "\\" not in windows and ":" not in windows


def test_ordinary_names_are_kept(tmp_path: Path) -> None:
    for name in ("a/b.jpg", "a b/ç.jpg", 'x, "y"\n.png', ".hidden", "a..b", "...", "back\\slash"):
        assert inside(name, windows=False) == name
        assert result_path(tmp_path, name, "") == tmp_path / name
    assert inside("a b/ç.x.jpg", windows=True) == "a b/ç.x.jpg"
    assert inside("C:\\x.jpg", windows=True) == "C%3A%5Cx.jpg"
    assert inside("a/con.jpg", windows=True) == "a/%63on.jpg"


def test_long_names_of_one_beginning_stay_apart(tmp_path: Path) -> None:
    first, second = (result_path(tmp_path, "名" * 90 + end, "_1.pts") for end in "ab")
    assert first != second and first.name.endswith("_1.pts")
    first.touch()
    second.touch()


def test_a_link_in_the_folder_does_not_lead_out_of_it(tmp_path: Path) -> None:
    (tmp_path / "out/real").mkdir(parents=True)
    (tmp_path / "else").mkdir()
    (tmp_path / "out/away").symlink_to(tmp_path / "else", target_is_directory=True)
    (tmp_path / "out/near").symlink_to("real", target_is_directory=True)
    (tmp_path / "way_in").symlink_to("out", target_is_directory=True)
    assert result_path(tmp_path / "out", "near/a", ".pts").name == "a.pts"
    assert result_path(tmp_path / "way_in", "real/a", ".pts").name == "a.pts"
    for name in ("away/a", "away/deep/er/a", "near/../../away/a"):
        if name.startswith("away"):
            with pytest.raises(FormatError, match="a link leads out of"):
                result_path(tmp_path / "out", name, ".pts")
        else:
            result_path(tmp_path / "out", name, ".pts")


def test_a_name_that_no_disk_can_hold_is_no_file(tmp_path: Path) -> None:
    assert not is_file(tmp_path / ("x" * 5000)) and not is_file(tmp_path / "a\0b")
    (tmp_path / "a").touch()
    assert is_file(tmp_path / "a")


def test_folders_nested_without_end_become_one(tmp_path: Path) -> None:
    deep = [f"{'a/' * 2000}{end}" for end in ("x.jpg", "b/x.jpg")]
    paths = [result_path(tmp_path, inside(name), ".pts") for name in deep]
    assert paths[0] != paths[1]
    for path in paths:
        write_file(path, b"1")
        assert len(path.relative_to(tmp_path).parts) == MAX_PARTS
    assert inside("a/" * 99 + "x.jpg") == "a/" * 99 + "x.jpg"
