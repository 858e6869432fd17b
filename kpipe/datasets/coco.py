"""COCO keypoints as labels: 68 points a face as `keypoints`, or as COCO-WholeBody's `face_kpts`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kpipe.datasets.samples import Sample, checked_points, format_errors
from kpipe.errors import DatasetError
from kpipe.formats.coco import face_keypoints, load
from kpipe.utils.files import display_name
from kpipe.utils.paths import is_file


def faces(table: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The picture's name and the annotation of each face that has keypoints.

    Raises:
        DatasetError: the file cannot be read, or is not COCO's JSON.
    """
    with format_errors():
        document = load(table)
    for annotation in document.annotations:
        if face_keypoints(annotation) is not None:
            yield document.name_of(annotation), annotation


def picture_of(table: Path, name: str) -> Path:
    """The picture of this name: beside the file, or in the folder with the file's name.

    Raises:
        DatasetError: it is in neither.
    """
    for folder in (table.parent, table.with_suffix("")):
        if is_file(folder / name):
            return folder / name
    raise DatasetError(
        f"{display_name(table)}: no picture {display_name(name)} beside it or in "
        f"{display_name(table.stem)}/"
    )


def sample_of(table: Path, name: str, annotation: dict[str, Any]) -> Sample:
    """The sample of one annotation.

    Raises:
        DatasetError: its keypoints are not 68 labeled points, or there is no picture.
    """
    where = f"{display_name(table)}, {display_name(name)}"
    values = face_keypoints(annotation)
    if not isinstance(values, list) or len(values) % 3:
        raise DatasetError(f"{where}: keypoints are not x, y, visibility")
    if not all(values[2::3]):
        raise DatasetError(f"{where}: a point is not labeled (visibility 0)")
    points = checked_points([values[k : k + 2] for k in range(0, len(values), 3)], where)
    path = picture_of(table, name)
    return Sample(path, points, "300w", str(annotation["image_id"]))
