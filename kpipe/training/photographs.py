"""Labeled photographs of crowds, and the landmark squares and rolls of their faces.

Labels of detection are boxes of whole faces. The detector learns squares around the landmarks,
which the pipeline measures where it detects the labeled face; elsewhere they follow from the box.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from kpipe.datasets import DatasetError, held_out
from kpipe.datasets.coco import picture_of
from kpipe.datasets.samples import format_errors
from kpipe.errors import ImageError
from kpipe.formats import coco
from kpipe.measures.pose import head_pose
from kpipe.media.images import read_image
from kpipe.pipeline import Pipeline
from kpipe.preprocessing.boxes import landmark_box
from kpipe.preprocessing.crops import to_gray
from kpipe.utils.files import display_name, write_file

Gray = NDArray[np.uint8]
OnBad = Callable[[DatasetError], None]


T = TypeVar("T")


class Progress(Protocol):
    """Gives things back one by one and shows how far it is with them."""

    def __call__(self, items: list[T], what: str, /) -> Iterable[T]: ...


LABEL_SHIFT = 0.12
"""How far below the center of a labeled box, forehead to chin, that of the square around the
landmarks lies, in heights of the box. Median over 5,500 faces of `wider_train`; in `masks`, whose
boxes begin lower, it is 0.03, so each file's own is measured where landmarks are to be had."""


LABEL_SCALE, LABEL_WIDTH = 0.95, 0.586
"""Side of that square over the geometric mean of the box's width and height, and the weight of the
width in it. From the same faces: 0.835 of the height of frontal ones, whose width is 0.80 of it;
0.733 and 0.64 of those turned by more than 35 degrees."""


MATCHED = 0.4
"""IoU from which on a detected face and a labeled box are taken for the same."""


LEAST_SIDE = 8.0
"""Faces with a side below this [px], in the photograph or in the scene, are neither learned nor
counted as background."""


@dataclass(frozen=True)
class LabeledScene:
    """A photograph in memory, and the faces on it.

    Attributes:
        gray: (h, w).
        places: (n, 4): x and y of the center of the square around the landmarks, its side [px],
            roll [degrees]; NaN, where the roll is not known.
        counted: (n,) whether each is to be detected; the others are ignored either way.
    """

    gray: Gray
    places: NDArray[np.float32]
    counted: NDArray[np.bool_]


def read_scenes(
    table: Path,
    found: Mapping[str, NDArray[np.float32]] | None = None,
    on_bad: OnBad | None = None,
) -> dict[str, LabeledScene]:
    """The photographs of a COCO detection file by name, with their boxes as landmark squares.

    Args:
        table: the file; of an annotation `invalid`, `ignore`, `iscrowd` and `pose` (1: atypical,
            roll unknown) count, where they are given.
        found: of `find_faces`: more precise squares and rolls for the labeled faces among these;
            the others are ignored. Without it all places come from the boxes.
        on_bad: called with the error of each photograph that cannot be read, which is then left
            out.

    Raises:
        DatasetError: the file cannot be read; or, without `on_bad`, a photograph.
    """
    records = _records(table)
    nothing = np.zeros((0, 5), np.float32)
    faces = {name: (found or {}).get(name, nothing) for name in records}
    shifts = [s for name in records for s in _shifts(_boxes(records[name]), faces[name])]
    shift = float(np.median(shifts)) if len(shifts) >= ENOUGH else LABEL_SHIFT
    scenes = {}
    for name in records:
        try:
            gray = to_gray(_picture(table, name))
        except DatasetError as error:
            if on_bad is None:
                raise
            on_bad(error)
            continue
        scenes[name] = labeled_scene(gray, records[name], faces[name], shift)
    return scenes


def find_faces(
    table: Path,
    pipeline: Pipeline,
    progress: Progress = lambda items, _: items,
    on_bad: OnBad | None = None,
) -> dict[str, NDArray[np.float32]]:
    """The faces that a pipeline detects on the photographs of a COCO detection file.

    Args:
        table: the file.
        pipeline: detects them.
        progress: shows how far it is with the photographs.
        on_bad: as for `read_scenes`.

    Returns:
        By name of the photograph (n, 5): x, y, side, roll, as in `LabeledScene`, and score.

    Raises:
        DatasetError: the file cannot be read; or, without `on_bad`, a photograph.
    """
    found = {}
    for name in progress([*_records(table)], f"faces of {display_name(table)}"):
        try:
            faces = pipeline(_picture(table, name))
        except DatasetError as error:
            if on_bad is None:
                raise
            on_bad(error)
            continue
        rows = [[*_square(face.points), face.score] for face in faces]
        found[name] = np.array(rows, np.float32).reshape(-1, 5)
    return found


def _records(table: Path) -> dict[str, list[dict[str, Any]]]:
    """The annotations of each photograph of a COCO detection file, by the photograph's name."""
    with format_errors():
        document = coco.load(table)
        records: dict[str, list[dict[str, Any]]] = {
            image["file_name"]: [] for image in document.images.values()
        }
        for number, annotation in enumerate(document.annotations, 1):
            coco.box_of(annotation, f"{display_name(table)}, annotation {number}")
            records[document.name_of(annotation)].append(annotation)
    return records


