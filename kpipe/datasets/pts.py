"""Folders of `NAME.jpg` beside `NAME.pts`, as the iBUG group publishes 300-W and its parts.

Sagonas et al., "300 Faces in-the-Wild Challenge" (ICCV Workshops 2013).
"""

from __future__ import annotations

from pathlib import Path

from kpipe.datasets.samples import Sample, checked_points, format_errors, photograph_of
from kpipe.errors import DatasetError
from kpipe.formats.pts import PICTURES, read_pts
from kpipe.utils.files import display_name


def is_pts_folder(folder: Path) -> bool:
    return next(folder.glob("*.pts"), None) is not None


def pictures_in(folder: Path) -> list[Path]:
    """The pictures of a folder by name, and for each `.pts` without one, the path it would have."""
    pictures = {p.stem: p for p in sorted(folder.iterdir()) if p.suffix.lower() in PICTURES}
    for labels in folder.glob("*.pts"):
        pictures.setdefault(labels.stem, labels.with_suffix(PICTURES[0]))
    return [pictures[stem] for stem in sorted(pictures)]


def sample_of(picture: Path) -> Sample:
    """The sample of one picture and the `.pts` file beside it.

    Raises:
        DatasetError: there is no such file, or it does not hold 68 points.
    """
    labels = picture.with_suffix(".pts")
    if not labels.exists():
        raise DatasetError(f"{display_name(picture)}: no {display_name(labels.name)} beside it")
    with format_errors():
        values = read_pts(labels)
    points = checked_points(values, display_name(labels))
    return Sample(picture, points, "300w", photograph_of(picture.stem))
