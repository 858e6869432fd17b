"""The local engine: worker processes on this machine, each on one core.

Every worker has a pipe of its own and shares nothing with the others. A worker that is killed, at
whatever moment, takes only the photograph that it is processing with it.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kpipe.batch.reading import LARGEST_FILE
from kpipe.batch.types import Answer, PictureOptions, Task
from kpipe.batch.worker import PhotoWorker, failed, thumbnail
from kpipe.errors import EngineError, OutputError, reason_of

if TYPE_CHECKING:
    from kpipe.options import PipelineOptions

AHEAD = 2
"""Tasks that a worker holds at most: the one in work and the next."""


TICK = 0.2
"""Longest time (seconds) from one list of answers, perhaps empty, to the next."""


START_LIMIT = 300.0
"""Seconds that a worker may take to load the networks."""


START_ATTEMPTS = 3
"""Workers in a row that may end before they are loaded; after that the engine gives up."""


PATIENCE = 10.0
"""Multiple of the time limit after which a photograph has failed even if the machine is so busy
that its worker waits for a processor."""


class LocalEngine:
    """Processes photographs on all cores of this machine: see `kpipe.batch.types.Engine`.

    Args:
        pipeline: how faces are found.
        pictures: which pictures are written.
        workers: number of processes.
        time_limit: seconds that a photograph may take.
        memory: bytes that a worker may hold, None for no limit (only Linux has one).
        largest: bytes of a photograph's file at most.
    """

    def __init__(
        self,
        pipeline: PipelineOptions,
        pictures: PictureOptions,
        workers: int,
        time_limit: float = 60.0,
        memory: int | None = None,
        largest: int = LARGEST_FILE,
    ) -> None:
        self._worker_arguments = (pipeline, pictures, memory, largest)
        self._count = workers
        self._time_limit = time_limit
        self._failed_starts = 0
        self._workers: list[_Worker] = []

    def __enter__(self) -> LocalEngine:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.kill()

    def run(self, tasks: Iterator[Task]) -> Iterator[list[tuple[Task, Answer]]]:
        """The tasks with their answers, in any order, as workers finish them.

        Yields an empty list from time to time.

        Raises:
            EngineError: workers do not start.
            OutputError: results cannot be written.
        """
        queue = _Queue(tasks)
        while True:
            self._start_workers()
            self._hand_out(queue)
            if queue.first() is None and not any(worker.tasks for worker in self._workers):
                return
            yield self._collect(queue)

    def _start_workers(self) -> None:
        while len(self._workers) < self._count:
            self._workers.append(_Worker(*self._worker_arguments))

    def _hand_out(self, queue: _Queue) -> None:
        """Gives each worker as many tasks as it takes, idle workers first."""
        for worker in sorted(self._workers, key=lambda worker: len(worker.tasks)):
            while (task := queue.first()) is not None and worker.takes(task):
                worker.give(queue.pop())

    def _collect(self, queue: _Queue) -> list[tuple[Task, Answer]]:
        """The answers that arrive within a tick, and those for workers that died or hang."""
        answers: list[tuple[Task, Answer]] = []
        ready = wait([worker.pipe for worker in self._workers], TICK)
        for worker in list(self._workers):
            if worker.pipe in ready:
                answers += worker.receive()
            reason = worker.dead or self._overdue(worker)
            if reason is not None:
                answers += self._bury(worker, reason, queue)
        return answers

    def _overdue(self, worker: _Worker) -> str | None:
        """Why a worker must be ended, or None if it may go on."""
        if worker.loaded and not worker.tasks:
            return None
        limit = self._time_limit if worker.loaded else START_LIMIT
        taken = time.monotonic() - worker.since
        if taken < limit:
            return None
        if taken < PATIENCE * limit and worker.waits_for_processor(limit):
            return None
        return f"took longer than {limit:g} s (--time-limit)"

    def _bury(self, worker: _Worker, reason: str, queue: _Queue) -> list[tuple[Task, Answer]]:
        """Ends a worker. The task in its work fails, the next goes back to the queue."""
        worker.kill()
        self._workers.remove(worker)
        if not worker.loaded:
            self._failed_starts += 1
            if self._failed_starts >= START_ATTEMPTS:
                raise EngineError(f"the workers do not start: {reason}")
            return []
        self._failed_starts = 0
        if not worker.tasks:
            return []
        task = worker.tasks.popleft()
        queue.put_back(worker.tasks)
        if task.thumbnail is not None:
            return [(task, None)]
        # A photograph that took too long will do so again. A worker may also be killed because
        # other programs needed its memory: then the next run tries again.
        return [(task, failed(task, reason, retry=worker.dead is not None))]


class _Queue:
    """The tasks that no worker has: those put back, then those of the job, drawn one at a time."""

    def __init__(self, tasks: Iterator[Task]) -> None:
        self._tasks = tasks
        self._drawn: deque[Task] = deque()

    def first(self) -> Task | None:
        """The task that is next, or None if there is no more."""
        if not self._drawn:
            task = next(self._tasks, None)
            if task is None:
                return None
            self._drawn.append(task)
        return self._drawn[0]

    def pop(self) -> Task:
        """Takes out what `first` returned."""
        return self._drawn.popleft()

    def put_back(self, tasks: Iterable[Task]) -> None:
        self._drawn.extend(tasks)


class _Worker:
    """One worker process, and the tasks that it holds.

    Attributes:
        tasks: those that it has not answered, oldest first; the first one is in work.
        since: when it began with the first one (seconds, `time.monotonic`).
        busy: processor time (seconds) that the process had used then.
        loaded: whether its networks are loaded.
        dead: why the process ended, or None.
    """

    def __init__(
        self,
        pipeline: PipelineOptions,
        pictures: PictureOptions,
        memory: int | None,
        largest: int,
    ) -> None:
        self.tasks: deque[Task] = deque()
        self.since, self.busy = time.monotonic(), 0.0
        self.loaded = False
        self.dead: str | None = None
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve,
            args=(theirs, pipeline, pictures, memory, largest, os.getpid()),
            daemon=True,
        )
        with _without_interrupts():
            self._process.start()
        theirs.close()

    def takes(self, task: Task) -> bool:
        """Whether it can be given this task now."""
        if self.dead is not None or not self.loaded:
            return False
        # A large content fills the pipe, so the worker must be reading: with both ends writing,
        # both would block for ever.
        bulky = any(t.content is not None for t in (*self.tasks, task))
        return len(self.tasks) < (1 if bulky else AHEAD)

    def give(self, task: Task) -> None:
        if not self.tasks:
            self._begin()
        self.tasks.append(task)
        # If the worker has died, `receive` notices it.
        with contextlib.suppress(OSError):
            self.pipe.send(task)

    def receive(self) -> list[tuple[Task, Answer]]:
        """Its next answer, once its pipe is ready; none if it has only loaded, or died."""
        try:
            answer = self.pipe.recv()
        except (EOFError, OSError):
            _kill_group(self._process.pid)
            self._process.join(5)
            self.dead = _cause_of_death(self._process.exitcode)
            return []
        self._begin()
        if isinstance(answer, _Loaded):
            self.loaded = True
            return []
        if isinstance(answer, Exception):
            raise answer
        return [(self.tasks.popleft(), answer)]

    def _begin(self) -> None:
        self.since, self.busy = time.monotonic(), _processor_time(self._process.pid)[1]

    def waits_for_processor(self, limit: float) -> bool:
        """Whether it is runnable but has had less than `limit` seconds of processor time."""
        running, busy = _processor_time(self._process.pid)
        return running and busy - self.busy < limit

    def kill(self) -> None:
        if self.dead is None:
            _kill_group(self._process.pid)
        self._process.kill()
        self._process.join()
        self.pipe.close()


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """Makes processes that are started meanwhile deaf to Ctrl-C, where the system can.

    The terminal sends it to the whole process group, but only the parent should react. A child
    inherits blocked signals from its first moment on.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    # multiprocessing unblocks SIGINT when it starts its resource tracker: it is started before.
    resource_tracker.ensure_running()
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _kill_group(leader: int | None) -> None:
    """Kills a worker and the programs that its decoders have started: see `_lead_group`."""
    if leader is not None and hasattr(os, "killpg"):
        # The worker has no group yet, or nothing is left of it.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(leader, signal.SIGKILL)


