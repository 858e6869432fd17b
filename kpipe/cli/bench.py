"""`kpipe bench`: how long each stage takes here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kpipe.cli.options import Model


def bench(
    photo: Annotated[Path, typer.Argument(metavar="PHOTO", help="A photograph with faces.")],
    model: Model = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of OpenCV and of the networks.")] = 1,
    runs: Annotated[int, typer.Option(min=1, help="How often each stage is timed.")] = 20,
) -> None:
    """Time the network, each stage of the pipeline, and whole processes.

    Printed are medians of alternating runs. Machines are compared by the ratio to the time that
    decoding a 640x480 JPEG takes in the same run.
    """
    from kpipe.cli.console import console, print_table
    from kpipe.evaluation.timing import bench as measure
    from kpipe.evaluation.timing import processes

    with console.status("timing"):
        timings = measure(photo, model, threads, runs)
        whole = processes(photo)
    print_table(
        [f"{threads} thread{'' if threads == 1 else 's'}", "ms", "over JPEG decoding"],
        [(t.name, f"{t.milliseconds:.2f}", f"{t.share:.2f}") for t in timings],
    )
    typer.echo()
    print_table(
        ["whole process", "s wall", "s CPU", "MB"],
        [(p.name, f"{p.wall:.2f}", f"{p.cpu:.2f}", f"{p.memory:.0f}") for p in whole],
    )
