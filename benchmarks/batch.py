"""How fast a folder is done: what the README and docs/scaling.md say of `kpipe batch`.

    python benchmarks/batch.py FOLDER...          # photographs a second, against floor and annotate
    python benchmarks/batch.py FOLDER... --size 640x480
    python benchmarks/batch.py --names 1000000    # memory and time to look through so many files

FOLDER: any photographs; they become JPEG files in a folder of their own, each as often as it takes
to have --count of them, and with --size cut and scaled to one size.
Rates are of runs in turn, so that all suffer alike from whatever else the machine does; the start
of the workers is part of them, as it is for whoever waits. On a busy machine compare by the
processor time of a photograph.
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
"""Photographs that `kpipe annotate` is run on, one process each: its rate does not depend on how
many there are."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", type=Path, nargs="*")
    parser.add_argument("--count", type=int, default=1000, help="photographs in the folder")
    parser.add_argument("--size", default="own", help="of each, WIDTHxHEIGHT or own")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is timed")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--names", type=int, help="only look through so many empty files")
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
    """Photographs a second of each way to do the folder."""
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
    # The best round: what else ran on the machine only ever makes one slower.
    found = {name: count / min(seconds[name]) for name, (count, _) in jobs.items()}
    lowest = next(iter(found.values()))
    table = Table(title=f"{len(files)} photographs, size: {arguments.size}")
    for column in ("", "photographs/s", "of decoding and encoding", "ms of a processor each"):
        table.add_column(column, justify="right" if column else "left")
    for name, rate in found.items():
        each = min(busy[name]) / jobs[name][0] * 1000
        table.add_row(name, f"{rate:.1f}", f"{rate / lowest:.1%}", f"{each:.0f}")
    console = Console(width=100)
    console.print(table)
    several, one = found[f"kpipe batch, {workers} workers"], found["kpipe batch, 1 worker"]
    alone = lowest / found["decode and encode alone, 1 process"]
    console.print(
        f"{workers} workers do {several / one:.2f} times what one does "
        f"(decoding and encoding alone: {alone:.2f} times)"
    )


def make_photos(
    sources: Sequence[Path], target: Path, count: int, size: tuple[int, ...] | None
) -> None:
    """A folder of so many photographs, from those below other folders."""
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
    """What no tool can do without: each photograph read and written again."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(workers, cv2.setNumThreads, (1,)) as pool:
        for _ in pool.imap_unordered(again, files, chunksize=8):
            pass
        pool.close()
        pool.join()


def processor_time() -> float:
    """Seconds that all processes started from here, and theirs, have taken so far."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def again(path: Path) -> int:
    photo = read_photo(path)
    return len(encode(photo.image, ".jpg", photo))


def kpipe(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "kpipe", *arguments], check=True)


LOOK = """
import itertools, random, resource, time
from pathlib import Path
from kpipe.batch.journal import Done, Journal, Wanted
from kpipe.batch.sources import Scan, Selection
begin = time.perf_counter()
journal = Journal(Path("journal.sqlite"), Wanted({}, None, None))
journal.look(Scan(["names"], Selection(), Path("out"), print))
journal.keep()
looked = time.perf_counter() - begin
count = sum(1 for _ in journal.pending())
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
walked = time.perf_counter() - begin - looked
digits = [f"{random.uniform(0, 640):.2f}" for _ in range(300)]
record = '{"image": "x.jpg", "faces": [' + ", ".join(digits) + "]}"
some = itertools.islice(journal.pending(), 10_000)
results = [Done(p.id, p.photo.name, record, 1, None, False, 1, 1, b"digest") for p in some]
begin = time.process_time()
journal.add(results, lambda *_: None)
print(count, looked, walked, peak, (time.process_time() - begin) / len(results) * 1000)
"""


def names(scratch: Path, count: int) -> None:
    """The parent's memory and time for so many photographs that have still to be done."""
    folder = scratch / "names"
    folder.mkdir()
    for number in track(range(count), "files", console=Console(stderr=True)):
        (folder / f"a_name_of_ordinary_length_{number:08d}.jpg").touch()
    command = [sys.executable, "-c", LOOK]
    done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, check=True)
    found, looked, walked, peak, written = map(float, done.stdout.split())
    table = Table(title=f"{found:,.0f} names in one folder")
    for column in ("", "value"):
        table.add_column(column, justify="right" if column else "left")
    table.add_row("looking through the folder, s", f"{looked:.1f}")
    table.add_row("handing out what is to be done, s", f"{walked:.1f}")
    table.add_row("writing down a result, ms of a processor", f"{written:.2f}")
    table.add_row("most memory of the process, MB", f"{peak:.0f}")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
