"""The report on labeled pictures: worst faces, the error of each point, causes of errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kpipe.errors import KaggleError
from kpipe.kaggle.charts import causes_chart, keypoints_chart
from kpipe.kaggle.drawing import worst, worst_sheet
from kpipe.kaggle.files import Labeled, kept_out
from kpipe.kaggle.metrics import rmse_by_face
from kpipe.kaggle.predict import causes
from kpipe.media.images import encode
from kpipe.structures.landmarks import Landmarks
from kpipe.utils.files import write_file

WORST_FILE, SAME_FILE, KEYPOINTS_FILE, CAUSES_FILE = FILES = (
    "worst.png",
    "same_faces.png",
    "keypoints.png",
    "causes.png",
)
"""Pictures of a report."""


def held_out_rows(data: Labeled, validation: float, name: Path) -> NDArray[np.intp]:
    """Rows that the training of a network kept out.

    Args:
        data: labeled pictures.
        validation: share that was kept out.
        name: of the file, for the error.

    Raises:
        KaggleError: none of them is labeled.
    """
    rows = np.flatnonzero(kept_out(data.pictures, validation))
    if np.isnan(data.points[rows]).all():
        raise KaggleError(f"{name}: no labeled picture that training kept out; try --all")
    return rows


def write_report(
    folder: Path,
    data: Labeled,
    rows: NDArray[np.intp],
    found: Mapping[str, NDArray[np.float32]],
    landmarks: Sequence[Landmarks],
) -> list[str]:
    """Writes the pictures of a report.

    Args:
        folder: where they go.
        data: n labeled pictures.
        rows: (n,) of the file, for captions.
        found: (n, 15, 2) of each predictor, by its name. The first one's worst faces are drawn, and
            the same faces for the last one.
        landmarks: the 68 points of each picture.

    Returns:
        Names of the files.

    Raises:
        WriteError: a file cannot be written.
    """
    errors = {name: rmse_by_face(points, data.points) for name, points in found.items()}
    first, last = next(iter(found)), [*found][-1]
    chosen = worst(errors[first])
    sheets = {WORST_FILE: first} if first == last else {WORST_FILE: first, SAME_FILE: last}
    captions = [f"row {row + 1}" for row in rows]
    for file, name in sheets.items():
        sheet = worst_sheet(data, found[name], errors[name], chosen, captions)
        write_file(folder / file, encode(sheet, ".png"))
    write_file(folder / KEYPOINTS_FILE, keypoints_chart(found, data.points))
    write_file(folder / CAUSES_FILE, causes_chart(causes(landmarks), errors))
    return [*sheets, KEYPOINTS_FILE, CAUSES_FILE]
