"""Inputs whose form is right and whose values are not, by hypothesis."""

from __future__ import annotations

import csv
import functools
import io
import json
import math
import os
import sqlite3
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from tests.fuzz import seeds
from tests.fuzz.mutations import NAMES, with_checksums
from tests.fuzz.worker import Case

Draw = Callable[[st.SearchStrategy[Any]], Any]

odd_numbers = st.sampled_from(
    (0, -1, 1, 0.5, 2**31, 2**53 + 1, 2**63, -(2**63) - 1, 2**64, 10**400, 1e308, -1e308, 5e-324)
    + (math.nan, math.inf, -math.inf, -0.0, 1e16, True)
)
odd_names = st.sampled_from(NAMES) | st.text(max_size=8) | st.just("\ud800") | st.just("\udcff.jpg")
odd_values = st.recursive(
    st.none() | st.booleans() | odd_numbers | odd_names,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(odd_names, inner, max_size=3),
    max_leaves=6,
)


@st.composite
def spoilt(draw: Draw, value: Any) -> Any:
    """A value of JSON in which one place, or two, has another value, or has gone."""
    value = json.loads(json.dumps(value))
    for _ in range(draw(st.integers(1, 2))):
        value = _spoil(draw, value)
    return value


def _spoil(draw: Draw, value: Any) -> Any:
    if isinstance(value, dict) and value:
        key = draw(st.sampled_from(sorted(value)))
        way = draw(st.sampled_from(("into", "into", "into", "gone", "other key")))
        if way == "into":
            value[key] = _spoil(draw, value[key])
            return value
        kept = value.pop(key)
        if way == "other key":
            value[draw(odd_names)] = kept
        return value
    if isinstance(value, list) and value and draw(st.integers(0, 3)):
        index = draw(st.integers(0, min(len(value) - 1, 3)))
        way = draw(st.sampled_from(("into", "into", "into", "gone", "many")))
        if way == "into":
            value[index] = _spoil(draw, value[index])
        elif way == "gone":
            del value[index]
        else:
            value += value[:1] * 300
        return value
    return draw(odd_names if isinstance(value, str) else odd_values | odd_numbers)


def _json(value: Any, draw: Draw) -> bytes:
    text = json.dumps(value, ensure_ascii=draw(st.booleans()))
    return text.encode("utf-8", "surrogatepass")


@functools.cache
def _documents() -> dict[str, Any]:
    files = {**seeds.records(), **seeds.boxes()}
    return {name: json.loads(c) for name, c in files.items() if name.endswith(".json")}


@st.composite
def records(draw: Draw) -> tuple[str, bytes]:
    way = draw(st.sampled_from(("jsonl", "jsonl", "coco", "csv", "dlib", "parquet", "deep")))
    if way == "jsonl":
        some = seeds.some_records(2)
        index = draw(st.integers(0, len(some) - 1))
        some[index] = draw(spoilt(some[index]))
        return "records.jsonl", b"\n".join(_json(r, draw) for r in some)
    if way == "coco":
        name = draw(st.sampled_from(("records.json", "whole.json")))
        return name, _json(draw(spoilt(_documents()[name])), draw)
    if way == "csv":
        return "records.csv", draw(_tables(seeds.records()["records.csv"]))
    if way == "dlib":
        return "records.xml", draw(_xml())
    if way == "parquet":
        return "records.parquet", draw(_parquet())
    mark = draw(st.sampled_from(("[", '{"a":', '{"image":"a.jpg","faces":[', "<a>", "<image>")))
    name = draw(st.sampled_from(("records.jsonl", "records.json", "records.xml")))
    return name, (mark * draw(st.sampled_from((10, 1000, 20_000)))).encode()


@st.composite
def _tables(draw: Draw, seed: bytes) -> bytes:
    """A CSV in which some cells have other values."""
    rows = list(csv.reader(io.StringIO(seed.decode())))
    for _ in range(draw(st.integers(1, 3))):
        row = draw(st.sampled_from(rows))
        if row:
            index = draw(st.integers(0, min(len(row) - 1, 12)))
            value = odd_names | odd_numbers.map(str) | st.just("1" * 140_000) | st.just("1" * 5000)
            row[index] = str(draw(value))
    stream = io.StringIO()
    csv.writer(stream).writerows(rows)
    return stream.getvalue().encode("utf-8", "surrogatepass")


