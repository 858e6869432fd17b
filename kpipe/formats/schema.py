"""The rules of `kpipe.formats.records.checked_record` as JSON Schema, draft 2020-12.

`docs/records.schema.json` holds this schema, written by `python -m kpipe.formats.schema`.
JSON Schema cannot express three rules, which the descriptions state: no half of a surrogate pair in
text, whole numbers without a fraction (`3`, not `3.0`), and at most 32 levels under unknown keys.
"""

from __future__ import annotations

import json
from typing import Any

from kpipe.formats.records import (
    MAX_INTEGER,
    MAX_NUMBER,
    MAX_PIXELS,
    MAX_POINTS,
    MAX_TEXT,
    SCHEME_NAME,
)
from kpipe.structures.faces import Openness, Pose
from kpipe.structures.schemes import IBUG68, SCHEMES, Scheme
from kpipe.utils.limits import FACES

TEXT: dict[str, Any] = {"maxLength": MAX_TEXT, "pattern": "^[^\\u0000]*$"}

FOREIGN = {"$ref": "#/$defs/foreign"}


def record_schema() -> dict[str, Any]:
    """The schema of one record, which is one line of kpipe's JSON Lines."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "kpipe record",
        "description": "One photograph, or one frame of a video, and its faces. Coordinates are "
        "pixels of the upright photograph, the center of its top-left pixel at (0, 0). Whole "
        "numbers are written without a fraction. Text holds no half of a surrogate pair, but for "
        "bytes of a file name that are not UTF-8 (U+DC80 to U+DCFF). Unknown keys are left alone; "
        "their values are nested at most 32 levels deep.",
        "type": "object",
        "required": ["image", "faces"],
        "properties": {
            "image": {**_text("Name of the photograph or video; / stands between folders."),
                      "minLength": 1},
            "frame": _whole("Number of the frame, from 0.", 0, MAX_INTEGER),
            "time": _number("Of the frame, seconds since the video began."),
            "width": _whole("Of the photograph, pixels.", 0, MAX_PIXELS),
            "height": _whole("Of the photograph, pixels.", 0, MAX_PIXELS),
            "scheme": {
                "description": f"Name of the points' scheme: {', '.join(SCHEMES)}, or one of a "
                "later version. Without it the scheme is ibug68.",
                "type": "string",
                "pattern": f"^{SCHEME_NAME}$",
                "default": IBUG68.name,
            },
            "error": _text("Why the photograph could not be used; it then has no faces."),
            "warning": _text("What is missing of a photograph that is incomplete."),
            "faces": {
                "type": "array",
                "items": {"$ref": "#/$defs/face"},
                "maxItems": FACES.default,
                "description": f"The environment variable {FACES.variable} allows more.",
            },
        },
        "allOf": [
            {
                "if": {"required": ["error"]},
                "then": {"properties": {"faces": {"maxItems": 0}}},
            },
            {
                "if": {"properties": {"scheme": {"const": IBUG68.name}}},
                "then": _faces_of(IBUG68),
            },
            *(
                {
                    "if": {"required": ["scheme"], "properties": {"scheme": {"const": name}}},
                    "then": _faces_of(scheme),
                }
                for name, scheme in SCHEMES.items()
                if scheme != IBUG68
            ),
        ],
        "$defs": {
            "number": {"type": "number", "minimum": -MAX_NUMBER, "maximum": MAX_NUMBER},
            "foreign": {
                "description": "A value under a key that kpipe does not know.",
                "type": ["null", "boolean", "number", "string", "array", "object"],
                "minimum": -MAX_INTEGER,
                "maximum": MAX_INTEGER,
                **TEXT,
                "items": FOREIGN,
                "propertyNames": TEXT,
                "additionalProperties": FOREIGN,
            },
            "face": _face(),
        },
        "propertyNames": TEXT,
        "additionalProperties": FOREIGN,
    }  # fmt: skip


def _face() -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["box", "points"],
        "properties": {
            "box": _numbers("x0, y0, x1, y1, pixels.", 4),
            "score": _number("Probability that this is a face, 0 to 1."),
            "points": {
                "description": "x, y of each, pixels.",
                "type": "array",
                "items": _numbers("x, y", 2),
                "minItems": 1,
                "maxItems": MAX_POINTS,
            },
            "sigma": {
                "description": "Expected error of each point, pixels; as many as points.",
                "type": "array",
                "items": {"$ref": "#/$defs/number"},
                "maxItems": MAX_POINTS,
            },
            "pose": _named("Degrees.", Pose._fields),
            "track": _whole("Identity in the video.", -MAX_INTEGER, MAX_INTEGER),
            "openness": _named("Height over width of eyes and mouth.", Openness._fields),
            "blink": {"description": "Whether the eyes are closed.", "type": "boolean"},
        },
        "propertyNames": TEXT,
        "additionalProperties": FOREIGN,
    }


def _faces_of(scheme: Scheme) -> dict[str, Any]:
    """That each face has as many points, and sigmas, as a scheme."""
    count = {"minItems": len(scheme), "maxItems": len(scheme)}
    face = {"properties": {"points": count, "sigma": count}}
    return {"properties": {"faces": {"items": face}}}


def _text(description: str) -> dict[str, Any]:
    return {"description": description, "type": "string", **TEXT}


def _number(description: str) -> dict[str, Any]:
    return {"description": description, "$ref": "#/$defs/number"}


def _numbers(description: str, count: int) -> dict[str, Any]:
    return {
        "description": description,
        "type": "array",
        "items": {"$ref": "#/$defs/number"},
        "minItems": count,
        "maxItems": count,
    }


def _named(description: str, names: tuple[str, ...]) -> dict[str, Any]:
    return {
        "description": description,
        "type": "object",
        "required": list(names),
        "properties": {name: {"$ref": "#/$defs/number"} for name in names},
        "propertyNames": TEXT,
        "additionalProperties": FOREIGN,
    }


def _whole(description: str, least: int, most: int) -> dict[str, Any]:
    return {"description": description, "type": "integer", "minimum": least, "maximum": most}


def schema_text() -> str:
    """The content of `docs/records.schema.json`."""
    return json.dumps(record_schema(), indent=2) + "\n"


if __name__ == "__main__":
    print(schema_text(), end="")
