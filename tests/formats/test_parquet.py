from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kpipe import Faces
from kpipe.errors import FormatError

pa = pytest.importorskip("pyarrow")


def test_a_folder_is_read_file_by_file(tmp_path: Path, portrait_faces: Faces) -> None:
    from kpipe.formats import parquet

    records = [portrait_faces.at(f"{name}.jpg").to_dict() for name in "ab"]
    for number, record in enumerate(records):
        parquet.write(tmp_path / f"part-{number}.parquet", [record])
    assert list(parquet.read(tmp_path)) == records
    (tmp_path / "none").mkdir()
    with pytest.raises(FormatError, match="no Parquet files in it"):
        list(parquet.read(tmp_path / "none"))


@pytest.mark.parametrize("value", [10**30, 10**12])
def test_a_number_too_large_for_its_column_is_one_line(
    tmp_path: Path, portrait_faces: Faces, value: int
) -> None:
    from kpipe.formats import parquet

    record = portrait_faces.at("a.jpg").to_dict() | {"width": value}
    with pytest.raises(FormatError, match=r"a\.parquet: cannot be written") as caught:
        parquet.write(tmp_path / "a.parquet", [record])
    assert "\n" not in str(caught.value) and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "columns",
    [
        {"name": ["a"]},
        {"image": ["a"], "faces": [[1]], "width": [1], "height": [1], "error": [None]},
        {
            "image": [7], "faces": [[]], "width": [1], "height": [1], "error": [None],
            "scheme": ["ibug68"],
        },
    ],
)  # fmt: skip
def test_columns_of_others_are_one_line(tmp_path: Path, columns: dict[str, Any]) -> None:
    from pyarrow.parquet import write_table

    from kpipe.formats import parquet

    write_table(pa.table(columns), tmp_path / "a.parquet")
    with pytest.raises(FormatError, match=r"a\.parquet: not the (columns|record)") as caught:
        list(parquet.read(tmp_path / "a.parquet"))
    assert "\n" not in str(caught.value)
