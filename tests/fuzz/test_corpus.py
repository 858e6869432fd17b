"""Every input that once did harm, and some that might, each time the tests run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fuzz.campaign import CORPUS, INDEX, corpus
from tests.fuzz.worker import Case, Worker


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with Worker() as worker:
        yield worker


def _parameters() -> Iterator[object]:
    for case, entry in corpus():
        reason = entry.get("xfail")
        # What waits for ever is not run before it is mended.
        run = entry.get("run", True)
        marks = [pytest.mark.xfail(reason=reason, strict=False, run=run)] if reason else []
        yield pytest.param(case, id=entry["file"], marks=marks)


@pytest.mark.slow
@pytest.mark.parametrize("case", list(_parameters()))
def test_an_input_of_the_corpus_is_read_or_refused_and_does_no_harm(
    case: Case, worker: Worker
) -> None:
    outcome = worker(case)
    assert outcome.fault is None, f"{outcome.fault}\n{outcome.detail}"


def test_every_file_of_the_corpus_has_a_line_with_a_note() -> None:
    files = {str(p.relative_to(CORPUS)) for p in CORPUS.rglob("*") if p.is_file()}
    entries = [entry for _, entry in corpus()]
    assert files == {entry["file"] for entry in entries} | {INDEX.name}
    assert len(entries) == len({entry["file"] for entry in entries})
    assert all(entry["note"].strip() for entry in entries)
