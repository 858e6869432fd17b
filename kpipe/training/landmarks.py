"""Training: from labelled faces to a checkpoint, on whatever device there is."""

from __future__ import annotations

import copy
import csv
import json
import math
import os
import pickle
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from kpipe.datasets import DatasetError, Sample, held_out
from kpipe.errors import ImageError, TrainingError
from kpipe.media.images import read_image
from kpipe.networks.stages import OLD_NAMES, STAGES, Stage
from kpipe.pipeline import Pipeline
from kpipe.preprocessing.affine import transform
from kpipe.preprocessing.boxes import landmark_box
from kpipe.preprocessing.crops import to_gray, warp
from kpipe.structures.detections import Detections, Detector
from kpipe.structures.schemes import IBUG68
from kpipe.training.crops import RELABELLED, CropStream, LabelledFace, NegativePhoto
from kpipe.training.loss import LossWeights, landmark_losses
from kpipe.training.network import SIZES, LandmarkNetwork
from kpipe.training.plots import draw_curves
from kpipe.utils.opencv import cv2

EMPTY_VALIDATION = 0.33
"""Share of the photographs without faces that is kept out of training."""


WARM_UP = 1000
"""Steps until the learning rate is at its peak, but at most a tenth of the run."""


@dataclass(frozen=True)
class TrainSettings:
    """All that decides what a run learns.

    Attributes:
        look: a key of `STAGES`: what the network's crops show.
        size: a key of `SIZES`.
        steps: optimiser steps.
        batch: crops a step and process.
        learning_rate: of AdamW at its peak; linear warm-up, then a cosine to zero.
        weight_decay: of AdamW.
        ema_decay: of the moving average of the weights, which is what is kept.
        shares: how often each label set is drawn.
        label_weights: weight of each label set's losses.
        negative_share: share of crops that show no face.
        validation: share of the groups (persons, photographs) kept out of training.
        label_offset: of the first label set and of relabelled faces, see
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
        default_factory=lambda: {"300w": 0.75, "ytf": 0.25, RELABELLED: 0.4}
    )
    label_weights: dict[str, float] = field(
        default_factory=lambda: {"300w": 1.0, "ytf": 0.3, RELABELLED: 0.7}
    )
    negative_share: float = 0.12
    validation: float = 0.05
    label_offset: float = 0.0
    seed: int = 0
    loss: LossWeights = field(default_factory=LossWeights)


@dataclass(frozen=True)
class FaceSplit:
    """Faces in memory, to train on and to choose settings by."""

    training: list[LabelledFace]
    validation: list[LabelledFace]


def load_faces(
    samples: Iterable[Sample],
    validation: float,
    on_bad: Callable[[DatasetError], None] | None = None,
) -> FaceSplit:
    """The faces of some samples, read into memory as gray pictures.

    Args:
        samples: labelled faces on disk.
        validation: share of their groups to be kept out of training.
        on_bad: called with each face that cannot be used, which is then left out.

    Raises:
        DatasetError: without `on_bad`, the first unusable face.
    """
    split = FaceSplit([], [])
    for sample in samples:
        part = split.validation if held_out(sample.group, validation) else split.training
        try:
            part.append(LabelledFace(sample.read(), sample.points, sample.source))
        except DatasetError as error:
            if on_bad is None:
                raise
            on_bad(error)
    return split


def with_hard_negatives(
    faces: Iterable[LabelledFace], detector: Detector, pipeline: Pipeline
) -> list[LabelledFace]:
    """The faces, each with what a detector wrongly takes for faces around it.

    Args:
        faces: labelled faces; the photographs may show others, which nobody has labelled.
        detector: whose mistakes to note.
        pipeline: what its first look takes for a face is none of them.
    """
    noted = []
    for face in faces:
        found = detector(face.gray)
        box = landmark_box(face.points)
        away = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2 - (box[:2] + box[2:]) / 2
        far = np.abs(away).max(axis=1) > BESIDE * (box[2] - box[0])
        others = found[far][:NOTED]
        none = pipeline.coarse_landmarks(face.gray, others).scores < 0.5
        noted.append(replace(face, hard_negatives=others[none]))
    return noted


NOTED = 8
"""Mistakes of the detector, the most probable ones, that are kept of one photograph of a face."""


BESIDE = 0.8
"""From so many sides of a face's box on, a candidate is not that face."""


