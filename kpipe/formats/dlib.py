"""dlib's XML, as its `imglab` tool writes it: boxes and numbered parts in whole pixels.

Pixels are counted from 0. A box may be marked `ignore`: a face that is not to be used.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.parsers import expat
from xml.sax.saxutils import quoteattr

from kpipe.errors import FormatError
from kpipe.formats.records import (
    FACE_PARTS,
    Record,
    checked_record,
    document_pieces,
    face_record,
    photo_record,
    results_file,
    scheme_of,
)
from kpipe.structures.schemes import IBUG68
from kpipe.utils.files import display_name
from kpipe.utils.limits import FACES, RECORDS

MAX_DEPTH = 32
"""Elements inside each other. imglab nests five."""

MAX_PARTS = 1_000
"""Parts of one box."""

UNPRINTABLE = re.compile("[\x00-\x1f\ud800-\udfff\ufffe\uffff]")
"""Characters that XML cannot hold."""


def load(path: Path) -> list[ElementTree.Element]:
    """The `image` elements of a file, each with its name as `file`.

    Of their content only `box` and `part` elements are kept.

    Raises:
        FormatError: the file cannot be read, is not XML, declares entities, or is beyond a limit.
    """
    name = display_name(path)
    images = _Images(name)
    parser = expat.ParserCreate()
    parser.EntityDeclHandler = images.refuse_entity
    parser.StartElementHandler = images.start
    parser.EndElementHandler = images.end
    try:
        for piece in document_pieces(path):
            parser.Parse(piece, False)
        parser.Parse(b"", True)
    except FormatError:
        raise
    except (expat.ExpatError, LookupError, ValueError) as error:
        # LookupError and ValueError: an encoding that Python does not know.
        raise FormatError(f"{name}: not dlib's XML of faces ({error})") from None
    return images.images


class _Images:
    """Handlers of a parser that keep the images of a file, their boxes, and the parts of those.

    All other elements are passed over, so that what they hold takes neither memory nor time.

    Args:
        name: of the file, for messages.

    Attributes:
        images: the `image` elements.
    """

    def __init__(self, name: str) -> None:
        self.images: list[ElementTree.Element] = []
        self._name = name
        self._open: list[str] = []
        self._boxes = 0
        self._box: ElementTree.Element | None = None

    def refuse_entity(self, *_: object) -> None:
        raise FormatError(f"{self._name}: not dlib's XML of faces (it declares entities)")

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        self._open.append(tag)
        if len(self._open) > MAX_DEPTH:
            reason = f"more than {MAX_DEPTH} elements inside each other"
            raise FormatError(f"{self._name}: not dlib's XML of faces ({reason})")
        if tag == "image":
            RECORDS.check(len(self.images) + self._boxes + 1, self._name)
            self.images.append(ElementTree.Element(tag, attributes))
            self._box = None
        elif tag == "box" and "image" in self._open:
            self._box = ElementTree.SubElement(self.images[-1], tag, attributes)
            self._boxes += 1
            RECORDS.check(len(self.images) + self._boxes, self._name)
            FACES.check(len(self.images[-1]), f"{self._name}, image {len(self.images)}")
        elif tag == "part" and "box" in self._open and self._box is not None:
            ElementTree.SubElement(self._box, tag, attributes)
            if len(self._box) > MAX_PARTS:
                where = f"{self._name}, image {len(self.images)}"
                raise FormatError(f"{where}: more than {MAX_PARTS} parts of a box")

    def end(self, _: str) -> None:
        self._open.pop()


def boxes(image: ElementTree.Element) -> list[ElementTree.Element]:
    """The `box` elements of an image that are not marked `ignore`."""
    return [box for box in image.findall("box") if box.get("ignore") != "1"]


def points(box: ElementTree.Element) -> list[list[float]]:
    """x, y (pixels) of a box's parts, in the order of their names 00, 01 …; [] if it has none.

    Raises:
        FormatError: a name or a coordinate is not a number. The message does not have the file.
    """
    try:
        parts = sorted(box.findall("part"), key=lambda part: int(part.attrib["name"]))
        return [[float(part.attrib["x"]), float(part.attrib["y"])] for part in parts]
    except (KeyError, ValueError):
        raise FormatError("the name or a coordinate of a part is not a number") from None


def read(path: Path) -> Iterator[Record]:
    """The records of a file, one an image; boxes without parts are left out.

    Raises:
        FormatError: the file cannot be read, or is not dlib's XML.
    """
    images = load(path)
    faces = []
    for image in images:
        try:
            faces.append([_face(box) for box in boxes(image) if box.find("part") is not None])
        except (KeyError, ValueError) as error:
            reason = f"no {error} on a box" if isinstance(error, KeyError) else str(error)[:200]
            raise FormatError(
                f"{_where(path, image)}: not dlib's XML of faces ({reason})"
            ) from None
    # A photograph without faces has the scheme of the first one with faces.
    first = (scheme_of(found, _where(path, image)) for image, found in zip(images, faces) if found)
    default = next(first, IBUG68)
    for image, found in zip(images, faces):
        where = _where(path, image)
        try:
            width, height = (int(image.get(side, 0)) for side in ("width", "height"))
        except ValueError:
            raise FormatError(f"{where}: width or height is not a number") from None
        scheme = scheme_of(found, where, default)
        record = photo_record(image.get("file", ""), width, height, found, scheme=scheme.name)
        yield checked_record(record, where)


def _where(path: Path, image: ElementTree.Element) -> str:
    return f"{display_name(path)}, {display_name(image.get('file', ''))}"


def _face(box: ElementTree.Element) -> dict[str, Any]:
    left, top, width, height = (float(box.attrib[k]) for k in ("left", "top", "width", "height"))
    # The last column and row of a dlib rectangle are inside it.
    return face_record(points(box), [left, top, left + width - 1, top + height - 1])


def write(path: Path, records: Iterable[Record], *, replace: bool = True) -> dict[str, int]:
    """Writes one document.

    Returns:
        What it has no place for, and how often it was dropped.

    Raises:
        FormatError: the file exists and may not be replaced.
        WriteError: the file cannot be written.
    """
    lost: Counter[str] = Counter()
    with results_file(path, replace=replace) as stream:
        stream.write("<?xml version='1.0' encoding='UTF-8'?>\n<dataset>\n<name>faces</name>\n")
        stream.write("<images>\n")
        for record in records:
            name = record["image"].encode("utf-8", "surrogateescape").decode("utf-8", "replace")
            lost["bytes of names that are not UTF-8"] += name != record["image"]
            lost["reasons of errors"] += "error" in record
            lost["warnings"] += "warning" in record
            lost["numbers and times of frames"] += "frame" in record
            sizes = "".join(
                f" {side}={quoteattr(str(record[side]))}"
                for side in ("width", "height")
                if side in record
            )
            stream.write(f"<image file={quoteattr(_printable(name))}{sizes}>\n")
            for face in record["faces"]:
                stream.write(_box(face))
                lost["fractions of pixels of faces"] += 1
                for part in FACE_PARTS:
                    lost[f"{part} of faces"] += part in face
            stream.write("</image>\n")
        stream.write("</images>\n</dataset>\n")
    return {what: count for what, count in lost.items() if count}


def _box(face: dict[str, Any]) -> str:
    left, top, right, bottom = (round(value) for value in face["box"])
    place = f'top="{top}" left="{left}" width="{right - left + 1}" height="{bottom - top + 1}"'
    parts = "".join(
        f'<part name="{index:02d}" x="{round(x)}" y="{round(y)}"/>\n'
        for index, (x, y) in enumerate(face["points"])
    )
    return f"<box {place}>\n{parts}</box>\n"


def _printable(name: str) -> str:
    """A name without the characters that XML cannot hold."""
    return UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", name)
