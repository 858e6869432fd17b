"""Where the time goes, on this machine: medians of runs that alternate in one process."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kpipe.detectors.haar import FRONTAL_DEFAULT, load_cascade
from kpipe.media.images import encode, read_image
from kpipe.options import PipelineOptions
from kpipe.preprocessing.crops import to_gray
from kpipe.utils.opencv import cv2

VGA = (640, 480)


class Timing(NamedTuple):
    """One thing that was timed.

    Attributes:
        name: what it was.
        milliseconds: median over the runs.
        share: of the time that decoding a 640x480 JPEG took in the same run.
    """

    name: str
    milliseconds: float
    share: float


def alternate(jobs: dict[str, Callable[[], object]], runs: int) -> dict[str, float]:
    """Median milliseconds of each job, run in turn; the first round does not count."""
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for run in range(runs + 1):
        for name, job in jobs.items():
            start = time.perf_counter()
            job()
            if run:
                times[name].append(time.perf_counter() - start)
    return {name: float(np.median(values)) * 1000 for name, values in times.items()}


def bench(photo: Path, model: Path | None = None, threads: int = 1, runs: int = 20) -> list[Timing]:
    """Times the network alone and each stage of the way of a photograph.

    Args:
        photo: any photograph with faces.
        model: another network than the packaged one.
        threads: of OpenCV and of the network.
        runs: how often each is timed.

    Raises:
        ImageError: the photograph cannot be read.
    """
    cv2.setNumThreads(threads)
    image = read_image(photo)
    gray = to_gray(image)
    options = PipelineOptions(model=None if model is None else str(model), threads=threads)
    pipeline = options.build()
    landmarker = pipeline.landmarker
    jpeg = encode(cv2.resize(image, VGA, interpolation=cv2.INTER_AREA).astype(np.uint8), ".jpg")
    stock = load_cascade(FRONTAL_DEFAULT)
    candidates = pipeline.detector(gray)
    probable = pipeline.classify(gray, candidates)
    min_score = pipeline.min_score
    faces = pipeline(image)
    points = np.stack([face.points for face in faces]) if faces else np.zeros((0, 68, 2))
    crops = np.random.default_rng(0).integers(
        0, 256, (32, landmarker.crop_size, landmarker.crop_size), np.uint8
    )
    height, width = gray.shape
    size = f"{width}x{height}"
    jobs: dict[str, Callable[[], object]] = {
        "decode a 640x480 JPEG": lambda: read_image(jpeg),
        "network, 1 face": lambda: landmarker(crops[:1]),
        "network, 8 faces": lambda: landmarker(crops[:8]),
        "network, 32 faces": lambda: landmarker(crops),
        f"photo {size}: read": lambda: read_image(photo),
        f"photo {size}: detect": lambda: pipeline.detector(gray),
        f"photo {size}: classify, {len(candidates)} candidates": lambda: pipeline.classify(
            gray, candidates
        ),
        f"photo {size}: coarse, {len(probable)} candidates": lambda: pipeline.coarse_landmarks(
            gray, probable, min_score
        ),
        f"photo {size}: refine, {len(points)} faces": lambda: pipeline.refine(
            gray, points, min_score
        ),
        f"photo {size}: detect to refine, as a whole": lambda: pipeline(image),
        f"photo {size}: draw": lambda: faces.render(image),
        f"photo {size}: stock Haar alone, for comparison": lambda: stock.detectMultiScale(
            gray, 1.1, 4
        ),
    }
    times = alternate(jobs, runs)
    decoding = times["decode a 640x480 JPEG"]
    return [Timing(name, ms, ms / decoding) for name, ms in times.items()]


class Process(NamedTuple):
    """One run of the program as a whole.

    Attributes:
        name: the command.
        wall, cpu: seconds.
        memory: most memory held at once, MB.
    """

    name: str
    wall: float
    cpu: float
    memory: float


def processes(photo: Path, runs: int = 5) -> list[Process]:
    """Times whole processes, start-up included; the median run of each by its CPU time."""
    with tempfile.TemporaryDirectory() as folder:
        result = str(Path(folder) / "out.jpg")
        commands = {
            "kpipe --help": ["--help"],
            "kpipe annotate": ["annotate", str(photo.resolve()), "-o", result, "-f", "-q"],
        }
        return [_median_run(name, words, runs) for name, words in commands.items()]


MEASURE = """
import os, subprocess, sys, time
start = time.perf_counter()
child = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
_, status, usage = os.wait4(child.pid, 0)
wall = time.perf_counter() - start
print(os.waitstatus_to_exitcode(status), wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss)
"""
"""Runs a command from a small process: a child's peak memory starts from its parent's."""


def _median_run(name: str, arguments: list[str], runs: int) -> Process:
    command = [sys.executable, "-c", MEASURE, sys.executable, "-m", "kpipe", *arguments]
    measured = []
    for _ in range(runs):
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        code, wall, cpu, memory = done.stdout.split()
        if code != "0":
            raise RuntimeError(f"kpipe {' '.join(arguments)} failed")
        measured.append(Process(name, float(wall), float(cpu), float(memory) / 1024))
    return sorted(measured, key=lambda process: process.cpu)[runs // 2]
