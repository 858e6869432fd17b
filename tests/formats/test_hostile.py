"""Damaged and hostile files of every format: one error line each, quickly and in little memory."""

from __future__ import annotations

import json
import os
import random
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kpipe import Faces
from kpipe.errors import BoxesError, DatasetError, FormatError
from kpipe.formats import Format, load_format
from kpipe.formats.boxes import GivenBoxes, read_boxes
from kpipe.formats.records import parse_record

COUNT = int(os.environ.get("KPIPE_MUTATIONS", "120"))
"""Mutated files of each format."""

ENDINGS = {"jsonl": ".jsonl", "csv": ".csv", "coco": ".json", "dlib": ".xml", "parquet": ".parquet"}

PIECES = [
    *(b"NaN", b"Infinity", b"-Infinity", b"1e999", b"1e308", b"-1e308", b"9" * 30, b"9" * 5000),
    *(b"null", b"true", b"[]", b"{}", b"[" * 5000, b'{"a":' * 2000, b'"\\ud800"', b"\\u0000"),
    *(b"\0", b"\xff", b"\xc3", b"\n", b"\r\n", b",", b'"', b"'", b"<", b"<a>", b"</box>", b"&x;"),
    *(b"\x1b[2J", "\u202e".encode(), b"../../x", b"-1", b"0", b"0.5", b" ", b"<!DOCTYPE a>"),
    *(b"x" * 140_000, b'""'),
]  # fmt: skip


@pytest.fixture(scope="module")
def records(portrait_faces: Faces) -> list[dict[str, Any]]:
    record = portrait_faces.to_dict()
    sizes = {name: record[name] for name in ("width", "height", "scheme")}
    face = {**record["faces"][0], "track": 1, "blink": False}
    face["openness"] = {"right_eye": 0.3, "left_eye": 0.2, "mouth": 0.0}
    return [
        {**record, "image": "a/b.jpg", "faces": [face, face]},
        {"image": "v.mp4", "frame": 3, "time": 0.1, **sizes, "faces": [face]},
        {"image": "bad.jpg", "error": "bad.jpg: empty", "faces": []},
        {**record, "image": "none.jpg", "warning": "half", "faces": []},
    ]


def mutations(content: bytes, seed: int) -> Iterator[bytes]:
    dice = random.Random(seed)
    for _ in range(COUNT):
        mutated = bytearray(content)
        for _ in range(dice.randint(1, 3)):
            place = dice.randrange(len(mutated))
            kind = dice.randrange(5)
            if kind == 0:
                mutated[place] = dice.randrange(256)
            elif kind == 1:
                del mutated[place : place + dice.randint(1, 200)]
            elif kind == 2:
                mutated[place : place + dice.randint(0, 12)] = dice.choice(PIECES)
            elif kind == 3:
                mutated[place:place] = mutated[place : place + dice.randint(1, 3000)]
            else:
                # A value of the text, whole, by another.
                start = max(mutated.rfind(mark, 0, place) for mark in (b",", b":", b'"', b"'"))
                ends = [mutated.find(mark, place) for mark in (b",", b"]", b"}", b"'", b'"')]
                end = min([e for e in ends if e > 0], default=len(mutated))
                mutated[start + 1 : end] = dice.choice(PIECES)
            mutated = mutated or bytearray(b" ")
        yield bytes(mutated)


@pytest.mark.parametrize("name", ["jsonl", "csv", "coco", "dlib", "parquet"])
def test_mutated_files_are_read_or_are_one_error_line(
    tmp_path: Path, records: list[dict[str, Any]], name: str
) -> None:
    if name == "parquet":
        pytest.importorskip("pyarrow")
    module = load_format(name)
    path = tmp_path / f"f{ENDINGS[name]}"
    module.write(path, records)
    read = 0
    for number, content in enumerate(mutations(path.read_bytes(), 17)):
        path.write_bytes(content)
        try:
            found = list(module.read(path))
        except FormatError as error:
            assert "\n" not in str(error) and len(str(error)) < 1000, f"mutation {number}"
            continue
        read += 1
        write_all(tmp_path, found)
    assert read < COUNT


def write_all(folder: Path, found: list[dict[str, Any]]) -> None:
    """Writes what a reader has let through to every format, which must not stumble over it."""
    for target in ("jsonl", "csv", "coco", "dlib"):
        try:
            load_format(target).write(folder / "out", found)
        except FormatError as error:
            assert "scheme" in str(error) or "points of" in str(error)
            continue
        if target == "jsonl":
            assert list(load_format(target).read(folder / "out")) == found


