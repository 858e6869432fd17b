"""dlib's XML, as its `imglab` tool writes it: boxes and parts in whole pixels, nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

from kpipe.errors import FormatError
from kpipe.formats.records import FACE_PARTS, Record, face_record, photo_record, reading, scheme_of
from kpipe.structures.schemes import IBUG68
from kpipe.utils.files import atomic_file, display_name


def read(path: Path) -> Iterator[Record]:
    try:
        with reading(path, "rb") as stream:
            root = ElementTree.parse(stream).getroot()
        for image in root.iter("image"):
            boxes = [box for box in image.iter("box") if box.get("ignore") != "1"]
            faces = [_face(box) for box in boxes if box.find("part") is not None]
            name = image.get("file", "")
            scheme = scheme_of(len(faces[0]["points"]), name) if faces else IBUG68
            width, height = (int(image.get(side, 0)) for side in ("width", "height"))
            yield photo_record(name, width, height, faces, scheme=scheme.name)
    except (ElementTree.ParseError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, FormatError) and str(error).startswith(display_name(path)):
            raise
        raise FormatError(f"{display_name(path)}: not dlib's XML of faces ({error})") from None


def _face(box: ElementTree.Element) -> dict[str, Any]:
    left, top, width, height = (float(box.attrib[k]) for k in ("left", "top", "width", "height"))
    parts = sorted(box.iter("part"), key=lambda part: int(part.attrib["name"]))
    points = [[float(part.attrib["x"]), float(part.attrib["y"])] for part in parts]
    # dlib's rectangles hold their last pixel.
    return face_record(points, [left, top, left + width - 1, top + height - 1])


def write(path: Path, records: Iterable[Record]) -> dict[str, int]:
    lost: Counter[str] = Counter()
    with atomic_file(path) as stream:
        stream.write("<?xml version='1.0' encoding='UTF-8'?>\n<dataset>\n<name>faces</name>\n")
        stream.write("<images>\n")
        for record in records:
            name = record["image"].encode("utf-8", "surrogateescape").decode("utf-8", "replace")
            lost["bytes of names that are not UTF-8"] += name != record["image"]
            lost["reasons of errors"] += "error" in record
            lost["numbers and times of frames"] += "frame" in record
            sizes = "".join(
                f' {side}="{record[side]}"' for side in ("width", "height") if side in record
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
    """XML cannot hold control characters."""
    return "".join(c if c >= " " else "\N{REPLACEMENT CHARACTER}" for c in name)
