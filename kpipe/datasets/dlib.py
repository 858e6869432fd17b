"""dlib's XML as labels: boxes with parts named 00 to 67."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from xml.etree.ElementTree import Element

from kpipe.datasets.samples import Sample, checked_points, format_errors, photograph_of
from kpipe.errors import DatasetError
from kpipe.formats import dlib
from kpipe.utils.files import display_name
from kpipe.utils.paths import is_file


def boxes(table: Path) -> Iterator[tuple[str, Element]]:
    """The picture's name and the element of each box that is not marked `ignore`.

    Raises:
        DatasetError: the file cannot be read, or is not XML.
    """
    with format_errors():
        images = dlib.load(table)
    for image in images:
        for box in dlib.boxes(image):
            yield image.get("file", ""), box


def sample_of(table: Path, picture: str, box: Element) -> Sample:
    """The sample of one box.

    Raises:
        DatasetError: its parts are not 68 points, or there is no picture.
    """
    where = f"{display_name(table)}, {display_name(picture)}"
    with format_errors(where):
        values = dlib.points(box)
    points = checked_points(values, where)
    path = table.parent / picture
    if not is_file(path):
        raise DatasetError(f"{where}: no picture {display_name(path)}")
    return Sample(path, points, "300w", photograph_of(path.stem))
