"""Training of the detection network on whole photographs.

    python -m kpipe.training.detection TABLE... --faces DATA... --negatives FOLDER... -o RUN

TABLE is a COCO detection file, DATA labelled faces as for `kpipe train`, which are pasted in at any
roll. Goes on from the last checkpoint in RUN, and writes RUN/proposals.onnx at the end.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kpipe.datasets import read_samples
from kpipe.detectors.proposals import ProposalDetector
from kpipe.training.data import LabelledFace, load_faces, load_negatives
from kpipe.training.detection_export import export
from kpipe.training.detection_network import DetectionNetwork, detection_losses
from kpipe.training.detection_scenes import DetectionScenes, load_photos
from kpipe.training.duplicates import without_duplicates
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

Gray = NDArray[np.uint8]


@dataclass(frozen=True)
class DetectionSettings:
    """What a run learns by.

    Attributes:
        steps: optimizer steps.
        batch: scenes a step.
        learning_rate: of AdamW at its peak; linear warm-up, then a cosine to zero.
        weight_decay: of AdamW.
        ema_decay: of the moving average of the weights, which is what is kept.
        roll: weight of the roll's loss; the others have 1.
        seed: repeats the run.
    """

    steps: int = 14_000
    batch: int = 32
    learning_rate: float = 3e-3
    weight_decay: float = 1e-3
    ema_decay: float = 0.999
    roll: float = 0.4
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
        folder: gets `checkpoint.pt`, `settings.json` and `log.csv`.
        start: a network whose weights to begin with.
        workers: processes that make scenes.
        checkpoint_every: steps from one checkpoint to the next.
        on_step: called with the step's number and the figures of it.

    Returns:
        The averaged network.
    """
    torch.manual_seed(settings.seed)
    network = DetectionNetwork().to(one_device())
    if start is not None:
        network.load_state_dict(start.state_dict())
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    recorded = {"stage": "detection", **asdict(settings)}
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
    return train_steps(run, recipe, objective, batches, report, on_step)


WARM_UP, CLIP = 500, 5.0
"""Steps until the learning rate is at its peak, and L2 norm that the gradient is cut to."""


def load_run(folder: Path) -> DetectionNetwork:
    """The averaged network of a run.

    Raises:
        TrainingError: there is no usable checkpoint.
    """
    network = DetectionNetwork()
    network.load_state_dict(averaged_weights(read_checkpoint(folder)))
    return network.eval()


def load_pasted(data: Sequence[Path], exclude: Sequence[Path]) -> list[LabelledFace]:
    """Faces with landmarks, without those held out from the networks of points, and without any
    that `exclude` shows too.
    """
    split = load_faces((s for part in data for s in read_samples(part)), 0.05)
    others = load_faces((s for part in exclude for s in read_samples(part)), 0.0)
    return without_duplicates(split.training, others.training)


CALIBRATION = 300
"""Scenes that the ranges of 8-bit integers are set by."""


def _print_losses(step: int, figures: Figures) -> None:
    """Prints the figures of the steps that have a row in the log."""
    if "learning_rate" in figures:
        values = ", ".join(f"{name} {value:.4f}" for name, value in figures.items())
        print(f"step {step}: {values}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("tables", type=Path, nargs="+")
    parser.add_argument("--faces", type=Path, action="append", default=[])
    parser.add_argument("--negatives", type=Path, action="append", default=[])
    parser.add_argument("--exclude", type=Path, action="append", default=[])
    parser.add_argument("--output", "-o", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=DetectionSettings.steps)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--learning-rate", type=float, default=DetectionSettings.learning_rate)
    parser.add_argument("--start-from", type=Path, help="a run whose network to begin with")
    parser.add_argument("--threads", type=int, default=0, help="of torch; 0 for all cores")
    parser.add_argument("--workers", type=int, default=1, help="processes that make scenes")
    arguments = parser.parse_args()

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    photos, validation = load_photos(arguments.tables, arguments.output)
    faces = load_pasted(arguments.faces, arguments.exclude)
    empty: list[Gray] = [p.gray for f in arguments.negatives for p in load_negatives(f, None)[0]]
    print(f"{len(photos)} photographs, {len(faces)} faces, {len(empty)} without", flush=True)
    settings = DetectionSettings(
        steps=arguments.steps, learning_rate=arguments.learning_rate, seed=arguments.seed
    )
    scenes = DetectionScenes(
        list(photos.values()), faces, empty, settings.steps * settings.batch, settings.seed
    )
    start = load_run(arguments.start_from) if arguments.start_from is not None else None
    network = train(
        settings,
        scenes,
        arguments.output,
        start=start,
        workers=arguments.workers,
        on_step=_print_losses,
    )
    others = DetectionScenes(list(photos.values()), faces, empty, CALIBRATION, settings.seed + 1)
    pictures = np.concatenate([others[index][0] for index in range(CALIBRATION)])
    plain = arguments.output / "proposals_float.onnx"
    export(network, plain)
    detector = ProposalDetector(plain, min_score=0.1)
    scale = calibration(detector, list(validation.values()) or list(photos.values()))
    print(f"calibration of the score: {scale[0]:.2f} + {scale[1]:.2f} log odds")
    export(network, plain, calibration=scale)
    export(network, arguments.output / "proposals.onnx", pictures, scale)


if __name__ == "__main__":
    main()
