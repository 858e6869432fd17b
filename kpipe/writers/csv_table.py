"""CSV: one row a face."""

from __future__ import annotations

import csv
import io

from kpipe.faces import Faces
from kpipe.schemes import Scheme

LEADING = ("image", "face", "score", "x0", "y0", "x1", "y1", "yaw", "pitch", "roll")


def header(scheme: Scheme) -> str:
    """The line of column names: box and pose, then x, y and sigma of each point."""
    points = [f"{name}_{axis}" for name in scheme.names for axis in ("x", "y", "sigma")]
    return _line([*LEADING, *points])


def rows(faces: Faces) -> str:
    """The lines of one photograph's faces, numbered from 1."""
    lines = []
    for number, face in enumerate(faces, 1):
        pose = ["" if face.pose is None else f"{angle:.2f}" for angle in face.pose or ("",) * 3]
        points = [
            text
            for (x, y), sigma in zip(face.points, face.sigma)
            for text in (f"{x:.2f}", f"{y:.2f}", f"{sigma:.3f}")
        ]
        box = [f"{value:.2f}" for value in face.box]
        lines.append(_line([faces.path, number, f"{face.score:.4f}", *box, *pose, *points]))
    return "".join(lines)


def _line(values: list[object]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(values)
    return buffer.getvalue()