@st.composite
def _xml(draw: Draw) -> bytes:
    text = seeds.records()["records.xml"].decode()
    encodings = ("utf-8", "utf-16", "nonsense", "ascii", "cp037", "utf-7", "idna", "rot13")
    text = text[text.index("<dataset") :] if "<dataset" in text else text
    attribute = draw(st.sampled_from(("file", "top", "left", "width", "height", "x", "y", "name")))
    value = draw(odd_names | odd_numbers.map(str)).replace("<", "&lt;").replace('"', "&quot;")
    parts = text.split(f" {attribute}='") if f" {attribute}='" in text else []
    quote = "'" if parts else '"'
    parts = parts or text.split(f' {attribute}="')
    if len(parts) > 1:
        parts[1] = value + parts[1][parts[1].index(quote) :]
        text = f" {attribute}={quote}".join(parts)
    head = f'<?xml version="1.0" encoding="{draw(st.sampled_from(encodings))}"?>\n'
    entities = '<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>\n'
    head += draw(st.sampled_from(("", "", entities)))
    return (head + text).encode("utf-8", "surrogatepass")


@st.composite
def _parquet(draw: Draw) -> bytes:
    """The right columns with wrong values, or of wrong types."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(io.BytesIO(seeds.records()["records.parquet"]))
    name = draw(st.sampled_from(table.column_names))
    index, rows = table.column_names.index(name), table.num_rows
    some = (
        pa.array([None] * rows),
        pa.array(["x\x1b[31m"] * rows),
        pa.array([-1] * rows),
        pa.array([math.nan] * rows),
        pa.array([[1.0, math.inf]] * rows),
        pa.array([b"\xff"] * rows),
        pa.array([{"a": 1}] * rows),
    )
    way = draw(st.sampled_from(("gone", "twice", *range(len(some)))))
    if way == "gone":
        table = table.remove_column(index)
    elif way == "twice":
        table = table.append_column(name, table.column(index))
    else:
        table = table.set_column(index, name, some[way])
    stream = io.BytesIO()
    pq.write_table(table, stream)
    return stream.getvalue()


@st.composite
def boxes(draw: Draw) -> tuple[str, bytes]:
    if draw(st.booleans()):
        return "boxes.csv", draw(_tables(seeds.boxes()["boxes.csv"]))
    return "boxes.json", _json(draw(spoilt(_documents()["boxes.json"])), draw)


@st.composite
def kaggle(draw: Draw) -> tuple[str, bytes]:
    names = ("training.csv", "test.csv", "IdLookupTable.csv", "SampleSubmission.csv")
    name = draw(st.sampled_from(names))
    return name, draw(_tables(seeds.kaggle()[name]))


@st.composite
def archives(draw: Draw) -> tuple[str, bytes]:
    picture = seeds.pictures()["exif.jpg"]
    names = draw(st.lists(odd_names | st.just("a.jpg"), min_size=1, max_size=3))
    if draw(st.booleans()):
        return "a.zip", _odd_zip(draw, names, picture)
    form = draw(st.sampled_from((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT)))
    odd = st.sampled_from(("nan", "inf", "-1", "1e400", "9" * 30, "x", "", "-1e18", "1e300"))
    members = []
    for name in names:
        info = tarfile.TarInfo(name.replace("\ud800", "?") if form == tarfile.PAX_FORMAT else name)
        if form == tarfile.PAX_FORMAT:
            keys = st.sampled_from(
                ("mtime", "size", "path", "uid", "GNU.sparse.size", "GNU.sparse.map")
                + ("GNU.sparse.realsize", "GNU.sparse.major", "hdrcharset", "linkpath")
            )
            info.pax_headers = draw(st.dictionaries(keys, odd, max_size=2))
        info.type = draw(
            st.sampled_from((tarfile.REGTYPE,) * 4 + (tarfile.SYMTYPE, tarfile.CONTTYPE, b"S"))
        )
        members.append((info, picture))
    try:
        content = seeds.tar(members, "w", form)
    except (ValueError, UnicodeEncodeError):  # what Python itself does not write
        content = seeds.archives()["a.tar"]
    if draw(st.integers(0, 3)) == 0:
        at = draw(st.sampled_from((100, 124, 136, 148, 156, 157, 257, 345, 386, 483)))
        piece = draw(st.binary(min_size=1, max_size=12))
        content = with_checksums(content[:at] + piece + content[at + len(piece) :])
    return "a.tar", content


def _odd_zip(draw: Draw, names: list[str], picture: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", draw(st.sampled_from((0, 8, 12, 14)))) as archive:
        for name in names:
            info = zipfile.ZipInfo("x")
            info.filename = name.encode("utf-8", "replace").decode()
            archive.writestr(info, picture)
    content = bytearray(stream.getvalue())
    # Places in the first entry of the directory: flags, method, date, sizes, lengths, offset.
    at = content.rindex(b"PK\1\2") if draw(st.booleans()) else content.index(b"PK\1\2")
    place, form = draw(
        st.sampled_from(((8, "<H"), (10, "<H"), (12, "<I"), (16, "<I"), (20, "<I"), (24, "<I")))
        | st.sampled_from(((28, "<H"), (30, "<H"), (38, "<I"), (42, "<I")))
    )
    value = draw(st.sampled_from((0, 1, 0x41, 99, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)))
    size = struct.calcsize(form)
    if draw(st.booleans()):
        content[at + place : at + place + size] = struct.pack(form, value & (256**size - 1))
    return bytes(content)


@st.composite
def journals(draw: Draw) -> tuple[str, bytes]:
    """A sound database with wrong values."""
    seed = seeds.journals()[draw(st.sampled_from(sorted(seeds.journals())))]
    packed = st.sampled_from((b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"image": 1}', b"[" * 5000))
    value = (
        packed.map(zlib.compress)
        | st.binary(max_size=9)
        | st.none()
        | st.sampled_from((-1, 2**62, 1.5, math.inf, "x", "\x1b[31m", "[]", "{", "null", '{"a":1}'))
        | spoilt(seeds.some_records(1)[0]).map(_record)
    )
    descriptor, name = tempfile.mkstemp(suffix=".sqlite")
    os.close(descriptor)
    path = Path(name)
    try:
        path.write_bytes(seed)
        base = sqlite3.connect(path, isolation_level=None)
        try:
            for _ in range(draw(st.integers(1, 2))):
                table, columns = draw(
                    st.sampled_from((("options", ("content", "id")),))
                    | st.just(("results", ("name", "options", "drawn", "cropped", "size", "mtime")))
                    | st.just(("results", ("digest", "faces", "error", "again", "record")))
                    | st.just(("results", ("record",)))
                )
                column = draw(st.sampled_from(columns))
                where = draw(st.sampled_from(("", " WHERE rowid = 1")))
                try:
                    base.execute(f"UPDATE {table} SET {column} = ?{where}", (draw(value),))
                except (sqlite3.Error, OverflowError):
                    continue  # a value that the table refuses
        finally:
            base.close()
        return "journal.sqlite", path.read_bytes()
    finally:
        path.unlink()


def _record(value: Any) -> bytes:
    return zlib.compress(json.dumps(value).encode())


FILES: dict[str, Callable[[], st.SearchStrategy[tuple[str, bytes]]]] = {
    "records": records,
    "archives": archives,
    "boxes": boxes,
    "kaggle": kaggle,
    "journals": journals,
}
"""The strategies for a file of each kind that has one."""


def cases(kind: str) -> st.SearchStrategy[Case]:
    """Cases of a kind."""
    variants = st.integers(0, 119)
    return st.builds(
        lambda file, variant: Case(kind, file[0], file[1], variant), FILES[kind](), variants
    )
