"""The training loop of all networks: schedule, moving average, log, checkpoints, resuming.

A run is a network, an optimizer and a moving average of the network's weights; `Run` holds the
three and reads and writes their checkpoint. `train_steps` takes the steps. What a step trains on
follows from its number, so a run that resumes at step k takes the same steps as one that was never
stopped.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import pickle
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset

from kpipe.errors import TrainingError
from kpipe.networks.stages import OLD_NAMES
from kpipe.utils.files import write_file
from kpipe.utils.opencv import cv2

Figures = dict[str, float]
"""Numbers of one step, or of one row of the log, by name."""

Objective = Callable[..., tuple[Tensor, Mapping[str, Tensor]] | None]
"""From the tensors of a batch to the loss and its parts; None, if the batch teaches nothing."""

N = TypeVar("N", bound=nn.Module)

CHECKPOINT, LOG, SETTINGS = "checkpoint.pt", "log.csv", "settings.json"
"""Files in the folder of a run."""


@dataclass(frozen=True)
class Recipe:
    """How the steps of a run are taken.

    Attributes:
        steps: of the whole run.
        schedule: what the optimizer's parameter groups are set to at a step, such as
            `{"lr": 0.001}`. Steps are counted from 1.
        clip: the gradient of all weights together is cut to this L2 norm.
        check_every: steps from one checkpoint, with its row in the log, to the next. The last step
            always has one.
    """

    steps: int
    schedule: Callable[[int], Mapping[str, Any]]
    clip: float
    check_every: int

    def checks(self, step: int) -> bool:
        """Whether the run is logged and saved after this step."""
        return step % self.check_every == 0 or step == self.steps


class Run(Generic[N]):
    """The state of a run: all that a checkpoint holds.

    Args:
        network: to train, on its device.
        optimizer: of its weights.
        ema_decay: of the moving average of weights and buffers, a step.
        settings: all that decides what the run learns, as JSON can hold it.
        folder: of the run. A checkpoint in it is taken up; None keeps nothing.
        writes: whether this process writes to the folder.

    Attributes:
        step: the last one taken.
        log: the rows of `log.csv`, each with its `step`.

    Raises:
        TrainingError: the checkpoint cannot be read, or is one of other settings.
    """

    def __init__(
        self,
        network: N,
        optimizer: torch.optim.Optimizer,
        ema_decay: float,
        settings: Mapping[str, Any],
        folder: Path | None,
        writes: bool = True,
    ) -> None:
        self.network = network
        self.optimizer = optimizer
        average = get_ema_multi_avg_fn(ema_decay)  # type: ignore[no-untyped-call]
        self.averaged = AveragedModel(network, multi_avg_fn=average, use_buffers=True)
        self.settings: dict[str, Any] = json.loads(json.dumps(settings))
        self.folder = folder
        self.writes = writes
        self.step = 0
        self.log: list[Figures] = []
        if folder is not None and (folder / CHECKPOINT).exists():
            self._resume(folder)
        if folder is not None and writes:
            write_file(folder / SETTINGS, (json.dumps(self.settings, indent=2) + "\n").encode())

    @property
    def result(self) -> N:
        """The averaged network."""
        return cast(N, self.averaged.module)

    def _resume(self, folder: Path) -> None:
        state = read_checkpoint(folder)
        # Runs of the proposal network of version 0.1 recorded no settings.
        if state.get("settings", self.settings) != self.settings:
            raise TrainingError(f"{folder}: a run of other settings or data; name another folder")
        try:
            self.network.load_state_dict(state["network"])
            self.averaged.load_state_dict(state["averaged"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step = state["step"]
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise _unusable(folder / CHECKPOINT, error) from None
        self.log = [row for row in _read_log(folder / LOG) if row["step"] <= self.step]

    def save(self, row: Figures, **extra: object) -> None:
        """Adds a row to the log, and writes the log and the checkpoint, where there is a folder.

        Args:
            row: figures after the run's last step.
            extra: further entries of the checkpoint.
        """
        self.log.append({"step": self.step, **row})
        if self.folder is None or not self.writes:
            return
        state = {
            "step": self.step,
            "settings": self.settings,
            "network": self.network.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            **extra,
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_file(self.folder / CHECKPOINT, buffer.getvalue())
        write_file(self.folder / LOG, _log_text(self.log).encode())


def train_steps(
    run: Run[N],
    recipe: Recipe,
    objective: Objective,
    batches: Iterable[Sequence[Tensor]],
    report: Callable[[int, Sequence[Figures]], Figures],
    on_step: Callable[[int, Figures], None] | None = None,
    **extra: object,
) -> N:
    """Takes the steps that a run has not yet taken.

    Args:
        run: its state, which changes.
        recipe: how the steps are taken.
        objective: from a batch to its loss.
        batches: the tensors of each step, from step `run.step + 1` on.
        report: from the step and the figures of the steps since the last row, each with its `loss`,
            to a row of the log.
        on_step: called after each step with its figures, which are those of the row as well where
            there is one.
        extra: further entries of the checkpoint.

    Returns:
        The averaged network, in evaluation mode.

    Raises:
        TrainingError: the loss is not finite. The checkpoint before stays.
    """
    device = next(run.network.parameters()).device
    recent: list[Figures] = []
    run.network.train()
    for step, batch in enumerate(batches, run.step + 1):
        tensors = [part.to(device, non_blocking=True) for part in batch]
        parts = _take_step(run, recipe, objective, tensors, step)
        run.step = step
        if not run.writes:
            continue
        figures = {name: float(value) for name, value in parts.items()}
        if figures:
            recent.append(figures)
        if recipe.checks(step):
            if not all(math.isfinite(each["loss"]) for each in recent):
                raise TrainingError(
                    f"step {step}: the loss is not finite; try a lower learning rate"
                )
            row = report(step, recent)
            recent = []
            run.save(row, **extra)
            figures = {**figures, **row}
        if on_step is not None:
            on_step(step, figures)
    return run.result.eval()


def _take_step(
    run: Run[N], recipe: Recipe, objective: Objective, batch: Sequence[Tensor], step: int
) -> dict[str, Tensor]:
    """The loss and its parts; nothing, if the batch teaches nothing."""
    for group in run.optimizer.param_groups:
        group.update(recipe.schedule(step))
    outcome = objective(*batch)
    if outcome is None:
        return {}
    loss, parts = outcome
    run.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(run.network.parameters(), recipe.clip)
    run.optimizer.step()
    run.averaged.update_parameters(run.network)
    return {"loss": loss.detach(), **parts}


def mean_of(figures: Iterable[Figures], name: str) -> float:
    """The mean of a figure over the steps that have it; NaN, if none has."""
    return float(np.mean([each[name] for each in figures if name in each] or [math.nan]))


def warm_up_cosine(progress: float, warm_up: float) -> float:
    """Learning rate over its peak: a linear rise, then a cosine to zero.

    Args:
        progress: share of the run's steps that are taken, this one included.
        warm_up: share of the steps until the peak.
    """
    if progress < warm_up:
        return progress / warm_up
    return 0.5 * (1 + math.cos(math.pi * min((progress - warm_up) / (1 - warm_up), 1.0)))


def one_cycle(step: int, steps: int, peak: float) -> dict[str, Any]:
    """Learning rate and first beta of Adam at a step, as torch's `OneCycleLR` sets them.

    In the first twentieth of the run the rate rises from a 25th of its peak while beta falls from
    0.95 to 0.85, both along half a cosine; then they go back, the rate to nearly zero (Smith and
    Topin, 2018). Torch's class keeps its place in a state of its own; here the step tells it.
    """
    turn = 0.05 * steps - 1
    if step - 1 <= turn:
        share = (step - 1) / turn
        rates, betas = (peak / 25, peak), (0.95, 0.85)
    else:
        share = (step - 1 - turn) / (steps - 1 - turn)
        rates, betas = (peak, peak / 25 / 1e4), (0.85, 0.95)
    cosine = math.cos(math.pi * share) + 1
    rate, beta = (end + (start - end) / 2.0 * cosine for start, end in (rates, betas))
    return {"lr": rate, "betas": (beta, 0.999)}


def load_batches(
    stream: Dataset[Any], batch: int, done: int, workers: int, processes: Processes | None = None
) -> DataLoader[Any]:
    """The batches of a stream of numbered samples, from the first that is still to be learned.

    Args:
        stream: as long as the run needs.
        batch: samples a step and process.
        done: steps already taken.
        workers: processes that make samples.
        processes: of the run; of n, each gets every n-th sample. None for one alone.
    """
    count, rank = (1, 0) if processes is None else (processes.count, processes.rank)
    return DataLoader(
        stream,
        batch_size=batch,
        sampler=range(done * batch * count + rank, len(stream), count),  # type: ignore[arg-type]
        num_workers=workers,
        prefetch_factor=8 if workers else None,
        worker_init_fn=one_thread,
        # A plain fork would inherit OpenCV's thread pool in a state that never wakes.
        multiprocessing_context="forkserver" if workers else None,
    )


def one_thread(_: int) -> None:
    """A worker's OpenCV keeps to its own process: its threads would fight with torch's."""
    cv2.setNumThreads(1)


@dataclass(frozen=True)
class Processes:
    """The processes of a run that torchrun started, or this one alone.

    Attributes:
        rank: of this process. The first, 0, writes.
        count: of processes.
        device: of this process.
    """

    rank: int
    count: int
    device: torch.device

    @classmethod
    def join(cls) -> Processes:
        """Joins the processes that torchrun started: each takes a GPU, or its share of the CPU."""
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


def one_device() -> torch.device:
    """The GPU, if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def read_checkpoint(folder: Path) -> dict[str, Any]:
    """The checkpoint in the folder of a run, with the names of today.

    Raises:
        TrainingError: there is none, or it cannot be read.
    """
    path = folder / CHECKPOINT
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        # Version 0.1 had other names for the optimizer's state and for the stage, and the runs of
        # Kaggle's points noted the step in their curves alone.
        if "optimiser" in state:
            state["optimizer"] = state.pop("optimiser")
        if "step" not in state:
            state["step"] = state["curves"]["step"][-1]
        settings = state.get("settings", {})
        if "look" in settings:
            settings["stage"] = OLD_NAMES.get(settings.pop("look"))
    except FileNotFoundError:
        raise TrainingError(f"{path}: no such file; is this the folder of a run?") from None
    except (
        OSError, EOFError, LookupError, TypeError, ValueError, RuntimeError, pickle.UnpicklingError
    ) as error:  # fmt: skip
        raise _unusable(path, error) from None
    return state


