"""`kpipe bench`: how long each stage takes here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kpipe.cli.options import Model


def bench(
    photo: Annotated[Path, typer.Argument(metavar="PHOTO", help="A photograph with faces.")],
    model: Model = None,
    threads: Annotated[int, typer.Option(min=1, help="Of OpenCV and of the network.")] = 1,
    runs: Annotated[int, typer.Option(min=1, help="How often each is timed.")] = 20,
) -> None:
    """Time the network, each stage of a photograph's way, and whole processes.

    Medians of alternating runs; the share of decoding a 640x480 JPEG in the same run is the figure
    to compare machines by.
    """
    from rich.console import Console
    from rich.table import Table

    from kpipe.cli.console import console
    from kpipe.evaluation.timing import bench as measure
    from kpipe.evaluation.timing import processes

    with console.status("timing"):
        timings = measure(photo, model, threads, runs)
        whole = processes(photo)
    stages = Table(box=None, pad_edge=False, header_style="bold")
    stages.add_column(f"{threads} thread{'s' if threads > 1 else ''}")
    stages.add_column("ms", justify="right")
    stages.add_column("over JPEG decoding", justify="right")
    for timing in timings:
        stages.add_row(timing.name, f"{timing.milliseconds:.2f}", f"{timing.share:.2f}")
    starts = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("whole process", "s wall", "s CPU", "MB"):
        starts.add_column(name, justify="left" if name == "whole process" else "right")
    for process in whole:
        figures = (f"{process.wall:.2f}", f"{process.cpu:.2f}", f"{process.memory:.0f}")
        starts.add_row(process.name, *figures)
    out = Console(width=100)
    out.print(stages)
    out.print()
    out.print(starts)
