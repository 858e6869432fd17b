"""`kpipe convert`, and the formats it goes between."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from kpipe import IBUG68, Faces
from kpipe.cli.convert import NAMES as FORMAT_NAMES
from kpipe.datasets import coco, dlib
from kpipe.formats import FORMATS, load_format
from tests.conftest import Run

NAMES = ["a/b.jpg", os.fsdecode(b"caf\xe9.jpg"), 'x, "y"\n.png', "z/none.jpg", "bad.jpg"]


@pytest.fixture
def photographs(portrait_faces: Faces) -> list[dict[str, Any]]:
    """Records of every kind: one face, two, with a track, none, an error."""
    record = portrait_faces.to_dict()
    face = record["faces"][0]
    moved = {**face, "points": [[x + 10.07, y - 300.33] for x, y in face["points"]]}
    moved["points"] = np.round(moved["points"], 2).tolist()
    bare = {key: face[key] for key in ("box", "score", "points", "sigma")}
    faces: list[list[dict[str, Any]]] = [[face], [face, moved], [{**bare, "track": 7}], []]
    good = [{**record, "image": name, "faces": found} for name, found in zip(NAMES, faces)]
    return [*good, {"image": NAMES[-1], "error": "bad.jpg: empty", "faces": []}]


@pytest.fixture
def frames(portrait_faces: Faces) -> list[dict[str, Any]]:
    """Records of a video's frames, one of them without a face."""
    record = portrait_faces.to_dict()
    face = record["faces"][0]
    openness = {"right_eye": 0.31, "left_eye": 0.298, "mouth": 0.0}
    faces = [
        {**face, "track": track, "openness": openness, "blink": blink}
        for track, blink in ((1, False), (2, True))
    ]
    del record["image"]
    return [
        {"image": "v.mp4", "frame": frame, "time": round(frame / 30, 4), **record, "faces": found}
        for frame, found in enumerate((faces, [], faces[:1], faces[1:]))
    ]


@pytest.fixture
def lines(tmp_path: Path, photographs: list[dict[str, Any]]) -> Path:
    path = tmp_path / "faces.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in photographs))
    return path


def read(path: Path, name: str) -> list[dict[str, Any]]:
    return list(load_format(name).read(path))


@pytest.mark.parametrize(
    ("ending", "name"), [(".csv", "csv"), (".json", "coco"), (".parquet", "parquet")]
)
def test_there_and_back_is_the_same(
    kpipe: Run, lines: Path, photographs: list[dict[str, Any]], ending: str, name: str
) -> None:
    if name == "parquet":
        pytest.importorskip("pyarrow")
    there = kpipe("convert", "faces.jsonl", f"other{ending}")
    assert there.returncode == 0, there.stderr
    assert b"dropped" not in there.stderr and b"(5 photographs, 4 faces)" in there.stderr
    back = kpipe("convert", f"other{ending}", "back.jsonl")
    assert back.returncode == 0, back.stderr
    found = read(lines.parent / "back.jsonl", "jsonl")
    assert found == photographs
    # Down to the order of the parts, so that files can be compared line by line.
    assert (lines.parent / "back.jsonl").read_text() == lines.read_text()


@pytest.mark.parametrize("ending", [".csv", ".json", ".parquet"])
def test_frames_of_a_video_there_and_back(
    kpipe: Run, frames: list[dict[str, Any]], tmp_path: Path, ending: str
) -> None:
    if ending == ".parquet":
        pytest.importorskip("pyarrow")
    load_format("jsonl").write(tmp_path / "v.jsonl", frames)
    there = kpipe("convert", "v.jsonl", f"v{ending}")
    assert there.returncode == 0 and b"(4 photographs, 4 faces)" in there.stderr, there.stderr
    assert kpipe("convert", f"v{ending}", "back.jsonl").returncode == 0
    assert (tmp_path / "back.jsonl").read_text() == (tmp_path / "v.jsonl").read_text()


def test_frames_where_there_is_no_place_for_them(
    kpipe: Run, frames: list[dict[str, Any]], tmp_path: Path
) -> None:
    load_format("jsonl").write(tmp_path / "v.jsonl", frames)
    done = kpipe("convert", "v.jsonl", "v.xml")
    for what in ("4 numbers and times of frames", "4 openness of faces", "4 blink of faces"):
        assert f"cannot hold it: {what}" in done.stderr.decode()
    done = kpipe("convert", "v.jsonl", "points")
    assert b"cannot hold it: 3 times of frames" in done.stderr
    files = sorted(path.stem for path in (tmp_path / "points").iterdir())
    assert files == ["v_frame0_1", "v_frame0_2", "v_frame2", "v_frame3"]


