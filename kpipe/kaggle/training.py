"""Training of 15-point networks on Kaggle's pictures: ours, and those that people began with.

A label that is missing is missing from the loss: nothing is put in its place, and no row is left
out for the lack of it.
"""

from __future__ import annotations

import copy
import csv
import io
import math
import pickle
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from kpipe.errors import TrainingError
from kpipe.kaggle.architectures import (
    ARCHITECTURES,
    LEARNING_RATES,
    POINTS,
    HeatmapNetwork,
    Network,
    Regression,
)
from kpipe.kaggle.files import SIDE, Labelled, kept_out
from kpipe.kaggle.metrics import Metrics, measure
from kpipe.structures.schemes import KAGGLE15
from kpipe.utils.files import write_file

BATCH = 256
"""Pictures at once when nothing is learned."""


CHECKPOINT = "checkpoint.pt"


WARM_UP = 0.05
"""Share of the steps until the learning rate is at its peak."""


# Training.


@dataclass(frozen=True)
class KeypointSettings:
    """All that decides what a run learns.

    Attributes:
        arch: a key of `ARCHITECTURES`.
        steps: optimiser steps.
        batch: pictures a step.
        learning_rate: at its peak; None for the architecture's own.
        validation: share of the pictures kept out of training, the same ones in every run.
        seed: repeats the run.
    """

    arch: str = "heatmap"
    steps: int = 5_000
    batch: int = 64
    learning_rate: float | None = None
    validation: float = 0.1
    seed: int = 0


@dataclass(frozen=True)
class Curves:
    """How a run went: one entry each time it was validated.

    Attributes:
        step: when.
        training_loss: mean over the steps since the last entry, on distorted pictures.
        validation_loss: on the pictures kept out.
        training_rmse: on as many pictures of those to train on, not distorted, pixels.
        validation_rmse: on the pictures kept out, pixels.
    """

    step: list[int] = field(default_factory=list)
    training_loss: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)
    training_rmse: list[float] = field(default_factory=list)
    validation_rmse: list[float] = field(default_factory=list)

    def add(self, **figures: float) -> None:
        for name, value in figures.items():
            getattr(self, name).append(value)

    def to_csv(self) -> str:
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        columns = asdict(self)
        writer.writerow(columns)
        writer.writerows([f"{value:.6g}" for value in row] for row in zip(*columns.values()))
        return buffer.getvalue()


@dataclass(frozen=True)
class TrainedKeypoints:
    """A network, how it was learned and how good it is on the pictures kept out."""

    network: Network
    curves: Curves
    validation: Metrics
    settings: KeypointSettings


