"""COCO keypoints: JSON with 68 points a face as `keypoints`, or as COCO-WholeBody's `face_kpts`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kpipe.datasets.samples import Sample, checked_points
from kpipe.errors import DatasetError


def is_coco(path: Path) -> bool:
    return path.suffix.lower() == ".json"


def faces(table: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The picture's name and the record of each annotation that has keypoints of a face."""
    try:
        content = json.loads(table.read_bytes())
        names = {image["id"]: str(image["file_name"]) for image in content["images"]}
        for record in content["annotations"]:
            if _has_face(record):
                yield names[record["image_id"]], record
    except OSError as error:
        raise DatasetError(f"{table}: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DatasetError(f"{table}: not COCO's JSON ({type(error).__name__}: {error})") from None


def _has_face(record: dict[str, Any]) -> bool:
    # COCO-WholeBody describes whole persons: its `keypoints` are joints, not a face's points.
    if "face_valid" in record:
        return bool(record["face_valid"]) and "face_kpts" in record
    return "keypoints" in record and record.get("num_keypoints", 1) > 0


def picture_of(table: Path, name: str) -> Path:
    """Pictures lie beside the file, or in the folder of its name."""
    for folder in (table.parent, table.with_suffix("")):
        if (folder / name).is_file():
            return folder / name
    raise DatasetError(f"{table}: no picture {name} beside it or in {table.stem}/")


def sample_of(table: Path, name: str, record: dict[str, Any]) -> Sample:
    """The labelled face of one annotation: x, y and visibility of each point."""
    where = f"{table}, {name}"
    values = record["face_kpts" if "face_valid" in record else "keypoints"]
    if not isinstance(values, list) or len(values) % 3:
        raise DatasetError(f"{where}: keypoints are not x, y, visibility")
    if not all(values[2::3]):
        raise DatasetError(f"{where}: a point is not labelled (visibility 0)")
    points = checked_points([values[k : k + 2] for k in range(0, len(values), 3)], where)
    path = picture_of(table, name)
    return Sample(path, points, "300w", str(record["image_id"]))
