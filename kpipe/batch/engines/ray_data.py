"""The Ray engine: the same work on the machines of a cluster.

Ray Data spreads the photographs over all nodes and does again what a lost node had in its hands.
Each of its actors keeps one worker of the local engine, so that time limits, memory limits and
workers that die give the same records here as there; the journal stays with whoever started the
job.
"""

from __future__ import annotations

import itertools
import logging
import os
import pickle
import socket
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import ray
import ray.data

from kpipe.batch.engines.local import Answer, LocalEngine
from kpipe.batch.journal import Done
from kpipe.batch.sources import is_address
from kpipe.batch.worker import Settings, Task
from kpipe.errors import EngineError

BATCH = 16
"""Photographs that an actor is given at a time: what a lost node costs each of its cores."""

WAVE = 200_000
"""Photographs of one data set. The names of a wave lie in the cluster's memory, not in ours."""

WAVE_BYTES = 256 << 20
"""Of a wave's contents, which photographs from archives carry with them."""


class RayEngine:
    """Does photographs on all cores of a Ray cluster.

    Photographs, and the folder of results if pictures are wanted, must be there under the same
    path on every node, or be addresses; kpipe must be installed on every node.

    Args:
        settings: how.
        address: of the cluster, as `ray.init` takes it; without it one is started here.
        time_limit, memory: see `LocalEngine`.
    """

    def __init__(
        self,
        settings: Settings,
        address: str | None = None,
        time_limit: float = 60.0,
        memory: int | None = None,
    ) -> None:
        self._address = address
        self._arguments = (settings, time_limit, memory)

    def __enter__(self) -> RayEngine:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        _knock(self._address)
        try:
            ray.init(
                self._address,
                include_dashboard=None if self._address else False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        except Exception as error:  # Ray's own are of many kinds, some plain Exceptions
            reason = " ".join(str(error).split())
            raise EngineError(f"no Ray cluster at {self._address or 'hand'} ({reason})") from None
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        return self

    def __exit__(self, *_: object) -> None:
        ray.shutdown()

    def run(self, tasks: Iterator[Task]) -> Iterator[list[tuple[Task, Answer]]]:
        """See `LocalEngine.run`.

        Raises:
            EngineError: the cluster does not go on.
        """
        for first in tasks:
            yield from self._run_wave(_wave(itertools.chain([first], tasks)))

    def _run_wave(self, wave: list[Task]) -> Iterator[list[tuple[Task, Answer]]]:
        open_ = {task.id: task._replace(content=None) for task in wave}
        blocks: list[Any] = [
            ray.put(pa.table({"task": [pickle.dumps(task) for task in wave[k : k + BATCH]]}))
            for k in range(0, len(wave), BATCH)
        ]
        del wave
        resources: dict[str, float] = ray.cluster_resources()
        cores = max(int(resources.get("CPU", 1)), 1)
        done = ray.data.from_arrow_refs(blocks).map_batches(
            _Actor,
            fn_constructor_args=self._arguments,
            batch_format="pyarrow",
            batch_size=BATCH,
            num_cpus=1,
            concurrency=(1, min(cores, len(blocks))),
        )
        try:
            batches: Any = done.iter_batches(batch_size=None, batch_format="pyarrow")
            for batch in batches:
                results = [pickle.loads(row) for row in batch["done"].to_pylist()]
                # A batch that was done twice, for a node was lost, counts once.
                yield [(open_.pop(r.id), r) for r in results if r.id in open_]
        except ray.exceptions.RayError as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise EngineError(f"the Ray cluster does not go on: {lines[-1]}") from None
        if open_:
            raise EngineError(f"the Ray cluster has lost {len(open_)} photographs; run again")


def _knock(address: str | None) -> None:
    """Ray itself would try for minutes to reach what is not there.

    Raises:
        EngineError: nobody answers.
    """
    host, separator, port = (address or "").removeprefix("ray://").rpartition(":")
    if not separator or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise EngineError(f"no Ray cluster at {address} ({error.strerror or error})") from None


def _wave(tasks: Iterator[Task]) -> list[Task]:
    wave: list[Task] = []
    size = 0
    for task in itertools.islice(tasks, WAVE):
        # A node's processes run in folders of their own.
        place = task.place if is_address(task.place) else os.path.abspath(task.place)  # noqa: PTH100
        wave.append(task._replace(place=place))
        size += len(task.content or b"")
        if size > WAVE_BYTES:
            break
    return wave


class _Actor:
    """One core of the cluster."""

    def __init__(self, settings: Settings, time_limit: float, memory: int | None) -> None:
        self._engine = LocalEngine(settings, 1, time_limit, memory)

    def __call__(self, batch: Any) -> Any:
        tasks = (pickle.loads(row) for row in batch["task"].to_pylist())
        answers = itertools.chain.from_iterable(self._engine.run(tasks))
        done: list[Done] = [answer for _, answer in answers if isinstance(answer, Done)]
        return pa.table({"done": [pickle.dumps(result) for result in done]})
