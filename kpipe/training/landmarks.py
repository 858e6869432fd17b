"""Training of the landmark networks and the face classifier: settings, losses, validation."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kpipe.errors import TrainingError
from kpipe.networks.stages import STAGES, Stage
from kpipe.preprocessing.affine import transform
from kpipe.preprocessing.crops import warp
from kpipe.structures.schemes import IBUG68
from kpipe.training.crops import CropStream
from kpipe.training.data import RELABELED, FaceSplit, LabeledFace, NegativePhoto
from kpipe.training.loop import (
    Figures,
    Processes,
    Recipe,
    Run,
    averaged_weights,
    load_batches,
    mean_of,
    read_checkpoint,
    train_steps,
    warm_up_cosine,
)
from kpipe.training.loss import LossWeights, landmark_losses
from kpipe.training.network import SIZES, LandmarkNetwork
from kpipe.training.plots import with_curves

WARM_UP = 1000
"""Steps until the learning rate is at its peak, but at most a tenth of the run."""

CLIP = 10.0
"""L2 norm that the gradient is cut to."""


@dataclass(frozen=True)
class TrainSettings:
    """All that decides what a run learns.

    Attributes:
        stage: a key of `STAGES`: what the network's crops show.
        size: a key of `SIZES`.
        steps: optimizer steps.
        batch: crops a step and process.
        learning_rate: of AdamW at its peak; linear warm-up, then a cosine to zero.
        weight_decay: of AdamW.
        ema_decay: of the moving average of the weights. The average is what a run results in.
        shares: relative frequency of each label set.
        label_weights: weight of each label set's losses.
        negative_share: share of crops that show no face.
        validation: share of the groups (persons, photographs) kept out of training.
        label_offset: of the first label set and of relabeled faces, see
            `kpipe.training.crops.mirrored`; what it leaves of it `kpipe export` measures and adds.
        seed: repeats the run.
    """

    stage: str = "refine"
    size: str = "medium"
    steps: int = 20_000
    batch: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    ema_decay: float = 0.999
    shares: dict[str, float] = field(
        default_factory=lambda: {"300w": 0.75, "ytf": 0.25, RELABELED: 0.4}
    )
    label_weights: dict[str, float] = field(
        default_factory=lambda: {"300w": 1.0, "ytf": 0.3, RELABELED: 0.7}
    )
    negative_share: float = 0.12
    validation: float = 0.05
    label_offset: float = 0.0
    seed: int = 0
    loss: LossWeights = field(default_factory=LossWeights)


@dataclass(frozen=True)
class LabelSets:
    """The faces of a run by label set, those that it exports first.

    Attributes:
        faces: to train on.
        validation: of the first label set.
    """

    faces: dict[str, list[LabeledFace]]
    validation: list[LabeledFace]

    @classmethod
    def of(cls, split: FaceSplit) -> LabelSets:
        """Raises TrainingError if there is no face to learn from."""
        faces: dict[str, list[LabeledFace]] = {}
        for face in split.training:
            faces.setdefault(face.source, []).append(face)
        if not faces:
            raise TrainingError("no face to train on: all were held out for validation")
        ordered = sorted(faces, key=lambda source: (source != "300w", source))
        if ordered == [RELABELED]:
            raise TrainingError("no face with labels of its own scheme to train on")
        result = cls({source: faces[source] for source in ordered}, [])
        first = result.schemes[0]
        result.validation.extend(face for face in split.validation if face.source == first)
        return result

    @property
    def schemes(self) -> tuple[str, ...]:
        """Label sets with a scheme, and so with heatmaps, of their own."""
        return tuple(source for source in self.faces if source != RELABELED)


def train(
    settings: TrainSettings,
    split: FaceSplit,
    negatives: Sequence[NegativePhoto],
    folder: Path,
    *,
    start: LandmarkNetwork | None = None,
    workers: int = 2,
    checkpoint_every: int = 500,
    on_step: Callable[[int, Figures], None] | None = None,
) -> LandmarkNetwork:
    """Trains, or goes on where the checkpoint in `folder` stands.

    Started by torchrun in several processes, each takes batches of its own on a GPU of its own, and
    the first one writes.

    Args:
        settings: of the run; a checkpoint of other settings is refused.
        split: the faces.
        negatives: photographs without faces.
        folder: gets `checkpoint.pt`, `settings.json`, `log.csv` and `curves.png`.
        start: a network whose weights to begin with, where they fit.
        workers: processes that make crops.
        checkpoint_every: steps between checkpoints and validations.
        on_step: called with the step's number and its figures.

    Returns:
        The averaged network.

    Raises:
        TrainingError: the folder holds a run of other settings or data, there is no face to learn
            from, or the loss is no longer finite.
    """
    sets = LabelSets.of(split)
    torch.manual_seed(settings.seed)
    processes = Processes.join()
    network = LandmarkNetwork(SIZES[settings.size], sets.schemes).to(processes.device)
    if start is not None:
        _begin_with(network, start)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(
        _weight_groups(network, settings.weight_decay), lr=settings.learning_rate, fused=True
    )
    recorded = _recorded(settings, sets, processes.count)
    writes = processes.rank == 0
    run = Run(network, optimizer, settings.ema_decay, recorded, folder, writes)
    recipe = Recipe(settings.steps, _schedule(settings), CLIP, checkpoint_every)
    weights = {source: settings.label_weights.get(source, 1.0) for source in sets.faces}
    stream = _crop_stream(settings, sets, negatives, processes.count)
    return train_steps(
        run,
        recipe,
        processes.replicate(Objective(network, weights, settings.loss)),
        load_batches(stream, settings.batch, run.step, workers, processes),
        _report(run, recipe, STAGES[settings.stage], sets),
        with_curves(recipe, folder, on_step),
        sources=list(sets.schemes),
    )


def _recorded(settings: TrainSettings, sets: LabelSets, processes: int) -> dict[str, Any]:
    """All that decides what the run learns, for its checkpoint."""
    recorded = asdict(settings)
    for name in ("shares", "label_weights"):
        recorded[name] = {s: recorded[name][s] for s in sets.faces if s in recorded[name]}
    recorded["data"] = {source: len(faces) for source, faces in sets.faces.items()}
    recorded["processes"] = processes
    return recorded


def _schedule(settings: TrainSettings) -> Callable[[int], dict[str, float]]:
    warm_up = min(WARM_UP / settings.steps, 0.1)

    def schedule(step: int) -> dict[str, float]:
        return {"lr": settings.learning_rate * warm_up_cosine(step / settings.steps, warm_up)}

    return schedule


def _crop_stream(
    settings: TrainSettings, sets: LabelSets, negatives: Sequence[NegativePhoto], processes: int
) -> CropStream:
    return CropStream(
        STAGES[settings.stage],
        sets.faces,
        {source: settings.shares.get(source, 1.0) for source in sets.faces},
        negatives,
        settings.negative_share,
        settings.steps * settings.batch * processes,
        settings.seed,
        dict.fromkeys((sets.schemes[0], RELABELED), settings.label_offset),
    )


def _report(
    run: Run[LandmarkNetwork], recipe: Recipe, stage: Stage, sets: LabelSets
) -> Callable[[int, Sequence[Figures]], Figures]:
    """Makes the rows of the log: rate, means of the losses, NME of the averaged network."""
    parts = [f"{part}_{source}" for source in sets.faces for part in PARTS]

    def report(step: int, recent: Sequence[Figures]) -> Figures:
        row = {"learning_rate": float(recipe.schedule(step)["lr"])}
        row |= {name: mean_of(recent, name) for name in ("loss", "face", *parts)}
        if sets.validation:
            row["validation_nme"] = validation_nme(run.result, stage, sets.validation)
        return row

    return report


def _begin_with(network: LandmarkNetwork, start: LandmarkNetwork) -> None:
    """Takes over every weight of the same name and shape.

    Raises:
        TrainingError: none fits.
    """
    own = network.state_dict()
    fitting = {k: v for k, v in start.state_dict().items() if k in own and v.shape == own[k].shape}
    if len(fitting) < len(own) / 2:
        raise TrainingError("the network to start from is of another size")
    network.load_state_dict(fitting, strict=False)


def load_run(folder: Path) -> tuple[LandmarkNetwork, dict[str, Any]]:
    """The averaged network of a run and the run's settings.

    Raises:
        TrainingError: there is no usable checkpoint.
    """
    state = read_checkpoint(folder)
    settings = state.get("settings", {})
    if "size" not in settings:
        raise TrainingError(f"{folder}: a run of another kind, not of a landmark network")
    if settings.get("stage") not in STAGES:
        raise TrainingError(f"{folder}: of a version that knew no stages: train anew")
    network = LandmarkNetwork(SIZES[settings["size"]], tuple(state["sources"]))
    network.load_state_dict(averaged_weights(state))
    return network.eval(), settings


def mean_network(networks: Sequence[LandmarkNetwork]) -> LandmarkNetwork:
    """The network whose weights are the mean of others' (Wortsman et al., ICML 2022).

    Args:
        networks: of one size, trained from common weights: otherwise their mean means nothing.
            Their first label set is what the mean predicts.

    Raises:
        TrainingError: they differ in size or first label set.
    """
    first = networks[0].sources[0]
    if any(network.sources[0] != first for network in networks):
        raise TrainingError("the runs learned different label sets: no mean of theirs is of use")
    shapes = [[p.shape for p in network.stages.parameters()] for network in networks]
    if any(shape != shapes[0] for shape in shapes):
        raise TrainingError("the runs are of different sizes: no mean of theirs is of use")
    mean = copy.deepcopy(networks[0])
    mean.sources = (first,)
    mean.heatmaps = nn.ModuleDict({first: mean.heatmaps[first]})
    states = [network.state_dict() for network in networks]
    mean.load_state_dict(
        {
            name: torch.stack([state[name] for state in states]).mean(dim=0)
            if value.is_floating_point()
            else value
            for name, value in mean.state_dict().items()
        }
    )
    return mean.eval()


@torch.no_grad()
def validation_nme(network: LandmarkNetwork, stage: Stage, faces: Sequence[LabeledFace]) -> float:
    """NME [percent] over faces that are framed as the stage frames them, the same in every run."""
    device = next(network.parameters()).device
    crops, points, scales = validation_crops(stage, faces)
    network.eval()
    predicted = torch.cat(
        [
            network(torch.from_numpy(part).to(device))[0].points.cpu()
            for part in np.array_split(crops, max(len(crops) // 64, 1))
        ]
    ).numpy()
    network.train()
    error = np.linalg.norm(predicted - points, axis=2).mean(axis=1) / scales
    return float(error.mean() * 100)


def validation_crops(
    stage: Stage, faces: Sequence[LabeledFace]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Crops (n, 1, side, side), points in them (n, 68, 2), and inter-ocular distances (n,)."""
    rng = np.random.default_rng(0)
    crops, points = [], []
    for face in faces:
        matrix = stage.random_transform(face.points, face.roll, rng)
        crops.append(warp(face.gray, matrix, stage.crop_size)[None].astype(np.float32))
        points.append(transform(matrix, face.points))
    labels = np.stack(points)
    right, left = IBUG68.ocular
    return np.stack(crops), labels, np.linalg.norm(labels[:, right] - labels[:, left], axis=1)


