"""Draws docs/floors.svg and docs/stages.svg from what the code itself says.

    python docs/floors.py

The floors come from the import contract in .importlinter, what a package is for from the first
sentence of its docstring, and the crops' sizes from `kpipe.networks.stages`. The tests compare the
files with what this script would draw.
"""

from __future__ import annotations

import ast
import re
import textwrap
from configparser import ConfigParser
from html import escape
from pathlib import Path

ROOT = Path(__file__).parent.parent
CONTRACT = "importlinter:contract:floors"

INK, PALE, LINE, ACCENT = "#1f2933", "#f3f7f7", "#9fb3b3", "#00796b"
FONT = "font-family='system-ui, sans-serif'"


def floors(contract: Path) -> list[list[str]]:
    """The packages of each floor, from the top one down."""
    parser = ConfigParser()
    parser.read(contract, encoding="utf-8")
    layers = parser[CONTRACT]["layers"].split("\n")
    return [re.findall(r"\w+", layer) for layer in layers if layer.strip()]


def purpose(package: str) -> str | None:
    """The first sentence of the docstring of a package or module of kpipe; None if not there."""
    folder = ROOT / "kpipe" / package
    for file in (folder / "__init__.py", folder.with_suffix(".py")):
        if file.exists():
            docstring = ast.get_docstring(ast.parse(file.read_text("utf-8"))) or ""
            return re.split(r"[.:](?:\s|$)", " ".join(docstring.split()), maxsplit=1)[0]
    return None


def floors_svg(contract: Path) -> str:
    """The house: one floor a row, its packages beside each other."""
    width, height, left, gap = 960, 44, 20, 6
    rows = [[name for name in floor if purpose(name) is not None] for floor in floors(contract)]
    rows = [row for row in rows if row]
    parts = []
    for number, row in enumerate(rows):
        y = 20 + number * (height + gap)
        room = (width - 2 * left - 60 - gap * (len(row) - 1)) / len(row)
        for place, name in enumerate(row):
            x = left + place * (room + gap)
            text = textwrap.shorten(purpose(name) or "", round((room - 150) / 6.4), placeholder=" …")
            parts += [
                box(x, y, room, height),
                label(x + 12, y + 27, name, weight=600, size=15),
                label(x + 140, y + 27, text, size=12.5),
            ]
    bottom = 20 + len(rows) * (height + gap)
    x = width - 44
    parts += [
        f"<path d='M{x} 28V{bottom - 22}m-6 -10l6 10l6 -10' fill='none' stroke='{ACCENT}' "
        "stroke-width='2'/>",
        f"<text transform='translate({x + 22} {bottom / 2}) rotate(90)' text-anchor='middle' {FONT} "
        f"font-size='13' fill='{ACCENT}'>imports only what lies below</text>",
    ]
    return svg(width, bottom + 14, "The packages of kpipe, floor by floor", parts)


def stages_svg() -> str:
    """The way of a photograph: detector, preprocessor, networks, renderer."""
    from kpipe.networks.stages import STAGES

    size = {name: f"{stage.crop_size}x{stage.crop_size}" for name, stage in STAGES.items()}
    columns = [
        ("detector", [("proposal network", "boxes and rolls of candidates", "or Haar, YuNet, a file")]),
        (
            "preprocessor",
            [
                ("crop", "square, gray", size["classifier"]),
                ("crop", "square, gray", size["coarse"]),
                ("crop", "upright, tight", size["refine"]),
            ],
        ),
        (
            "networks",
            [
                ("face classifier", "drops most non-faces", "classifier"),
                ("coarse landmarker", "face score, rough points", "coarse"),
                ("landmarker", "68 points, sigma, score", "refine"),
            ],
        ),
        ("renderer", [("draw", "lines and points", "on the photograph")]),
    ]
    room, high, gap, top = 196, 74, 44, 64
    middle = top + high + 26
    spots = []
    parts = []
    for number, (name, boxes) in enumerate(columns):
        x = 20 + number * (room + gap)
        parts.append(label(x + room / 2, 36, name, weight=600, size=17, anchor="middle", color=ACCENT))
        for place, (title, *lines) in enumerate(boxes):
            y = middle if len(boxes) == 1 else top + place * (high + 26)
            spots.append((number, place, x, y))
            parts.append(box(x, y, room, high))
            parts.append(label(x + room / 2, y + 24, title, weight=600, size=14, anchor="middle"))
            parts += [
                label(x + room / 2, y + 42 + 18 * row, line, size=12.5, anchor="middle")
                for row, line in enumerate(lines)
            ]
    at = {(number, place): (x, y) for number, place, x, y in spots}
    for row in range(3):
        x, y = at[1, row]
        parts.append(arrow([(x + room, y + high / 2), (x + room + gap - 3, y + high / 2)]))
    first, last = at[1, 0], at[2, 2]
    start = at[0, 0]
    turn = start[0] + room + gap / 2
    parts.append(
        arrow(
            [
                (start[0] + room, start[1] + high / 2),
                (turn, start[1] + high / 2),
                (turn, first[1] + high / 2),
                (first[0] - 3, first[1] + high / 2),
            ]
        )
    )
    for row in (0, 1):  # what a network keeps is cut out again, larger
        x, y = at[2, row]
        below = at[1, row + 1]
        level = y + high + 13
        parts.append(
            arrow(
                [
                    (x + room / 2, y + high),
                    (x + room / 2, level),
                    (below[0] + room / 2, level),
                    (below[0] + room / 2, below[1] - 3),
                ]
            )
        )
    x, y = at[3, 0]
    turn = last[0] + room + gap / 2
    parts.append(
        arrow(
            [
                (last[0] + room, last[1] + high / 2),
                (turn, last[1] + high / 2),
                (turn, y + high / 2),
                (x - 3, y + high / 2),
            ]
        )
    )
    return svg(4 * room + 3 * gap + 40, top + 3 * high + 2 * 26 + 20, "The stages of kpipe", parts)


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
    anchor: str = "start",
    color: str = INK,
) -> str:
    return (
        f"<text x='{x:.1f}' y='{y:.1f}' {FONT} font-size='{size}' font-weight='{weight}' "
        f"text-anchor='{anchor}' fill='{color}'>{escape(text)}</text>"
    )


def arrow(points: list[tuple[float, float]]) -> str:
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return f"<path d='M{path}' fill='none' stroke='{ACCENT}' stroke-width='1.8' marker-end='url(#tip)'/>"


def svg(width: float, height: float, title: str, parts: list[str]) -> str:
    tip = (
        "<defs><marker id='tip' markerWidth='8' markerHeight='8' refX='6' refY='4' orient='auto'>"
        f"<path d='M0 0L8 4L0 8z' fill='{ACCENT}'/></marker></defs>"
    )
    head = (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width:.0f} {height:.0f}' role='img'>"
        f"<title>{escape(title)}</title><rect width='100%' height='100%' fill='#fff'/>"
    )
    return "\n".join([head, tip, *parts, "</svg>"]) + "\n"


def main() -> None:
    (ROOT / "docs" / "floors.svg").write_text(floors_svg(ROOT / ".importlinter"), "utf-8")
    (ROOT / "docs" / "stages.svg").write_text(stages_svg(), "utf-8")


if __name__ == "__main__":
    main()