def load_empty(
    folder: Path,
    detector: Detector | None,
    validation: float = EMPTY_VALIDATION,
    on_bad: Callable[[DatasetError], None] | None = None,
) -> tuple[list[NegativePhoto], list[NegativePhoto]]:
    """Photographs without faces and where a detector errs on them.

    Returns:
        Those to train on, and those kept out to measure the face score on.

    Raises:
        DatasetError: the folder has none; or, without `on_bad`, one that cannot be read.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder}: no such folder")
    parts: tuple[list[NegativePhoto], list[NegativePhoto]] = ([], [])
    for path in sorted(p for p in folder.iterdir() if p.is_file()):
        try:
            gray = to_gray(read_image(path))
        except ImageError as error:
            if on_bad is None:
                raise DatasetError(str(error)) from None
            on_bad(DatasetError(str(error)))
            continue
        photo = NegativePhoto(gray, detector(gray) if detector is not None else Detections.empty())
        parts[held_out(path.name, validation)].append(photo)
    if not any(parts):
        raise DatasetError(f"{folder}: no picture in it")
    return parts


def train(
    settings: TrainSettings,
    split: FaceSplit,
    empty: Sequence[NegativePhoto],
    folder: Path,
    *,
    start: LandmarkNetwork | None = None,
    workers: int = 2,
    checkpoint_every: int = 500,
    on_step: Callable[[int, dict[str, float]], None] | None = None,
) -> LandmarkNetwork:
    """Trains, or goes on where the checkpoint in `folder` stands.

    Started by torchrun in several processes, each takes batches of its own on a GPU of its own, and
    the first one writes.

    Args:
        settings: of the run; a checkpoint of other settings is refused.
        split: the faces.
        empty: photographs without faces.
        folder: gets `checkpoint.pt`, `settings.json`, `log.csv` and `curves.png`.
        start: a network whose weights to begin with, where they fit.
        workers: processes that make crops.
        checkpoint_every: steps between checkpoints and validations.
        on_step: called with the step's number and the figures of it.

    Returns:
        The averaged network.

    Raises:
        TrainingError: the folder holds a run of other settings or data, or there is no face to
            learn from.
    """
    faces: dict[str, list[LabelledFace]] = {}
    for face in split.training:
        faces.setdefault(face.source, []).append(face)
    if not faces:
        raise TrainingError("no face to train on: all were held out for validation")
    # The first is the one that is exported.
    sources = tuple(sorted(faces, key=lambda source: (source != "300w", source)))
    schemes = tuple(source for source in sources if source != RELABELLED)
    if not schemes:
        raise TrainingError("no face with labels of its own scheme to train on")
    validation = [face for face in split.validation if face.source == schemes[0]]

    torch.manual_seed(settings.seed)
    together = Workers.join()
    device = together.device
    stage = STAGES[settings.stage]
    network = LandmarkNetwork(SIZES[settings.size], schemes).to(device)
    if start is not None:
        _begin_with(network, start)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(
        _weight_groups(network, settings.weight_decay), lr=settings.learning_rate, fused=True
    )
    average = get_ema_multi_avg_fn(settings.ema_decay)  # type: ignore[no-untyped-call]
    averaged = AveragedModel(network, multi_avg_fn=average, use_buffers=True)

    folder.mkdir(parents=True, exist_ok=True)
    recorded = json.loads(json.dumps(asdict(settings)))
    for name in ("shares", "label_weights"):
        recorded[name] = {s: recorded[name][s] for s in sources if s in recorded[name]}
    recorded["data"] = {source: len(faces[source]) for source in sources}
    recorded["processes"] = together.count
    done = 0
    checkpoint = folder / "checkpoint.pt"
    if checkpoint.exists():
        state = _load(checkpoint)
        if state["settings"] != recorded:
            raise TrainingError(f"{folder}: a run of other settings or data; name another folder")
        network.load_state_dict(state["network"])
        averaged.load_state_dict(state["averaged"])
        optimiser.load_state_dict(state["optimiser"])
        done = state["step"]
    if together.rank == 0:
        (folder / "settings.json").write_text(json.dumps(recorded, indent=2) + "\n")

    shares = {source: settings.shares.get(source, 1.0) for source in sources}
    stream = CropStream(
        stage,
        faces,
        shares,
        empty,
        settings.negative_share,
        settings.steps * settings.batch * together.count,
        settings.seed,
        dict.fromkeys((schemes[0], RELABELLED), settings.label_offset),
    )
    loader = DataLoader(
        stream,
        batch_size=settings.batch,
        sampler=range(
            done * settings.batch * together.count + together.rank, len(stream), together.count
        ),
        num_workers=workers,
        prefetch_factor=8 if workers else None,
        worker_init_fn=one_thread,
        # A plain fork would inherit OpenCV's thread pool in a state that never wakes.
        multiprocessing_context="forkserver" if workers else None,
    )
    label_sets = {source: settings.label_weights.get(source, 1.0) for source in sources}
    objective = together.replicate(Objective(network, label_sets, settings.loss))
    objective.train()
    recent: list[dict[str, float]] = []
    columns = ["loss", "face"]
    columns += [f"{part}_{s}" for s in sources for part in PARTS]
    for step, batch in enumerate(loader, done + 1):
        warm_up = min(WARM_UP / settings.steps, 0.1)
        rate = settings.learning_rate * schedule(step / settings.steps, warm_up)
        for group in optimiser.param_groups:
            group["lr"] = rate
        loss, parts = objective(*(part.to(device, non_blocking=True) for part in batch))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 10.0)
        optimiser.step()
        averaged.update_parameters(network)
        if together.rank:
            continue
        figures = {name: float(value) for name, value in parts.items()}
        recent.append(figures)
        if step % checkpoint_every == 0 or step == settings.steps:
            row = {name: _mean(f[name] for f in recent if name in f) for name in columns}
            recent.clear()
            if validation:
                row["validation_nme"] = validation_nme(
                    _network_of(averaged), stage, validation, device
                )
            _log(folder / "log.csv", {"step": step, "learning_rate": rate, **row})
            state = {
                "step": step,
                "settings": recorded,
                "sources": list(schemes),
                "network": network.state_dict(),
                "averaged": averaged.state_dict(),
                "optimiser": optimiser.state_dict(),
            }
            torch.save(state, checkpoint.with_suffix(".tmp"))
            checkpoint.with_suffix(".tmp").replace(checkpoint)
            draw_curves(folder / "log.csv", folder / "curves.png")
            figures |= row
        if on_step is not None:
            on_step(step, figures)
    return _network_of(averaged).eval()


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


def _network_of(averaged: AveragedModel) -> LandmarkNetwork:
    network = averaged.module
    assert isinstance(network, LandmarkNetwork)
    return network


def load_run(folder: Path) -> tuple[LandmarkNetwork, dict[str, Any]]:
    """The averaged network of a run and the run's settings.

    Raises:
        TrainingError: there is no usable checkpoint.
    """
    state = _load(folder / "checkpoint.pt")
    if "size" not in state.get("settings", {}):
        raise TrainingError(
            f"{folder}: a run of another kind; one of kaggle15 has its network.onnx"
        )
    if state["settings"].get("stage") not in STAGES:
        raise TrainingError(f"{folder}: of a version that knew no stages: train anew")
    network = LandmarkNetwork(SIZES[state["settings"]["size"]], tuple(state["sources"]))
    prefix = "module."
    network.load_state_dict(
        {k[len(prefix) :]: v for k, v in state["averaged"].items() if k.startswith(prefix)}
    )
    return network.eval(), state["settings"]


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


def _load(checkpoint: Path) -> dict[str, Any]:
    try:
        state: dict[str, Any] = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise TrainingError(f"{checkpoint}: no such file; is this the folder of a run?") from None
    except (OSError, EOFError, KeyError, RuntimeError, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split())[:120]
        raise TrainingError(f"{checkpoint}: not a checkpoint of kpipe train ({reason})") from None
    # Runs of version 0.1 called their stage a look.
    settings = state.get("settings", {})
    if "look" in settings:
        settings["stage"] = OLD_NAMES.get(settings.pop("look"))
    return state


def schedule(progress: float, warm_up: float) -> float:
    """Share of the peak learning rate after a share of the run: linear warm-up, then a cosine."""
    if progress < warm_up:
        return progress / warm_up
    return 0.5 * (1 + math.cos(math.pi * min((progress - warm_up) / (1 - warm_up), 1.0)))


@torch.no_grad()
def validation_nme(
    network: LandmarkNetwork, stage: Stage, faces: Sequence[LabelledFace], device: torch.device
) -> float:
    """NME in percent over faces framed as the look frames them, the same way every time."""
    crops, points, scales = validation_crops(stage, faces)
    network.eval()
    predicted = torch.cat(
        [
            network(torch.from_numpy(part).to(device)).points.cpu()
            for part in np.array_split(crops, max(len(crops) // 64, 1))
        ]
    ).numpy()
    network.train()
    error = np.linalg.norm(predicted - points, axis=2).mean(axis=1) / scales
    return float(error.mean() * 100)


def validation_crops(
    stage: Stage, faces: Sequence[LabelledFace]
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
    """What a run minimises: the network with its losses, one module, so that it can be replicated.

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
                scheme = network.sources[0] if name == RELABELLED else name
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


