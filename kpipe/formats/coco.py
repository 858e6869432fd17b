"""COCO keypoints: one JSON document of `images`, `annotations` and `categories`.

Lin et al., "Microsoft COCO" (ECCV 2014). Values without a place in COCO (score, sigma, pose, the
reason of a failure …) stand under kpipe's own keys, which other readers ignore. COCO-WholeBody (Jin
et al., ECCV 2020) is read, too: it has the points of a person's face as `face_kpts`.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from kpipe.errors import FormatError
from kpipe.formats.records import (
    FACE_PARTS,
    FRAME_PARTS,
    Record,
    checked_record,
    face_record,
    photo_record,
    reading,
    scheme_named,
    scheme_of,
)
from kpipe.structures.schemes import IBUG68, Scheme
from kpipe.utils.files import atomic_file, display_name

VISIBLE = 2
"""COCO's visibility flag of a point that is labeled and visible; 0 is a point without a label."""


class Document(NamedTuple):
    """The parts of a COCO file.

    Attributes:
        images: by `id`, each with a `file_name` (text).
        annotations: each with the `image_id` of one of the images.
    """

    images: dict[Any, dict[str, Any]]
    annotations: list[dict[str, Any]]

    def name_of(self, annotation: dict[str, Any]) -> str:
        """The file name of an annotation's image."""
        name: str = self.images[annotation["image_id"]]["file_name"]
        return name


def load(path: Path) -> Document:
    """Reads a file of any COCO annotations: boxes, keypoints or both.

    Raises:
        FormatError: it cannot be read, or is not COCO's JSON.
    """
    with reading(path, "rb") as stream:
        content = stream.read()
    try:
        document = json.loads(content)
        images = {}
        for image in document["images"]:
            if image["id"] in images:
                raise ValueError(f"two images have the id {image['id']}")
            images[image["id"]] = {**image, "file_name": str(image["file_name"])}
        annotations = list(document["annotations"])
        for number, annotation in enumerate(annotations, 1):
            if annotation["image_id"] not in images:
                raise ValueError(f"annotation {number} is of no image in the file")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise FormatError(f"{display_name(path)}: not COCO's JSON ({reason})") from None
    return Document(images, annotations)


def face_keypoints(annotation: dict[str, Any]) -> Any | None:
    """The keypoints of an annotation's face: x, y (pixels), visibility, x, y … as in the file.

    None if the annotation has no keypoints of a face. In COCO-WholeBody `keypoints` are the joints
    of a whole person.
    """
    if "face_valid" in annotation:
        return annotation.get("face_kpts") if annotation["face_valid"] else None
    return None if annotation.get("num_keypoints") == 0 else annotation.get("keypoints")


def corners(annotation: dict[str, Any]) -> list[float]:
    """x0, y0, x1, y1 (pixels) of an annotation's `bbox`, which is x, y, width, height.

    Raises:
        KeyError, TypeError, ValueError, OverflowError: it has none, or not of four numbers.
    """
    x, y, width, height = annotation["bbox"]
    # The sum of two decimal fractions is off in the last binary place.
    return [x, y, round(x + width, 6), round(y + height, 6)]


def read(path: Path) -> Iterator[Record]:
    """The records of a file, one an image; annotations without a face's keypoints are left out.

    Raises:
        FormatError: the file cannot be read, or is not COCO's JSON of faces.
    """
    document = load(path)
    faces: dict[Any, list[dict[str, Any]]] = {key: [] for key in document.images}
    for number, annotation in enumerate(document.annotations, 1):
        values = face_keypoints(annotation)
        if values is None:
            continue
        try:
            faces[annotation["image_id"]].append(_face(annotation, values))
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            where = f"{display_name(path)}, annotation {number}"
            reason = f"{type(error).__name__}: {error}"
            raise FormatError(f"{where}: not COCO's keypoints of a face ({reason})") from None
    places = {
        key: f"{display_name(path)}, {display_name(image['file_name'])}"
        for key, image in document.images.items()
    }
    # A photograph without faces has the scheme of the first one with faces.
    first = (scheme_of(found, places[key]) for key, found in faces.items() if found)
    scheme = next(first, IBUG68)
    for key, image in document.images.items():
        yield checked_record(_record(image, faces[key], scheme, places[key]), places[key])


def _record(
    image: dict[str, Any], faces: list[dict[str, Any]], default: Scheme, where: str
) -> Record:
    try:
        return photo_record(
            image["file_name"],
            image.get("width"),
            image.get("height"),
            faces,
            image.get("error"),
            image.get("scheme") or scheme_of(faces, where, default).name,
            **{name: image.get(name) for name in FRAME_PARTS},
        )
    except (ValueError, TypeError, OverflowError) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(f"{where}: width or height is not a number") from None


def _face(annotation: dict[str, Any], values: list[float]) -> dict[str, Any]:
    points = [list(values[k : k + 2]) for k in range(0, len(values), 3)]
    # The `bbox` of COCO-WholeBody is the person's.
    box = corners(annotation) if "bbox" in annotation and "face_valid" not in annotation else None
    return face_record(points, box, **{name: annotation.get(name) for name in FACE_PARTS})


def write(path: Path, records: Iterable[Record]) -> dict[str, int]:
    """Writes one document. Nothing is dropped: the dict is empty.

    Raises:
        FormatError: the scheme of the records is unknown.
        WriteError: the file cannot be written.
    """
    scheme = None
    # `images` come before `annotations` in the document: these wait in a file of their own.
    with atomic_file(path) as stream, tempfile.TemporaryFile("w+") as later:
        stream.write('{"images": [')
        faces = 0
        for number, record in enumerate(records, 1):
            if scheme is None and "error" not in record:
                scheme = scheme_named(record)
            stream.write((", " if number > 1 else "") + "\n" + json.dumps(_image(record, number)))
            for face in record["faces"]:
                faces += 1
                later.write((", " if faces > 1 else "") + "\n")
                later.write(json.dumps(_annotation(face, faces, number)))
        stream.write('],\n"annotations": [')
        later.seek(0)
        while block := later.read(1 << 20):
            stream.write(block)
        stream.write('],\n"categories": [' + json.dumps(_category(scheme or IBUG68)) + "]}\n")
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
        "keypoints": [value for x, y in face["points"] for value in (x, y, VISIBLE)],
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
