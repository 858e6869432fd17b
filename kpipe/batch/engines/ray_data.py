"""The Ray engine: the same work on the machines of a cluster.

Ray Data spreads the photographs over all nodes and repeats the work of a lost node. Each of its
actors runs a local engine of one worker, so that time limits, memory limits and killed workers give
the same records as on one machine. The journal stays on the machine that started the job.
"""

from __future__ import annotations

import itertools
import logging
import os
import pickle
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import ray
import ray.data

from kpipe.batch.engines.local import LocalEngine
from kpipe.batch.reading import LARGEST_FILE
from kpipe.batch.remote import is_address
from kpipe.batch.types import Answer, PhotoResult, PictureOptions, Task
from kpipe.errors import EngineError, reason_of

if TYPE_CHECKING:
    from kpipe.options import PipelineOptions

BATCH = 16
"""Photographs given to an actor at a time; a lost node loses this many for each of its cores."""


WAVE = 200_000
"""Photographs in one data set. Their names lie in the memory of the cluster."""


WAVE_BYTES = 256 << 20
"""Content (bytes) after which a wave ends: photographs from archives travel with their content."""


class RayEngine:
    """Processes photographs on all cores of a Ray cluster: see `kpipe.batch.types.Engine`.

    Every node must have kpipe installed and find the photographs, and the results folder if
    pictures are written, under the same path. Photographs may also be addresses.

    Args:
        pipeline: how faces are found.
        pictures: which pictures are written.
        address: of the cluster, as `ray.init` takes it; None starts a cluster on this machine.
        time_limit, memory, largest: see `LocalEngine`.
    """

    def __init__(
        self,
        pipeline: PipelineOptions,
        pictures: PictureOptions,
        address: str | None = None,
        time_limit: float = 60.0,
        memory: int | None = None,
        largest: int = LARGEST_FILE,
    ) -> None:
        self._address = address
        self._arguments = (pipeline, pictures, time_limit, memory, largest)

    def __enter__(self) -> RayEngine:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        _check_address(self._address)
        try:
            ray.init(
                self._address,
                include_dashboard=None if self._address else False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        except Exception as error:  # Ray raises many kinds, plain Exception among them
            where = self._address or "hand"
            raise EngineError(f"no Ray cluster at {where} ({reason_of(error)})") from None
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        return self

    def __exit__(self, *_: object) -> None:
        ray.shutdown()

    def run(self, tasks: Iterator[Task]) -> Iterator[list[tuple[Task, Answer]]]:
        """The tasks with their answers, in any order: see `LocalEngine.run`.

        Raises:
            EngineError: the cluster fails.
        """
        for first in tasks:
            yield from self._run_wave(_next_wave(itertools.chain([first], tasks)))

    def _run_wave(self, wave: list[Task]) -> Iterator[list[tuple[Task, Answer]]]:
        unanswered = {task.id: task._replace(content=None) for task in wave}
        blocks: list[Any] = [
            ray.put(pa.table({"task": [pickle.dumps(task) for task in wave[k : k + BATCH]]}))
            for k in range(0, len(wave), BATCH)
        ]
        del wave
        resources: dict[str, float] = ray.cluster_resources()
        cores = max(int(resources.get("CPU", 1)), 1)
        results = ray.data.from_arrow_refs(blocks).map_batches(
            _Actor,
            fn_constructor_args=self._arguments,
            batch_format="pyarrow",
            batch_size=BATCH,
            num_cpus=1,
            concurrency=(1, min(cores, len(blocks))),
        )
        try:
            batches: Any = results.iter_batches(batch_size=None, batch_format="pyarrow")
            for batch in batches:
                answers = [pickle.loads(row) for row in batch["result"].to_pylist()]
                # A batch that was repeated after the loss of a node counts once.
                yield [(unanswered.pop(r.id), r) for r in answers if r.id in unanswered]
        except ray.exceptions.RayError as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise EngineError(f"the Ray cluster does not go on: {lines[-1]}") from None
        if unanswered:
            count = len(unanswered)
            raise EngineError(f"the Ray cluster has lost {count} photographs; run again")


def _check_address(address: str | None) -> None:
    """Tries to connect to a cluster, because Ray itself would try for minutes.

    Raises:
        EngineError: nothing answers at the address.
    """
    host, separator, port = (address or "").removeprefix("ray://").rpartition(":")
    if not separator or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise EngineError(f"no Ray cluster at {address} ({error.strerror or error})") from None


def _next_wave(tasks: Iterator[Task]) -> list[Task]:
    wave: list[Task] = []
    size = 0
    for task in itertools.islice(tasks, WAVE):
        # Processes of a node run in folders of their own, where relative paths lead nowhere.
        place = task.place if is_address(task.place) else os.path.abspath(task.place)  # noqa: PTH100
        content = task.content
        if task.saved is not None:
            # It lies on this machine alone.
            content = Path(task.saved).read_bytes()
            Path(task.saved).unlink()
        wave.append(task._replace(place=place, content=content, saved=None))
        size += len(content or b"")
        if size > WAVE_BYTES:
            break
    return wave


class _Actor:
    """One core of the cluster: a local engine of one worker."""

    def __init__(
        self,
        pipeline: PipelineOptions,
        pictures: PictureOptions,
        time_limit: float,
        memory: int | None,
        largest: int,
    ) -> None:
        self._engine = LocalEngine(pipeline, pictures, 1, time_limit, memory, largest)

    def __call__(self, batch: Any) -> Any:
        tasks = (pickle.loads(row) for row in batch["task"].to_pylist())
        answers = itertools.chain.from_iterable(self._engine.run(tasks))
        results = [answer for _, answer in answers if isinstance(answer, PhotoResult)]
        return pa.table({"result": [pickle.dumps(result) for result in results]})
