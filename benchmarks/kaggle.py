"""Kaggle's 15 keypoints: what the project's choices for them rest on.

    python benchmarks/kaggle.py definitions LABELS 300W
    python benchmarks/kaggle.py architectures SET [--seconds 100]
    python benchmarks/kaggle.py missing SET [--seconds 100]
    python benchmarks/kaggle.py points SET [--model network.onnx]

LABELS: Kaggle's training.csv, with or without its pictures. 300W: a folder of pictures with .pts
files. SET: a folder of `kpipe kaggle make`, which has the test labels. The networks of a table get
the same processor time, on one thread: as many steps as fit in it.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from kpipe.datasets import read_samples
from kpipe.kaggle.files import (
    SIDE,
    Labeled,
    read_labels,
    read_lookup,
    read_test,
    read_training,
)
from kpipe.kaggle.metrics import measure, rmse_by_point
from kpipe.kaggle.predict import OF_FOUR, Derived, KeypointNetwork, Predictor
from kpipe.kaggle.synthetic import similarity
from kpipe.measures.pose import head_pose
from kpipe.preprocessing.affine import transform
from kpipe.structures.schemes import IBUG68, KAGGLE15

FRONTAL = 15.0
"""Degrees of yaw: faces that are turned farther do not count in the mean."""

CANDIDATES = {
    "left_eye_center": ((42, 43, 44, 45, 46, 47), (42, 45)),
    "right_eye_center": ((36, 37, 38, 39, 40, 41), (36, 39)),
    "nose_tip": ((30,), (33,), (30, 33)),
    "mouth_center_top_lip": ((51,), (62,), (51, 62)),
    "mouth_center_bottom_lip": ((57,), (66,), (57, 66), (62, 66)),
}
"""Points of the 68 that might be the same as one of Kaggle's; the other points have one choice."""

LAID_ON = (2, 3, 4, 5, 11, 12)
"""Points that are the same beyond doubt: the corners of the eyes and of the mouth."""

TRIAL = 4
"""Steps that are timed to know how many fit."""

VALIDATION = 0.02
"""Share of the training rows for validation: here the test set is what measures."""

OURS = "heatmap"


def definitions(arguments: argparse.Namespace) -> None:
    labels = read_labels(arguments.labels)
    full = np.asarray(labels[~np.isnan(labels).any(axis=(1, 2))], np.float64)
    mean = full.mean(axis=0)
    faces = [sample.points for sample in read_samples(arguments.faces)]
    faces = [points for points in faces if abs(head_pose(points).yaw) < FRONTAL]
    corners = [KAGGLE15.derivation[index][0] for index in LAID_ON]
    laid = np.stack(
        [transform(similarity(points[corners], mean[list(LAID_ON)]), points) for points in faces]
    ).mean(axis=0)
    table = Table(title=f"{len(full)} fully labeled rows, {len(faces)} frontal faces laid on them")
    for column in ("Kaggle's point", "its mean", "chosen", "of 300-W's points", "distance, px"):
        table.add_column(column)
    for index, name in enumerate(KAGGLE15.names):
        for candidate in CANDIDATES.get(name, (KAGGLE15.derivation[index],)):
            distance = np.linalg.norm(laid[list(candidate)].mean(axis=0) - mean[index])
            chosen = "yes" if candidate == KAGGLE15.derivation[index] else ""
            words = ", ".join(f"{k} {IBUG68.names[k]}" for k in candidate)
            x, y = mean[index]
            table.add_row(name, f"{x:.1f} {y:.1f}", chosen, words, f"{distance:.1f}")
    show(table)

    eyes = full[:, 0] - full[:, 1]
    middle = full[:, :2].mean(axis=1).std(axis=0)
    scale = np.log(np.linalg.norm(eyes, axis=1)).std()
    roll = np.rad2deg(np.arctan2(eyes[:, 1], eyes[:, 0])).std()
    there = ~np.isnan(labels).any(axis=2)
    four = (there.sum(axis=1) == 4).mean()
    table = Table(title="how Kaggle's rows are framed and labeled")
    for column in ("figure", "value"):
        table.add_column(column)
    table.add_row("middle between the eyes, spread, px", f"{middle[0]:.2f} {middle[1]:.2f}")
    table.add_row("distance of the eyes, spread of its logarithm", f"{scale:.3f}")
    table.add_row("roll, spread, degrees", f"{roll:.2f}")
    table.add_row("rows with all labels, share", f"{there.all(axis=1).mean():.3f}")
    table.add_row("rows with four labels, share", f"{four:.3f}")
    show(table)

    rest = labels[there.sum(axis=1) == 4]
    table = Table(title="the same columns in the rows of all and of four labels")
    for column in ("point", "rows of all", "rows of four", "300-W's points for rows of four"):
        table.add_column(column)
    for index in np.flatnonzero(there[there.sum(axis=1) == 4].any(axis=0)):
        of_four = np.nanmean(rest[:, index], axis=0)
        chosen = list(OF_FOUR.get(int(index), KAGGLE15.derivation[index]))
        places = (mean[index], of_four, laid[chosen].mean(axis=0))
        table.add_row(KAGGLE15.names[index], *(f"{x:.1f} {y:.1f}" for x, y in places))
    show(table)


