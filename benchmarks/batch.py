"""Speed and memory of `kpipe batch`: the figures of the README and docs/scaling.md.

    python benchmarks/batch.py FOLDER...          # photographs a second, and other ways to do it
    python benchmarks/batch.py FOLDER... --size 640x480
    python benchmarks/batch.py --names 1000000    # memory and time to scan a folder

FOLDER: any photographs. They are copied as JPEG files to a temporary folder, repeated until there
are --count of them, and with --size cut and scaled to one size.
The jobs run in turn, so that other programs on the machine slow all of them alike. Rates include
the start of the workers. On a busy machine compare the processor time of a photograph.
"""

import argparse
import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image, ImageOps
from rich.console import Console
from rich.progress import track
from rich.table import Table

from kpipe.errors import ImageError
from kpipe.media.images import encode, read_photo
from kpipe.utils.opencv import cv2

ONE_BY_ONE = 4
"""Photographs that `kpipe annotate` processes, one process each; its rate does not depend on how
many there are."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", type=Path, nargs="*")
    parser.add_argument("--count", type=int, default=1000, help="photographs in the folder")
    parser.add_argument("--size", default="own", help="of each, WIDTHxHEIGHT or own")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is timed")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--names", type=int, help="only scan this many empty files")
    parser.add_argument("--options", default="", help="further options of kpipe batch")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        if arguments.names:
            names(Path(scratch), arguments.names)
        elif not arguments.folder:
            parser.error("name a folder of photographs, or --names")
        else:
            rates(Path(scratch), arguments)


def rates(scratch: Path, arguments: argparse.Namespace) -> None:
    """Prints photographs a second of each way to process the folder."""
    photos = scratch / "photos"
    size = None if arguments.size == "own" else tuple(map(int, arguments.size.split("x")))
    make_photos(arguments.folder, photos, arguments.count, size)
    workers, options = arguments.workers, arguments.options.split()

    def batch(count: int, *more: str) -> Callable[[], None]:
        command = ["batch", str(photos), "-o", str(scratch / "out"), "--quiet"]
        return lambda: kpipe(*command, "--workers", str(count), *more, *options)

    files = sorted(photos.iterdir())
    some = files[:ONE_BY_ONE]
    jobs: dict[str, tuple[int, Callable[[], object]]] = {
        f"decode and encode alone, {workers} processes": (
            len(files),
            lambda: floor(files, workers),
        ),
        "decode and encode alone, 1 process": (len(files), lambda: floor(files, 1)),
        f"kpipe batch, {workers} workers": (len(files), batch(workers)),
        f"kpipe batch --render, {workers} workers": (len(files), batch(workers, "--render")),
        "kpipe batch, 1 worker": (len(files), batch(1)),
        "kpipe annotate, one process a photograph": (
            len(some),
            lambda: [kpipe("annotate", str(f), "-q", "-f", "-o", f"{scratch}/x.jpg") for f in some],
        ),
    }
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    busy: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in track(range(arguments.rounds), "rounds", console=Console(stderr=True)):
        for name, (_, job) in jobs.items():
            shutil.rmtree(scratch / "out", ignore_errors=True)
            begin, before = time.perf_counter(), processor_time()
            job()
            seconds[name].append(time.perf_counter() - begin)
            busy[name].append(processor_time() - before)
    # The best round, because other programs on the machine can only make a round slower.
    rate_of = {name: count / min(seconds[name]) for name, (count, _) in jobs.items()}
    limit = next(iter(rate_of.values()))
    table = Table(title=f"{len(files)} photographs, size: {arguments.size}")
    for column in ("", "photographs/s", "of decoding and encoding", "ms of a processor each"):
        table.add_column(column, justify="right" if column else "left")
    for name, rate in rate_of.items():
        each = min(busy[name]) / jobs[name][0] * 1000
        table.add_row(name, f"{rate:.1f}", f"{rate / limit:.1%}", f"{each:.0f}")
    console = Console(width=100)
    console.print(table)
    several, one = rate_of[f"kpipe batch, {workers} workers"], rate_of["kpipe batch, 1 worker"]
    alone = limit / rate_of["decode and encode alone, 1 process"]
    console.print(
        f"{workers} workers do {several / one:.2f} times what one does "
        f"(decoding and encoding alone: {alone:.2f} times)"
    )


def make_photos(
    sources: Sequence[Path], target: Path, count: int, size: tuple[int, ...] | None
) -> None:
    """Makes a folder of `count` photographs from those below other folders."""
    target.mkdir()
    made: list[Path] = []
    for path in sorted(path for source in sources for path in source.rglob("*")):
        if path.suffix.lower() in (".jpg", ".jpeg", ".png") and len(made) < count:
            try:
                picture = Image.fromarray(read_photo(path).image)
            except ImageError:
                continue
            made.append(target / f"{len(made):06d}.jpg")
            if size is not None:
                picture = ImageOps.fit(picture, (size[0], size[1]), centering=(0.5, 0.3))
            picture.save(made[-1], quality=90)
    if not made:
        sys.exit(f"{', '.join(map(str, sources))}: no photographs in it")
    for number in range(len(made), count):
        shutil.copy(made[number % len(made)], target / f"{number:06d}.jpg")


def floor(files: list[Path], workers: int) -> None:
    """Reads and writes each photograph: the work that no tool can avoid."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(workers, cv2.setNumThreads, (1,)) as pool:
        for _ in pool.imap_unordered(rewrite, files, chunksize=8):
            pass
        pool.close()
        pool.join()


