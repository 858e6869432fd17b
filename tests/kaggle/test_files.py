"""Kaggle's files and archives as an attacker may write them: one error line, little memory."""

from __future__ import annotations

import random
import time
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from kpipe.errors import KaggleError
from kpipe.kaggle.files import (
    COLUMNS,
    is_test,
    read_labels,
    read_lookup,
    read_sample,
    read_test,
    read_training,
)

HEADER = ",".join((*COLUMNS, "Image")).encode() + b"\n"


def packed(path: Path, name: str, *parts: bytes, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive, archive.open(name, "w") as member:
        for part in parts:
            member.write(part)
    return path


def message_of(path: Path) -> str:
    """Of the error of reading a training.csv, which must take little memory."""
    tracemalloc.start()
    try:
        with pytest.raises(KaggleError) as caught:
            read_training(path)
        assert tracemalloc.get_traced_memory()[1] < 48 * 2**20
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
    return str(caught.value)


@pytest.mark.parametrize("header", [b"", HEADER])
def test_a_line_of_sixty_megabytes_is_not_read_into_memory(tmp_path: Path, header: bytes) -> None:
    path = packed(tmp_path / "training.zip", "training.csv", header, *[b"0 " * 2**20] * 30)
    assert path.stat().st_size < 2**18
    message = message_of(path)
    assert "more than 1048576 characters in one row of CSV" in message
    assert "KPIPE_MAX_ROW_BYTES" in message


def test_a_row_of_many_quoted_lines_is_not_read_into_memory(tmp_path: Path) -> None:
    line = b'"' + b'x\n","' * 20_000
    path = packed(tmp_path / "training.zip", "training.csv", HEADER, *[line] * 300)
    assert "characters in one row of CSV" in message_of(path) or "row 1" in message_of(path)


def test_a_file_that_is_packed_a_thousandfold_is_refused(tmp_path: Path) -> None:
    path = packed(tmp_path / "training.zip", "training.csv", HEADER, *[b"\n" * 2**20] * 70)
    message = message_of(path)
    assert "more than 200 times the size of the archive" in message
    assert "KPIPE_MAX_KAGGLE_RATIO" in message


def test_a_limit_is_raised_by_its_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = packed(tmp_path / "training.zip", "training.csv", HEADER, b"1" * 2000, b"\n")
    assert "columns" in message_of(path)
    monkeypatch.setenv("KPIPE_MAX_ROW_BYTES", "1500")
    assert "more than 1500 characters in one row" in message_of(path)
    monkeypatch.setenv("KPIPE_MAX_ROW_BYTES", "1500x")
    assert "KPIPE_MAX_ROW_BYTES: '1500x' is not a whole number above 0" in message_of(path)
    monkeypatch.delenv("KPIPE_MAX_ROW_BYTES")
    monkeypatch.setenv("KPIPE_MAX_KAGGLE_BYTES", "2000")
    assert "more than 2000 bytes in a packed file" in message_of(path)


def test_zip_files_in_each_other_end(tmp_path: Path) -> None:
    content = HEADER
    for level in range(6):
        path = packed(tmp_path / f"{level}.zip", "training.zip", content)
        content = path.read_bytes()
    assert "more than 3 zip files in each other" in message_of(path)


def test_a_header_of_half_a_million_columns_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "training.csv").write_bytes(b"," * 500_000)
    start = time.process_time()
    assert "the header has 500001 columns" in message_of(tmp_path / "training.csv")
    assert time.process_time() - start < 60  # comparing each with each takes an hour


@pytest.mark.parametrize("number", ["9" * 30, "9" * 5000, "-" + "9" * 19, "nan", "1e3", "0x1"])
def test_a_number_beyond_64_bits_is_named(tmp_path: Path, number: str) -> None:
    (tmp_path / "s.csv").write_text(f"RowId,Location\n{number},\n")
    with pytest.raises(KaggleError, match=r"row 1: RowId is ") as caught:
        read_sample(tmp_path / "s.csv")
    assert len(str(caught.value)) < 300
    (tmp_path / "s.csv").write_text(f"RowId,ImageId,FeatureName,Location\n1,{number},a,\n")
    with pytest.raises(KaggleError, match=r"row 1: ImageId is "):
        read_lookup(tmp_path / "s.csv")


def test_damaged_archives_are_one_line_each(tmp_path: Path) -> None:
    dice = random.Random(16)
    rows = HEADER + (b"48," * 30 + b"7 " * 96 * 96 + b"\n") * 2
    path = tmp_path / "training.zip"
    failed = 0
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        good = packed(path, "training.csv", rows, method=method).read_bytes()
        for _ in range(100):
            content = bytearray(good)
            for _ in range(dice.randint(1, 6)):
                place = dice.choice([dice.randrange(len(content)), -dice.randint(1, 120)])
                content[place] = dice.choice([0, 1, 0x50, 0x7F, 0xFF, dice.randrange(256)])
            path.write_bytes(content[: dice.choice([len(content), dice.randrange(len(content))])])
            try:
                read_training(path)
            except KaggleError as error:
                failed += 1
                assert "\n" not in str(error)
            is_test(path)
    assert failed > 100


def test_damaged_tables_are_one_line_each(tmp_path: Path) -> None:
    dice = random.Random(17)
    path = tmp_path / "table.csv"
    good = HEADER + (b"48," * 30 + b"7 " * 96 * 96 + b"\n") * 2
    odd = [b"\0", b'"', b",", b"\n", b"\r", b"\xff", b"nan", b"inf", b"1e400", b"-1", b"9" * 5000]
    for _ in range(200):
        content = bytearray(good)
        for _ in range(dice.randint(1, 3)):
            place = dice.choice([dice.randrange(len(content)), dice.randrange(len(HEADER) + 90)])
            content[place : place + dice.randint(0, 3)] = dice.choice(odd)
        path.write_bytes(content)
        for read in (read_training, read_labels, read_test, read_lookup, read_sample):
            try:
                read(path)
            except KaggleError as error:
                assert "\n" not in str(error)
