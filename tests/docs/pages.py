"""The blocks of code in the pages of the documentation."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import ROOT

DOCS = ROOT / "docs"
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))

BLOCK = re.compile(
    r"^(?:<!-- (?P<note>[^\n]*) -->\n)?```(?P<language>\w*)\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes:
        language: that the fence names.
        note: of the comment on the line before it: `slow`, `not run: REASON`, or empty.
        code: its lines.
        line: of the page, where the code begins.
    """

    language: str
    note: str
    code: str
    line: int

    @property
    def runs(self) -> bool:
        return self.language in ("sh", "python") and not self.note.startswith("not run")


def blocks(path: Path) -> list[Block]:
    text = path.read_text("utf-8")
    return [
        Block(
            match["language"],
            match["note"] or "",
            match["code"],
            text.count("\n", 0, match.start("code")) + 1,
        )
        for match in BLOCK.finditer(text)
    ]


def calls(block: Block) -> Iterator[list[str]]:
    """The words of each call of kpipe in a block of shell commands."""
    for line in block.code.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        for place, word in enumerate(words):
            if word == "kpipe" and (place == 0 or words[place - 1] in ("|", "-m", "do", "&&")):
                rest = words[place + 1 :]
                end = [rest.index(mark) for mark in ("|", ">", "&&", ";") if mark in rest]
                yield rest[: min(end, default=len(rest))]
