"""The course of a training run as a picture."""

from __future__ import annotations

import csv
from pathlib import Path

from matplotlib.figure import Figure

AHEAD = ("loss", "validation_nme")
"""Columns with a panel of their own; the parts of the loss share the last one."""

NAMES = {"loss": "loss", "validation_nme": "NME on validation faces, %"}


def draw_curves(log: Path, picture: Path) -> None:
    """Draws the columns of a run's `log.csv` over its steps.

    Args:
        log: the table that `kpipe.training.landmarks` writes.
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
