"""Docstrings may describe two arguments on one line (`width, height: of the frames`): for the site
each gets a line of its own, which is what the docstrings' parser knows.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

SHARED = re.compile(r"(?m)^( +)([A-Za-z_]\w*(?:, [A-Za-z_]\w*)+): (.*(?:\n\1 +.*)*)$")


class OneNameALine(griffe.Extension):
    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = SHARED.sub(_split, obj.docstring.value)


def _split(match: re.Match[str]) -> str:
    indent, names, text = match.groups()
    return "\n".join(f"{indent}{name}: {text}" for name in names.split(", "))
