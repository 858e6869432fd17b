"""`kpipe batch`: a folder of any size."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kpipe.cli.options import DetectorsMinFace, Model, Tilt, one_of
from kpipe.cli.signals import interruptible
from kpipe.errors import KpipeError

if TYPE_CHECKING:
    from kpipe.batch.types import Engine, JobOptions, JobResult, Progress

SHOWN_PROBLEMS = 20
"""Reasons printed; errors.csv has them all."""

RAY_SHARD = 100_000
"""Photographs in one Parquet file of a job on a cluster."""


def batch(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help="Folders, zip or tar archives, 'patterns*', photographs, lists of them (.txt); "
            "- reads a list from standard input.",
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where the results go.")
    ],
    format_: Annotated[
        str,
        typer.Option("--format", metavar="FORMATS", help="Any of jsonl,csv,parquet,coco,pts."),
    ] = "",
    render: Annotated[
        bool, typer.Option("--render", help="Write annotated pictures, in the inputs' tree.")
    ] = False,
    draw: Annotated[
        str, typer.Option(metavar="PARTS", help="Any of boxes,lines,points,numbers,index.")
    ] = "boxes,lines,points",
    crops: Annotated[
        str | None,
        typer.Option(
            metavar="square|aligned",
            callback=one_of("square", "aligned"),
            help="Write each face as a picture of its own.",
        ),
    ] = None,
    crop_size: Annotated[int, typer.Option(min=8, max=4096, help="Its side, pixels.")] = 224,
    sheet: Annotated[
        bool, typer.Option("--sheet", help="Write sheet.jpg, to see how it went.")
    ] = False,
    include: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Which files, instead of those named as pictures."),
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help="Files and folders left out.")
    ] = None,
    check: Annotated[
        str,
        typer.Option(
            metavar="time|content",
            callback=one_of("time", "content"),
            help="What tells whether a photograph has changed.",
        ),
    ] = "time",
    retry: Annotated[bool, typer.Option("--retry", help="Do again what failed.")] = False,
    workers: Annotated[
        int, typer.Option(min=0, help="Photographs at a time; 0 is one a core.")
    ] = 0,
    time_limit: Annotated[
        float, typer.Option(min=0.1, metavar="SECONDS", help="Most time for a photograph.")
    ] = 60.0,
    memory: Annotated[
        float,
        typer.Option(
            min=0.0, max=1e6, metavar="GB", help="Most memory of a worker; 0 is no limit."
        ),
    ] = 4.0,
    size_limit: Annotated[
        float,
        typer.Option(
            min=1e-6, max=1e6, metavar="GB", help="Most that the file of a photograph may have."
        ),
    ] = 1.0,
    engine: Annotated[
        str,
        typer.Option(
            metavar="local|ray",
            callback=one_of("local", "ray"),
            help="This machine, or a Ray cluster.",
        ),
    ] = "local",
    ray_address: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Of the cluster; without it a local one.")
    ] = None,
    min_score: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Least probability of a face.")
    ] = 0.7,
    min_face: DetectorsMinFace = None,
    tilt: Tilt = "any",
    detector: Annotated[
        str, typer.Option(metavar="proposals|haar|FILE", help="As for kpipe annotate.")
    ] = "proposals",
    cascades: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Cascade files of OpenCV's names; means haar."),
    ] = None,
    model: Model = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Errors alone.")] = False,
) -> None:
    """Find the faces in all photographs of folders, archives and lists, on all cores.

    Stopped or killed at any moment, the same command goes on where it was; run again, it does what
    is new or has changed. Exit code 1 if a photograph failed or is cut short: errors.csv has the
    reasons.
    """
    from kpipe.batch.types import JobOptions, PictureOptions, Selection
    from kpipe.options import PipelineOptions

    try:
        pipeline = PipelineOptions(
            detector=str(Path(detector).absolute()) if detector.endswith(".onnx") else detector,
            cascades=None if cascades is None else str(cascades.absolute()),
            model=None if model is None else str(model.absolute()),
            min_score=min_score,
            min_face=min_face,
            tilt=tilt,
        )
    except ValueError as problem:
        raise typer.BadParameter(str(problem)) from None
    options = JobOptions(
        inputs,
        output,
        pipeline,
        PictureOptions(str(output.absolute()), _parts(draw) if render else None, crops, crop_size),
        Selection(tuple(include or ()), tuple(exclude or ())),
        _formats(format_ or ("jsonl" if engine == "local" else "parquet")),
        check,
        retry,
        sheet,
        shard=RAY_SHARD if engine == "ray" else 0,
        largest=round(size_limit * 2**30),
    )
    limits = (time_limit, round(memory * 2**30) or None, options.largest)
    if engine == "ray":
        start = _ray_engine(options, ray_address, limits)
    else:
        start = _local_engine(options, workers or cores(), limits)
    _report(_run(options, start, quiet), output, quiet)


def cores() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _formats(text: str) -> tuple[str, ...]:
    from kpipe.batch.layout import FILES
    from kpipe.cli.extras import require

    names = tuple(dict.fromkeys(name for name in text.split(",") if name))
    if not set(names) <= set(FILES):
        raise typer.BadParameter(f"choose from {', '.join(FILES)}", param_hint="--format")
    if "parquet" in names:
        require("batch", "pyarrow")
    return names


def _parts(draw: str) -> tuple[str, ...]:
    from kpipe.structures.style import Style

    try:
        return Style(tuple(part for part in draw.split(",") if part)).draw
    except ValueError as problem:
        raise typer.BadParameter(str(problem), param_hint="--draw") from None


StartEngine = Callable[[], "AbstractContextManager[Engine]"]


def _local_engine(
    options: JobOptions, workers: int, limits: tuple[float, int | None, int]
) -> StartEngine:
    from kpipe.batch.engines.local import LocalEngine

    return partial(LocalEngine, options.pipeline, options.pictures, workers, *limits)


def _ray_engine(
    options: JobOptions, address: str | None, limits: tuple[float, int | None, int]
) -> StartEngine:
    from kpipe.cli.extras import require

    require("ray", "ray", "pyarrow", "fsspec")
    from kpipe.batch.engines.ray_data import RayEngine

    return partial(RayEngine, options.pipeline, options.pictures, address, *limits)


def _run(options: JobOptions, start: StartEngine, quiet: bool) -> JobResult:
    """Runs the job with progress on the terminal; an error ends the program with its one line."""
    from kpipe.batch.job import run
    from kpipe.cli.console import error, say
    from kpipe.errors import SourceError

    with interruptible(signal.SIGTERM) as stop_requested, _progress_bar(quiet) as progress:
        try:
            return run(
                options,
                start,
                notice=(lambda _: None) if quiet else say,
                input_error=error,
                progress=progress,
                stop_requested=stop_requested,
            )
        except KpipeError as problem:
            error(str(problem))
            raise typer.Exit(2 if isinstance(problem, SourceError) else 1) from None


@contextmanager
def _progress_bar(quiet: bool) -> Iterator[Callable[[Progress], None]]:
    """A bar if standard error is a terminal; the first reasons of failed photographs always."""
    from rich import progress as rich

    from kpipe.cli.console import console, error

    columns = (
        rich.TextColumn("photographs"), rich.BarColumn(), rich.MofNCompleteColumn(),
        rich.TextColumn("{task.fields[rate]}"), rich.TimeRemainingColumn(),
        rich.TextColumn("{task.fields[counts]}"),
    )  # fmt: skip
    disable = quiet or not console.is_terminal
    start = time.monotonic()
    problems = 0
    with rich.Progress(*columns, console=console, transient=True, disable=disable) as bar:
        task = bar.add_task("", total=None, rate="", counts="scanning")

        def show(progress: Progress) -> None:
            nonlocal problems
            rate = (progress.done - progress.kept) / max(time.monotonic() - start, 1e-3)
            errors = f", {progress.errors} errors" if progress.errors else ""
            bar.update(
                task,
                total=progress.photographs,
                completed=progress.done,
                rate=f"{rate:.1f}/s",
                counts=f"{progress.faces} faces{errors}",
            )
            for reason in progress.problems:
                if problems < SHOWN_PROBLEMS:
                    error(reason)
                problems += 1

        yield show
    if problems > SHOWN_PROBLEMS:
        error(f"and {problems - SHOWN_PROBLEMS} more errors, all in errors.csv")


def _report(result: JobResult, output: Path, quiet: bool) -> None:
    """Says what the job did and sets the exit code."""
    from kpipe.cli.console import error, say
    from kpipe.utils.files import display_name

    totals = result.totals
    if not result.complete:
        error(
            f"stopped with {totals.done} of {totals.photographs} done; the same command goes on "
            "from here"
        )
        raise typer.Exit(130)
    if not quiet:
        now = totals.done - result.kept
        rate = f" in {result.seconds:.1f} s ({now / result.seconds:.1f}/s)" if now else ""
        say(
            f"{totals.photographs} photographs, {totals.faces} faces, {totals.faceless} "
            f"photographs without a face, {totals.errors} errors; {now} done now{rate}"
        )
        for name, lost in result.lost.items():
            if lost:
                dropped = ", ".join(f"{count} {what}" for what, count in lost.items())
                say(f"{name} holds none of these: {dropped}")
        say(f"results in {display_name(output)}")
    if totals.errors or result.unreadable or result.warnings:
        raise typer.Exit(1)
