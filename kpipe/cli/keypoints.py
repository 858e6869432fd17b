"""What the commands for Kaggle's 15 points share: training, progress, the table of metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from kpipe.kaggle.metrics import Metrics

OPTIONS = ("arch", "steps", "batch", "learning_rate", "validation", "seed")
"""Options of a training run: the fields of `KeypointSettings`."""


def train(data: Path, output: Path, **options: object) -> None:
    """Trains a network of the 15 points and says how good it is.

    Args:
        data: a training.csv.
        output: folder of the run.
        options: of `OPTIONS`, those that the user set.
    """
    from kpipe.cli.extras import require

    require("train", "torch", "onnx")
    require("plot", "matplotlib")

    from kpipe.cli.console import say
    from kpipe.kaggle.architectures import ARCHITECTURES
    from kpipe.kaggle.files import kept_out, read_training
    from kpipe.kaggle.training import KeypointSettings, train_keypoints, write_results

    settings = KeypointSettings(**options)  # type: ignore[arg-type]
    if settings.arch not in ARCHITECTURES:
        raise typer.BadParameter(f"choose {', '.join(ARCHITECTURES)}", param_hint="--arch")
    with counting("rows") as on_row:
        labeled = read_training(data, on_row)
    out = kept_out(labeled.pictures, settings.validation)
    say(f"{(~out).sum()} pictures to train on, {out.sum()} for validation")
    with counting("steps", settings.steps) as on_step:

        def show_step(step: int, rmse: float | None) -> None:
            on_step(step)
            if rmse is not None:
                say(f"step {step}: RMSE {rmse:.2f} pixels on validation pictures")

        trained = train_keypoints(labeled, settings, output, show_step)
    write_results(trained, labeled.take(out), output)
    print_metrics({settings.arch: trained.validation})
    say(f"trained: kpipe kaggle report {data} --model {output / 'network.onnx'} -o report/")


@contextmanager
def counting(what: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """A function that shows a count on a terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from kpipe.cli.console import console

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    terminal = console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=not terminal) as progress:
        task = progress.add_task("", total=total)
        yield lambda count: progress.update(task, completed=count)


def print_metrics(metrics: Mapping[str, Metrics]) -> None:
    """A table on standard output, one row a predictor."""
    from kpipe.cli.console import print_table

    columns = ("pixels of 96", "RMSE", "MAE", "accuracy (same coordinate largest)")
    print_table(
        columns,
        (
            (name, f"{each.rmse:.3f}", f"{each.mae:.3f}", f"{each.accuracy:.1%}")
            for name, each in metrics.items()
        ),
    )
