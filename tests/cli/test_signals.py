"""Ctrl-C and other signals that end a run."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from kpipe.cli.signals import interruptible


class Stopped(BaseException):
    """What Ctrl-C raises outside of `interruptible`."""


def stop(*_: object) -> None:
    raise Stopped


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_the_second_stops_at_once(
    first: signal.Signals, second: signal.Signals
) -> None:
    with interruptible(signal.SIGTERM) as stop_requested:
        assert not stop_requested()
        signal.raise_signal(first)
        assert stop_requested()
        with pytest.raises(Stopped):
            signal.raise_signal(second)
    assert signal.getsignal(signal.SIGINT) is stop
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN


def test_without_arguments_only_control_c_asks() -> None:
    with interruptible() as stop_requested:
        signal.raise_signal(signal.SIGTERM)
        assert not stop_requested()
        signal.raise_signal(signal.SIGINT)
        assert stop_requested()