def averaged_weights(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """The state of the averaged network in a checkpoint."""
    prefix = "module."
    averaged: Mapping[str, Tensor] = state["averaged"]
    return {k[len(prefix) :]: v for k, v in averaged.items() if k.startswith(prefix)}


def stage_of(folder: Path) -> str | None:
    """The stage that the run in a folder trains; None, if its settings name none.

    Raises:
        TrainingError: there is no usable checkpoint.
    """
    stage = read_checkpoint(folder).get("settings", {}).get("stage")
    return None if stage is None else str(stage)


def _unusable(path: Path, error: Exception) -> TrainingError:
    reason = " ".join(str(error).split())[:120]
    return TrainingError(f"{path}: not a checkpoint of kpipe train ({reason})")


def _read_log(path: Path) -> list[Figures]:
    try:
        with path.open(newline="") as file:
            rows = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
        return [{**row, "step": int(row["step"])} for row in rows]
    except FileNotFoundError:
        return []
    except (OSError, LookupError, TypeError, ValueError) as error:
        raise TrainingError(f"{path}: not the log of a run ({error}); delete it") from None


def _log_text(rows: Sequence[Figures]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(rows[0])
    writer.writerows(
        [str(row["step"]), *(f"{row[name]:.6g}" for name in rows[0] if name != "step")]
        for row in rows
    )
    return buffer.getvalue()
