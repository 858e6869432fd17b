from __future__ import annotations

from pathlib import Path

import pytest

from kpipe.errors import FormatError
from kpipe.formats import dlib

PARTS = "".join(f"<part name='{k:02d}' x='{k}' y='{k % 7}'/>" for k in reversed(range(68)))
BOX = f"<box left='0' top='0' width='68' height='7'>{PARTS}</box>"
FILE = (
    f"<dataset><images><image file='a.jpg' width='90' height='50'>{BOX}</image></images></dataset>"
)


def test_parts_are_ordered_by_their_names_and_ignored_boxes_left_out(tmp_path: Path) -> None:
    path = tmp_path / "f.xml"
    path.write_text(FILE.replace("</image>", BOX.replace("<box", "<box ignore='1'") + "</image>"))
    (record,) = dlib.read(path)
    (face,) = record["faces"]
    assert face["points"] == [[k, k % 7] for k in range(68)]
    assert face["box"] == [0, 0, 67, 6]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("</dataset>", "", "f.xml: not dlib's XML of faces"),
        ("<dataset>", "<?xml version='1.0' encoding='klingon'?><dataset>", "f.xml: not dlib's XML"),
        ("left='0'", "", "f.xml, a.jpg: not dlib's XML of faces (no 'left' on a box)"),
        ("left='0'", "left='x'", "f.xml, a.jpg: not dlib's XML of faces"),
        ("left='0'", "left='nan'", "f.xml, a.jpg: not the record of a photograph"),
        ("name='03'", "name='nose'", "the name or a coordinate of a part is not a number"),
        ("x='3'", "", "the name or a coordinate of a part is not a number"),
        ("width='90'", "width='wide'", "f.xml, a.jpg: width or height is not a number"),
        ("<part name='03' x='3' y='3'/>", "", "f.xml, a.jpg: 67 points on a face"),
    ],
)
def test_a_bad_file_is_one_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "f.xml"
    assert old in FILE
    path.write_text(FILE.replace(old, new, 1))
    with pytest.raises(FormatError) as caught:
        list(dlib.read(path))
    assert message in str(caught.value) and "\n" not in str(caught.value)