def architectures(arguments: argparse.Namespace) -> None:
    from kpipe.kaggle.architectures import ARCHITECTURES

    made = Made(arguments.set)
    table = results_table(f"{len(made.training)} training rows, {arguments.seconds:g} s each", made)
    table.add_row("the mean of the training labels", "", "", *made.figures(made.mean_face()))
    for arch in ARCHITECTURES:
        found, steps, parameters = trained(made.training, arch, arguments, made)
        table.add_row(arch, f"{parameters:.2f}", str(steps), *made.figures(found))
        show(table)


def missing(arguments: argparse.Namespace) -> None:
    made = Made(arguments.set)
    data = made.training
    whole = ~np.isnan(data.points).any(axis=(1, 2))
    ways = {
        "forward-filled from the row before": replace(data, points=forward_filled(data.points)),
        "rows with a missing label dropped": data.take(whole),
        "masked in the loss": data,
    }
    table = results_table(f"{len(data)} training rows, {whole.sum()} of them whole", made)
    for name, part in ways.items():
        found, steps, parameters = trained(part, OURS, arguments, made)
        table.add_row(name, f"{parameters:.2f}", str(steps), *made.figures(found))
        show(table)


def points(arguments: argparse.Namespace) -> None:
    made = Made(arguments.set)
    predictors: list[Predictor] = [Derived()]
    if arguments.model is not None:
        predictors.append(KeypointNetwork(arguments.model))
    table = results_table(f"{len(made.truth)} faces", made)
    columns = {}
    for predictor in predictors:
        found = predictor(made.truth.pictures)
        table.add_row(predictor.name, "", "", *made.figures(found))
        columns[predictor.name] = rmse_by_point(found, made.truth.points)
    show(table)
    table = Table(title="RMSE of each point, all labels, pixels of 96")
    for column in ("point", *columns):
        table.add_column(column)
    for index, name in enumerate(KAGGLE15.names):
        table.add_row(name, *(f"{errors[index]:.2f}" for errors in columns.values()))
    show(table)