def _square(points: NDArray[np.float32]) -> tuple[float, float, float, float]:
    """x, y, side and roll of the square around landmarks."""
    roll = head_pose(points).roll
    x0, y0, x1, y1 = (float(v) for v in landmark_box(points, roll))
    return (x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, roll


def _picture(table: Path, name: str) -> NDArray[np.uint8]:
    try:
        return read_image(picture_of(table, name))
    except ImageError as error:
        raise DatasetError(str(error)) from None


ENOUGH = 20
"""Faces with landmarks from which on a file's own shift is used."""


def _boxes(records: Sequence[dict[str, Any]]) -> NDArray[np.float64]:
    return np.array([record["bbox"] for record in records], np.float64).reshape(-1, 4)


def _shifts(boxes: NDArray[np.float64], found: NDArray[np.float32]) -> list[float]:
    """How far below the centers of boxes detected faces are, see `LABEL_SHIFT`."""
    places = label_squares(boxes)
    shifts = []
    for face in found if len(boxes) else ():
        overlap = overlaps(face, places)
        best = int(overlap.argmax())
        if overlap[best] >= MATCHED and abs(face[3]) < 15:
            _, y, _, height = boxes[best]
            shifts.append(float((face[1] - y) / height - 0.5))
    return shifts


def labeled_scene(
    gray: Gray,
    records: Sequence[dict[str, Any]],
    found: NDArray[np.float32],
    shift: float = LABEL_SHIFT,
) -> LabeledScene:
    """A photograph with COCO's annotations of it and detected faces (n, 5), see
    `find_faces`.
    """
    places = label_squares(_boxes(records), shift)
    places[[record.get("pose") == 1 for record in records], 3] = np.nan
    counted = np.array(
        [
            not any(record.get(key) for key in ("invalid", "ignore", "iscrowd"))
            for record in records
        ],
        bool,
    )
    counted &= places[:, 2] >= LEAST_SIDE
    extra = []
    free = np.ones(len(places), bool)
    for face in found[np.argsort(-found[:, 4])]:
        overlap = np.where(free, overlaps(face, places), 0) if len(places) else np.zeros(1)
        best = int(overlap.argmax())
        if overlap[best] >= MATCHED:
            free[best] = False
            places[best] = face[:4]
        elif not len(places) or overlaps(face, places).max() < MATCHED:
            extra.append(face[:4])
    if extra:
        places = np.vstack([places, extra])
        counted = np.concatenate([counted, np.zeros(len(extra), bool)])
    return LabeledScene(gray, places.astype(np.float32), counted)


def label_squares(boxes: NDArray[np.float64], shift: float = LABEL_SHIFT) -> NDArray[np.float64]:
    """(n, 4) x, y, side and roll 0 of the landmark squares in boxes (n, 4) x, y, width, height."""
    x, y, width, height = boxes.T
    side = LABEL_SCALE * width**LABEL_WIDTH * height ** (1 - LABEL_WIDTH)
    places = [x + width / 2, y + height * (0.5 + shift), side, np.zeros(len(boxes))]
    return np.stack(places, axis=1)


def overlaps(place: NDArray[np.floating], places: NDArray[np.floating]) -> NDArray[np.float64]:
    """(n,) IoU of a square with others, rolls apart."""
    half, others = place[2] / 2, places[:, 2:3] / 2
    high = np.minimum(place[:2] + half, places[:, :2] + others)
    low = np.maximum(place[:2] - half, places[:, :2] - others)
    shared = np.maximum(high - low, 0).prod(axis=1)
    return np.asarray(shared / (place[2] ** 2 + places[:, 2] ** 2 - shared), np.float64)


HELD_OUT = 0.1
"""Share of the labeled photographs that is kept out of training, to choose settings by."""


@dataclass(frozen=True)
class PhotoSplit:
    """Labeled photographs to train on, and those to choose settings by."""

    training: list[LabeledScene]
    validation: list[LabeledScene]


def load_photos(
    tables: Sequence[Path],
    folder: Path,
    progress: Progress = lambda items, _: items,
    on_bad: OnBad | None = None,
) -> PhotoSplit:
    """The photographs to train on, and those kept out.

    Args:
        tables: COCO detection files.
        folder: of the run. The faces that the packaged pipeline detects on the photographs, for
            precise squares and rolls, are noted in it for the next time.
        progress: shows how far it is with the photographs.
        on_bad: as for `read_scenes`.

    Raises:
        DatasetError: a file cannot be read, or two have one name; or, without `on_bad`, a
            photograph cannot be read.
        WriteError: the faces cannot be noted.
    """
    split = PhotoSplit([], [])
    notes: set[Path] = set()
    for table in tables:
        note = folder / f"found_{table.stem}.json"
        if note in notes:
            raise DatasetError(f"{display_name(table)}: the name of another file too; rename one")
        notes.add(note)
        if not note.exists():
            # `read_scenes` reports the photographs that cannot be read.
            lenient = None if on_bad is None else lambda _: None
            found = find_faces(table, Pipeline(min_score=0.5), progress, lenient)
            rows = {name: faces.tolist() for name, faces in found.items()}
            write_file(note, json.dumps(rows).encode())
        for name, scene in read_scenes(table, _read_note(note), on_bad).items():
            part = split.validation if held_out(name, HELD_OUT) else split.training
            part.append(scene)
    return split


def _read_note(note: Path) -> dict[str, NDArray[np.float32]]:
    try:
        return {
            name: np.array(rows, np.float32).reshape(-1, 5)
            for name, rows in json.loads(note.read_bytes()).items()
        }
    except (OSError, ValueError, TypeError, AttributeError) as error:
        reason = display_name(str(error)[:120])
        raise DatasetError(
            f"{display_name(note)}: not as it was written ({reason}); delete it"
        ) from None