def test_json_lines_that_are_named_json(kpipe: Run, lines: Path) -> None:
    lines.rename(lines.with_suffix(".json"))
    done = kpipe("convert", "faces.json", "faces.csv")
    assert done.returncode == 0 and b"(5 photographs, 4 faces)" in done.stderr


def test_from_any_to_any(kpipe: Run, lines: Path, photographs: list[dict[str, Any]]) -> None:
    folder = lines.parent
    for source, target in (("faces.jsonl", "a.csv"), ("a.csv", "b.json"), ("b.json", "c.jsonl")):
        assert kpipe("convert", source, target).returncode == 0
    assert read(folder / "c.jsonl", "jsonl") == photographs


def test_dlib_holds_whole_pixels(kpipe: Run, lines: Path) -> None:
    done = kpipe("convert", "faces.jsonl", "faces.xml")
    assert done.returncode == 0, done.stderr
    dropped = done.stderr.decode()
    for what in ("4 fractions of pixels", "4 sigma", "3 pose", "1 track", "1 reasons of errors"):
        assert f"cannot hold it: {what}" in dropped
    path = lines.parent / "faces.xml"
    images = list(ElementTree.parse(path).getroot().iter("image"))
    assert len(images) == 5 and [len(image.findall("box")) for image in images] == [1, 2, 1, 0, 0]
    # Our own reader of labeled faces takes it for what it is.
    assert next(name for name, _ in dlib.boxes(path)) == "a/b.jpg"
    for found, told in zip(read(path, "dlib"), read(lines, "jsonl")):
        for mine, theirs in zip(found["faces"], told["faces"]):
            assert mine["points"] == np.round(theirs["points"]).tolist()
            assert mine["box"] == np.round(theirs["box"]).tolist()
            assert "sigma" not in mine and "score" not in mine


def test_pts_hold_points_alone(kpipe: Run, lines: Path, tmp_path: Path) -> None:
    done = kpipe("convert", "faces.jsonl", "points")
    assert done.returncode == 0, done.stderr
    dropped = done.stderr.decode()
    for what in ("1 photographs without a face", "1 errors", "4 boxes", "4 score", "4 sigma"):
        assert f"cannot hold it: {what}" in dropped
    files = sorted(os.fsencode(p.relative_to(tmp_path / "points"))
                   for p in (tmp_path / "points").rglob("*.pts"))  # fmt: skip
    assert files == [b"a/b.pts", b"caf\xe9_1.pts", b"caf\xe9_2.pts", b'x, "y"\n.pts']
    told = {record["image"]: record["faces"] for record in read(lines, "jsonl")}
    found = {record["image"]: record["faces"] for record in read(tmp_path / "points", "pts")}
    assert len(found) == 3
    for name, faces in found.items():
        source = told[name if name in told else name.replace(".jpg", ".png")]
        assert [face["points"] for face in faces] == [face["points"] for face in source]


def test_coco_is_what_others_expect(kpipe: Run, lines: Path) -> None:
    kpipe("convert", "faces.jsonl", "faces.json")
    document = json.loads((lines.parent / "faces.json").read_text())
    assert [image["id"] for image in document["images"]] == [1, 2, 3, 4, 5]
    annotation = document["annotations"][0]
    assert len(annotation["keypoints"]) == 3 * 68 and annotation["num_keypoints"] == 68
    _, _, width, height = annotation["bbox"]
    assert annotation["area"] == pytest.approx(width * height, abs=1e-3)
    (category,) = document["categories"]
    assert category["keypoints"] == list(IBUG68.names)
    assert all(1 <= end <= 68 for bone in category["skeleton"] for end in bone)
    assert len(list(coco.faces(lines.parent / "faces.json"))) == 4


