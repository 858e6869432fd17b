"""dlib's XML, as its `imglab` tool writes it: boxes with named parts, 0-based pixels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from kpipe.datasets.samples import Sample, checked_points, photograph_of
from kpipe.errors import DatasetError


def is_dlib_xml(path: Path) -> bool:
    return path.suffix.lower() == ".xml"


def boxes(table: Path) -> Iterator[tuple[str, ElementTree.Element]]:
    """The picture's name and the element of each box that is not marked to be ignored."""
    try:
        root = ElementTree.parse(table).getroot()
    except OSError as error:
        raise DatasetError(f"{table}: {error.strerror or error}") from None
    except ElementTree.ParseError as error:
        raise DatasetError(f"{table}: not XML ({error})") from None
    images = root.iter("image")
    for image in images:
        for box in image.iter("box"):
            if box.get("ignore") != "1":
                yield image.get("file", ""), box


def sample_of(table: Path, picture: str, box: ElementTree.Element) -> Sample:
    """The labelled face of one box; its parts are named 00 to 67."""
    where = f"{table}, {picture}"
    parts = {part.get("name", ""): (part.get("x"), part.get("y")) for part in box.iter("part")}
    try:
        ordered = [parts[name] for name in sorted(parts, key=int)]
    except ValueError:
        raise DatasetError(f"{where}: the name of a part is not a number") from None
    points = checked_points(ordered, where)
    path = table.parent / picture
    if not path.is_file():
        raise DatasetError(f"{where}: no picture {path}")
    return Sample(path, points, "300w", photograph_of(path.stem))
