"""Draws docs/floors.svg and docs/stages.svg from what the code itself says.

    python docs/floors.py

The floors come from the import contract in pyproject.toml, what a package is for from the first
sentence of its docstring, and the crops' sizes from `kpipe.networks.stages`. The tests compare the
files with what this script would draw.
"""

from __future__ import annotations

import ast
import re
import sys
import textwrap
from html import escape
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent

INK, PALE, LINE, ACCENT = "#1f2933", "#f3f7f7", "#9fb3b3", "#00796b"
FONT = "font-family='system-ui, sans-serif'"


def floors(project: Path) -> list[list[str]]:
    """The packages of each floor, from the top one down.

    Args:
        project: pyproject.toml, whose first contract of layers has the floors.
    """
    contracts = tomllib.loads(project.read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    layers = next(each["layers"] for each in contracts if each["type"] == "layers")
    return [re.findall(r"kpipe\.(\w+)", layer) for layer in layers]


def purpose(package: str) -> str | None:
    """The first sentence of the docstring of a package or module of kpipe; None if not there."""
    folder = ROOT / "kpipe" / package
    for file in (folder / "__init__.py", folder.with_suffix(".py")):
        if file.exists():
            docstring = ast.get_docstring(ast.parse(file.read_text("utf-8"))) or ""
            return re.split(r"[.:](?:\s|$)", " ".join(docstring.split()), maxsplit=1)[0]
    return None


def floors_svg(project: Path) -> str:
    """The house: one floor a row, its packages beside each other."""
    width, height, left, gap = 960, 44, 20, 6
    known = [[name for name in floor if purpose(name) is not None] for floor in floors(project)]
    rows = [row for row in known if row]
    parts = []
    for number, row in enumerate(rows):
        y = 20 + number * (height + gap)
        room = (width - 2 * left - 60 - gap * (len(row) - 1)) / len(row)
        letters = round((room - 150) / 6.4)
        for place, name in enumerate(row):
            x = left + place * (room + gap)
            text = textwrap.shorten(purpose(name) or "", letters, placeholder=" …")
            parts.append(box(x, y, room, height))
            parts.append(label(x + 12, y + 27, name, weight=600, size=15))
            parts.append(label(x + 140, y + 27, text, size=12.5))
    bottom = 20 + len(rows) * (height + gap)
    x = width - 44
    parts.append(arrow((x, 28), (x, bottom - 12)))
    middle = f"translate({x + 22} {bottom / 2}) rotate(90)"
    parts.append(
        f"<text transform='{middle}' text-anchor='middle' {FONT} font-size='13' "
        f"fill='{ACCENT}'>imports only what lies below</text>"
    )
    return svg(width, bottom + 14, "The packages of kpipe, floor by floor", parts)


def stages_svg() -> str:
    """The way of a photograph: detector, preprocessor, networks, renderer."""
    from kpipe.networks.stages import STAGES

    size = [f"{stage.crop_size}x{stage.crop_size}" for stage in STAGES.values()]
    columns = {
        "detector": [
            ("proposal network", "boxes and rolls of candidates", "or Haar, YuNet, a file")
        ],
        "preprocessor": [
            ("crop", "square, gray", size[0]),
            ("crop", "square, gray", size[1]),
            ("crop", "upright, tight", size[2]),
        ],
        "networks": [
            ("face classifier", "drops most non-faces", "stage classifier"),
            ("coarse landmarker", "face score, rough points", "stage coarse"),
            ("landmarker", "68 points, sigma, score", "stage refine"),
        ],
        "renderer": [("draw", "lines and points", "on the photograph")],
    }
    room, high, gap, between, top = 196, 74, 44, 26, 64
    parts, at = [], {}
    for number, (name, boxes) in enumerate(columns.items()):
        x = 20 + number * (room + gap)
        middle = x + room / 2
        parts.append(label(middle, 36, name, weight=600, size=17, center=True, color=ACCENT))
        for place, (title, *lines) in enumerate(boxes):
            row = 1 if len(boxes) == 1 else place
            y = top + row * (high + between)
            at[number, row] = (x, y)
            parts.append(box(x, y, room, high))
            parts.append(label(middle, y + 24, title, weight=600, size=14, center=True))
            for line, text in enumerate(lines):
                parts.append(label(middle, y + 42 + 18 * line, text, size=12.5, center=True))

    def across(start: tuple[int, int], end: tuple[int, int]) -> str:
        """From the right side of a box to the left side of one in the next column."""
        (x0, y0), (x1, y1) = at[start], at[end]
        turn, y0, y1 = x0 + room + gap / 2, y0 + high / 2, y1 + high / 2
        return arrow((x0 + room, y0), (turn, y0), (turn, y1), (x1 - 3, y1))

    def back(start: tuple[int, int], end: tuple[int, int]) -> str:
        """From below a box to the top of one a row further down."""
        (x0, y0), (x1, y1) = at[start], at[end]
        turn, x0, x1 = y0 + high + between / 2, x0 + room / 2, x1 + room / 2
        return arrow((x0, y0 + high), (x0, turn), (x1, turn), (x1, y1 - 3))

    parts += [across((0, 1), (1, 0))]
    parts += [across((1, row), (2, row)) for row in range(3)]
    parts += [back((2, row), (1, row + 1)) for row in range(2)]
    parts += [across((2, 2), (3, 1))]
    height = top + 3 * high + 2 * between + 20
    return svg(4 * room + 3 * gap + 40, height, "The stages of kpipe", parts)


def box(x: float, y: float, width: float, height: float) -> str:
    return (
        f"<rect x='{x:.1f}' y='{y:.1f}' width='{width:.1f}' height='{height:.1f}' rx='5' "
        f"fill='{PALE}' stroke='{LINE}'/>"
    )


def label(
    x: float,
    y: float,
    text: str,
    *,
    size: float,
    weight: int = 400,
    center: bool = False,
    color: str = INK,
) -> str:
    anchor = "middle" if center else "start"
    return (
        f"<text x='{x:.1f}' y='{y:.1f}' {FONT} font-size='{size}' font-weight='{weight}' "
        f"text-anchor='{anchor}' fill='{color}'>{escape(text)}</text>"
    )


def arrow(*points: tuple[float, float]) -> str:
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    look = f"fill='none' stroke='{ACCENT}' stroke-width='1.8' marker-end='url(#tip)'"
    return f"<path d='M{path}' {look}/>"


def svg(width: float, height: float, title: str, parts: list[str]) -> str:
    tip = (
        "<defs><marker id='tip' markerWidth='8' markerHeight='8' refX='6' refY='4' orient='auto'>"
        f"<path d='M0 0L8 4L0 8z' fill='{ACCENT}'/></marker></defs>"
    )
    head = (
        "<svg xmlns='http://www.w3.org/2000/svg' role='img' "
        f"viewBox='0 0 {width:.0f} {height:.0f}'><title>{escape(title)}</title>"
        "<rect width='100%' height='100%' fill='#fff'/>"
    )
    return "\n".join([head, tip, *parts, "</svg>"]) + "\n"


def main() -> None:
    (ROOT / "docs" / "floors.svg").write_text(floors_svg(ROOT / "pyproject.toml"), "utf-8")
    (ROOT / "docs" / "stages.svg").write_text(stages_svg(), "utf-8")


if __name__ == "__main__":
    main()
