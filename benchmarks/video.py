"""How steady, how quick to follow, how fast and how true to identities tracked points are, against
detection in every frame with raw points.

    python benchmarks/video.py STILLS [VIDEO...]

STILLS: a folder of pictures with .pts files, as 300-W's. VIDEO: files whose people are listed in
`benchmarks/identities.csv`. Needs the extra `kpipe[video]`. Frames/s of the tracker are counted per
second of processor time, so that what else the machine does hardly matters; those of the whole
program per second on the clock.
"""

import argparse
import csv
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from kpipe.datasets import Sample, read_samples
from kpipe.media.images import read_image
from kpipe.media.video_reader import VideoReader
from kpipe.media.video_writer import VideoWriter
from kpipe.networks.landmarker import Landmarker
from kpipe.pipeline import Pipeline
from kpipe.preprocessing.boxes import landmark_box
from kpipe.preprocessing.crops import to_gray
from kpipe.structures.faces import Face, Faces
from kpipe.tracking.tracker import Tracker
from kpipe.utils.opencv import cv2

FPS = 30.0

SETTLE = 15
"""Frames of a still face before its jitter is measured."""

LABELS = Path(__file__).with_name("identities.csv")

Image = NDArray[np.uint8]
Array = NDArray[np.float64]


class Film(NamedTuple):
    """A photographed face as frames of a video.

    Attributes:
        frames: RGB pictures.
        shifts: (f, 2) pixels: where the photograph's origin lies in each.
        labels: (68, 2) points in the photograph.
        ocular: distance of the outer eye corners, pixels.
    """

    frames: list[Image]
    shifts: Array
    labels: Array
    ocular: float