def train_keypoints(
    data: Labelled,
    settings: KeypointSettings,
    folder: Path | None = None,
    on_step: Callable[[int, float | None], None] | None = None,
) -> TrainedKeypoints:
    """Trains, or goes on where the checkpoint in the folder stands.

    Args:
        data: the pictures, of which the settings keep a share out.
        settings: of the run.
        folder: gets `checkpoint.pt` and `log.csv` at each validation; without it nothing is kept.
        on_step: called with the step's number and, if it was validated, the RMSE.

    Raises:
        TrainingError: there is no label to learn from, or none to validate with, or the
            folder holds a run of other settings or data.
    """
    out = kept_out(data.pictures, settings.validation)
    training, validation = data.take(~out), data.take(out)
    for part, name in ((training, "train on"), (validation, "validate with")):
        if np.isnan(part.points).all():
            raise TrainingError(
                f"no labelled picture to {name}: more pictures, or another --validation"
            )
    torch.manual_seed(settings.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = ARCHITECTURES[settings.arch]().to(device)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    peak = settings.learning_rate or LEARNING_RATES[settings.arch]
    optimiser = torch.optim.AdamW(network.parameters(), lr=peak, weight_decay=0.01)
    # The average reaches back over a fiftieth of the run.
    average = get_ema_multi_avg_fn(1 - 1 / max(settings.steps / 50, 2))  # type: ignore[no-untyped-call]
    averaged = AveragedModel(network, multi_avg_fn=average, use_buffers=True)
    recorded = asdict(settings) | {"pictures": len(data)}
    curves = Curves()
    state = _checkpoint(folder, recorded)
    if state is not None:
        network.load_state_dict(state["network"])
        averaged.load_state_dict(state["averaged"])
        optimiser.load_state_dict(state["optimiser"])
        curves = Curves(**state["curves"])

    pictures = torch.from_numpy(training.pictures).to(device)
    labels = torch.from_numpy(training.points).to(device)
    again = training.take(np.arange(min(len(validation), len(training))))
    losses: list[float] = []
    for step in range((curves.step or [0])[-1] + 1, settings.steps + 1):
        for group in optimiser.param_groups:
            group["lr"] = peak * _schedule(step / settings.steps)
        # What a step sees follows from its number: a run that resumes sees the same.
        generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + step)
        chosen = torch.randint(len(pictures), (settings.batch,), generator=generator).to(device)
        shown, targets = distort(pictures[chosen].float()[:, None], labels[chosen], generator)
        if not targets.isnan().all():
            network.train()
            loss = network.loss(shown, targets)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(network.parameters(), 5.0)
            optimiser.step()
            averaged.update_parameters(network)
            losses.append(float(loss.detach()))
        validated = None
        if step % max(settings.steps // 25, 1) == 0 or step == settings.steps:
            current = _network_of(averaged)
            validated = _rmse(current, validation)
            curves.add(
                step=step,
                training_loss=float(np.mean(losses or [math.nan])),
                validation_loss=_loss(current, validation),
                training_rmse=_rmse(current, again),
                validation_rmse=validated,
            )
            losses.clear()
            if folder is not None:
                parts = {"network": network, "averaged": averaged, "optimiser": optimiser}
                _save(folder, recorded, {k: part.state_dict() for k, part in parts.items()}, curves)
        if on_step is not None:
            on_step(step, validated)
    final = _network_of(averaged).eval()
    found = predict(final, validation.pictures)
    return TrainedKeypoints(final, curves, measure(found, validation.points), settings)


def _schedule(progress: float) -> float:
    """Share of the peak learning rate: linear warm-up, then a cosine to zero."""
    if progress < WARM_UP:
        return progress / WARM_UP
    return 0.5 * (1 + math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP)))


