from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kpipe import Faces
from kpipe.errors import FormatError
from kpipe.formats import pts
from kpipe.formats.pts import read_pts, to_pts


def test_pts_counts_pixels_from_one(portrait_faces: Faces, tmp_path: Path) -> None:
    path = tmp_path / "face.pts"
    path.write_text(to_pts(np.round(portrait_faces[0].points.astype(np.float64), 3)))
    lines = path.read_text().splitlines()
    assert lines[:3] == ["version: 1", "n_points: 68", "{"] and lines[-1] == "}"
    assert float(lines[3].split()[0]) == pytest.approx(portrait_faces[0].points[0, 0] + 1, abs=1e-3)
    assert read_pts(path) == pytest.approx(portrait_faces[0].points, abs=1e-3)


def test_pts_have_three_decimals_and_more_where_they_would_be_lost() -> None:
    lines = to_pts([[0.1, 1 / 3], [-1, 2]]).splitlines()
    assert lines[3:5] == ["1.100 1.333333333", "0.000 3.000"]


def test_pts_of_two_photographs_of_one_stem(tmp_path: Path, portrait_faces: Faces) -> None:
    record = portrait_faces.to_dict()
    names = ["b.jpg", "b.png", "b_1.jpg"]
    pts.write(tmp_path / "p", ({**record, "image": name} for name in names))
    assert sorted(p.name for p in (tmp_path / "p").iterdir()) == [
        "b.png.pts", "b.pts", "b_1.pts"
    ]  # fmt: skip
    assert [r["image"] for r in pts.read(tmp_path / "p")] == ["b.png", "b.jpg", "b_1.jpg"]


def test_pts_of_many_faces_keep_their_order(tmp_path: Path, portrait_faces: Faces) -> None:
    record = portrait_faces.to_dict()
    face = record["faces"][0]
    faces = [{**face, "points": [[x + k, y] for x, y in face["points"]]} for k in range(12)]
    pts.write(tmp_path / "p", [{**record, "image": "b.jpg", "faces": faces}])
    (found,) = pts.read(tmp_path / "p")
    for mine, theirs in zip(found["faces"], faces, strict=True):
        assert np.allclose(mine["points"], theirs["points"])


def test_pts_of_a_photograph_of_another_kind_are_not_mixed_up(
    tmp_path: Path, portrait_faces: Faces
) -> None:
    record = portrait_faces.to_dict()
    pts.write(tmp_path / "p", ({**record, "image": name} for name in ("k.bmp", "k.jpg")))
    found = list(pts.read(tmp_path / "p"))
    assert [len(r["faces"]) for r in found] == [1, 1]
    assert "k.jpg" in {r["image"] for r in found}
    # With the pictures beside them, too.
    for name in ("k.bmp", "k.jpg"):
        (tmp_path / "p" / name).touch()
    again = list(pts.read(tmp_path / "p"))
    assert [len(r["faces"]) for r in again] == [1, 1]
    assert "k.jpg" in {r["image"] for r in again}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("version: 1\nn_points: 2\n{\n1 1\n2 2\n}\n", "2 points on a face"),
        ("version: 1\nn_points: 3\n{\n1 1\n2 2\n}\n", "2 points, its header says 3"),
        ("version: 1\nn_points: 1\n{\n1 one\n}\n", "a coordinate is not a number"),
        ("version: 1\nn_points: 1\n{\n1 1 1\n}\n", "a line without exactly two numbers"),
        ("version: 1\nn_points: 0\n{\n}\n", "no points in it"),
        (
            f"n_points: 68 {{\n{'1 nan' + chr(10)}" + "1 1\n" * 67 + "}\n",
            "a coordinate is not finite",
        ),
        ("nothing", "no 'n_points: N { … }' in it"),
        (b"\xff\xfe", "not a text file"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, content: str | bytes, message: str) -> None:
    path = tmp_path / "p/a.pts"
    path.parent.mkdir()
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(FormatError, match=r"a\.pts: ") as caught:
        list(pts.read(tmp_path / "p"))
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_folder_without_pts_is_named(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"no \.pts files in it"):
        list(pts.read(tmp_path))
    with pytest.raises(FormatError, match=r"not a folder of \.pts files"):
        list(pts.read(tmp_path / "missing"))


def test_a_name_without_an_ending_in_a_folder_with_a_dot(
    tmp_path: Path, portrait_faces: Faces
) -> None:
    record = portrait_faces.to_dict()
    names = ["a.b/c", "a.jpg", "a.b/.jpg", "a.b/./c.jpg", "x/../y.jpg", "x/__/y.png"]
    pts.write(tmp_path / "p", ({**record, "image": name} for name in names))
    written = sorted(str(f.relative_to(tmp_path / "p")) for f in (tmp_path / "p").rglob("*.pts"))
    assert written == [
        "a.b/.jpg.pts", "a.b/c.jpg.pts", "a.b/c.pts", "a.pts", "x/__/y.png.pts", "x/__/y.pts"
    ]  # fmt: skip


@pytest.mark.parametrize("names", [("a.jpg", "/a.jpg"), ("a/b.jpg", "a//b.jpg"), ("..", "__")])
def test_two_photographs_never_have_one_file(
    tmp_path: Path, portrait_faces: Faces, names: tuple[str, str]
) -> None:
    record = portrait_faces.to_dict()
    pts.write(tmp_path / "p", ({**record, "image": name} for name in names[:1]))
    three = ({**record, "image": name} for name in (*names, names[0]))
    with pytest.raises(FormatError, match="would have the same files as another photograph"):
        pts.write(tmp_path / "p", three)