def filmed(sample: Sample, path: Array, rng: np.random.Generator) -> Film:
    """A photograph moved along a path (f, 2) in sides of the face, and in each frame by up to half
    a pixel more, with a camera's noise (4 gray levels) and JPEG's losses (quality 70 to 95).
    """
    image = read_image(sample.path)
    side = float(np.ptp(landmark_box(sample.points)[::2]))
    pad = int(np.ceil(np.abs(path).max() * side)) + 8
    image = cv2.copyMakeBorder(image, pad, pad, pad, pad, cv2.BORDER_REPLICATE)
    moves = path * side + rng.uniform(-0.5, 0.5, path.shape)
    frames = []
    for x, y in moves:
        matrix = np.array([[1, 0, x], [0, 1, y]])
        size = (image.shape[1], image.shape[0])
        moved = cv2.warpAffine(
            image, matrix, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
        )
        noisy = np.clip(moved + rng.normal(0, 4, moved.shape), 0, 255).astype(np.uint8)
        quality = int(rng.integers(70, 96))
        _, jpeg = cv2.imencode(".jpg", noisy[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
        frames.append(np.ascontiguousarray(cv2.imdecode(jpeg, cv2.IMREAD_COLOR)[..., ::-1]))
    ocular = float(np.linalg.norm(sample.points[36] - sample.points[45]))
    return Film(frames, moves + pad, sample.points.astype(np.float64), ocular)


def still(count: int) -> Array:
    return np.zeros((count, 2))


def moving() -> Array:
    """Still; then at one face width a second to the right at once; stopped; then in a circle."""
    run = np.concatenate([np.zeros(10), np.arange(1, 16), np.full(10, 15)]) / FPS
    turn = np.arange(31) / FPS * 2 * np.pi
    circle = np.column_stack([np.cos(turn) - 1, np.sin(turn)]) / (2 * np.pi)
    return np.vstack([np.column_stack([run, 0 * run]), circle + (run[-1], 0)])


def nearest(faces: Faces, labels: Array) -> Face | None:
    """The labeled face among those that were found."""
    distances = [float(np.linalg.norm(f.points - labels, axis=1).mean()) for f in faces]
    size = float(np.ptp(labels, axis=0).max())
    if not distances or min(distances) > 0.3 * size:
        return None
    return faces[int(np.argmin(distances))]


def seen(film: Film, results: Iterator[Faces]) -> tuple[Array, Array]:
    """Points (f, 68, 2) back in the photograph, nan where the face was missed; sigma (f, 68)."""
    points = np.full((len(film.frames), 68, 2), np.nan)
    sigma = np.full((len(film.frames), 68), np.nan)
    for k, faces in enumerate(results):
        face = nearest(faces, film.labels + film.shifts[k])
        if face is not None:
            points[k], sigma[k] = face.points - film.shifts[k], face.sigma
    return points, sigma


def spread(points: Array) -> float:
    """Mean over points of the standard deviation of the position."""
    return float(np.sqrt(np.nanvar(points, axis=0).sum(axis=-1)).mean())


def jitter_rows(samples: list[Sample], pipeline: Pipeline) -> list[tuple[str, ...]]:
    rng = np.random.default_rng(0)
    raw, smooth, early, noise = [], [], [], []
    for sample in track(samples, "still faces"):
        film = filmed(sample, still(SETTLE + 30), rng)
        tracked, _ = seen(film, Tracker(pipeline).follow(film.frames, FPS))
        every, sigma = seen(film._replace(frames=film.frames[:20]), map(pipeline, film.frames[:20]))
        raw.append(100 * spread(every) / film.ocular)
        noise.append(spread(every) / float(np.nanmean(sigma)))
        smooth.append(100 * spread(tracked[SETTLE:]) / film.ocular)
        early.append(100 * spread(tracked[:20]) / film.ocular)
    times = float(np.mean(raw) / np.mean(smooth))
    return [
        (
            "jitter, raw, detected in every frame, % of the eyes' distance",
            f"{np.mean(raw):.3f}",
            "",
            "",
        ),
        ("jitter, tracked", f"{np.mean(smooth):.3f}", "0.25", "0.10"),
        ("jitter, tracked, worst face", f"{np.max(smooth):.3f}", "", ""),
        ("jitter, tracked, of the first 20 frames", f"{np.mean(early):.3f}", "", ""),
        ("raw over tracked", f"{times:.1f}", "3", ""),
        ("raw jitter over sigma", f"{np.mean(noise):.3f}", "", ""),
    ]


def lag_rows(samples: list[Sample], pipeline: Pipeline) -> list[tuple[str, ...]]:
    rng = np.random.default_rng(1)
    errors: list[tuple[float, float]] = []
    motion: list[tuple[float, float]] = []
    missed = 0
    for sample in track(samples, "moving faces"):
        film = filmed(sample, moving(), rng)
        raw, _ = seen(film, map(pipeline, film.frames))
        tracked, _ = seen(film, Tracker(pipeline).follow(film.frames, FPS))
        both = ~np.isnan(raw[:, 0, 0]) & ~np.isnan(tracked[:, 0, 0])
        missed += int(np.isnan(tracked[:, 0, 0]).sum())
        ways = []
        for points in (raw[both], tracked[both]):
            off = float(np.linalg.norm(points - film.labels, axis=-1).mean())
            # Of the place of the whole face: what is left when a face's own bias is taken out.
            place = points.mean(axis=1)
            path = float(np.linalg.norm(place - place.mean(axis=0), axis=-1).mean())
            ways.append((100 * off / film.ocular, 100 * path / film.ocular))
        (raw_off, raw_path), (off, path) = ways
        errors.append((raw_off, off))
        motion.append((raw_path, path))
    (raw_off, off), (raw_path, path) = np.mean(errors, axis=0), np.mean(motion, axis=0)
    return [
        ("error on a moving face, raw, %", f"{raw_off:.3f}", "", ""),
        ("error on a moving face, tracked, %", f"{off:.3f}", "", ""),
        ("lag: tracked over raw", f"{off / raw_off:.3f}", "1.1", "1.0"),
        ("deviation of the face's place from the path, raw, %", f"{raw_path:.3f}", "", ""),
        ("deviation of the face's place from the path, tracked, %", f"{path:.3f}", "", ""),
        ("frames in which the moving face was not followed", f"{missed}", "", ""),
    ]


def wide(sample: Sample, count: int) -> Film:
    """A face of 240 pixels that moves in frames of 1280x720."""
    image = read_image(sample.path)
    side = float(np.ptp(landmark_box(sample.points)[::2]))
    zoom = 240 / side
    center = sample.points.mean(axis=0)
    turn = np.arange(count) / FPS * 2
    places = np.column_stack([640 + 150 * np.cos(turn), 360 + 60 * np.sin(turn)])
    frames = []
    for x, y in places:
        matrix = np.array([[zoom, 0, x - zoom * center[0]], [0, zoom, y - zoom * center[1]]])
        frames.append(cv2.warpAffine(image, matrix, (1280, 720), borderMode=cv2.BORDER_REPLICATE))
    return Film(frames, places, sample.points, 0.0)


def speed_rows(sample: Sample, pipeline: Pipeline) -> list[tuple[str, ...]]:
    frames = wide(sample, 120).frames
    tracker = Tracker(pipeline)
    for k in range(30):
        tracker(frames[k], k / FPS)
    start = time.process_time()
    for k in range(30, 120):
        tracker(frames[k], k / FPS)
    tracked = 90 / (time.process_time() - start)
    start = time.process_time()
    for k in range(3):
        pipeline.detector(to_gray(frames[k]))
    detection = (time.process_time() - start) / 3
    without = Tracker(pipeline, detect_every=1e9)
    without(frames[29], 0.0)
    start = time.process_time()
    for k in range(30, 120):
        without(frames[k], k / FPS)
    following = (time.process_time() - start) / 90
    start = time.process_time()
    for frame in frames[:3]:
        pipeline(frame)
    every = 3 / (time.process_time() - start)
    return [
        (
            "frames/s, 1280x720, one face, one thread: detected in every frame",
            f"{every:.1f}",
            "",
            "",
        ),
        ("frames/s, 1280x720, one face, one thread: tracked", f"{tracked:.1f}", "100", "300"),
        ("  of it: ms to follow a face in a frame", f"{following * 1000:.2f}", "", ""),
        ("  of it: ms to find candidates, every 0.4 s", f"{detection * 1000:.1f}", "", ""),
        ("frames/s end to end, 1280x720", f"{end_to_end(frames):.1f}", "30", "60"),
    ]


def end_to_end(frames: list[Image]) -> float:
    """Frames/s of `kpipe video`, as it says itself, by the clock."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "film.mp4"
        with VideoWriter(source, 1280, 720, rate=FPS) as writer:
            for k, frame in enumerate([*frames, *frames[::-1]]):
                writer.write(frame, k / FPS)
        command = [sys.executable, "-m", "kpipe", "video", str(source)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = re.search(r"([\d.]+) frames/s", done.stderr)
    assert found is not None, done.stderr
    return float(found[1])


class Label(NamedTuple):
    """Where a person's face is. A person who was out of sight is another `stay` afterwards."""

    frame: int
    person: str
    stay: int
    x: float
    y: float


def read_labels(name: str) -> list[Label]:
    with LABELS.open(newline="") as file:
        return [
            Label(int(r["frame"]), r["person"], int(r["stay"]), float(r["x"]), float(r["y"]))
            for r in csv.DictReader(file)
            if r["video"] == name
        ]


def identity_rows(video: Path, pipeline: Pipeline) -> list[tuple[str, ...]]:
    """Switches: a person's number changes during a stay, or one person gets another's number."""
    labels = read_labels(video.name)
    wanted = {label.frame for label in labels}
    number_of: dict[tuple[str, int], int] = {}
    person_of: dict[int, str] = {}
    switches = found = 0
    with VideoReader(video) as reader:
        tracker = Tracker(pipeline)
        for frame in track(reader, video.name, total=len(reader)):
            faces = tracker(frame.image, frame.time)
            if frame.number not in wanted:
                continue
            for label in labels:
                if label.frame != frame.number:
                    continue
                face = at(faces, label.x, label.y)
                if face is None or face.track is None:
                    continue
                found += 1
                stay = (label.person, label.stay)
                switches += number_of.get(stay, face.track) != face.track
                switches += person_of.get(face.track, label.person) != label.person
                number_of[stay], person_of[face.track] = face.track, label.person
    return [
        (f"identity switches, {video.name}", f"{switches}", "0", "0"),
        ("  labeled faces that were followed", f"{found} of {len(labels)}", "", ""),
    ]


def at(faces: Faces, x: float, y: float) -> Face | None:
    """The face whose box holds a place."""
    for face in faces:
        x0, y0, x1, y1 = face.box
        if x0 <= x <= x1 and y0 <= y <= y1:
            return face
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("stills", type=Path)
    parser.add_argument("videos", type=Path, nargs="*")
    parser.add_argument("--faces", type=int, default=16, help="how many of the still faces")
    parser.add_argument("--model", type=Path, help="another network, from kpipe export")
    parser.add_argument(
        "--only", nargs="+", choices=("jitter", "lag", "speed", "identity"), help="parts to run"
    )
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    samples = read_samples(arguments.stills)
    samples = samples[:: max(len(samples) // arguments.faces, 1)][: arguments.faces]
    pipeline = Pipeline(landmarker=Landmarker(arguments.model, threads=1), threads=1)
    parts = arguments.only or ["jitter", "lag", "speed", "identity"]
    table = Table(title=f"{len(samples)} faces of {arguments.stills.name}")
    for column in ("measure", "kpipe", "bar", "aim"):
        table.add_column(column, justify="left" if column == "measure" else "right")
    if "jitter" in parts:
        for row in jitter_rows(samples, pipeline):
            table.add_row(*row)
    if "lag" in parts:
        for row in lag_rows(samples[::2], pipeline):
            table.add_row(*row)
    if "speed" in parts:
        for row in speed_rows(samples[0], pipeline):
            table.add_row(*row)
    if "identity" in parts:
        for video in arguments.videos:
            for row in identity_rows(video, pipeline):
                table.add_row(*row)
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