@torch.no_grad()
def distort(pictures: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Pictures (n, 1, 96, 96) turned, moved, scaled, mirrored and lit at random, and their labels.

    A mirrored face's left eye is its right one: the names change places with the points. A label
    that leaves the picture becomes NaN.
    """
    count, device = len(pictures), pictures.device

    def normal(*shape: int) -> Tensor:
        return torch.randn(count, *shape, generator=generator).to(device)

    angle = normal() * math.radians(8)
    scale = (normal() * 0.07).exp()
    mirrored = (torch.rand(count, generator=generator) < 0.5).to(device)
    side = torch.where(mirrored, -1.0, 1.0)
    cos, sin = scale * angle.cos(), scale * angle.sin()
    linear = torch.stack([side * cos, -sin, side * sin, cos], dim=1).reshape(count, 2, 2)
    shift = normal(2) * 2.5

    # The grid says for each pixel of the result where it lies in the picture, in halves of a side.
    back = torch.linalg.inv(linear)
    origin = -(back @ (shift / (SIDE / 2))[..., None])
    grid = functional.affine_grid(
        torch.cat([back, origin], dim=2), list(pictures.shape), align_corners=False
    )
    moved = functional.grid_sample(pictures, grid, padding_mode="border", align_corners=False)
    middle = (SIDE - 1) / 2
    points = (labels - middle) @ linear.transpose(1, 2) + shift[:, None] + middle
    swapped = torch.from_numpy(KAGGLE15.mirror).to(device)
    points = torch.where(mirrored[:, None, None], points[:, swapped], points)
    inside = ((points >= 0) & (points <= SIDE - 1)).all(dim=2, keepdim=True)
    # One missing coordinate of two, turned, leaves neither.
    points = torch.where(inside, points, torch.nan)

    light = (normal(1, 1, 1) * 0.25).exp()
    noise = normal(1, 1, 1).abs() * 5 * normal(*pictures.shape[1:])
    lit = (moved - 128) * light + 128 + normal(1, 1, 1) * 20 + noise
    return lit.clamp(0, 255), points


def predict(network: Network, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The points (n, 15, 2) of pictures (n, 96, 96)."""
    parts = [np.zeros((0, POINTS, 2), np.float32)]
    with _evaluating(network) as device:
        for start in range(0, len(pictures), BATCH):
            batch = torch.from_numpy(pictures[start : start + BATCH, None]).to(device).float()
            parts.append(network(batch).cpu().numpy())
    return np.concatenate(parts)


def _rmse(network: Network, data: Labelled) -> float:
    return measure(predict(network, data.pictures), data.points).rmse


def _loss(network: Network, data: Labelled) -> float:
    """Mean over batches, by the number of labels in each."""
    total, count = 0.0, 0
    with _evaluating(network) as device:
        for start in range(0, len(data), BATCH):
            part = slice(start, start + BATCH)
            labels = torch.from_numpy(data.points[part]).to(device)
            weight = int((~labels.isnan()).sum())
            if weight:
                pictures = torch.from_numpy(data.pictures[part, None]).to(device).float()
                total += float(network.loss(pictures, labels)) * weight
                count += weight
    return total / max(count, 1)


@contextmanager
def _evaluating(network: Network) -> Iterator[torch.device]:
    """Without dropout or gradients; gives the device that the network is on."""
    network.eval()
    with torch.no_grad():
        yield next(network.parameters()).device


def _network_of(averaged: AveragedModel) -> Network:
    network = averaged.module
    assert isinstance(network, Regression | HeatmapNetwork)
    return network


def _checkpoint(folder: Path | None, recorded: dict[str, Any]) -> dict[str, Any] | None:
    """The state of the run in a folder, if it holds one."""
    if folder is None or not (folder / CHECKPOINT).exists():
        return None
    path = folder / CHECKPOINT
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        same = state["settings"] == recorded
    except (OSError, EOFError, KeyError, TypeError, RuntimeError, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split())[:120]
        raise TrainingError(f"{path}: not a checkpoint of this ({reason})") from None
    if not same:
        raise TrainingError(f"{folder}: a run of other settings or data; name another folder")
    return state


def _save(folder: Path, recorded: dict[str, Any], parts: dict[str, Any], curves: Curves) -> None:
    buffer = io.BytesIO()
    torch.save({"settings": recorded, **parts, "curves": asdict(curves)}, buffer)
    write_file(folder / CHECKPOINT, buffer.getvalue())
    write_file(folder / "log.csv", curves.to_csv().encode())


class _Exported(nn.Module):
    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, pictures: Tensor) -> Tensor:
        points: Tensor = self.network(pictures.float())
        return points


def export_keypoints(trained: TrainedKeypoints, path: Path) -> None:
    """Writes the network as an ONNX file for `kpipe.kaggle.predict.KeypointNetwork`.

    Input `pictures` (n, 1, 96, 96) uint8, output `points` (n, 15, 2) float32, pixels. The metadata
    say how it was trained and which pictures were kept out.

    Raises:
        ImageError: the file cannot be written.
    """
    # torch's exporter folds batch normalisation into the very weights of the module it is given.
    module = _Exported(copy.deepcopy(trained.network).cpu().eval())
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            (torch.zeros(1, 1, SIDE, SIDE, dtype=torch.uint8),),
            buffer,  # type: ignore[arg-type]
            dynamo=False,
            input_names=["pictures"],
            output_names=["points"],
            dynamic_axes={"pictures": {0: "n"}, "points": {0: "n"}},
            opset_version=17,
        )
    model = onnx.load_from_string(buffer.getvalue())
    settings = trained.settings
    onnx.helper.set_model_props(
        model,
        {
            "kpipe.scheme": KAGGLE15.name,
            "kpipe.arch": settings.arch,
            "kpipe.steps": str(settings.steps),
            "kpipe.validation": str(settings.validation),
            "kpipe.validation_rmse": f"{trained.validation.rmse:.4f}",
        },
    )
    write_file(path, model.SerializeToString())