@dataclass(frozen=True)
class Workers:
    """The processes of a run that torchrun started, or this one alone.

    Attributes:
        rank: of this process.
        count: of processes.
        device: of this process.
    """

    rank: int
    count: int
    device: torch.device

    @classmethod
    def join(cls) -> Workers:
        """Meets the other processes, if there are any: each takes a GPU, or its share of CPU."""
        count = int(os.environ.get("WORLD_SIZE", "1"))
        local = int(os.environ.get("LOCAL_RANK", "0"))
        gpu = torch.cuda.is_available()
        device = torch.device("cuda", local) if gpu else torch.device("cpu")
        if gpu:
            torch.cuda.set_device(device)
        if count == 1:
            return cls(0, 1, device)
        if not distributed.is_initialized():
            distributed.init_process_group("nccl" if gpu else "gloo")
        return cls(distributed.get_rank(), count, device)

    def replicate(self, module: nn.Module) -> nn.Module:
        """The module, its gradients averaged over the processes."""
        if self.count == 1:
            return module
        # A batch need not hold faces of every label set.
        return DistributedDataParallel(module, find_unused_parameters=True)


def _mean(values: Iterable[float]) -> float:
    return float(np.mean([*values] or [math.nan]))


def one_thread(_: int) -> None:
    """A worker's OpenCV keeps to its own process: its threads would fight with torch's."""
    cv2.setNumThreads(1)


def _weight_groups(network: LandmarkNetwork, decay: float) -> list[dict[str, object]]:
    """Biases and normalisation are not decayed."""
    matrices = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    return [{"params": matrices, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]


def _log(path: Path, row: dict[str, float]) -> None:
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(row)
        writer.writerow(f"{value:.6g}" for value in row.values())