def test_mutated_pts_files_are_read_or_are_one_error_line(
    tmp_path: Path, records: list[dict[str, Any]]
) -> None:
    module = load_format("pts")
    module.write(tmp_path / "p", records[:1])
    path = tmp_path / "p/a/b_1.pts"
    for content in mutations(path.read_bytes(), 18):
        path.write_bytes(content)
        try:
            list(module.read(tmp_path / "p"))
        except FormatError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize("name", ["b.csv", "b.json"])
def test_mutated_boxes_are_read_or_are_one_error_line(tmp_path: Path, name: str) -> None:
    content = b"image,x0,y0,x1,y1\n" + b"a.jpg,1,2,3,4\nb.jpg,,,,\n" * 5
    if name == "b.json":
        images = [{"id": k, "file_name": f"{k}.jpg"} for k in range(4)]
        boxes = [{"image_id": k, "bbox": [1, 2, 3.5, 4]} for k in range(4)]
        content = json.dumps({"images": images, "annotations": boxes}).encode()
    for mutated in mutations(content, 19):
        (tmp_path / name).write_bytes(mutated)
        try:
            GivenBoxes(read_boxes(tmp_path / name)).of("a.jpg")
        except BoxesError as error:
            assert "\n" not in str(error) and len(str(error)) < 1000


def test_mutated_labels_are_read_or_are_one_error_line(
    tmp_path: Path, records: list[dict[str, Any]]
) -> None:
    from kpipe.datasets import read_samples

    (tmp_path / "a").mkdir()
    for picture in ("a/b.jpg", "v.mp4", "1.jpg"):
        (tmp_path / picture).touch()
    points = records[0]["faces"][0]["points"]
    row = ",".join(str(value) for point in points for value in point)
    words = " ".join(str(k % 90) for k in range(98 * 2 + 10))
    files = {"f.csv": f"image,{'x,' * 135}x\n1.jpg,{row}\n", "f.txt": f"{words} 1.jpg\n" * 2}
    for name in ("coco", "dlib"):
        load_format(name).write(tmp_path / f"f{ENDINGS[name]}", records[:2])
        file = tmp_path / f"f{ENDINGS[name]}"
        files[file.name] = file.read_text()
    for name, text in files.items():
        path = tmp_path / name
        path.write_text(text)
        assert read_samples(path)
        for mutated in mutations(text.encode(), 20):
            path.write_bytes(mutated)
            for on_bad in (None, lambda _: None):
                try:
                    read_samples(path, on_bad)
                except DatasetError as error:
                    assert "\n" not in str(error) and len(str(error)) < 3000


def refused(module: Format, path: Path) -> str:
    """The message of reading a file, which must take little time and memory."""
    start = time.process_time()
    tracemalloc.start()
    try:
        with pytest.raises(FormatError) as caught:
            list(module.read(path))
        assert tracemalloc.get_traced_memory()[1] < 100 * 2**20
    finally:
        tracemalloc.stop()
    assert time.process_time() - start < 60
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000
    return str(caught.value)


BOMB = "<!DOCTYPE d [<!ENTITY a 'aaaaaaaaaa'>" + "".join(
    f"<!ENTITY {chr(98 + k)} '{f'&{chr(97 + k)};' * 10}'>" for k in range(9)
)  # fmt: skip


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (f"{BOMB}]><dataset><image file='&j;'/></dataset>", "it declares entities"),
        (f"{BOMB}]><dataset>&j;</dataset>", "it declares entities"),
        ("<!DOCTYPE d [<!ENTITY a SYSTEM 'file:///etc/passwd'>]><d>&a;</d>", "declares entities"),
        ("<!DOCTYPE d [<!ENTITY % a SYSTEM 'file:///x'>%a;]><d/>", "it declares entities"),
        ("<a>" * 20_000 + "</a>" * 20_000, "more than 32 elements inside each other"),
        ("<dataset><image file='a'>" + "<box>" * 20_000, "more than 32 elements inside each other"),
        ("<d><image file='a'>" + "<box/>" * 5_000 + "</image></d>", "more than 4000 faces on one"),
        ("<d><image file='a'><box>" + "<part/>" * 2_000, "more than 1000 parts of a box"),
        ("<?xml version='1.0' encoding='klingon'?><d/>", "not dlib's XML of faces"),
        ("<?xml version='1.0' encoding='utf-16'?><d/>", "not dlib's XML of faces"),
        ("<?xml version='1.0' encoding='zlib'?><d/>", "not dlib's XML of faces"),
        ("<?xml version='1.0' encoding='idna'?><d/>", "not dlib's XML of faces"),
        ("<d><image file='a' width='" + "9" * 5000 + "'/></d>", "width or height is not a number"),
        ("<d><image file='a' width='-5'/></d>", "`width` is not a whole number from 0"),
        ("<d><image/></d>", "`image` is empty"),
    ],
)
def test_hostile_xml(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "f.xml").write_text(content)
    assert message in refused(load_format("dlib"), tmp_path / "f.xml")


