"""Training of 15-point networks on Kaggle's pictures: ours, and those that people began with.

A label that is missing is missing from the loss: nothing is put in its place, and no row is left
out for the lack of it.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from kpipe.errors import TrainingError
from kpipe.kaggle.architectures import (
    ARCHITECTURES,
    LEARNING_RATES,
    POINTS,
    Network,
)
from kpipe.kaggle.charts import curves_chart
from kpipe.kaggle.drawing import worst, worst_sheet
from kpipe.kaggle.files import SIDE, Labeled, kept_out
from kpipe.kaggle.metrics import Metrics, measure, rmse_by_face
from kpipe.media.images import encode
from kpipe.structures.schemes import KAGGLE15
from kpipe.training.loop import (
    Figures,
    Recipe,
    Run,
    mean_of,
    one_device,
    train_steps,
    warm_up_cosine,
)
from kpipe.training.tracing import onnx_model
from kpipe.utils.files import write_file

BATCH = 256
"""Pictures at once when nothing is learned."""


WARM_UP = 0.05
"""Share of the steps until the learning rate is at its peak."""


CLIP = 5.0
"""L2 norm that the gradient is cut to."""


# Training.


@dataclass(frozen=True)
class KeypointSettings:
    """All that decides what a run learns.

    Attributes:
        arch: a key of `ARCHITECTURES`.
        steps: optimizer steps.
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
    """The figures of a run, one entry for each validation.

    Attributes:
        step: the step after which it was validated.
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

    @classmethod
    def of(cls, log: Sequence[Figures]) -> Curves:
        """The curves in the rows of a run's log."""
        names = [column.name for column in fields(cls)]
        columns: dict[str, Any] = {name: [row[name] for row in log] for name in names}
        return cls(**columns)


@dataclass(frozen=True)
class TrainedKeypoints:
    """A network, the course of its training, and its errors on the pictures kept out."""

    network: Network
    curves: Curves
    validation: Metrics
    settings: KeypointSettings


def train_keypoints(
    data: Labeled,
    settings: KeypointSettings,
    folder: Path | None = None,
    on_step: Callable[[int, float | None], None] | None = None,
) -> TrainedKeypoints:
    """Trains, or goes on where the checkpoint in the folder stands.

    Args:
        data: the pictures; the settings keep a share of them out of training.
        settings: of the run.
        folder: gets `settings.json`, and `checkpoint.pt` and `log.csv` at each validation; without
            it nothing is kept.
        on_step: called with the step's number and, if it was validated, the RMSE.

    Raises:
        TrainingError: there is no label to learn from, or none to validate with, the folder holds
            a run of other settings or data, or the loss is no longer finite.
    """
    training, validation = _split(data, settings.validation)
    torch.manual_seed(settings.seed)
    network = ARCHITECTURES[settings.arch]().to(one_device())
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    peak = settings.learning_rate or LEARNING_RATES[settings.arch]
    optimizer = torch.optim.AdamW(network.parameters(), lr=peak, weight_decay=0.01)
    # The average reaches back over a fiftieth of the run.
    ema_decay = 1 - 1 / max(settings.steps / 50, 2)
    recorded = {**asdict(settings), "pictures": len(data)}
    run = Run(network, optimizer, ema_decay, recorded, folder)

    def schedule(step: int) -> dict[str, float]:
        return {"lr": peak * warm_up_cosine(step / settings.steps, WARM_UP)}

    def objective(pictures: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]] | None:
        return None if labels.isnan().all() else (network.loss(pictures, labels), {})

    again = training.take(np.arange(min(len(validation), len(training))))

    def report(_: int, recent: Sequence[Figures]) -> Figures:
        return {
            "training_loss": mean_of(recent, "loss"),
            "validation_loss": _loss(run.result, validation),
            "training_rmse": _rmse(run.result, again),
            "validation_rmse": _rmse(run.result, validation),
        }

    def after_step(step: int, figures: Figures) -> None:
        if on_step is not None:
            on_step(step, figures.get("validation_rmse"))

    recipe = Recipe(settings.steps, schedule, CLIP, max(settings.steps // 25, 1))
    batches = _batches(training, settings, run.step)
    final = train_steps(run, recipe, objective, batches, report, after_step)
    found = predict(final, validation.pictures)
    return TrainedKeypoints(final, Curves.of(run.log), measure(found, validation.points), settings)


def _split(data: Labeled, share: float) -> tuple[Labeled, Labeled]:
    """Pictures to train on and to validate with."""
    out = kept_out(data.pictures, share)
    training, validation = data.take(~out), data.take(out)
    for part, name in ((training, "train on"), (validation, "validate with")):
        if np.isnan(part.points).all():
            raise TrainingError(
                f"no labeled picture to {name}: more pictures, or another --validation"
            )
    return training, validation


def _batches(
    data: Labeled, settings: KeypointSettings, done: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Distorted pictures (n, 1, 96, 96) and labels (n, 15, 2) of each step after the last done."""
    device = one_device()
    pictures = torch.from_numpy(data.pictures).to(device)
    labels = torch.from_numpy(data.points).to(device)
    for step in range(done + 1, settings.steps + 1):
        # The pictures of a step follow from its number: a run that resumes takes the same ones.
        generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + step)
        chosen = torch.randint(len(pictures), (settings.batch,), generator=generator).to(device)
        yield distort(pictures[chosen].float()[:, None], labels[chosen], generator)


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


def _rmse(network: Network, data: Labeled) -> float:
    return measure(predict(network, data.pictures), data.points).rmse


def _loss(network: Network, data: Labeled) -> float:
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


def write_results(trained: TrainedKeypoints, validation: Labeled, folder: Path) -> None:
    """Writes network.onnx, curves.png and worst.png to the folder of a run.

    Args:
        trained: the result of the run.
        validation: the pictures kept out; the worst of them are drawn.
        folder: of the run.

    Raises:
        WriteError: a file cannot be written.
    """
    export_keypoints(trained, folder / "network.onnx")
    write_file(folder / "curves.png", curves_chart(asdict(trained.curves)))
    points = predict(trained.network, validation.pictures)
    errors = rmse_by_face(points, validation.points)
    sheet = worst_sheet(validation, points, errors, worst(errors))
    write_file(folder / "worst.png", encode(sheet, ".png"))


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
        WriteError: the file cannot be written.
    """
    # torch's exporter folds batch normalization into the very weights of the module it is given.
    module = _Exported(copy.deepcopy(trained.network).cpu().eval())
    example = torch.zeros(1, 1, SIDE, SIDE, dtype=torch.uint8)
    count = {0: "n"}
    model = onnx_model(
        module, {"pictures": example}, ["points"], {"pictures": count, "points": count}
    )
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
