"""Ctrl-C in commands that have files to complete."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Ctrl-C only asks to stop, so that files can be completed; a second one stops at once.

    Yields a function that tells whether Ctrl-C was pressed.
    """
    asked: list[int] = []

    def ask(*_: object) -> None:
        asked.append(1)
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield lambda: bool(asked)
    finally:
        signal.signal(signal.SIGINT, before)
