"""The local engine, with real worker processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kpipe.batch.engines.local import LocalEngine, _processor_time, _Queue
from kpipe.batch.types import PhotoResult, PictureOptions, Task
from kpipe.errors import EngineError
from kpipe.options import PipelineOptions
from tests.cli.test_batch import linux
from tests.conftest import ROOT, wait_for

QUICK = PipelineOptions(min_face=0.3, tilt="upright")


def task(number: int, place: str = "", content: bytes | None = None) -> Task:
    return Task(number, f"{number}.jpg", place, content, -1, 0, None)


def test_every_task_gets_one_answer(small_photo: Path, tmp_path: Path) -> None:
    jpeg = small_photo.read_bytes()
    tasks = [task(0, str(small_photo)), task(1, "", jpeg), task(2, "gone.jpg"), task(3, "", b"no")]
    with LocalEngine(QUICK, PictureOptions(str(tmp_path)), 2) as engine:
        answers = [pair for batch in engine.run(iter(tasks)) for pair in batch]
        results = {given.id: result for given, result in answers}
        assert len(answers) == len(results) == 4
        whole, archived, gone, bad = (results[number] for number in range(4))
        assert isinstance(whole, PhotoResult) and isinstance(archived, PhotoResult)
        assert whole.faces == archived.faces == 1 and whole.digest == archived.digest
        assert whole.size == len(jpeg)
        assert gone.error == "2.jpg: no such file" and gone.retry
        assert bad.error.startswith("3.jpg: ") and not bad.retry
        # The same workers go on with a second run.
        again = task(0, "", jpeg)._replace(digest=whole.digest, thumbnail=None)
        small = task(1, "", jpeg)._replace(thumbnail=whole.record)
        broken = task(2, "", b"no")._replace(thumbnail=whole.record)
        more = dict(pair for batch in engine.run(iter([again, small, broken])) for pair in batch)
    assert more[again].unchanged and more[again].record == ""
    assert more[small].startswith(b"\xff\xd8") and more[broken] is None
    assert json.loads(whole.record)["image"] == "0.jpg"


def test_workers_that_do_not_start_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_text("no network")
    options = PipelineOptions(model=str(tmp_path / "bad.onnx"))
    with (
        LocalEngine(options, PictureOptions(str(tmp_path)), 1) as engine,
        pytest.raises(EngineError, match="not a usable ONNX file"),
    ):
        list(engine.run(iter([task(0)])))


def test_tasks_put_back_come_before_those_not_drawn_yet() -> None:
    queue = _Queue(iter([task(0), task(1), task(2)]))
    assert queue.first() == queue.first() == task(0)
    assert queue.pop() == task(0)
    queue.put_back([task(0)])
    order = []
    while queue.first() is not None:
        order.append(queue.pop().id)
    assert order == [0, 1, 2] and queue.first() is None


@linux
def test_waiting_for_a_processor_is_not_hanging() -> None:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        wait_for(lambda: _processor_time(busy.pid)[1] > 0.2)
        assert _processor_time(busy.pid)[0]
        busy.send_signal(signal.SIGSTOP)
        wait_for(lambda: not _processor_time(busy.pid)[0])
        assert _processor_time(busy.pid)[1] > 0.2
        busy.kill()


CUSTOM = """
import os, subprocess, sys, time
if "spawn_main" in " ".join(sys.orig_argv):
    from kpipe.batch.engines import local
    class Starter:
        def __init__(self, *_): pass
        def __call__(self, task):
            other = subprocess.Popen(["sleep", "1000"])
            with open("started", "w") as stream:
                stream.write(f"{os.getpid()} {other.pid}.")
            time.sleep(1000)
    local.PhotoWorker = Starter
"""
"""Makes workers start another program for each photograph, as some decoders do, and wait for it."""


def runs(process: int) -> bool:
    try:
        text = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False
    return text.rpartition(")")[2].split()[0] != "Z"


@pytest.mark.slow
@linux
@pytest.mark.parametrize("cause", ["time limit", "killed worker", "killed parent", "Ctrl-C"])
def test_what_a_worker_has_started_dies_with_it(
    small_photo: Path, tmp_path: Path, cause: str
) -> None:
    (tmp_path / "sitecustomize.py").write_text(CUSTOM)
    limit = "1" if cause == "time limit" else "600"
    command = [sys.executable, "-m", "kpipe", "batch", small_photo, "-o", "out", "--workers", "1"]
    started = tmp_path / "started"
    with subprocess.Popen(
        [*command, "--time-limit", limit],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        stderr=subprocess.DEVNULL,
    ) as job:
        wait_for(lambda: started.exists() and started.read_text().endswith("."))
        worker, other = map(int, started.read_text().rstrip(".").split())
        if cause == "killed worker":
            os.kill(worker, signal.SIGKILL)
        elif cause == "killed parent":
            job.kill()
        elif cause == "Ctrl-C":
            job.send_signal(signal.SIGINT)
        wait_for(lambda: not runs(other))
        job.wait()
    assert not runs(worker)