class Made:
    """A folder of `kpipe kaggle make`."""

    def __init__(self, folder: Path) -> None:
        self.training = read_training(folder / "training.csv")
        self.truth = read_training(folder / "test_labels.csv")
        place = {number: k for k, number in enumerate(read_test(folder / "test.csv").ids)}
        lookup = read_lookup(folder / "IdLookupTable.csv")
        asked = np.full((len(self.truth), 2 * len(KAGGLE15)), np.nan, np.float32)
        values = self.truth.points.reshape(asked.shape)
        for image, column in zip(lookup.images, lookup.columns):
            asked[place[image], column] = values[place[image], column]
        self.asked = asked.reshape(self.truth.points.shape)

    def mean_face(self) -> NDArray[np.float32]:
        mean = np.nanmean(self.training.points, axis=0)
        return np.broadcast_to(mean, self.truth.points.shape)

    def figures(self, found: NDArray[np.float32]) -> list[str]:
        whole, asked = measure(found, self.truth.points), measure(found, self.asked)
        figures = (asked.rmse, asked.mae, whole.rmse, whole.mae)
        return [*(f"{value:.3f}" for value in figures), f"{whole.accuracy:.1%}"]


def results_table(title: str, made: Made) -> Table:
    labels = int((~np.isnan(made.asked)).sum())
    table = Table(title=f"{title}; test: {len(made.truth)} faces, {labels} labels asked for")
    table.add_column("")
    for column in ("parameters, M", "steps", "RMSE asked", "MAE asked", "RMSE all", "MAE all"):
        table.add_column(column, justify="right")
    table.add_column("accuracy", justify="right")
    return table


def forward_filled(points: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each missing coordinate as the nearest row above has it, the first rows as those below."""
    values = points.reshape(len(points), -1).copy()
    for column in values.T:
        there = np.flatnonzero(~np.isnan(column))
        above = np.maximum(np.searchsorted(there, np.arange(len(column)), side="right") - 1, 0)
        column[:] = column[there[above]]
    return values.reshape(points.shape)


def trained(
    data: Labeled, arch: str, arguments: argparse.Namespace, made: Made
) -> tuple[NDArray[np.float32], int, float]:
    """Points of the test pictures, steps, and millions of parameters of a network so trained."""
    import torch

    from kpipe.kaggle.training import KeypointSettings, predict, train_keypoints

    torch.set_num_threads(1)
    steps = max(round(arguments.seconds / step_seconds(arch)), 2)
    settings = KeypointSettings(arch, steps, validation=VALIDATION)
    with Progress(transient=True) as progress:
        task = progress.add_task(arch, total=steps)
        run = train_keypoints(data, settings, on_step=lambda *_: progress.advance(task))
    found = predict(run.network, made.truth.pictures)
    return found, steps, sum(p.numel() for p in run.network.parameters()) / 1e6


def step_seconds(arch: str) -> float:
    """Processor time of one step of training, seconds."""
    import torch

    from kpipe.kaggle.architectures import ARCHITECTURES
    from kpipe.kaggle.training import KeypointSettings, distort

    network = ARCHITECTURES[arch]().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters())
    batch = KeypointSettings().batch
    pictures = torch.rand(batch, 1, SIDE, SIDE) * 255
    labels = torch.rand(batch, len(KAGGLE15), 2) * SIDE
    generator = torch.Generator().manual_seed(0)
    start = 0.0
    for step in range(1 + TRIAL):
        if step == 1:  # the first is slower than any other
            start = time.process_time()
        optimizer.zero_grad(set_to_none=True)
        network.loss(*distort(pictures, labels, generator)).backward()
        optimizer.step()
    return (time.process_time() - start) / TRIAL


def show(table: Table) -> None:
    Console(width=140).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = parser.add_subparsers(required=True, metavar="TABLE")
    part = parts.add_parser("definitions")
    part.set_defaults(run=definitions)
    part.add_argument("labels", type=Path)
    part.add_argument("faces", type=Path)
    for name, run in (("architectures", architectures), ("missing", missing)):
        part = parts.add_parser(name)
        part.set_defaults(run=run)
        part.add_argument("set", type=Path)
        part.add_argument("--seconds", type=float, default=100, help="of training, each")
    part = parts.add_parser("points")
    part.set_defaults(run=points)
    part.add_argument("set", type=Path)
    part.add_argument("--model", type=Path, help="a network to compare")
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