def test_elements_in_wrong_places_are_passed_over(tmp_path: Path) -> None:
    tags = ("image", "box", "part", "images")
    dice = random.Random(7)
    for _ in range(400):
        opened = [dice.choice(tags) for _ in range(dice.randint(1, 12))]
        text = "".join(
            f"<{tag} file='a' name='0' x='1' y='1' left='1' top='1' width='9' height='9'>"
            + (f"</{tag}>" if dice.random() < 0.5 else "")
            for tag in opened
        )
        stack: list[str] = []
        for piece in text.replace("><", ">\n<").split("\n"):
            tag = piece.strip("</>").split(" ")[0]
            if piece.startswith("</"):
                stack.pop()
            else:
                stack.append(tag)
        text += "".join(f"</{tag}>" for tag in reversed(stack))
        (tmp_path / "f.xml").write_text(f"<dataset>{text}</dataset>")
        try:
            list(load_format("dlib").read(tmp_path / "f.xml"))
        except FormatError as error:
            assert "points on a face" in str(error) or "faces of" in str(error)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ('"x": NaN', "not JSON"),
        ('"width": Infinity', "not JSON"),
        ('"x": 1e999', "`x` holds text or numbers beyond their bounds"),
        ('"x": 9223372036854775808', "`x` holds text or numbers beyond"),
        ('"x": ' + "9" * 5000, "not JSON"),
        ('"frame": 9223372036854775808', "`frame` is not a whole number from 0"),
        ('"width": 2147483648', "`width` is not a whole number from 0 to 2147483647"),
        ('"x": "\\ud800"', "`x` holds text or numbers beyond"),
        ('"\\udbff": 1', "`\\udbff` holds text"),
        ('"error": "\\ud800"', "`error` is not text"),
        ('"image": "' + "x" * 40_000 + '"', "`image` is not text of at most 32768 characters"),
        ('"image": ""', "`image` is empty"),
        ('"x": ' + "[" * 40 + "]" * 40, "nested too deeply"),
        ('"x": ' + "[" * 100_000 + "]" * 100_000, "nested too deeply"),
        ('"x": ' + '{"a":' * 900 + "1" + "}" * 900, "nested too deeply"),
        ('"faces": [{"points": [[1, 2]], "box": [1, 2, 3, 4]}]', "not 68 pairs of numbers"),
        ('"scheme": "later", "faces": [{"points": [[1, 2]]}]', "`box` is not four numbers"),
        ('"scheme": "later", "faces": [{"points": [], "box": [1,2,3,4]}]', "`points` are not 1 to"),
        (
            '"scheme": "l", "faces": [{"points": [[1, 1e308]], "box": [1, 2, 3, 4]}]',
            "`points` are not 1 pairs of numbers",
        ),
        (
            '"scheme": "l", "faces": [{"points": [[1, 1]], "box": [-1e308, 2, 1e308, 4]}]',
            "`box` is not four numbers",
        ),
        (
            '"scheme": "l", "faces": [{"points": [[true, 1]], "box": [1, 2, 3, 4]}]',
            "`points` are not 1 pairs of numbers",
        ),
    ],
)
def test_hostile_records(tmp_path: Path, part: str, message: str) -> None:
    line = '{"image": "a.jpg", "faces": [], ' + part + "}"
    (tmp_path / "f.jsonl").write_text(f"{line}\n")
    text = refused(load_format("jsonl"), tmp_path / "f.jsonl")
    assert "f.jsonl, line 1: not the record of a photograph (" in text and message in text
    with pytest.raises(FormatError, match=r"^journal: not the record"):
        parse_record(line, "journal")


def face_line(faces: int, scheme: str = "later") -> str:
    face = '{"points": [[1, 2]], "box": [1, 2, 3, 4]}'
    return f'{{"image": "a", "scheme": "{scheme}", "faces": [{", ".join([face] * faces)}]}}\n'


