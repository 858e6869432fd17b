"""The iBUG group's `.pts`: one file a face, pixels counted from 1."""

from __future__ import annotations

from kpipe.faces import Face


def to_pts(face: Face) -> str:
    points = "".join(f"{x:.3f} {y:.3f}\n" for x, y in face.points + 1)
    return f"version: 1\nn_points: {len(face.points)}\n{{\n{points}}}\n"
