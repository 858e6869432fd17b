"""Signals that end a run."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def interruptible(*more: signal.Signals) -> Iterator[Callable[[], bool]]:
    """Makes the first Ctrl-C a request to stop, so that files can be finished.

    A second one stops the run at once, as Ctrl-C does outside of this context.

    Args:
        more: signals besides SIGINT that mean the same.

    Yields:
        A function that returns whether a signal has come.
    """
    requested: list[int] = []

    def request(number: int, _: object) -> None:
        requested.append(number)
        for each in before:
            signal.signal(each, before[signal.SIGINT])

    before = {number: signal.signal(number, request) for number in (signal.SIGINT, *more)}
    try:
        yield lambda: bool(requested)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
