"""The loop that all trainings share, on a network of a few weights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn

from kpipe.errors import TrainingError
from kpipe.training.loop import (
    Figures,
    Recipe,
    Run,
    mean_of,
    one_cycle,
    read_checkpoint,
    stage_of,
    train_steps,
    warm_up_cosine,
)

STEPS = 7


class Stopped(Exception):
    pass


def start(folder: Path | None, **settings: object) -> Run[nn.Linear]:
    torch.manual_seed(0)
    network = nn.Linear(3, 1)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1)
    return Run(network, optimizer, 0.5, {"stage": "test", **settings}, folder)


def batches(done: int) -> Iterator[tuple[Tensor, Tensor]]:
    for step in range(done + 1, STEPS + 1):
        generator = torch.Generator().manual_seed(step)
        inputs = torch.randn(8, 3, generator=generator)
        yield inputs, inputs.sum(dim=1, keepdim=True)


def take(run: Run[nn.Linear], stop: int | None = None, every: int = 3) -> nn.Linear:
    def objective(inputs: Tensor, targets: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        loss = (run.network(inputs) - targets).square().mean()
        return loss, {"half": loss.detach() / 2}

    def report(_: int, recent: list[Figures]) -> Figures:
        return {name: mean_of(recent, name) for name in ("loss", "half")}

    def on_step(step: int, _: Figures) -> None:
        if step == stop:
            raise Stopped

    recipe = Recipe(STEPS, lambda step: {"lr": 0.1 / step}, 1.0, every)
    return train_steps(run, recipe, objective, batches(run.step), report, on_step, note="kept")


def test_a_run_that_was_stopped_ends_as_one_that_was_not(tmp_path: Path) -> None:
    straight = take(start(tmp_path / "straight"))
    with pytest.raises(Stopped):
        take(start(tmp_path / "cut"), stop=5)
    again = start(tmp_path / "cut")
    assert again.step == 3  # of the last checkpoint
    resumed = take(again)
    for a, b in zip(straight.parameters(), resumed.parameters()):
        assert torch.equal(a, b)
    logs = [(tmp_path / run / "log.csv").read_text() for run in ("straight", "cut")]
    assert logs[0] == logs[1]
    assert [line.split(",")[0] for line in logs[0].splitlines()] == ["step", "3", "6", "7"]
    assert not resumed.training


def test_a_row_of_the_log_that_has_no_checkpoint_is_not_kept(tmp_path: Path) -> None:
    take(start(tmp_path))
    whole = (tmp_path / "log.csv").read_text()
    (tmp_path / "checkpoint.pt").unlink()
    with pytest.raises(Stopped):
        take(start(tmp_path), stop=3)
    (tmp_path / "log.csv").write_text(whole)  # as if it was stopped between the two files
    assert [row["step"] for row in start(tmp_path).log] == [3]
    take(start(tmp_path))
    assert (tmp_path / "log.csv").read_text() == whole


def test_settings_are_recorded_and_others_refused(tmp_path: Path) -> None:
    take(start(tmp_path, rate=0.1, shape=(1, 2)))
    recorded = {"stage": "test", "rate": 0.1, "shape": [1, 2]}
    assert json.loads((tmp_path / "settings.json").read_text()) == recorded
    state = read_checkpoint(tmp_path)
    assert (state["settings"], state["step"], state["note"]) == (recorded, STEPS, "kept")
    assert stage_of(tmp_path) == "test"
    assert start(tmp_path, rate=0.1, shape=(1, 2)).step == STEPS
    with pytest.raises(TrainingError, match="a run of other settings or data"):
        start(tmp_path, rate=0.2, shape=(1, 2))


def test_names_of_version_0_1_are_read(tmp_path: Path) -> None:
    take(start(tmp_path))
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    state["optimiser"] = state.pop("optimizer")
    state["settings"] = {"look": "first"}
    torch.save(state, tmp_path / "checkpoint.pt")
    assert stage_of(tmp_path) == "coarse"
    assert read_checkpoint(tmp_path)["optimizer"].keys() == state["optimiser"].keys()
    del state["settings"]  # as the proposal network's had none
    torch.save(state, tmp_path / "checkpoint.pt")
    assert stage_of(tmp_path) is None
    assert start(tmp_path).step == STEPS


@pytest.mark.parametrize("content", [b"", b"nothing", None])
def test_what_is_no_checkpoint_is_one_line(tmp_path: Path, content: bytes | None) -> None:
    if content is None:
        torch.save({"step": 3, "network": {}}, tmp_path / "checkpoint.pt")
    else:
        (tmp_path / "checkpoint.pt").write_bytes(content)
    with pytest.raises(TrainingError, match="not a checkpoint of kpipe train") as caught:
        start(tmp_path)
    assert len(str(caught.value).splitlines()) == 1


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_its_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        take(start(tmp_path), stop=3)
    before = (tmp_path / "checkpoint.pt").read_bytes()
    run = start(tmp_path)
    with torch.no_grad():
        run.network.bias.fill_(torch.nan)
    with pytest.raises(TrainingError, match="step 6: the loss is not finite"):
        take(run)
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


def test_without_a_folder_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = start(None)
    take(run)
    assert [row["step"] for row in run.log] == [3, 6, 7]
    assert not any(tmp_path.iterdir())


def test_a_batch_that_teaches_nothing_changes_nothing() -> None:
    run = start(None)
    before = [parameter.clone() for parameter in run.network.parameters()]
    recipe = Recipe(STEPS, lambda _: {"lr": 0.1}, 1.0, 3)
    counts = []

    def report(_: int, recent: list[Figures]) -> Figures:
        counts.append(len(recent))
        return {"loss": mean_of(recent, "loss")}

    train_steps(run, recipe, lambda *_: None, batches(0), report)
    assert all(torch.equal(a, b) for a, b in zip(before, run.network.parameters()))
    assert run.step == STEPS and counts == [0, 0, 0]


def test_the_cosine_after_a_warm_up() -> None:
    assert warm_up_cosine(0.05, 0.1) == pytest.approx(0.5)
    assert warm_up_cosine(0.1, 0.1) == pytest.approx(1)
    assert warm_up_cosine(1.0, 0.1) == pytest.approx(0)


@pytest.mark.parametrize("steps", [1, 7, 150])
def test_one_cycle_is_that_of_torch(steps: int) -> None:
    optimizer = torch.optim.AdamW(nn.Linear(1, 1).parameters(), lr=0.004)
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 0.004, steps, pct_start=0.05, anneal_strategy="cos"
    )
    for step in range(1, steps + 1):
        group = optimizer.param_groups[0]
        ours = one_cycle(step, steps, 0.004)
        assert (ours["lr"], ours["betas"]) == (group["lr"], group["betas"])
        optimizer.step()
        if step < steps:
            cycle.step()
