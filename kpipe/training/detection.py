"""The detection network: its training on whole photographs, and its export.

A scene shows a piece of a labeled photograph, or a photograph with faces pasted into it, see
`kpipe.training.scenes`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kpipe.detectors.proposals import ProposalDetector
from kpipe.errors import TrainingError
from kpipe.training.detection_export import export
from kpipe.training.detection_network import DetectionNetwork, detection_losses
from kpipe.training.fusion import calibration
from kpipe.training.loop import (
    Figures,
    Recipe,
    Run,
    averaged_weights,
    load_batches,
    mean_of,
    one_device,
    read_checkpoint,
    train_steps,
    warm_up_cosine,
)
from kpipe.training.photographs import LabeledScene
from kpipe.training.plots import with_curves
from kpipe.training.prepare import DataFiles
from kpipe.training.scenes import DetectionScenes

STAGE = "proposals"
"""Name of the stage in a run's settings and for `kpipe train --stage`."""

RECORDED = (STAGE, "detection", None)
"""Stages that the settings of a run of this network may name; the oldest runs have no settings."""

WARM_UP, CLIP = 500, 5.0
"""Steps until the learning rate is at its peak, and L2 norm that the gradient is cut to."""

CALIBRATION = 300
"""Scenes that the ranges of 8-bit integers are set by."""


@dataclass(frozen=True)
class DetectionSettings:
    """All that decides what a run learns.

    Attributes:
        steps: optimizer steps.
        batch: scenes a step.
        learning_rate: of AdamW at its peak; linear warm-up, then a cosine to zero.
        weight_decay: of AdamW.
        ema_decay: of the moving average of the weights, which is what is kept.
        roll: weight of the roll's loss; the others have 1.
        validation: share of the groups (persons, photographs) of the pasted faces that is kept out
            of training. Of labeled photographs it is `HELD_OUT` of `kpipe.training.scenes`.
        seed: repeats the run.
    """

    steps: int = 14_000
    batch: int = 32
    learning_rate: float = 3e-3
    weight_decay: float = 1e-3
    ema_decay: float = 0.999
    roll: float = 0.4
    validation: float = 0.05
    seed: int = 0


def train(
    settings: DetectionSettings,
    scenes: DetectionScenes,
    folder: Path,
    *,
    start: DetectionNetwork | None = None,
    workers: int = 1,
    checkpoint_every: int = 250,
    on_step: Callable[[int, Figures], None] | None = None,
) -> DetectionNetwork:
    """Trains, or goes on where the checkpoint in `folder` stands.

    Args:
        settings: of the run.
        scenes: as many as the run takes.
        folder: gets `checkpoint.pt`, `settings.json`, `log.csv` and `curves.png`.
        start: a network whose weights to begin with.
        workers: processes that make scenes.
        checkpoint_every: steps from one checkpoint to the next.
        on_step: called with the step's number and the figures of it.

    Returns:
        The averaged network.

    Raises:
        TrainingError: the folder holds a run of other settings or data, there is no face to learn
            from, or the loss is no longer finite.
    """
    if not scenes.photos:
        raise TrainingError("no photograph with a face to train on")
    torch.manual_seed(settings.seed)
    network = DetectionNetwork().to(one_device())
    if start is not None:
        network.load_state_dict(start.state_dict())
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    data = {
        "photographs": len(scenes.photos),
        "faces": len(scenes.faces),
        "negatives": len(scenes.others),
    }
    recorded = {"stage": STAGE, **asdict(settings), "data": data}
    run = Run(network, optimizer, settings.ema_decay, recorded, folder)

    def schedule(step: int) -> dict[str, float]:
        warm_up = min(WARM_UP / settings.steps, 0.1)
        rate = settings.learning_rate * warm_up_cosine(step / settings.steps, warm_up)
        return {"lr": rate}

    recipe = Recipe(settings.steps, schedule, CLIP, checkpoint_every)

    def report(step: int, recent: Sequence[Figures]) -> Figures:
        means = {name: mean_of(recent, name) for name in ("loss", "score", "box", "roll")}
        return {"learning_rate": schedule(step)["lr"], **means}

    def objective(
        pictures: Tensor, fine: Tensor, coarse: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        inputs = pictures.float().contiguous(memory_format=torch.channels_last)
        with torch.autocast(inputs.device.type, torch.bfloat16):
            maps = network(inputs)
        parts = detection_losses((maps[0].float(), maps[1].float()), (fine, coarse))
        loss = parts.score + parts.box + settings.roll * parts.roll
        return loss, {name: value.detach() for name, value in parts._asdict().items()}

    batches = load_batches(scenes, settings.batch, run.step, workers)
    return train_steps(
        run, recipe, objective, batches, report, with_curves(recipe, folder, on_step)
    )


def load_run(folder: Path) -> tuple[DetectionNetwork, dict[str, Any]]:
    """The averaged network of a run and the run's settings.

    Raises:
        TrainingError: there is no usable checkpoint.
    """
    state = read_checkpoint(folder)
    settings: dict[str, Any] = state.get("settings", {})
    if settings.get("stage") not in RECORDED:
        raise TrainingError(f"{folder}: a run of another kind, not of the detection network")
    network = DetectionNetwork()
    try:
        network.load_state_dict(averaged_weights(state))
    except (KeyError, RuntimeError):
        raise TrainingError(
            f"{folder}: not a run of the detection network; version 0.1's is to be trained anew"
        ) from None
    return network.eval(), settings


@dataclass(frozen=True)
class ScoreCalibration:
    """How scores become probabilities.

    Attributes:
        photos: number of photographs that it was fitted to; 0 for none.
        shift: intercept.
        scale: weight of the log odds of the network's score.
    """

    photos: int = 0
    shift: float = 0.0
    scale: float = 1.0


def calibrate(network: DetectionNetwork, photos: Sequence[LabeledScene]) -> ScoreCalibration:
    """Fits the calibration of a network's scores to labeled photographs; none, if the network
    detects nothing on them.
    """
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "plain.onnx"
        export(network, plain)
        fitted = calibration(ProposalDetector(plain, min_score=0.1), photos)
    return ScoreCalibration() if fitted is None else ScoreCalibration(len(photos), *fitted)


def export_run(run: Path, files: DataFiles, path: Path, int8: bool) -> ScoreCalibration:
    """Writes the network of a run as an ONNX file.

    Args:
        run: its folder.
        files: the run's data. The scores are calibrated on the labeled photographs that the run
            held out; the ranges of 8-bit integers are set by scenes of the others.
        path: of the file.
        int8: whether convolutions run in 8-bit integers.

    Returns:
        The calibration of the scores.

    Raises:
        TrainingError: there is no usable checkpoint, or the data has no photograph with a face.
        DatasetError: the data cannot be used.
        WriteError: the file cannot be written.
    """
    network, settings = load_run(run)
    result, pictures = ScoreCalibration(), None
    if files.detection:
        split = files.photographs(run)[0]
        if not any(photo.counted.any() for photo in split.training):
            raise TrainingError("--detection has no photograph with a face to train on")
        result = calibrate(network, split.validation or split.training)
        if int8:
            faces = files.faces(settings.get("validation", DetectionSettings.validation))[0]
            empty = [photo.gray for photo in files.backgrounds()]
            seed = settings.get("seed", DetectionSettings.seed) + 1
            scenes = DetectionScenes(split.training, faces.training, empty, CALIBRATION, seed)
            pictures = np.concatenate([scenes[index][0] for index in range(CALIBRATION)])
    export(network, path, pictures, (result.shift, result.scale))
    return result
