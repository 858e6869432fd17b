"""`kpipe evaluate`: how far off the points are, on labelled faces."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def evaluate(
    data: Annotated[
        list[Path],
        typer.Argument(
            metavar="DATA...",
            help="Folders of pictures with .pts files, or YouTube Faces keypoint CSVs.",
        ),
    ],
    model: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Another network, from kpipe export.")
    ] = None,
    jitters: Annotated[int, typer.Option(min=1, help="Random boxes a face.")] = 3,
    skip_bad: Annotated[
        bool,
        typer.Option("--skip-bad", help="Leave out faces that cannot be used, and count them."),
    ] = False,
) -> None:
    """Measure the points on labelled faces: with our detector, and given the true box."""
    from rich.console import Console
    from rich.table import Table

    from kpipe.cli.report import error, say, track
    from kpipe.datasets import DatasetError, read_samples
    from kpipe.evaluation import evaluate as measure
    from kpipe.pipeline import Pipeline
    from kpipe.predictor import LandmarkPredictor
    from kpipe.schemes import IBUG68

    skipped: list[DatasetError] = []
    on_bad = skipped.append if skip_bad else None
    samples = []
    for part in data:
        samples += read_samples(part, on_bad)
    pipeline = Pipeline(predictor=LandmarkPredictor(model))
    faces = track(samples, len(samples), "faces")
    results = measure(faces, pipeline, jitters, on_bad=on_bad)
    for problem in skipped:
        error(str(problem))

    grid = Table(box=None, pad_edge=False, header_style="bold")
    grid.add_column("")
    for result in results:
        grid.add_column(result.name, justify="right")

    def row(name: str, figures: list[str]) -> None:
        grid.add_row(name, *figures)

    def number(name: str, of: list[float], decimals: int = 2) -> None:
        row(name, [f"{value:.{decimals}f}" for value in of])

    row("faces", [str(len(r.distances)) for r in results])
    number("not found, %", [r.not_found for r in results])
    number("NME, % of inter-ocular distance", [r.nme for r in results])
    number("  median", [r.median for r in results])
    number("failures (NME above 8 % or not found), %", [r.failures() for r in results])
    number("area under the error curve to 8 %", [r.area_under_curve() for r in results], 3)
    for group, indices in IBUG68.groups.items():
        number(f"  {group.replace('_', ' ')}", [r.group(indices) for r in results])
    covered = ["{:.0f} / {:.0f}".format(*r.covered) for r in results]
    row("points within sigma's 50 / 90 % bound, %", covered)
    Console(width=110).print(grid)
    if skipped:
        say(f"{len(skipped)} {'face' if len(skipped) == 1 else 'faces'} left out")