def test_coco_of_others(tmp_path: Path, kpipe: Run) -> None:
    points = [[10.0 + k, 20.0 + k % 7, 2] for k in range(68)]
    person = {"image_id": 3, "keypoints": [0, 0, 0] * 17, "bbox": [0, 0, 9, 9]}
    whole = {
        **person,
        "face_valid": True,
        "face_kpts": [value for point in points for value in point],
    }
    document = {
        "images": [{"id": 3, "file_name": "p.jpg", "width": 90, "height": 50}],
        "annotations": [whole, {**whole, "face_valid": False}],
    }
    (tmp_path / "other.json").write_text(json.dumps(document))
    done = kpipe("convert", "other.json", "out.jsonl")
    assert done.returncode == 0, done.stderr
    (record,) = read(tmp_path / "out.jsonl", "jsonl")
    (face,) = record["faces"]
    assert face["points"] == [[x, y] for x, y, _ in points]
    assert face["box"] == [10.0, -10.5, 77.0, 56.5] and "score" not in face
    # What others did not say is blank.
    assert kpipe("convert", "out.jsonl", "out.csv").returncode == 0
    with (tmp_path / "out.csv").open() as stream:
        (row,) = csv.DictReader(stream)
    assert row["score"] == "" and row["nose_tip_sigma"] == "" and row["nose_tip_x"] == "40.00"
    assert read(tmp_path / "out.csv", "csv") == [record]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.jsonl", '{"image": "a"}\n', "line 1: not the record of a photograph"),
        ("x.jsonl", "[\n", "line 1: not the record of a photograph"),
        ("x.csv", "a,b\n1,2\n", "not the columns of kpipe's CSV"),
        ("x.json", "{}", "not COCO's JSON"),
        ("x.xml", "<dataset>", "not dlib's XML"),
        ("x.parquet", "PAR1", "not a readable Parquet file"),
        ("x.word", "", "unknown format '.word'; choose one of .jsonl"),
    ],
)
def test_what_cannot_be_read(
    kpipe: Run, tmp_path: Path, name: str, content: str, message: str
) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    (tmp_path / name).write_text(content)
    done = kpipe("convert", name, "out.csv" if name != "x.csv" else "out.jsonl")
    assert done.returncode == 1
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith(f"kpipe: {name}") and message in line
    assert sorted(p.name for p in tmp_path.iterdir()) == [name]


def test_files_are_safe(kpipe: Run, lines: Path) -> None:
    before = lines.read_bytes()
    (lines.parent / "old.csv").write_text("precious")
    for arguments, message in (
        (("faces.jsonl", "faces.jsonl", "--force"), "is what is read"),
        (("faces.jsonl", "old.csv"), "exists; --force replaces it"),
        (("missing.jsonl", "new.csv"), "no such file"),
        (("faces.jsonl", "new.word"), "unknown format '.word'; choose one of .jsonl"),
    ):
        done = kpipe("convert", *arguments)
        assert done.returncode == 1 and message in done.stderr.decode()
    assert lines.read_bytes() == before
    assert (lines.parent / "old.csv").read_text() == "precious"
    assert kpipe("convert", "faces.jsonl", "old.csv", "--force").returncode == 0
    assert len(read(lines.parent / "old.csv", "csv")) == 5
    assert kpipe("convert", "faces.jsonl", "new", "--to", "word").returncode == 2


def test_the_help_names_every_format() -> None:
    assert FORMAT_NAMES.split("|") == list(FORMATS)


