"""`kpipe batch`: a folder of any size."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kpipe.cli.options import DetectorsMinFace, Model, Tilt
from kpipe.errors import KpipeError

if TYPE_CHECKING:
    from kpipe.batch.job import Engine, News, Outcome
    from kpipe.batch.worker import Settings

SHOWN_PROBLEMS = 20
"""Reasons printed; all are in errors.csv."""


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
        typer.Option(metavar="square|aligned", help="Write each face as a picture of its own."),
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
        typer.Option(metavar="time|content", help="What tells whether a photograph has changed."),
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
    engine: Annotated[
        str, typer.Option(metavar="local|ray", help="This machine, or a Ray cluster.")
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
    is new or has changed. Exit code 1 if a photograph failed: errors.csv has the reasons.
    """
    from kpipe.batch.job import FILES, Plan, run
    from kpipe.batch.sources import Selection
    from kpipe.batch.worker import Settings
    from kpipe.cli.console import error, say
    from kpipe.errors import SourceError
    from kpipe.utils.files import display_name

    formats = _formats(format_ or ("jsonl" if engine == "local" else "parquet"), FILES)
    for value, choices, option in (
        (tilt, ("any", "upright"), "--tilt"),
        (crops, (None, "square", "aligned"), "--crops"),
        (check, ("time", "content"), "--check"),
        (engine, ("local", "ray"), "--engine"),
    ):
        if value not in choices:
            names = " or ".join(choice for choice in choices if choice)
            raise typer.BadParameter(f"choose {names}", param_hint=option)
    settings = Settings(
        results=str(output.absolute()),
        model=None if model is None else str(model.absolute()),
        detector=detector if detector in ("proposals", "haar") else str(Path(detector).absolute()),
        cascades=None if cascades is None else str(cascades.absolute()),
        min_score=min_score,
        min_face=min_face,
        tilt=tilt,
        draw=_parts(draw) if render else None,
        crops=crops,
        crop_size=crop_size,
    )
    plan = Plan(
        inputs,
        output,
        settings,
        Selection(tuple(include or ()), tuple(exclude or ())),
        formats,
        check,
        retry,
        sheet,
        shard=100_000 if engine == "ray" else 0,
    )
    limit = round(memory * 2**30) or None
    start = _engine(engine, settings, workers or cores(), time_limit, limit, ray_address)
    with _stop_request() as stopped, _progress(quiet) as news:
        try:
            outcome = run(
                plan,
                start,
                say=(lambda _: None) if quiet else say,
                problem=error,
                news=news,
                stopped=stopped,
            )
        except SourceError as problem:
            error(str(problem))
            raise typer.Exit(2) from None
        except KpipeError as problem:
            error(str(problem))
            raise typer.Exit(1) from None
    if not outcome.complete:
        done, photographs = outcome.totals.done, outcome.totals.photographs
        error(f"stopped with {done} of {photographs} done; the same command goes on from here")
        raise typer.Exit(130)
    if not quiet:
        _report(outcome, display_name(output))
    if outcome.totals.errors or outcome.unreadable:
        raise typer.Exit(1)


def cores() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _formats(text: str, known: dict[str, str]) -> tuple[str, ...]:
    from kpipe.cli.extras import require

    names = tuple(dict.fromkeys(name for name in text.split(",") if name))
    for name in names:
        if name not in known:
            raise typer.BadParameter(f"choose from {', '.join(known)}", param_hint="--format")
    if "parquet" in names:
        require("batch", "pyarrow")
    return names


def _parts(draw: str) -> tuple[str, ...]:
    from kpipe.rendering.draw import Style

    try:
        return Style(tuple(part for part in draw.split(",") if part)).draw
    except ValueError as problem:
        raise typer.BadParameter(str(problem), param_hint="--draw") from None


def _engine(
    name: str,
    settings: Settings,
    workers: int,
    time_limit: float,
    memory: int | None,
    address: str | None,
) -> Callable[[], AbstractContextManager[Engine]]:
    if name == "ray":
        from kpipe.cli.extras import require

        require("ray", "ray", "pyarrow", "fsspec")
        from kpipe.batch.engines.ray_data import RayEngine

        return partial(RayEngine, settings, address, time_limit, memory)
    from kpipe.batch.engines.local import LocalEngine

    return partial(LocalEngine, settings, workers, time_limit, memory)


@contextmanager
def _stop_request() -> Iterator[Callable[[], bool]]:
    """Ctrl-C, or a request to end, stops the job between two photographs; a second one at once."""
    asked: list[int] = []
    before: dict[int, Any] = {}

    def ask(number: int, _: object) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    for number in (int(signal.SIGINT), int(signal.SIGTERM)):
        before[number] = signal.signal(number, ask)
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[News], None]]:
    """A bar where someone is there to see it; the reasons of errors in any case."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as TimeLeft

    from kpipe.cli.console import console, error

    columns = (
        TextColumn("photographs"), BarColumn(), MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"), TimeLeft(), TextColumn("{task.fields[found]}"),
    )  # fmt: skip
    disable = quiet or not console.is_terminal
    start = time.monotonic()
    problems = 0
    with Progress(*columns, console=console, transient=True, disable=disable) as progress:
        task = progress.add_task("", total=None, rate="", found="looking")

        def tell(news: News) -> None:
            nonlocal problems
            rate = (news.done - news.kept) / max(time.monotonic() - start, 1e-3)
            found = f"{news.faces} faces" + (f", {news.errors} errors" if news.errors else "")
            progress.update(
                task,
                total=news.photographs,
                completed=news.done,
                rate=f"{rate:.1f}/s",
                found=found,
            )
            for reason in news.problems:
                if problems < SHOWN_PROBLEMS:
                    error(reason)
                problems += 1

        yield tell
    if problems > SHOWN_PROBLEMS:
        error(f"and {problems - SHOWN_PROBLEMS} more errors, all in errors.csv")


def _report(outcome: Outcome, folder: str) -> None:
    from kpipe.cli.console import say

    totals = outcome.totals
    now = totals.done - outcome.kept
    counts = f"{totals.photographs} photographs, {totals.faces} faces"
    counts += f", {totals.faceless} photographs without a face, {totals.errors} errors"
    speed = f"{now} done now"
    if now:
        speed += f" in {outcome.seconds:.1f} s ({now / outcome.seconds:.1f}/s)"
    say(f"{counts}; {speed}")
    for name, lost in outcome.lost.items():
        if lost:
            dropped = ", ".join(f"{count} {what}" for what, count in lost.items())
            say(f"{name} holds none of these: {dropped}")
    say(f"results in {folder}")