def test_limits_of_a_line_and_of_faces_are_raised_by_their_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "f.jsonl"
    module = load_format("jsonl")
    path.write_text(face_line(5000))
    message = refused(module, path)
    assert "line 1: more than 4000 faces on one photograph" in message
    assert "set the environment variable KPIPE_MAX_FACES to a higher number" in message
    monkeypatch.setenv("KPIPE_MAX_FACES", "5000")
    assert len(next(module.read(path))["faces"]) == 5000
    monkeypatch.setenv("KPIPE_MAX_LINE_BYTES", "1000")
    assert "line 1: more than 1000 bytes in one line" in refused(module, path)
    monkeypatch.setenv("KPIPE_MAX_LINE_BYTES", "many")
    assert "KPIPE_MAX_LINE_BYTES: 'many' is not a whole number above 0" in refused(module, path)


def test_a_line_that_never_ends_is_not_read_into_memory(tmp_path: Path) -> None:
    with (tmp_path / "f.jsonl").open("wb") as stream:
        stream.write(b'{"image": "a.jpg", "faces": []}\n')
        stream.truncate(2**32)
    message = refused(load_format("jsonl"), tmp_path / "f.jsonl")
    assert "line 2: more than 16777216 bytes in one line" in message
    (tmp_path / "f.csv").write_bytes(b"")
    with (tmp_path / "f.csv").open("wb") as stream:
        stream.truncate(2**32)
    message = refused(load_format("csv"), tmp_path / "f.csv")
    assert "more than 1048576 characters in one row" in message
    (tmp_path / "f.csv").rename(tmp_path / "f.pts")
    assert "more than 1048576 bytes in a .pts file" in refused(load_format("pts"), tmp_path)


