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
            help="Folders of pictures with .pts files, YouTube Faces CSVs, dlib XML, WFLW text "
            "or COCO JSON.",
        ),
    ],
    model: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Another network, from kpipe export.")
    ] = None,
    jitters: Annotated[int, typer.Option(min=1, help="Random boxes a face.")] = 3,
    per_point: Annotated[
        bool, typer.Option("--per-point", help="Also the error of each of the 68 points.")
    ] = False,
    report: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Write an HTML page: curves, worst and random faces."),
    ] = None,
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
    from kpipe.evaluation import figures
    from kpipe.pipeline import Pipeline
    from kpipe.predictor import LandmarkPredictor
    from kpipe.report import write_report
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
    for name, values in figures(results):
        grid.add_row(name, *values)
    Console(width=110).print(grid)
    if per_point:
        points = Table(box=None, pad_edge=False, header_style="bold")
        points.add_column("end to end, % of the inter-ocular distance")
        points.add_column("error", justify="right")
        for index, name in enumerate(IBUG68.names):
            points.add_row(f"{index:2} {name}", f"{results[0].group([index]):.2f}")
        Console(width=110).print(points)
    if report is not None:
        title = f"kpipe evaluate {' '.join(map(str, data))}"
        say(f"report: {write_report(report, title, samples, results)}")
    if skipped:
        say(f"{len(skipped)} {'face' if len(skipped) == 1 else 'faces'} left out")