def everything(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize(
    "image", ["../../../PWNED.jpg", "/../../PWNED.jpg", "a/../../../PWNED.jpg", "/tmp/../PWNED.jpg"]
)
def test_no_name_in_a_record_leads_out_of_the_folder(
    kpipe: Run, portrait_faces: Faces, tmp_path: Path, image: str
) -> None:
    work = tmp_path / "one/two/three"
    work.mkdir(parents=True)
    for folder in (tmp_path, tmp_path / "one", work.parent, work):
        (folder / "PWNED.pts").write_text("precious")
    record = portrait_faces.at(image).to_dict()
    (work / "f.jsonl").write_text(json.dumps(record) + "\n")
    before = everything(tmp_path)
    done = kpipe("convert", "f.jsonl", "out", cwd=work)
    assert done.returncode == 0, done.stderr
    after = everything(tmp_path)
    assert {name: after[name] for name in before} == before
    (new,) = set(after) - set(before)
    assert new.startswith("one/two/three/out/") and new.endswith("PWNED.pts")


@pytest.mark.parametrize("part", ["frame", "track", "width", "scheme", "time"])
def test_no_other_part_of_a_record_becomes_a_path(
    kpipe: Run, portrait_faces: Faces, tmp_path: Path, part: str
) -> None:
    record = portrait_faces.at("a.jpg").to_dict()
    (record["faces"][0] if part == "track" else record)[part] = "/../../../PWNED"
    (tmp_path / "in").mkdir()
    (tmp_path / "in/f.jsonl").write_text(json.dumps(record) + "\n")
    before = everything(tmp_path)
    done = kpipe("convert", "f.jsonl", "out", cwd=tmp_path / "in")
    assert done.returncode == 1 and f"`{part}` is not" in done.stderr.decode()
    assert len(done.stderr.splitlines()) == 1 and everything(tmp_path) == before


def test_a_link_in_the_folder_of_pts_is_not_followed_out_of_it(
    kpipe: Run, lines: Path, tmp_path: Path
) -> None:
    (tmp_path / "away").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/a").symlink_to(tmp_path / "away", target_is_directory=True)
    done = kpipe("convert", "faces.jsonl", "out", "--force")
    assert done.returncode == 1 and b"out/a/b.pts: a link leads out of out" in done.stderr
    assert list((tmp_path / "away").iterdir()) == []


def test_force_replaces_the_files_that_are_written_and_no_others(
    kpipe: Run, lines: Path, tmp_path: Path
) -> None:
    (tmp_path / "out/a").mkdir(parents=True)
    for name in ("out/a/b.pts", "out/a/mine.pts", "out/notes.txt"):
        (tmp_path / name).write_text("precious")
    before = everything(tmp_path)
    done = kpipe("convert", "faces.jsonl", "out")
    assert done.returncode == 1 and b"out: exists; --force replaces it" in done.stderr
    assert everything(tmp_path) == before
    assert kpipe("convert", "faces.jsonl", "out", "--force").returncode == 0
    after = everything(tmp_path)
    changed = [name for name in before if after[name] != before[name]]
    assert changed == ["out/a/b.pts"]


def test_a_pts_file_that_appears_while_others_are_written_is_kept(
    photographs: list[dict[str, Any]], tmp_path: Path
) -> None:
    from kpipe.errors import FormatError

    def records() -> Any:
        yield photographs[1]
        (tmp_path / "out/a").mkdir()
        (tmp_path / "out/a/b.pts").write_text("precious")
        yield photographs[0]

    with pytest.raises(FormatError, match=r"b\.pts: exists; --force replaces it"):
        load_format("pts").write(tmp_path / "out", records(), replace=False)
    assert (tmp_path / "out/a/b.pts").read_text() == "precious"


@pytest.mark.parametrize("name", ["jsonl", "csv", "parquet", "coco", "dlib"])
def test_a_file_that_appears_during_the_conversion_is_kept(
    photographs: list[dict[str, Any]], tmp_path: Path, name: str
) -> None:
    from kpipe.errors import FormatError

    if name == "parquet":
        pytest.importorskip("pyarrow")
    target = tmp_path / "out"

    def records() -> Any:
        yield photographs[0]
        target.write_text("precious")

    with pytest.raises(FormatError, match="out: exists; --force replaces it"):
        load_format(name).write(target, records(), replace=False)
    assert target.read_text() == "precious" and list(tmp_path.iterdir()) == [target]
    load_format(name).write(target, records())
    assert target.read_bytes() != b"precious"


def test_a_link_that_leads_nowhere_is_not_replaced(kpipe: Run, lines: Path, tmp_path: Path) -> None:
    (tmp_path / "out.csv").symlink_to("missing.csv")
    done = kpipe("convert", "faces.jsonl", "out.csv")
    assert done.returncode == 1 and b"out.csv: exists; --force replaces it" in done.stderr
    assert (tmp_path / "out.csv").is_symlink()


def test_files_that_are_read_are_not_replaced_by_force(
    kpipe: Run, photographs: list[dict[str, Any]], tmp_path: Path
) -> None:
    pytest.importorskip("pyarrow")
    load_format("parquet").write(tmp_path / "parts.parquet/part-0.parquet", photographs)
    load_format("pts").write(tmp_path / "p/q", photographs)
    before = everything(tmp_path)
    for arguments in (
        ("parts.parquet", "parts.parquet/part-0.parquet"),
        ("p/q", "p", "--to", "pts"),
        ("p", "p/q", "--to", "pts"),
    ):
        done = kpipe("convert", *arguments, "--force")
        assert done.returncode == 1 and b"is what is read" in done.stderr, arguments
    assert everything(tmp_path) == before
    assert kpipe("convert", "p", "p/all.jsonl").returncode == 0
