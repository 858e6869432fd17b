"""COCO keypoints: one JSON document of `images`, `annotations` and `categories`.

Lin et al., "Microsoft COCO" (ECCV 2014). Values without a place in COCO (score, sigma, pose, the
reason of a failure …) stand under kpipe's own keys, which other readers ignore. COCO-WholeBody (Jin
et al., ECCV 2020) is read, too: it has the points of a person's face as `face_kpts`.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
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
    is_number,
    is_text,
    photo_record,
    read_document,
    results_file,
    scheme_named,
    scheme_of,
)
from kpipe.structures.schemes import IBUG68, Scheme
from kpipe.utils.files import display_name
from kpipe.utils.limits import FACES, RECORDS

VISIBLE = 2
"""COCO's visibility flag of a point that is labeled and visible; 0 is a point without a label."""


class Document(NamedTuple):
    """The parts of a COCO file.

    Attributes:
        images: by `id` (a whole number or text), each with a `file_name` (text).
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
        FormatError: it cannot be read, is not COCO's JSON, or is beyond a limit.
    """
    name = display_name(path)
    try:
        document = json.loads(read_document(path))
        images: dict[Any, dict[str, Any]] = {}
        for image in document["images"]:
            key = _checked_id(image["id"])
            if key in images:
                raise ValueError(f"two images have the id {key}")
            if not (is_text(image["file_name"]) and image["file_name"]):
                raise ValueError(f"the file_name of image {key} is not text that a file can hold")
            images[key] = image
        annotations = list(document["annotations"])
        RECORDS.check(len(images) + len(annotations), name)
        faces: Counter[Any] = Counter()
        for number, annotation in enumerate(annotations, 1):
            key = _checked_id(annotation["image_id"])
            if key not in images:
                raise ValueError(f"annotation {number} is of no image in the file")
            faces[key] += 1
    except FormatError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = display_name(f"{type(error).__name__}: {error}"[:200])
        raise FormatError(f"{name}: not COCO's JSON ({reason})") from None
    for key, count in faces.items():
        FACES.check(count, f"{name}, {display_name(images[key]['file_name'])}")
    return Document(images, annotations)


def _checked_id(value: Any) -> int | str:
    """The id of an image: a whole number, or text as some programs write it.

    Raises:
        ValueError, TypeError: it is neither.
    """
    if isinstance(value, str) and is_text(value):
        return value
    if type(value) is not int:
        raise TypeError("the id of an image is neither a whole number nor text")
    return value


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
        KeyError, ValueError: it has none, or not of four numbers.
    """
    values = annotation["bbox"]
    if not (isinstance(values, list) and len(values) == 4 and all(map(is_number, values))):
        raise ValueError("`bbox` is not x, y, width, height")
    x, y, width, height = values
    # The sum of two decimal fractions is off in the last binary place.
    return [x, y, round(x + width, 6), round(y + height, 6)]


def box_of(annotation: dict[str, Any], where: str) -> list[float]:
    """x0, y0, x1, y1 (pixels) of an annotation's `bbox`, see `corners`.

    Args:
        annotation: of a `Document`.
        where: file and annotation, for the message.

    Raises:
        FormatError: it has no `bbox`, or not one of four numbers.
    """
    try:
        return corners(annotation)
    except (KeyError, ValueError):
        raise FormatError(f"{where}: `bbox` is not x, y, width, height") from None


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
            reason = display_name(f"{type(error).__name__}: {error}"[:200])
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
            **{name: image.get(name) for name in (*FRAME_PARTS, "warning")},
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


def write(path: Path, records: Iterable[Record], *, replace: bool = True) -> dict[str, int]:
    """Writes one document. Nothing is dropped: the dict is empty.

    Raises:
        FormatError: the scheme of the records is unknown, or the file exists and may not be
            replaced.
        WriteError: the file cannot be written.
    """
    scheme = None
    # `images` come before `annotations` in the document: these wait in a file of their own.
    with (
        results_file(path, replace=replace) as stream,
        tempfile.TemporaryFile("w+") as later,
    ):
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
    own = ("scheme", "error", "warning", *FRAME_PARTS)
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
