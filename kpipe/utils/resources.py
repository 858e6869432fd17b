"""Where the files that come with the package lie."""

from __future__ import annotations

from pathlib import Path


def packaged(name: str) -> Path:
    """The path of a packaged file, such as `models/landmarks.onnx`.

    In a wheel the folders `models` and `haarcascades` lie inside the package, in a checkout beside
    it.
    """
    package = Path(__file__).parent.parent
    inside = package / name
    return inside if inside.exists() else package.parent / name
