"""An evaluation as a page to look at: the error curve, the worst faces and a random few."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kpipe.datasets import Sample
from kpipe.evaluation.detection import (
    FALSE,
    MIN_IOU,
    STRICT_IOU,
    Detected,
    LabeledPhoto,
    assigned,
)
from kpipe.evaluation.metrics import LandmarkErrors, figures
from kpipe.evaluation.perturbation import UNPERTURBED, Perturbation
from kpipe.media.images import encode, read_image
from kpipe.pipeline import MIN_SCORE
from kpipe.preprocessing.affine import crop_transform, transform
from kpipe.preprocessing.boxes import landmark_box
from kpipe.preprocessing.crops import warp
from kpipe.structures.faces import Faces
from kpipe.structures.schemes import IBUG68
from kpipe.utils.files import write_file
from kpipe.utils.opencv import cv2

SHOWN = 16
SIDE = 420
SHOWN_WIDTH = 640
TRUTH, FOUND = (64, 140, 255), (255, 60, 60)
COLORS = ("#d62728", "#1f77b4", "#2ca02c")
CURVE_TO = 10.0

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2em auto; padding: 0 1em }
table { border-collapse: collapse } td, th { padding: .2em .8em; text-align: right }
td:first-child { text-align: left; white-space: pre } tr:nth-child(even) { background: #f4f4f4 }
.faces { display: grid; grid-template-columns: repeat(auto-fill, minmax(250px, 1fr)); gap: 1em }
figure { margin: 0 } img { width: 100% } figcaption { font-size: 13px; overflow-wrap: anywhere }
"""


def write_report(
    folder: Path,
    title: str,
    samples: Sequence[Sample],
    results: list[LandmarkErrors],
    perturbation: Perturbation = UNPERTURBED,
) -> Path:
    """Writes `index.html` and the pictures of the faces that it shows.

    Args:
        folder: of the report; made if it is not there.
        title: of the page.
        samples: the evaluated faces.
        results: of `kpipe.evaluation.landmarks.evaluate`, the first of them end to end.
        perturbation: what was done to the photographs for it.

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
{_gallery(folder, "worst", samples, perturbation, result, order[:SHOWN])}
<h2>{SHOWN} others at random</h2>{_gallery(folder, "random", samples, perturbation, result, rest)}
<h2>Error of each point, % of the inter-ocular distance</h2><table>{points}</table>
"""
    write_file(folder / "index.html", page.encode("utf-8", "replace"))
    return folder / "index.html"


def write_detection_report(
    folder: Path,
    photos: Sequence[LabeledPhoto],
    result: Detected,
    strict: Detected | None = None,
    alone: Detected | None = None,
    min_face: float = 0.0,
) -> Path:
    """Writes `detection.html`: precision over recall, and the photographs with most mistakes.

    Args:
        folder: of the report; made if it is not there.
        photos: the labeled photographs, those of `result.found`.
        result: of `kpipe.evaluation.detection.detect`.
        strict: the same at a greater overlap.
        alone: the same of the detector without the networks behind it, for comparison.
        min_face: longer side [px] of the smallest labeled box that counts.

    Returns:
        The page.

    Raises:
        ImageError: the folder cannot be written to.
    """
    labels = {str(photo.path): photo for photo in photos}
    mistakes: list[tuple[int, Faces, NDArray[np.float64]]] = []
    for faces in result.found:
        photo = labels[str(faces.path)]
        counted = photo.counted(min_face)
        ranked = sorted(faces, key=lambda face: -face.score)
        sure = np.array([f.box for f in ranked if f.score >= MIN_SCORE], np.float64).reshape(-1, 4)
        which = assigned(sure, photo, counted, MIN_IOU)
        wrong = int(counted.sum() - (which >= 0).sum() + (which == FALSE).sum())
        mistakes.append((wrong, faces, photo.boxes[counted]))
    mistakes = sorted((m for m in mistakes if m[0]), key=lambda m: -m[0])[:SHOWN]
    shown = []
    for place, (count, faces, boxes) in enumerate(mistakes):
        file = f"faces/detection_{place + 1:02d}.jpg"
        write_file(folder / file, encode(_boxed(faces, boxes), ".jpg"))
        name = escape(Path(str(faces.path)).name)
        shown.append(
            f'<figure><img src="{file}" alt=""><figcaption>{count} mistakes<br>{name}'
            "</figcaption></figure>"
        )
    title = "kpipe evaluate: detection"
    stricter = f", {strict.average_precision:.3f} at {STRICT_IOU}" if strict is not None else ""
    page = f"""<!doctype html><meta charset="utf-8"><title>{title}</title>
<style>{STYLE}</style><h1>{title}</h1>
<p>{len(result.found)} photographs, {result.labeled} faces; average precision
{result.average_precision:.3f} at IoU {MIN_IOU}{stricter}.</p>
<h2>Precision over recall</h2>{_precision_recall(result, alone)}
<h2>Where most is wrong, at a score of {MIN_SCORE}</h2>
<p>Blue is the label, red what was found.</p><div class="faces">{"".join(shown)}</div>
"""
    write_file(folder / "detection.html", page.encode("utf-8", "replace"))
    return folder / "detection.html"