def _processor_time(process: int | None) -> tuple[bool, float]:
    """Whether a process is running or runnable, and its processor time so far (seconds).

    Without /proc it counts as idle.
    """
    try:
        text = Path(f"/proc/{process}/stat").read_text()
        ticks = os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError):
        return False, 0.0
    # The second field is the program's name in parentheses and may hold any character.
    state, *fields = text.rpartition(")")[2].split()
    return state == "R", (int(fields[10]) + int(fields[11])) / ticks


def _cause_of_death(code: int | None) -> str:
    if code is not None and code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:  # a real-time signal
            name = f"signal {-code}"
        hint = ", perhaps for lack of memory" if name == "SIGKILL" else ""
        return f"its worker was ended by {name}{hint}"
    return f"its worker ended with code {code}"


class _Loaded:
    """The first message of a worker: its networks are loaded."""


def _serve(
    pipe: Connection,
    pipeline: PipelineOptions,
    pictures: PictureOptions,
    memory: int | None,
    largest: int,
    parent: int,
) -> None:
    """The main function of a worker process: answers tasks until its pipe closes."""
    _silence_output()
    _die_with(parent)
    _lead_group()
    try:
        worker = PhotoWorker(pipeline, pictures, largest)
    except Exception as error:
        pipe.send(EngineError(reason_of(error)))
        return
    if memory is not None:
        _limit_memory(memory)
    pipe.send(_Loaded())
    while True:
        try:
            task: Task = pipe.recv()
        except (EOFError, OSError):
            return
        answer: Any
        try:
            answer = worker(task) if task.thumbnail is None else _thumbnail(task, largest)
        except OutputError as error:
            answer = error
        pipe.send(answer)


