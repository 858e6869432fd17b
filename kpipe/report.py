"""An evaluation as a page to look at: the error curve, the worst faces and a random few."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kpipe.datasets import Sample
from kpipe.evaluation import Errors, figures
from kpipe.media.images import encode, read_image, write_file
from kpipe.opencv import cv2
from kpipe.preprocessor import crop_transform, face_box, transform, warp
from kpipe.schemes import IBUG68

SHOWN = 16
SIDE = 420
TRUTH, FOUND = (64, 140, 255), (255, 60, 60)
COLOURS = ("#d62728", "#1f77b4", "#2ca02c")
CURVE_TO = 10.0

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2em auto; padding: 0 1em }
table { border-collapse: collapse } td, th { padding: .2em .8em; text-align: right }
td:first-child { text-align: left; white-space: pre } tr:nth-child(even) { background: #f4f4f4 }
.faces { display: grid; grid-template-columns: repeat(auto-fill, minmax(250px, 1fr)); gap: 1em }
figure { margin: 0 } img { width: 100% } figcaption { font-size: 13px; overflow-wrap: anywhere }
"""


def write_report(
    folder: Path, title: str, samples: Sequence[Sample], results: list[Errors]
) -> Path:
    """Writes `index.html` and the pictures of the faces that it shows.

    Args:
        folder: of the report; made if it is not there.
        title: of the page.
        samples: the evaluated faces.
        results: of `kpipe.evaluation.evaluate`, the first of them end to end.

    Returns:
        The page.

    Raises:
        ImageError: the folder cannot be written to.
    """
    result = results[0]
    order = np.argsort(-np.nan_to_num(result.faces, nan=np.inf), kind="stable")
    rest = np.random.default_rng(0).permutation(order[SHOWN:])[:SHOWN]
    head = "".join(f"<th>{escape(r.name)}</th>" for r in results)
    rows = "".join(
        f"<tr><td>{escape(name)}</td>" + "".join(f"<td>{v}</td>" for v in values) + "</tr>"
        for name, values in figures(results)
    )
    points = "".join(
        f"<tr><td>{index} {escape(name)}</td><td>{result.group([index]):.2f}</td></tr>"
        for index, name in enumerate(IBUG68.names)
    )
    page = f"""<!doctype html><meta charset="utf-8"><title>{escape(title)}</title>
<style>{STYLE}</style><h1>{escape(title)}</h1>
<table><tr><th></th>{head}</tr>{rows}</table>
<h2>Cumulative error</h2>{_curve(results)}
<h2>The worst {SHOWN} faces</h2>
<p>Blue is the label, red what was found; the error is end to end.</p>
{_gallery(folder, "worst", samples, result, order[:SHOWN])}
<h2>{SHOWN} others at random</h2>{_gallery(folder, "random", samples, result, rest)}
<h2>Error of each point, % of the inter-ocular distance</h2><table>{points}</table>
"""
    write_file(folder / "index.html", page.encode("utf-8", "replace"))
    return folder / "index.html"


def _curve(results: Sequence[Errors]) -> str:
    """The share of the faces below each error, as SVG."""
    width, height, left, bottom = 640, 360, 60, 40
    lines = []
    for value in range(0, 101, 20):
        y = height * (1 - value / 100)
        lines.append(
            f'<line x1="0" x2="{width}" y1="{y}" y2="{y}" stroke="#ddd"/>'
            f'<text x="-8" y="{y + 5}" text-anchor="end">{value} %</text>'
        )
    for value in range(0, int(CURVE_TO) + 1, 2):
        x = width * value / CURVE_TO
        lines.append(f'<text x="{x}" y="{height + 22}" text-anchor="middle">{value}</text>')
    errors = np.linspace(0, CURVE_TO, 201)
    for result, colour, row in zip(results, COLOURS, range(len(results))):
        shares = [(result.faces <= error).mean() for error in errors]
        path = " ".join(
            f"{width * error / CURVE_TO:.1f},{height * (1 - share):.1f}"
            for error, share in zip(errors, shares)
        )
        lines.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        y = height - 20 - 22 * row
        lines.append(
            f'<text x="{width - 10}" y="{y}" text-anchor="end" fill="{colour}">'
            f"{escape(result.name)}</text>"
        )
    size = f"{-left} -15 {width + left + 20} {height + bottom + 15}"
    return (
        f'<svg viewBox="{size}" width="{width + left}" font-size="14">{"".join(lines)}</svg>'
        "<p>Share of the faces whose NME (% of the inter-ocular distance) is at most this.</p>"
    )


def _gallery(
    folder: Path, name: str, samples: Sequence[Sample], result: Errors, chosen: NDArray[np.intp]
) -> str:
    shown = []
    for place, index in enumerate(chosen):
        sample = samples[result.samples[index]]
        file = f"faces/{name}_{place + 1:02d}.jpg"
        write_file(folder / file, encode(_drawn(sample, result.points[index]), ".jpg"))
        error = result.faces[index]
        caption = "not found" if np.isnan(error) else f"{error:.2f} %"
        shown.append(
            f'<figure><img src="{file}" alt=""><figcaption>{caption}<br>'
            f"{escape(sample.path.name)}</figcaption></figure>"
        )
    return f'<div class="faces">{"".join(shown)}</div>'


def _drawn(sample: Sample, points: NDArray[np.float64]) -> NDArray[np.uint8]:
    """The face enlarged, with its labels and what was found."""
    matrix = crop_transform(face_box(sample.points), size=SIDE, margin=1.5)
    image = read_image(sample.path)
    crop = warp(image, matrix, SIDE)
    for places, colour in ((sample.points, TRUTH), (points, FOUND)):
        if np.isnan(places).any():
            continue
        for x, y in transform(matrix, places) * 16:
            cv2.circle(crop, (round(float(x)), round(float(y))), 40, colour, -1, cv2.LINE_AA, 4)
    return crop
