from pathlib import Path

import pytest

from kpipe.evaluation.timing import alternate
from tests.conftest import Run


def test_jobs_take_turns_and_the_first_round_does_not_count() -> None:
    order: list[str] = []
    times = alternate({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, runs=2)
    assert order == ["a", "b"] * 3
    assert set(times) == {"a", "b"} and all(value >= 0 for value in times.values())


@pytest.mark.slow
def test_the_command(kpipe: Run, small_photo: Path) -> None:
    done = kpipe("bench", "photo.jpg", "--runs", "1")
    assert done.returncode == 0, done.stderr
    text = done.stdout.decode()
    for stage in ("decode a 640x480 JPEG", "network, 1 face", "detect", "kpipe annotate"):
        assert stage in text
