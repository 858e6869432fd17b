"""Charts of errors on Kaggle's pictures, by matplotlib: the extra `plot`."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kpipe.kaggle.metrics import rmse_by_point
from kpipe.structures.schemes import KAGGLE15

if TYPE_CHECKING:
    from matplotlib.figure import Figure


COLORS = ("#d62728", "#1f77b4", "#2ca02c", "#9467bd")
"""Of the predictors in a chart; ours from the 68 points comes last."""


BINS = 6
"""Groups of equally many faces in the charts of what makes faces hard."""


def curves_chart(curves: Mapping[str, Sequence[float]]) -> bytes:
    """Loss and RMSE over the steps of a run, as PNG.

    Args:
        curves: `step`, and `training_` and `validation_` of `loss` and `rmse`.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    panels = figure.subplots(1, 2)
    for axes, name, unit in zip(panels, ("loss", "rmse"), ("loss", "RMSE, pixels of 96")):
        for part, color in (("training", COLORS[1]), ("validation", COLORS[0])):
            axes.plot(curves["step"], curves[f"{part}_{name}"], color=color, label=part)
        axes.set(xlabel="step", ylabel=unit, yscale="log")
        axes.grid(alpha=0.3, which="both")
        axes.legend()
    return _png(figure)


def keypoints_chart(found: Mapping[str, NDArray[np.float32]], truth: NDArray[np.float32]) -> bytes:
    """RMSE of each keypoint, a bar a predictor, as PNG.

    Args:
        found: (n, 15, 2) of each predictor, by its name.
        truth: (n, 15, 2), NaN where there is no label.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.subplots()
    height = 0.8 / len(found)
    rows = np.arange(len(KAGGLE15))
    for number, (name, points) in enumerate(found.items()):
        axes.barh(
            rows + number * height,
            np.nan_to_num(rmse_by_point(points, truth)),
            height,
            label=name,
            color=COLORS[number],
        )
    axes.set_yticks(rows + 0.4 - height / 2, KAGGLE15.names)
    axes.invert_yaxis()
    axes.set_xlabel("RMSE, pixels of 96")
    axes.grid(alpha=0.3, axis="x")
    axes.legend()
    return _png(figure)


def causes_chart(
    causes: Mapping[str, NDArray[np.floating]], errors: Mapping[str, NDArray[np.floating]]
) -> bytes:
    """The error of each face against what may make it hard, as PNG: dots, and means of groups.

    Args:
        causes: (n,) of each, by what the axis says.
        errors: (n,) RMSE of each face in pixels, of each predictor by its name.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5 * len(causes), 4.5), layout="constrained")
    panels = figure.subplots(1, len(causes), sharey=True, squeeze=False)[0]
    top = max(float(np.nanquantile(error, 0.99)) for error in errors.values())
    for axes, (cause, values) in zip(panels, causes.items()):
        for (name, error), color in zip(errors.items(), COLORS):
            axes.scatter(values, error, s=5, alpha=0.25, color=color, linewidths=0)
            middles, means = binned(values, error)
            axes.plot(middles, means, "o-", color=color, label=name)
        axes.set(xlabel=cause, ylim=(0, top))
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("RMSE of the face, pixels of 96")
    panels[0].legend()
    return _png(figure)


def binned(
    values: NDArray[np.floating], errors: NDArray[np.floating]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Medians of the values, and root mean squares of the errors, in groups of equally many."""
    usable = np.flatnonzero(~np.isnan(errors))
    groups = np.array_split(usable[np.argsort(values[usable])], min(BINS, max(len(usable), 1)))
    groups = [group for group in groups if len(group)]
    medians = [float(np.median(values[group])) for group in groups]
    means = [float(np.sqrt(np.mean(np.square(errors[group])))) for group in groups]
    return np.array(medians), np.array(means)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
