"""A short run of the fuzzing suite, the same each time; and whether its oracle sees faults."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kpipe.errors import FormatError
from tests.fuzz import structured
from tests.fuzz.campaign import Tally, corpus, from_hypothesis, mutated, shrunk
from tests.fuzz.mutations import with_checksums
from tests.fuzz.seeds import SEEDS
from tests.fuzz.worker import Case, Outcome, Worker

SEED = 20

CASES = {"pictures": 150, "videos": 150, "records": 60, "archives": 25, "boxes": 60, "kaggle": 25}
"""Mutated inputs of each kind; of structured ones half as many."""

OTHER_CASES = 30


def _not_mended(kind: str) -> list[Case]:
    """The cases of the corpus that are known to do harm still, and can be run."""
    return [
        case
        for case, entry in corpus()
        if case.kind == kind and "xfail" in entry and entry.get("run", True)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("kind", SEEDS)
def test_hostile_inputs_are_read_or_refused_and_do_no_harm(kind: str) -> None:
    tally, new = Tally(), list[Case]()
    count = CASES.get(kind, OTHER_CASES)
    with Worker() as worker:
        known = {worker(case).fault for case in _not_mended(kind)}
        first = 0 if kind != "kaggle" else len(SEEDS[kind]())
        for number in range(first, first + count):
            case = mutated(kind, SEED, number)
            tally.add(case, worker(case))
        if kind in structured.FILES:
            end = time.monotonic() + 3600
            from_hypothesis(kind, worker, SEED, end, tally, new, count=count // 2)
    assert tally.tried >= count and tally.read
    faults = {
        f"{fault}: variant {case.variant} of {case.name!r}\n{outcome.detail}"
        for fault, (case, outcome) in tally.faults.items()
        if fault not in known
    }
    assert not faults, "\n".join(faults)


def test_a_case_of_a_seed_and_a_number_is_always_the_same() -> None:
    one, other = (mutated("boxes", 3, number) for number in (40, 41))
    assert one == mutated("boxes", 3, 40)
    assert one != other


@pytest.mark.slow
def test_a_finding_is_made_as_small_as_its_fault_allows() -> None:
    with Worker({"harm": _harm}) as worker:
        case = Case("harm", "needle", b"hay " * 100 + b"needle" + b" hay" * 100)
        small = shrunk(case, "ValueError", worker, 3600)
    assert small.content == b"needle"


def test_checksums_of_png_and_tar_are_made_right() -> None:
    for kind, name in (("pictures", "rgb.png"), ("archives", "a.tar")):
        whole = SEEDS[kind]()[name]
        assert with_checksums(whole) == whole
        spoilt = bytearray(whole)
        spoilt[20] ^= 1
        mended = with_checksums(bytes(spoilt))
        assert len(mended) == len(whole) and mended[20] == spoilt[20] and mended != bytes(spoilt)


class _Raw(FormatError):
    """An error whose message is not made printable, as all of ours are."""

    def __str__(self) -> str:
        return str(self.args[0])


def _harm(case: Case, source: Path, results: Path) -> None:
    """What the oracle must notice, by the name of the input."""
    if case.name == "error":
        raise KeyError("a traceback")
    if case.name == "needle" and b"needle" in case.content:
        raise ValueError("found")
    if case.name == "control":
        raise _Raw("a\x1b[31m.jpg: not good")
    if case.name == "lines":
        raise _Raw("one\ntwo")
    if case.name == "outside":
        (results.parent.parent / "b.txt").write_text("here")
    if case.name == "program":
        subprocess.run(["true"], check=True)
    if case.name == "temporary":
        (results / ".kpipe-1").write_text("")
    if case.name == "scratch":
        os.close(tempfile.mkstemp()[0])
    if case.name == "chatter":
        os.write(2, b"libfoo: hello\n")
    if case.name == "memory":
        bytearray(700 << 20)
    if case.name == "end":
        os.kill(os.getpid(), 9)
    if case.name == "time":
        while True:
            pass
    if case.name == "refused":
        raise FormatError("a.jpg: not good")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("good", None),
        ("refused", None),
        ("error", "KeyError"),
        ("control", "the message of _Raw has control characters"),
        ("lines", "the message of _Raw has control characters"),
        ("outside", "a file is written elsewhere (open)"),
        ("program", "another program (subprocess.Popen)"),
        ("temporary", "a temporary file is left"),
        ("scratch", "a temporary file is left"),
        ("chatter", "words of a library on standard error"),
        ("memory", "memory"),
        ("end", "the process ends (-9)"),
        ("time", "time"),
    ],
)
def test_the_oracle_notices(name: str, fault: str | None, harmful: Worker) -> None:
    assert harmful(Case("harm", name, b"x")).fault == fault
    assert harmful(Case("harm", "good", b"x")) == Outcome(None, read=True)


@pytest.fixture(scope="module")
def harmful() -> Iterator[Worker]:
    with Worker({"harm": _harm}, cpu_seconds=3) as worker:
        yield worker
