"""The log of a training run as a picture."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

from matplotlib.figure import Figure

from kpipe.training.loop import LOG, Figures, Recipe

AHEAD = ("loss", "validation_nme")
"""Columns with a panel of their own; the parts of the loss share the last one."""

NAMES = {"loss": "loss", "validation_nme": "NME on validation faces, %"}


def with_curves(
    recipe: Recipe, folder: Path, on_step: Callable[[int, Figures], None] | None
) -> Callable[[int, Figures], None]:
    """Draws `curves.png` after each step that adds a row to the log, then calls `on_step`."""

    def after_step(step: int, figures: Figures) -> None:
        if recipe.checks(step):
            draw_curves(folder / LOG, folder / "curves.png")
        if on_step is not None:
            on_step(step, figures)

    return after_step


def draw_curves(log: Path, picture: Path) -> None:
    """Draws the columns of a run's `log.csv` over its steps.

    Args:
        log: the table that `kpipe.training.loop` writes.
        picture: PNG to write.
    """
    with log.open(newline="") as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    steps = [row["step"] for row in rows]
    panels = [[name] for name in AHEAD if name in rows[-1]]
    panels.append([n for n in rows[-1] if n not in ("step", "learning_rate", *AHEAD)])
    figure = Figure(figsize=(5 * len(panels), 3.6), layout="tight")
    axes = figure.subplots(1, len(panels), squeeze=False)
    for axis, names in zip(axes[0], panels):
        for name in names:
            axis.plot(steps, [row[name] for row in rows], label=name)
        axis.set_xlabel("step")
        axis.set_yscale("log")
        axis.grid(True, which="both", alpha=0.3)
        axis.set_title(NAMES.get(names[0], "parts of the loss") if len(names) == 1 else "its parts")
        if len(names) > 1:
            axis.legend(fontsize=7)
    figure.savefig(picture, dpi=100)