def processor_time() -> float:
    """Processor time (seconds) of all processes started from here, and theirs, so far."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def rewrite(path: Path) -> int:
    photo = read_photo(path)
    return len(encode(photo.image, ".jpg", photo))


def kpipe(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "kpipe", *arguments], check=True)


SCAN = """
import itertools, random, resource, time
from pathlib import Path
from kpipe.batch.journal import Journal
from kpipe.batch.sources import Scan
from kpipe.batch.types import PhotoResult, ResultKey, Selection
begin = time.perf_counter()
journal = Journal(Path("journal.sqlite"), ResultKey({}, None, None))
journal.add_found(Scan(["names"], Selection(), Path("out"), print))
journal.mark_valid()
scanned = time.perf_counter() - begin
count = sum(1 for _ in journal.pending())
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
walked = time.perf_counter() - begin - scanned
digits = [f"{random.uniform(0, 640):.2f}" for _ in range(300)]
record = '{"image": "x.jpg", "faces": [' + ", ".join(digits) + "]}"
some = itertools.islice(journal.pending(), 10_000)
results = [
    PhotoResult(p.id, p.photo.name, record, 1, None, False, 1, 1, b"digest") for p in some
]
begin = time.process_time()
journal.add(results, lambda *_: None)
print(count, scanned, walked, peak, (time.process_time() - begin) / len(results) * 1000)
"""


def names(scratch: Path, count: int) -> None:
    """Prints memory and time of the parent process for `count` photographs without a result."""
    folder = scratch / "names"
    folder.mkdir()
    for number in track(range(count), "files", console=Console(stderr=True)):
        (folder / f"a_name_of_ordinary_length_{number:08d}.jpg").touch()
    command = [sys.executable, "-c", SCAN]
    done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, check=True)
    found, scanned, walked, peak, written = map(float, done.stdout.split())
    table = Table(title=f"{found:,.0f} names in one folder")
    for column in ("", "value"):
        table.add_column(column, justify="right" if column else "left")
    table.add_row("scanning the folder, s", f"{scanned:.1f}")
    table.add_row("handing out the photographs, s", f"{walked:.1f}")
    table.add_row("storing a result, ms of a processor", f"{written:.2f}")
    table.add_row("peak memory of the process, MB", f"{peak:.0f}")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