@pytest.mark.parametrize("name", ["coco", "dlib"])
def test_a_document_beyond_the_limit_is_refused(
    tmp_path: Path, records: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    module = load_format(name)
    module.write(tmp_path / "f", records)
    monkeypatch.setenv("KPIPE_MAX_DOCUMENT_BYTES", "5000")
    assert "f: more than 5000 bytes in a file that is read whole" in refused(module, tmp_path / "f")
    monkeypatch.delenv("KPIPE_MAX_DOCUMENT_BYTES")
    monkeypatch.setenv("KPIPE_MAX_DOCUMENT_RECORDS", "6")
    assert "more than 6 photographs and faces" in refused(module, tmp_path / "f")
    monkeypatch.setenv("KPIPE_MAX_DOCUMENT_RECORDS", "7")
    assert len(list(module.read(tmp_path / "f"))) == 4


@pytest.mark.parametrize(
    ("image", "annotation", "message"),
    [
        ({"file_name": 7}, {}, "the file_name of image 1 is not text"),
        ({"file_name": "a\ud800"}, {}, "the file_name of image 1 is not text"),
        ({"file_name": ""}, {}, "the file_name of image 1 is not text"),
        ({"id": 1.5}, {}, "neither a whole number nor text"),
        ({"id": True}, {}, "neither a whole number nor text"),
        ({"id": "x\ud800"}, {}, "neither a whole number nor text"),
        ({}, {"bbox": [1e308, 1e308, 1e308, 1e308]}, "`bbox` is not x, y, width, height"),
        ({}, {"bbox": [True, 1, 2, 3]}, "`bbox` is not x, y, width, height"),
        ({}, {"bbox": {"a": 1, "b": 2, "c": 3, "d": 4}}, "`bbox` is not x, y, width, height"),
        ({}, {"keypoints": [1e308, -1e308, 2] * 68}, "`points` are not 68 pairs"),
        ({}, {"keypoints": {"a": 1}}, "not COCO's keypoints of a face"),
        ({}, {"keypoints": [[1, 2], [3, 4], 2] * 68}, "not COCO's keypoints of a face"),
        ({}, {"pose": 3}, "not COCO's keypoints of a face"),
        ({}, {"openness": [1, 2]}, "not COCO's keypoints of a face"),
        ({"width": 1e300}, {}, "`width` is not a whole number"),
        ({"width": [1]}, {}, "width or height is not a number"),
        ({"scheme": [1]}, {}, "`scheme` is not text"),
        ({"scheme": {"a": 1}}, {}, "`scheme` is not text"),
    ],
)
def test_hostile_coco(
    tmp_path: Path, image: dict[str, Any], annotation: dict[str, Any], message: str
) -> None:
    images = [{"id": 1, "file_name": "a.jpg", **image}]
    face = {"image_id": 1, "keypoints": [1.0, 2.0, 2] * 67 + [5.0, 6.0, 2], **annotation}
    (tmp_path / "f.json").write_text(json.dumps({"images": images, "annotations": [face]}))
    assert message in refused(load_format("coco"), tmp_path / "f.json")


def test_a_document_of_brackets_is_no_recursion(tmp_path: Path) -> None:
    for content in ("[" * 100_000, '{"images":' * 50_000, '{"images": [' + "[" * 100_000):
        (tmp_path / "f.json").write_text(content)
        assert "f.json: not COCO's JSON" in refused(load_format("coco"), tmp_path / "f.json")


def test_a_csv_cell_of_131073_characters_is_one_line(
    tmp_path: Path, records: list[dict[str, Any]]
) -> None:
    load_format("csv").write(tmp_path / "f.csv", records)
    text = (tmp_path / "f.csv").read_text().replace("bad.jpg", "x" * 131_073, 1)
    (tmp_path / "f.csv").write_text(text)
    assert "field larger than field limit" in refused(load_format("csv"), tmp_path / "f.csv")


def test_a_photograph_of_a_million_rows_is_refused(
    tmp_path: Path, records: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KPIPE_MAX_FACES", "10")
    path = tmp_path / "f.csv"
    load_format("csv").write(path, records[:1])
    head, first, second = path.read_text().splitlines(keepends=True)
    path.write_text(head + first + second * 10)
    assert "line 12: more than 10 faces on one photograph" in refused(load_format("csv"), path)


def test_hostile_pts(tmp_path: Path) -> None:
    folder = tmp_path / "p"
    folder.mkdir()
    for content, message in (
        ("n_points: " + "9" * 5000 + " {\n1 2\n}", "no 'n_points: N { … }' in it"),
        ("n_points: 1 {" * 80_000, "no 'n_points: N { … }' in it"),
        ("n_points: 1 {\n1e308 -1e308\n}", "1 points on a face"),
        ("n_points: 68 {\n" + "1e308 -1e308\n" * 68 + "}", "`points` are not 68 pairs"),
    ):
        (folder / "a.pts").write_text(content)
        assert message in refused(load_format("pts"), folder)
    (folder / "a.pts").unlink()
    os.mkfifo(folder / "a.pts")
    assert "a.pts: not a file" in refused(load_format("pts"), folder)


def test_a_photograph_has_at_most_a_thousand_given_boxes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = "".join(f"crowd.jpg,{k},1,{k + 9},9\n" for k in range(3000))
    (tmp_path / "b.csv").write_text(f"image,x0,y0,x1,y1\n{rows}few.jpg,1,1,9,9\n")
    boxes = GivenBoxes(read_boxes(tmp_path / "b.csv"))
    with pytest.raises(BoxesError, match=r"crowd\.jpg: more than 1000 boxes on one photograph"):
        boxes.of("crowd.jpg")
    few = boxes.of("few.jpg")
    assert few is not None and len(few) == 1  # another photograph of the file is not lost
    monkeypatch.setenv("KPIPE_MAX_BOXES", "3000")
    crowd = boxes.of("crowd.jpg")
    assert crowd is not None and len(crowd) == 3000


@pytest.mark.parametrize("number", ["1e308", "-1e308", "nan", "inf", "1e13", "9" * 400])
def test_boxes_beyond_all_bounds_are_named(tmp_path: Path, number: str) -> None:
    (tmp_path / "b.csv").write_text(f"image,x0,y0,x1,y1\na.jpg,1,1,2,2\na.jpg,1,1,{number},5\n")
    with pytest.raises(BoxesError, match="line 3: not a box"):
        read_boxes(tmp_path / "b.csv")


@pytest.mark.slow
def test_parquet_that_is_packed_a_thousandfold_is_refused(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    from kpipe.formats.parquet import SCHEMA

    row = {"image": "a.jpg", "scheme": "ibug68", "faces": []}
    face = {"box": [0.0] * 4, "points": [[0.0, 0.0]] * 3_000_000}
    table = pa.Table.from_pylist([{**row, "faces": [face] * 3}], SCHEMA)
    pq.write_table(table, tmp_path / "f.parquet", compression="zstd")
    assert (tmp_path / "f.parquet").stat().st_size < 2**20
    message = refused(load_format("parquet"), tmp_path / "f.parquet")
    assert "points" in message or "more than" in message


def test_parquet_of_other_columns_is_one_line(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    columns: list[dict[str, Any]] = [
        {"image": ["a"]},
        {"image": [1], "width": [1], "height": [1], "faces": [[]], "error": [""], "scheme": ["x"]},
        {"image": ["a"], "image_bytes": ["text"], "faces": [[1]], "error": [None]},
        {"image": [None], "width": [None], "height": [None], "faces": [None], "error": [None]},
        {"image": ["a"], "width": ["x"], "height": [1], "faces": [[{"a": 1}]], "error": [None]},
    ]
    for content in columns:
        pq.write_table(pa.table(content), tmp_path / "f.parquet")
        refused(load_format("parquet"), tmp_path / "f.parquet")
