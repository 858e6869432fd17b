"""JSON: one object a photograph, one photograph a line."""

from __future__ import annotations

import json

from kpipe.faces import Faces


def to_json(faces: Faces) -> str:
    """One line of JSON. ASCII alone: file names that are no valid text survive as escapes."""
    return json.dumps(faces.to_dict(), separators=(", ", ": "))


def error_to_json(path: str, reason: str) -> str:
    """The line of a photograph that failed."""
    return json.dumps({"image": path, "error": reason, "faces": []}, separators=(", ", ": "))
