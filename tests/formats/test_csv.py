from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from kpipe import IBUG68, Faces
from kpipe.errors import FormatError
from kpipe.formats import csv as csv_format
from kpipe.structures.schemes import KAGGLE15


def test_csv_has_a_column_for_every_number(portrait_faces: Faces) -> None:
    record = portrait_faces.at("a,b.jpg").to_dict()
    text = csv_format.header(IBUG68) + csv_format.rows_of_record(record, IBUG68)
    row = next(csv.DictReader(io.StringIO(text)))
    face = portrait_faces[0]
    assert row["image"] == "a,b.jpg"
    assert float(row["nose_tip_x"]) == pytest.approx(face.points[30, 0], abs=0.006)
    assert float(row["x0"]) == pytest.approx(face.box[0], abs=0.006)
    assert face.pose is not None and float(row["yaw"]) == pytest.approx(face.pose.yaw, abs=0.006)
    assert None not in row and None not in row.values()


def test_a_photograph_without_a_face_has_a_row_as_long_as_the_others(
    portrait_faces: Faces,
) -> None:
    columns = len(csv_format.header(IBUG68).split(","))
    for record in (
        portrait_faces.at("a.jpg").to_dict() | {"faces": []},
        {"image": "a.jpg", "error": "empty", "faces": []},
    ):
        assert len(csv_format.rows_of_record(record, IBUG68).split(",")) == columns


def test_numbers_keep_all_their_decimals(tmp_path: Path, portrait_faces: Faces) -> None:
    record = portrait_faces.at("a.jpg").to_dict()
    face = record["faces"][0]
    face["points"][0] = [1 / 3, 2 / 3]
    face["sigma"][5] = 1.23456789
    csv_format.write(tmp_path / "a.csv", [record])
    assert list(csv_format.read(tmp_path / "a.csv")) == [record]


def test_one_table_holds_points_of_one_scheme(tmp_path: Path, portrait_faces: Faces) -> None:
    records = [
        portrait_faces.at("a.jpg").to_dict(),
        portrait_faces.to_scheme(KAGGLE15).at("b.jpg").to_dict(),
    ]
    with pytest.raises(FormatError, match=r"b\.jpg: points of kaggle15 in a table of ibug68"):
        csv_format.write(tmp_path / "a.csv", records)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("0.99", "high", "line 2: could not convert"),
        (",640,", ",wide,", "line 2: invalid literal"),
        ("11.00,12.00", "nan,12.00", "line 2: not the record of a photograph"),
    ],
)
def test_a_bad_cell_is_named_by_its_line(
    tmp_path: Path, portrait_faces: Faces, old: str, new: str, message: str
) -> None:
    record = portrait_faces.at("a.jpg").to_dict() | {"width": 640}
    record["faces"][0] |= {"score": 0.99, "box": [11.0, 12.0, 13.0, 14.0]}
    path = tmp_path / "a.csv"
    csv_format.write(path, [record])
    assert list(csv_format.read(path)) == [record]
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(FormatError, match=message):
        list(csv_format.read(path))


def test_a_row_that_is_cut_off_is_named(tmp_path: Path, portrait_faces: Faces) -> None:
    path = tmp_path / "a.csv"
    csv_format.write(path, [portrait_faces.at("a.jpg").to_dict()])
    head, row = path.read_text().splitlines()
    path.write_text(f"{head}\n{','.join(row.split(',')[:100])}\n")
    with pytest.raises(FormatError, match=r"a\.csv, line 2: fewer cells than columns"):
        list(csv_format.read(path))


def test_a_header_longer_than_any_column_name_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x" * 200_000)
    with pytest.raises(FormatError, match=r"a\.csv, line \d: field larger than"):
        list(csv_format.read(tmp_path / "a.csv"))


NAMES = [
    *("=1+1.jpg", "+1.jpg", "-1.jpg", "@SUM(A1).jpg", "\t=1.jpg", "\r=1.jpg", " =1.jpg", "\n=1"),
    *("./=1+1.jpg", "././-1.jpg", "./a.jpg", "/=1.jpg", "＝1+1.jpg", "=cmd|' /C calc'!A0.jpg"),
    *(
        "a;=1+1.jpg",
        "a\t=1.jpg",
        'a"=1.jpg',
        "a,=1.jpg",
        "a\n=1.jpg",
        "a\r=1.jpg",
        " a ",
        "'=1.jpg",
    ),
    *("a;./=1", "a;././=1;=2", "a\t./=1", "=;=;=", "==", "=\n=", "\n\n=", ";=", "; =", "./;./="),
    *("a.jpg", "1-2.jpg", "名前.jpg", "caf\udce9.jpg", "--", "=", "./", "./."),
]


def test_no_name_or_reason_is_a_formula_and_all_read_back_the_same(
    tmp_path: Path, portrait_faces: Faces
) -> None:
    record = portrait_faces.to_dict()
    records = [{**record, "image": name} for name in NAMES]
    records += [{**record, "image": name, "faces": []} for name in NAMES]
    records += [{**record, "image": "w.jpg", "warning": name} for name in NAMES]
    records += [{"image": name, "error": f"{name}: empty", "faces": []} for name in NAMES]
    path = tmp_path / "a.csv"
    csv_format.write(path, records)
    text = path.read_bytes().decode("utf-8", "surrogateescape")
    # As spreadsheets split the file: at commas, or where these are decimal marks at semicolons.
    for separator in ",;\t":
        for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator):
            for cell in row:
                if cell.lstrip().startswith(tuple("=+-@＝＋－＠")):
                    assert separator == ","
                    float(cell)
    found = list(csv_format.read(path))
    assert [r["image"] for r in found] == [r["image"] for r in records]
    assert [r.get("error") for r in found] == [r.get("error") for r in records]
    assert [r.get("warning") for r in found] == [r.get("warning") for r in records]
    assert found == records


def test_names_of_older_files_are_read_as_they_are(tmp_path: Path, portrait_faces: Faces) -> None:
    csv_format.write(tmp_path / "a.csv", [portrait_faces.at("n.jpg").to_dict()])
    text = (tmp_path / "a.csv").read_text()
    for name in ("=1.jpg", "-1.jpg", "./a.jpg"):
        (tmp_path / "b.csv").write_text(text.replace("n.jpg", name))
        assert [r["image"] for r in csv_format.read(tmp_path / "b.csv")] == [name]


def test_rows_of_errors_are_no_formulas() -> None:
    assert csv_format.reason_line(("image", "reason")) == "image,reason\n"
    text = csv_format.reason_line(("=1.jpg", "=1.jpg: empty;=2"))
    assert text == './=1.jpg,"\\u003d1.jpg: empty;\\u003d2"\n'


def test_a_photograph_of_a_job_is_no_formula_in_its_tables(tmp_path: Path) -> None:
    from kpipe.batch.tables import GrowingTable

    record = '{"image": "=1.jpg", "error": "=1.jpg: empty", "faces": []}'
    for kind in ("csv", "errors"):
        table = GrowingTable(tmp_path / f"{kind}.csv", kind)
        (tmp_path / kind).mkdir()
        table.begin([record], tmp_path / kind)
        table.add([record])
        table.close()
    assert [r["image"] for r in csv_format.read(tmp_path / "csv.csv")] == ["=1.jpg"] * 2
    lines = (tmp_path / "errors.csv").read_text().splitlines()
    assert lines == ["image,reason", *["./=1.jpg,\\u003d1.jpg: empty"] * 2]
