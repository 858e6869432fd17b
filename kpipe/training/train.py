"""Training: from labelled faces to a checkpoint, on whatever device there is."""

from __future__ import annotations

import csv
import json
import math
import pickle
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from kpipe.datasets import DatasetError, Sample, held_out
from kpipe.detector import FRONTAL_ALT2, FRONTAL_DEFAULT, HaarDetector, View
from kpipe.media.images import ImageError, read_image
from kpipe.preprocessor import CROP_SIZE, crop_transform, face_box, to_gray, transform, warp
from kpipe.schemes import IBUG68
from kpipe.training.augment import DETECTED, jitter
from kpipe.training.crops import CropStream, EmptyPhoto, LabelledFace
from kpipe.training.loss import LossWeights, landmark_losses
from kpipe.training.network import SIZES, LandmarkNetwork

EMPTY_VALIDATION = 0.33
"""Share of the photographs without faces that is kept out of training."""


@dataclass(frozen=True)
class TrainSettings:
    """All that decides what a run learns.

    Attributes:
        size: a key of `SIZES`.
        steps: optimiser steps.
        batch: crops a step.
        rate: peak learning rate of AdamW; linear warm-up, then a cosine to zero.
        decay: weight decay.
        average: decay of the moving average of the weights, which is what is kept (EMA).
        shares: how often each label set is drawn.
        label_weights: weight of each label set's losses.
        negative_share: share of crops that show no face.
        validation: share of the groups (persons, photographs) kept out of training.
        seed: repeats the run.
    """

    size: str = "medium"
    steps: int = 20_000
    batch: int = 64
    rate: float = 2e-3
    decay: float = 0.05
    average: float = 0.999
    shares: dict[str, float] = field(default_factory=lambda: {"300w": 0.75, "ytf": 0.25})
    label_weights: dict[str, float] = field(default_factory=lambda: {"300w": 1.0, "ytf": 0.3})
    negative_share: float = 0.12
    validation: float = 0.05
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


