"""COCO keypoints: one JSON document. What COCO has no place for stands in fields of our own, which
other readers pass over.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from kpipe.errors import FormatError
from kpipe.formats.records import (
    FACE_PARTS,
    FRAME_PARTS,
    SCHEMES,
    Record,
    face_record,
    photo_record,
    reading,
    scheme_named,
    scheme_of,
)
from kpipe.structures.schemes import IBUG68, Scheme
from kpipe.utils.files import atomic_file, display_name

SEEN = 2
"""COCO's visibility of a point that is labelled and visible."""


def read(path: Path) -> Iterator[Record]:
    with reading(path, "rb") as stream:
        content = stream.read()
    try:
        document = json.loads(content)
        faces: dict[Any, list[dict[str, Any]]] = {}
        for annotation in document["annotations"]:
            if (points := _points(annotation)) is not None:
                face = _face(annotation, points)
                faces.setdefault(annotation["image_id"], []).append(face)
        for image in document["images"]:
            found = faces.get(image["id"], [])
            scheme = image.get("scheme") or (
                scheme_of(len(found[0]["points"]), image["file_name"]) if found else IBUG68
            )
            yield photo_record(
                image["file_name"],
                image.get("width"),
                image.get("height"),
                found,
                image.get("error"),
                scheme.name if isinstance(scheme, Scheme) else scheme,
                **{name: image.get(name) for name in FRAME_PARTS},
            )
    except FormatError as error:
        raise FormatError(f"{display_name(path)}, {error}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise FormatError(f"{display_name(path)}: not COCO's JSON ({reason})") from None


def _points(annotation: dict[str, Any]) -> list[list[float]] | None:
    # COCO-WholeBody describes whole persons: its `keypoints` are joints, not a face's points.
    if "face_valid" in annotation:
        values = annotation["face_kpts"] if annotation["face_valid"] else None
    else:
        values = annotation.get("keypoints")
    return values and [list(values[k : k + 2]) for k in range(0, len(values), 3)]


def _face(annotation: dict[str, Any], points: list[list[float]]) -> dict[str, Any]:
    box = None
    if "face_valid" not in annotation and "bbox" in annotation:
        x, y, width, height = annotation["bbox"]
        # The sum of two decimal fractions is off in the last binary place.
        box = [x, y, round(x + width, 6), round(y + height, 6)]
    return face_record(points, box, **{name: annotation.get(name) for name in FACE_PARTS})


def write(path: Path, records: Iterable[Record]) -> dict[str, int]:
    scheme = None
    # Images come before annotations in the file: these wait in another one.
    with atomic_file(path) as stream, tempfile.TemporaryFile("w+") as later:
        stream.write('{"images": [')
        faces = 0
        for number, record in enumerate(records, 1):
            scheme = scheme or scheme_named(record, record["image"])
            stream.write((", " if number > 1 else "") + "\n" + json.dumps(_image(record, number)))
            for face in record["faces"]:
                faces += 1
                later.write((", " if faces > 1 else "") + "\n")
                later.write(json.dumps(_annotation(face, faces, number)))
        stream.write('],\n"annotations": [')
        later.seek(0)
        while block := later.read(1 << 20):
            stream.write(block)
        category = _category(scheme or next(iter(SCHEMES.values())))
        stream.write('],\n"categories": [' + json.dumps(category) + "]}\n")
    return {}


def _image(record: Record, number: int) -> dict[str, Any]:
    image: Record = {
        "id": number,
        "file_name": record["image"],
        "width": record.get("width", 0),
        "height": record.get("height", 0),
    }
    own = ("scheme", "error", *FRAME_PARTS)
    return {**image, **{name: record[name] for name in own if name in record}}


def _annotation(face: dict[str, Any], number: int, image: int) -> dict[str, Any]:
    x0, y0, x1, y1 = face["box"]
    width, height = round(x1 - x0, 6), round(y1 - y0, 6)
    annotation = {
        "id": number,
        "image_id": image,
        "category_id": 1,
        "iscrowd": 0,
        "bbox": [x0, y0, width, height],
        "area": round(width * height, 4),
        "num_keypoints": len(face["points"]),
        "keypoints": [value for x, y in face["points"] for value in (x, y, SEEN)],
    }
    return {**annotation, **{name: face[name] for name in FACE_PARTS if name in face}}


def _category(scheme: Scheme) -> dict[str, Any]:
    # COCO counts the points of a skeleton from 1.
    bones = [[a + 1, b + 1] for line in scheme.polylines for a, b in line.segments()]
    return {
        "id": 1,
        "name": "face",
        "supercategory": "person",
        "keypoints": list(scheme.names),
        "skeleton": bones,
    }
