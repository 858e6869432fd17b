"""The local engine: processes that do one photograph at a time each.

Every worker has a pipe of its own and shares nothing with the others, so that one that is killed,
at whatever moment, takes nothing with it but the photograph in its hands.
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
from collections.abc import Iterator
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from kpipe.batch.journal import Done
from kpipe.batch.worker import PhotoWorker, Settings, Task, failed, thumbnail
from kpipe.errors import EngineError, OutputError

AHEAD = 2
"""Tasks that a worker has at most: one in its hands, one to go on with."""


TICK = 0.2
"""Seconds after which whoever takes the results is asked at the latest."""


START_LIMIT = 300.0
"""Seconds that a worker may take to load."""


PATIENCE = 10.0
"""Time limits that a photograph may take on a machine too busy to give its worker a processor."""


Answer = Done | bytes | None


class LocalEngine:
    """Does photographs on all cores.

    Args:
        settings: how.
        workers: processes.
        time_limit: seconds a photograph may take.
        memory: bytes that a worker may hold, or None for no limit (Linux alone has one).
    """

    def __init__(
        self,
        settings: Settings,
        workers: int,
        time_limit: float = 60.0,
        memory: int | None = None,
    ) -> None:
        self._start = (settings, memory)
        self._time_limit = time_limit
        self._crashes = 0
        self._workers: list[_Worker] = []
        self._count = workers

    def __enter__(self) -> LocalEngine:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.kill()

    def run(self, tasks: Iterator[Task]) -> Iterator[list[tuple[Task, Answer]]]:
        """The tasks and what came of them, in any order, as they are done.

        Yields an empty list from time to time. The answer to a photograph is `Done`, to a
        thumbnail a JPEG's bytes, or None if it could not be made.

        Raises:
            EngineError: workers do not start.
            OutputError: results cannot be written.
        """
        waiting: deque[Task] = deque()  # the next one, and what a worker that died had not begun
        ended = False
        while True:
            while len(self._workers) < self._count:
                self._workers.append(_Worker(*self._start))
            # Those with nothing to do first.
            for worker in sorted(self._workers, key=lambda worker: len(worker.tasks)):
                while True:
                    if not waiting and not ended:
                        task = next(tasks, None)
                        ended = task is None
                        waiting.extend([] if task is None else [task])
                    if not waiting or not worker.takes(waiting[0]):
                        break
                    worker.give(waiting.popleft())
            if ended and not waiting and not any(worker.tasks for worker in self._workers):
                return
            answers: list[tuple[Task, Answer]] = []
            ready = wait([worker.pipe for worker in self._workers], TICK)
            for worker in list(self._workers):
                answers += worker.answer() if worker.pipe in ready else []
                reason = worker.dead or self._overdue(worker)
                if reason is not None:
                    answers += self._bury(worker, reason, waiting)
            yield answers

    def _overdue(self, worker: _Worker) -> str | None:
        limit = self._time_limit if worker.loaded else START_LIMIT
        taken = time.monotonic() - worker.since
        if taken < limit or not (worker.tasks or not worker.loaded):
            return None
        if taken < PATIENCE * limit and worker.waits_for_a_processor(limit):
            return None
        return f"took longer than {limit:g} s (--time-limit)"

    def _bury(
        self, worker: _Worker, reason: str, waiting: deque[Task]
    ) -> list[tuple[Task, Answer]]:
        worker.kill()
        self._workers.remove(worker)
        if not worker.loaded:
            self._crashes += 1
            if self._crashes >= 3:
                raise EngineError(f"the workers do not start: {reason}")
            return []
        self._crashes = 0
        if not worker.tasks:
            return []
        task = worker.tasks.popleft()
        waiting.extend(worker.tasks)
        if task.thumbnail is not None:
            return [(task, None)]
        # A photograph that takes too long once will again; what kills a worker may be others'
        # need for memory.
        died = worker.dead is not None
        done = failed(task, reason, again=died)
        return [(task, done)]


class _Worker:
    """One process, and what it has been given.

    Attributes:
        tasks: what it has not answered, oldest first; that is the one in its hands.
        since: when it began with that one.
        busy: seconds of a processor that it had taken then.
        loaded: whether it is ready for work.
        dead: why it is no more, or None.
    """

    def __init__(self, settings: Settings, memory: int | None) -> None:
        self.tasks: deque[Task] = deque()
        self.since, self.busy = time.monotonic(), 0.0
        self.loaded = False
        self.dead: str | None = None
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, settings, memory, os.getpid()), daemon=True
        )
        # Ctrl-C goes to the whole process group: it is for the parent alone. A child inherits
        # what is blocked, from its first moment on. (Starting its tracker, which the first child
        # does, multiprocessing unblocks SIGINT: so that is done before.)
        resource_tracker.ensure_running()
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        theirs.close()

    def takes(self, task: Task) -> bool:
        if self.dead is not None or not self.loaded:
            return False
        # Large contents wait until the worker listens: both ends writing would block for ever.
        bulky = any(t.content is not None for t in (*self.tasks, task))
        return len(self.tasks) < (1 if bulky else AHEAD)

    def give(self, task: Task) -> None:
        if not self.tasks:
            self._begin()
        self.tasks.append(task)
        # One that has died is noticed when its answers are asked for.
        with contextlib.suppress(OSError):
            self.pipe.send(task)

    def answer(self) -> list[tuple[Task, Answer]]:
        """What it answers, once its pipe is ready: nothing if it has only loaded, or died."""
        try:
            answer = self.pipe.recv()
        except (EOFError, OSError):
            self._process.join(5)
            self.dead = _cause(self._process.exitcode)
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

    def waits_for_a_processor(self, limit: float) -> bool:
        """Whether it would go on if it were let, and has not had so many seconds yet."""
        running, busy = _processor_time(self._process.pid)
        return running and busy - self.busy < limit

    def kill(self) -> None:
        self._process.kill()
        self._process.join()
        self.pipe.close()


def _processor_time(process: int | None) -> tuple[bool, float]:
    """Whether a process has something to compute, and the seconds that it has computed so far.

    Where there is no /proc it is taken for idle.
    """
    try:
        text = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False, 0.0
    # The second field is a name, in which there may be anything.
    state, *fields = text.rpartition(")")[2].split()
    return state == "R", (int(fields[10]) + int(fields[11])) / os.sysconf("SC_CLK_TCK")


def _cause(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        hint = ", perhaps for lack of memory" if name == "SIGKILL" else ""
        return f"its worker was ended by {name}{hint}"
    return f"its worker ended with code {code}"


class _Loaded:
    """Says that a worker is ready."""


def _serve(pipe: Connection, settings: Settings, memory: int | None, parent: int) -> None:
    """The life of a worker."""
    _die_with(parent)
    _be_silent()
    try:
        worker = PhotoWorker(settings)
    except Exception as error:
        pipe.send(EngineError(" ".join(str(error).split())))
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
            answer = worker(task) if task.thumbnail is None else _thumbnail(task)
        except OutputError as error:
            answer = error
        pipe.send(answer)


def _thumbnail(task: Task) -> bytes | None:
    try:
        return thumbnail(task)
    except Exception:  # a contact sheet can do without
        return None


def _die_with(parent: int) -> None:
    """Without its parent, however that ended, a worker ends at once, even amid a photograph."""
    if sys.platform == "linux":
        set_death_signal = 1
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(0)


def _be_silent() -> None:
    """Decoders written in C print warnings on damaged pictures; the reason is in the result."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)


def _limit_memory(size: int) -> None:
    if sys.platform == "linux":
        import resource

        # What has been allocated, not what is mapped: libraries map far more than they use.
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        limit = size if hard == resource.RLIM_INFINITY else min(size, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