def load_empty(
    folder: Path, validation: float = EMPTY_VALIDATION
) -> tuple[list[EmptyPhoto], list[EmptyPhoto]]:
    """Photographs without faces and where the detector errs on them.

    Returns:
        Those to train on, and those kept out to measure the face score on.

    Raises:
        DatasetError: the folder has none.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder}: no such folder")
    detector = HaarDetector((View(FRONTAL_ALT2), View(FRONTAL_DEFAULT)), scale_step=1.1)
    parts: tuple[list[EmptyPhoto], list[EmptyPhoto]] = ([], [])
    for path in sorted(p for p in folder.iterdir() if p.is_file()):
        try:
            gray = to_gray(read_image(path))
        except ImageError:
            continue
        photo = EmptyPhoto(gray, detector(gray).boxes)
        parts[held_out(path.name, validation)].append(photo)
    if not any(parts):
        raise DatasetError(f"{folder}: no picture in it")
    return parts


def train(
    settings: TrainSettings,
    split: FaceSplit,
    empty: Sequence[EmptyPhoto],
    folder: Path,
    *,
    workers: int = 2,
    checkpoint_every: int = 500,
    on_step: Callable[[int, dict[str, float]], None] | None = None,
) -> LandmarkNetwork:
    """Trains, or goes on where the checkpoint in `folder` stands.

    Args:
        settings: of the run; a checkpoint of other settings is refused.
        split: the faces.
        empty: photographs without faces.
        folder: gets `checkpoint.pt`, `settings.json` and `log.csv`.
        workers: processes that make crops.
        checkpoint_every: steps between checkpoints and validations.
        on_step: called with the step's number and the figures of it.

    Returns:
        The averaged network.

    Raises:
        ValueError: the folder holds a run of other settings, or there is no face to learn from.
    """
    faces: dict[str, list[LabelledFace]] = {}
    for face in split.training:
        faces.setdefault(face.source, []).append(face)
    if not faces:
        raise ValueError("no face to train on: all were held out for validation")
    sources = tuple(sorted(faces))
    validation = [face for face in split.validation if face.source == sources[0]]

    torch.manual_seed(settings.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = LandmarkNetwork(SIZES[settings.size], sources).to(device)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(
        _weight_groups(network, settings.decay), lr=settings.rate, fused=True
    )
    average = get_ema_multi_avg_fn(settings.average)  # type: ignore[no-untyped-call]
    averaged = AveragedModel(network, multi_avg_fn=average, use_buffers=True)

    folder.mkdir(parents=True, exist_ok=True)
    recorded = json.loads(json.dumps(asdict(settings)))
    start = 0
    checkpoint = folder / "checkpoint.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        if state["settings"] != recorded:
            raise ValueError(f"{folder} holds a run of other settings; give another folder")
        network.load_state_dict(state["network"])
        averaged.load_state_dict(state["averaged"])
        optimiser.load_state_dict(state["optimiser"])
        start = state["step"]
    (folder / "settings.json").write_text(json.dumps(recorded, indent=2) + "\n")

    shares = {source: settings.shares.get(source, 1.0) for source in sources}
    stream = CropStream(
        faces,
        shares,
        empty,
        settings.negative_share,
        settings.steps * settings.batch,
        settings.seed,
    )
    loader = DataLoader(
        stream,
        batch_size=settings.batch,
        sampler=range(start * settings.batch, len(stream)),
        num_workers=workers,
        prefetch_factor=8 if workers else None,
        # A plain fork would inherit OpenCV's thread pool in a state that never wakes.
        multiprocessing_context="forkserver" if workers else None,
    )
    label_weights = torch.tensor([settings.label_weights.get(s, 1.0) for s in sources])
    network.train()
    totals: dict[str, float] = {}
    for step, batch in enumerate(loader, start + 1):
        rate = settings.rate * schedule(step / settings.steps, 1000 / settings.steps)
        for group in optimiser.param_groups:
            group["lr"] = rate
        figures = _step(network, optimiser, batch, sources, label_weights, settings.loss, device)
        averaged.update_parameters(network)
        for name, value in figures.items():
            totals[name] = totals.get(name, 0.0) + value
        if step % checkpoint_every == 0 or step == settings.steps:
            row = {name: value / checkpoint_every for name, value in totals.items()}
            totals = {}
            if validation:
                row["validation_nme"] = validation_nme(_network_of(averaged), validation, device)
            _log(folder / "log.csv", {"step": step, "rate": rate, **row})
            state = {
                "step": step,
                "settings": recorded,
                "sources": list(sources),
                "network": network.state_dict(),
                "averaged": averaged.state_dict(),
                "optimiser": optimiser.state_dict(),
            }
            torch.save(state, checkpoint.with_suffix(".tmp"))
            checkpoint.with_suffix(".tmp").replace(checkpoint)
            figures |= row
        if on_step is not None:
            on_step(step, figures)
    return _network_of(averaged).eval()


def _network_of(averaged: AveragedModel) -> LandmarkNetwork:
    network = averaged.module
    assert isinstance(network, LandmarkNetwork)
    return network


def load_run(folder: Path) -> tuple[LandmarkNetwork, dict[str, Any]]:
    """The averaged network of a run and the run's settings.

    Raises:
        DatasetError: there is no usable checkpoint.
    """
    path = folder / "checkpoint.pt"
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        network = LandmarkNetwork(SIZES[state["settings"]["size"]], tuple(state["sources"]))
        prefix = "module."
        network.load_state_dict(
            {k[len(prefix) :]: v for k, v in state["averaged"].items() if k.startswith(prefix)}
        )
    except FileNotFoundError:
        raise DatasetError(f"{path}: no such file; is {folder} the folder of a run?") from None
    except (OSError, KeyError, RuntimeError, pickle.UnpicklingError) as error:
        raise DatasetError(f"{path}: not a checkpoint of kpipe train ({error})") from None
    return network.eval(), state["settings"]


def schedule(progress: float, warm_up: float) -> float:
    """Share of the peak learning rate after a share of the run: linear warm-up, then a cosine."""
    if progress < warm_up:
        return progress / warm_up
    return 0.5 * (1 + math.cos(math.pi * min((progress - warm_up) / (1 - warm_up), 1.0)))


@torch.no_grad()
def validation_nme(
    network: LandmarkNetwork, faces: Sequence[LabelledFace], device: torch.device
) -> float:
    """NME in percent over faces framed as a detector would, the same framing every time."""
    crops, points, scales = validation_crops(faces)
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
    faces: Sequence[LabelledFace],
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Crops (n, 1, side, side), points in them (n, 68, 2), and inter-ocular distances (n,)."""
    rng = np.random.default_rng(0)
    crops, points = [], []
    for face in faces:
        matrix = crop_transform(jitter(face_box(face.points), DETECTED, rng))
        crops.append(warp(face.gray, matrix)[None].astype(np.float32))
        points.append(transform(matrix, face.points))
    labels = np.stack(points)
    right, left = IBUG68.ocular
    return np.stack(crops), labels, np.linalg.norm(labels[:, right] - labels[:, left], axis=1)


def _step(
    network: LandmarkNetwork,
    optimiser: torch.optim.Optimizer,
    batch: Sequence[Tensor],
    sources: tuple[str, ...],
    label_weights: Tensor,
    weights: LossWeights,
    device: torch.device,
) -> dict[str, float]:
    crops, points, source, is_face = (part.to(device, non_blocking=True) for part in batch)
    crops = crops.float().contiguous(memory_format=torch.channels_last)
    with torch.autocast(device.type, torch.bfloat16):
        features, deepest = network.features(crops)
        face = network.face_logit(deepest)
    score = torch.nn.functional.binary_cross_entropy_with_logits(face, is_face.float())
    loss = weights.face * score
    figures = {"face": score.detach()}
    for index, name in enumerate(sources):
        chosen = (is_face & (source == index)).nonzero().squeeze(1)
        if not len(chosen):
            continue
        with torch.autocast(device.type, torch.bfloat16):
            prediction = network.landmarks(features[chosen], name)
        coordinates, heatmap, error = landmark_losses(prediction, points[chosen], CROP_SIZE)
        each = weights.coordinates * coordinates + weights.heatmap * heatmap + weights.error * error
        loss = loss + label_weights[index] * each.sum() / len(crops)
        figures[f"coordinates_{name}"] = coordinates.detach().mean()
        figures[f"heatmap_{name}"] = heatmap.detach().mean()
        figures[f"error_{name}"] = error.detach().mean()
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(network.parameters(), 10.0)
    optimiser.step()
    return {name: float(value) for name, value in {"loss": loss.detach(), **figures}.items()}


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