def _precision_recall(result: Detected, alone: Detected | None = None) -> str:
    """Precision over recall as SVG, marked where scores are often asked for; of the detector alone
    in gray.
    """
    width, height = 640, 360
    lines = []
    for value in range(0, 101, 20):
        y, x = height * (1 - value / 100), width * value / 100
        lines.append(
            f'<line x1="0" x2="{width}" y1="{y}" y2="{y}" stroke="#ddd"/>'
            f'<text x="-8" y="{y + 5}" text-anchor="end">{value} %</text>'
            f'<text x="{x}" y="{height + 22}" text-anchor="middle">{value} %</text>'
        )
    for each, color in ((alone, "#999"), (result, "#1f77b4")):
        if each is None:
            continue
        curve = [each.at(score)[:2] for score in np.unique(each.scores)[::-1]]
        path = " ".join(f"{width * r:.1f},{height * (1 - p):.1f}" for r, p in curve)
        lines.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"/>')
    for score in (0.5, 0.9, 0.99):
        recall, precision, _ = result.at(score)
        if np.isnan(precision):
            continue
        x, y = width * recall, height * (1 - precision)
        lines.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="#d62728"/>'
            f'<text x="{x - 10:.1f}" y="{y + 22:.1f}" text-anchor="end">score {score}</text>'
        )
    return (
        f'<svg viewBox="-60 -15 {width + 80} {height + 55}" width="{width + 60}" '
        f'font-size="14">{"".join(lines)}</svg>'
    )


def _boxed(faces: Faces, boxes: NDArray[np.float64]) -> NDArray[np.uint8]:
    """The photograph with labeled and found boxes."""
    image = read_image(str(faces.path))
    scale = SHOWN_WIDTH / image.shape[1]
    size = (SHOWN_WIDTH, max(round(image.shape[0] * scale), 1))
    picture = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    found = [(face.box, FOUND) for face in faces if face.score >= MIN_SCORE]
    for box, color in [(box, TRUTH) for box in boxes] + found:
        x0, y0, x1, y1 = (round(float(v) * scale) for v in box)
        cv2.rectangle(picture, (x0, y0), (x1, y1), color, 2)
    return picture


def _curve(results: Sequence[LandmarkErrors]) -> str:
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
    for result, color, row in zip(results, COLORS, range(len(results))):
        shares = [(result.faces <= error).mean() for error in errors]
        path = " ".join(
            f"{width * error / CURVE_TO:.1f},{height * (1 - share):.1f}"
            for error, share in zip(errors, shares)
        )
        lines.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"/>')
        y = height - 20 - 22 * row
        lines.append(
            f'<text x="{width - 10}" y="{y}" text-anchor="end" fill="{color}">'
            f"{escape(result.name)}</text>"
        )
    size = f"{-left} -15 {width + left + 20} {height + bottom + 15}"
    return (
        f'<svg viewBox="{size}" width="{width + left}" font-size="14">{"".join(lines)}</svg>'
        "<p>Share of the faces whose NME (% of the inter-ocular distance) is at most this.</p>"
    )


def _gallery(
    folder: Path,
    name: str,
    samples: Sequence[Sample],
    perturbation: Perturbation,
    result: LandmarkErrors,
    chosen: NDArray[np.intp],
) -> str:
    shown = []
    for place, index in enumerate(chosen):
        sample = samples[result.samples[index]]
        file = f"faces/{name}_{place + 1:02d}.jpg"
        seen = perturbation(read_image(sample.path), sample.points)
        write_file(folder / file, encode(_drawn(*seen, result.points[index]), ".jpg"))
        error = result.faces[index]
        caption = "not found" if np.isnan(error) else f"{error:.2f} %"
        shown.append(
            f'<figure><img src="{file}" alt=""><figcaption>{caption}<br>'
            f"{escape(sample.path.name)}</figcaption></figure>"
        )
    return f'<div class="faces">{"".join(shown)}</div>'


def _drawn(
    image: NDArray[np.uint8], labels: NDArray[np.floating], points: NDArray[np.floating]
) -> NDArray[np.uint8]:
    """The face enlarged, with its labels and what was found."""
    matrix = crop_transform(landmark_box(labels), size=SIDE, margin=1.5)
    crop = warp(image, matrix, SIDE)
    for places, color in ((labels, TRUTH), (points, FOUND)):
        if np.isnan(places).any():
            continue
        for x, y in transform(matrix, places) * 16:
            cv2.circle(crop, (round(float(x)), round(float(y))), 40, color, -1, cv2.LINE_AA, 4)
    return crop