class Objective(nn.Module):
    """The network with its losses, in one module so that `Processes` can replicate it.

    Args:
        network: to train.
        label_sets: the label sets of `CropStream`, each with the weight of its losses.
        weights: of the terms of the loss.
    """

    def __init__(
        self, network: LandmarkNetwork, label_sets: Mapping[str, float], weights: LossWeights
    ) -> None:
        super().__init__()
        self.network = network
        self.label_sets = label_sets
        self.weights = weights

    def forward(
        self, crops: Tensor, points: Tensor, source: Tensor, is_face: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch of `CropStream`, and its parts."""
        network, weights = self.network, self.weights
        crops = crops.float().contiguous(memory_format=torch.channels_last)
        device = crops.device.type
        with torch.autocast(device, torch.bfloat16):
            features, deepest = network.features(crops)
            face = network.face_logit(deepest)
        score = torch.nn.functional.binary_cross_entropy_with_logits(face, is_face.float())
        loss = weights.face * score
        figures = {"face": score.detach()}
        for index, (name, label_weight) in enumerate(self.label_sets.items()):
            chosen = (is_face & (source == index)).nonzero().squeeze(1)
            if not len(chosen):
                continue
            with torch.autocast(device, torch.bfloat16):
                scheme = network.sources[0] if name == RELABELED else name
                prediction = network.landmarks(features[chosen], scheme)
            parts = landmark_losses(prediction, points[chosen], crops.shape[3])
            factors = (weights.coordinates, weights.heatmap, weights.error)
            each = sum((factor * part for factor, part in zip(factors, parts)), torch.zeros(()))
            loss = loss + label_weight * each.sum() / len(crops)
            for part, value in zip(PARTS, parts):
                figures[f"{part}_{name}"] = value.detach().mean()
        return loss, {"loss": loss.detach(), **figures}


PARTS = ("coordinates", "heatmap", "error")
"""Of the loss of the points, as `landmark_losses` returns them."""


def _weight_groups(network: LandmarkNetwork, decay: float) -> list[dict[str, object]]:
    """Biases and normalization are not decayed."""
    matrices = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    return [{"params": matrices, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]