def _thumbnail(task: Task, largest: int) -> bytes | None:
    try:
        return thumbnail(task, largest)
    except Exception:  # the contact sheet leaves this photograph out
        return None


def _lead_group() -> None:
    """Makes this worker the leader of a process group, which dies with it.

    Programs that it starts are in the group. Its parent kills the group; a guard does so should
    something else kill the worker, or the parent too.
    """
    if not hasattr(os, "setpgid"):
        return
    os.setpgid(0, 0)
    if hasattr(os, "fork") and _can_watch() and os.fork() == 0:
        # The guard. It waits here, and its last act is to kill the group that it is in.
        worker = os.getpgrp()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        os.closerange(3, 256)
        _signal_at_parents_end(signal.SIGTERM)
        if os.getppid() == worker:
            signal.sigwait({signal.SIGTERM})
        os.killpg(0, signal.SIGKILL)


def _die_with(parent: int) -> None:
    """Ends this worker at once when its parent ends, however that was."""
    if _can_watch():
        _signal_at_parents_end(signal.SIGKILL)
        # The parent may have ended before the call.
        if os.getppid() != parent:
            os._exit(0)


def _can_watch() -> bool:
    """Whether the system tells a process of its parent's end, and can wait for a signal."""
    names = ("sigwait", "pthread_sigmask")
    return sys.platform == "linux" and all(hasattr(signal, name) for name in names)


def _signal_at_parents_end(number: signal.Signals) -> None:
    """Has the system send this process a signal when its parent ends."""
    pr_set_pdeathsig = 1
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, number)


def _silence_output() -> None:
    """Discards the warnings that decoders written in C print; results hold the reasons."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)


def _limit_memory(size: int) -> None:
    if sys.platform == "linux":
        try:
            import resource
        except ImportError:
            return
        # RLIMIT_DATA counts allocated memory. Libraries map far more than they use, so a limit on
        # mapped memory (RLIMIT_AS) would say little.
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        limit = size if hard == resource.RLIM_INFINITY else min(size, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
