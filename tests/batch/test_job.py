"""A job without the command line, some with an engine that needs no processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from random import Random

import numpy as np
import pytest

from kpipe import Face, Faces
from kpipe.batch.engines.local import LocalEngine
from kpipe.batch.job import run
from kpipe.batch.types import (
    Answer,
    JobOptions,
    PhotoResult,
    PictureOptions,
    Progress,
    Selection,
    Task,
)
from kpipe.batch.worker import failed
from kpipe.errors import EngineError, KpipeError, ModelError
from kpipe.formats.jsonl import to_json
from kpipe.options import PipelineOptions
from tests.cli.test_batch import photos

__all__ = ["photos"]


def options_for(inputs: Path, results: Path, **values: object) -> JobOptions:
    pipeline = PipelineOptions(min_face=0.3)
    return JobOptions([str(inputs)], results, pipeline, PictureOptions(str(results)), **values)


class OneByOne:
    """An engine that finds one face in every photograph but those named `bad`.

    Args:
        limit: photographs after which it fails.
    """

    def __init__(self, limit: int = 1000) -> None:
        self.limit = limit
        self.done: list[str] = []

    def __call__(self) -> AbstractContextManager[OneByOne]:
        return nullcontext(self)

    def run(self, tasks: Iterator[Task]) -> Iterator[list[tuple[Task, Answer]]]:
        for task in tasks:
            if len(self.done) == self.limit:
                raise EngineError("the engine fails")
            self.done.append(task.name)
            record = json.dumps({"image": task.name, "faces": [{}]})
            result = PhotoResult(task.id, task.name, record, 1, size=task.size, mtime=task.mtime)
            yield [(task, failed(task, "damaged") if "bad" in task.name else result)]
            yield []


@pytest.fixture
def names(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.jpg", "bad.jpg", "c.jpg", "d.jpg", "notes.md"):
        (folder / name).touch()
    return folder


def lines(results: Path) -> set[str]:
    text = (results / "faces.jsonl").read_text()
    return {json.loads(line)["image"] for line in text.splitlines()}


def test_interrupted_while_scanning_it_leaves_the_results_as_they_are(
    photos: Path, tmp_path: Path
) -> None:
    options = options_for(photos, tmp_path / "out")
    engine = LocalEngine(options.pipeline, options.pictures, 1)
    run(options, lambda: engine)
    before = {
        name: (tmp_path / "out" / name).read_bytes() for name in ("faces.jsonl", "summary.json")
    }
    result = run(options, lambda: engine, stop_requested=lambda: True)
    assert not result.complete
    assert before == {name: (tmp_path / "out" / name).read_bytes() for name in before}


def test_progress_and_result_count_the_same(names: Path, tmp_path: Path) -> None:
    reports: list[Progress] = []
    notices: list[str] = []
    engine = OneByOne()
    result = run(
        options_for(names, tmp_path / "out"), engine, progress=reports.append, notice=notices.append
    )
    assert result.complete and result.totals == (4, 4, 3, 0, 1) and result.kept == 0
    assert reports[0] == Progress(4, 0, 0, 0, 0)
    assert reports[-1][:5] == (4, 4, 0, 3, 1)
    assert [p for report in reports for p in report.problems] == ["bad.jpg: damaged"]
    assert notices == ["skipped 1 file: not an image, or excluded"]
    assert lines(tmp_path / "out") == set(engine.done)
    # A second run has nothing to do and starts no engine.
    start: Callable[[], AbstractContextManager[OneByOne]] = pytest.fail
    again = run(options_for(names, tmp_path / "out"), start)
    assert again.totals == result.totals and again.kept == 4


def test_results_before_an_error_of_the_engine_are_kept(names: Path, tmp_path: Path) -> None:
    options = options_for(names, tmp_path / "out")
    with pytest.raises(EngineError, match="the engine fails"):
        run(options, OneByOne(limit=2))
    assert lines(tmp_path / "out") == {"a.jpg", "bad.jpg"}
    assert not (tmp_path / "out/summary.json").exists()
    engine = OneByOne()
    assert run(options, engine).kept == 2 and engine.done == ["c.jpg", "d.jpg"]


def test_a_stop_keeps_what_is_done(names: Path, tmp_path: Path) -> None:
    engine = OneByOne()
    result = run(
        options_for(names, tmp_path / "out"), engine, stop_requested=lambda: len(engine.done) == 3
    )
    assert not result.complete and result.totals.done == 3
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["complete"] is False and summary["done"] == 3


def test_a_folder_that_cannot_be_read_is_reported_and_counted(names: Path, tmp_path: Path) -> None:
    (names / "x.zip").write_bytes(b"no archive")
    problems: list[str] = []
    options = options_for(names / "x.zip", tmp_path / "out")
    result = run(options, OneByOne(), input_error=problems.append)
    assert len(problems) == result.unreadable == 1 and "not a readable archive" in problems[0]
    assert "x.zip" in (tmp_path / "out/errors.csv").read_text()


def test_the_photographs_of_a_vanished_archive_fail_and_the_rest_goes_on(
    names: Path, tmp_path: Path
) -> None:
    path = names / "x.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("in.jpg"))

    class Removing(OneByOne):
        def run(self, tasks: Iterator[Task]) -> Iterator[list[tuple[Task, Answer]]]:
            path.unlink()
            yield from super().run(tasks)

    options = JobOptions(
        [str(names), str(path)], tmp_path / "out", PipelineOptions(),
        PictureOptions(str(tmp_path / "out")), Selection(),
    )  # fmt: skip
    problems: list[str] = []
    result = run(options, Removing(), input_error=problems.append)
    assert result.complete and result.totals.errors == 2 and result.unreadable == 1
    errors = (tmp_path / "out/errors.csv").read_text()
    assert "x.tar.gz/in.jpg: cannot be taken from the archive any more" in errors


def test_a_missing_network_is_an_error_before_anything_is_written(
    names: Path, tmp_path: Path
) -> None:
    options = JobOptions(
        [str(names)], tmp_path / "out", PipelineOptions(model="gone.onnx"), PictureOptions("out")
    )
    with pytest.raises(ModelError, match=r"gone\.onnx: No such file"):
        run(options, OneByOne())
    assert not (tmp_path / "out").exists()


def test_parquet_is_written_in_shards_when_asked(names: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    options = options_for(names, tmp_path / "out", formats=("parquet",), shard=3)
    (tmp_path / "out/.kpipe").mkdir(parents=True)
    (tmp_path / "out/faces.parquet").write_text("one file of an earlier run")
    from kpipe.formats import load_format

    engine = OneByOne()

    def no_faces(task: Task, result: Answer) -> tuple[Task, Answer]:
        assert isinstance(result, PhotoResult)
        record = to_json(Faces((), 1, 1, task.name).to_dict())
        return task, result if result.error else result._replace(record=record, faces=0)

    class Empty(OneByOne):
        def run(self, tasks: Iterator[Task]) -> Iterator[list[tuple[Task, Answer]]]:
            for batch in engine.run(tasks):
                yield [no_faces(*pair) for pair in batch]

    run(options, Empty())
    folder = tmp_path / "out/faces.parquet"
    assert sorted(p.name for p in folder.iterdir()) == ["part-00000.parquet", "part-00001.parquet"]
    found = [r["image"] for r in load_format("parquet").read(folder)]
    assert found == ["a.jpg", "bad.jpg", "c.jpg", "d.jpg"]


class Finding(OneByOne):
    """An engine whose results are as real ones: with one face of 68 points."""

    def run(self, tasks: Iterator[Task]) -> Iterator[list[tuple[Task, Answer]]]:
        points = np.arange(136, dtype=np.float32).reshape(68, 2)
        face = Face(np.float32([0, 0, 9, 9]), 0.9, points, np.ones(68, np.float32))
        for task in tasks:
            self.done.append(task.name)
            record = to_json(Faces((face,), 200, 200, task.name).to_dict())
            yield [
                (
                    task,
                    PhotoResult(task.id, task.name, record, 1, None, False, task.size, task.mtime),
                )
            ]


@pytest.mark.slow
def test_bits_lost_in_the_journal_cost_an_error_or_work_but_never_the_results(
    tmp_path: Path,
) -> None:
    (tmp_path / "in").mkdir()
    for number in range(40):
        (tmp_path / f"in/{number:02d}.jpg").touch()
    options = options_for(
        tmp_path / "in", tmp_path / "out", formats=("jsonl", "csv", "coco", "pts")
    )
    run(options, Finding())
    journal = tmp_path / "out/.kpipe/journal.sqlite"
    whole = journal.read_bytes()
    random = Random(170)
    ends = {"damaged": 0, "whole": 0, "again": 0}
    for _ in range(MUTATIONS):
        content = bytearray(whole)
        for _ in range(random.choice((1, 1, 2, 8, 64))):
            place = random.choice((random.randrange(len(content)), random.randrange(4096)))
            content[place] ^= random.choice((1 << random.randrange(8), random.randrange(256)))
        if random.random() < 0.1:
            del content[random.randrange(len(content)) :]
        journal.write_bytes(content)
        engine = Finding()
        try:
            result = run(options, engine)
        except KpipeError as error:
            assert "\n" not in str(error) and str(journal) in str(error)
            ends["damaged"] += 1
        else:
            assert result.complete and result.totals == (40, 40, 40, 0, 0)
            assert len(lines(tmp_path / "out")) == 40
            ends["again" if engine.done else "whole"] += 1
        for left in journal.parent.glob("journal.sqlite-*"):
            left.unlink()
    assert all(ends.values()), ends


MUTATIONS = int(os.environ.get("KPIPE_FUZZ", "50"))
"""Of the journal; a longer search is `KPIPE_FUZZ=2000 pytest tests/batch/test_job.py`."""


@pytest.mark.parametrize(
    "face", [{}, {"points": 5}, {"points": [[1, 2]]}, {"points": [["x", "y"]] * 68, "box": [1]}]
)
def test_a_record_of_nonsense_in_the_journal_is_one_error(
    names: Path, tmp_path: Path, face: dict[str, object]
) -> None:
    class Nonsense(OneByOne):
        def run(self, tasks: Iterator[Task]) -> Iterator[list[tuple[Task, Answer]]]:
            for task in tasks:
                record = json.dumps({"image": task.name, "faces": [face]})
                yield [(task, PhotoResult(task.id, task.name, record, 1, size=0, mtime=task.mtime))]

    run(options_for(names, tmp_path / "out"), Nonsense())
    for format_ in ("csv", "coco", "pts"):
        with pytest.raises(KpipeError, match=r"the record of a\.jpg in the journal: not"):
            run(options_for(names, tmp_path / "out", formats=(format_,)), OneByOne())


PARENT = """
import sys
from pathlib import Path
from kpipe.batch.engines.local import LocalEngine
from kpipe.batch.job import run
from kpipe.batch.types import JobOptions, PictureOptions
from kpipe.options import PipelineOptions
if __name__ == "__main__":
    options = JobOptions(["in"], Path("out"), PipelineOptions(), PictureOptions("out"))
    result = run(options, lambda: LocalEngine(options.pipeline, options.pictures, 1))
    print(result.totals.done, *{"cv2", "onnxruntime", "kpipe.pipeline"} & set(sys.modules))
"""


def test_the_parent_process_loads_no_networks(names: Path, tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "4\n"
