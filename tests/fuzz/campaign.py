"""Throws inputs at the entries, and keeps what is found: `make fuzz`.

The cases of a kind follow from a seed, which is printed: the same seed gives the same cases. Half
of them are sound files with mutations; half, for kinds whose files have a structure, come from
hypothesis. Each fault is made small and kept in `tests/corpus/` with a note.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import os
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as hypothesis_seed
from hypothesis.errors import HypothesisException

from tests.fuzz import structured
from tests.fuzz.mutations import BYTES, TEXT, Mutation, boxes_of_films, mutate
from tests.fuzz.seeds import SEEDS
from tests.fuzz.worker import Case, Outcome, Worker

CORPUS = Path(__file__).parent.parent / "corpus"
INDEX = CORPUS / "corpus.jsonl"

SECONDS = float(os.environ.get("KPIPE_FUZZ_SECONDS", 60))
"""Time for each kind."""

SHRINKING = 10.0
"""Seconds spent on making one finding small."""

LARGEST = 96 << 10
"""Bytes: a finding that stays larger is printed and not kept."""

ENDINGS = (".jpg", ".png", ".tif", ".gif", ".heic", ".webp", ".bmp", ".jp2", ".ico", "")
"""Wrong endings for pictures."""

STEMS = (
    *("\x1b[31mred", "a\nb", "\udcff", "n" * 240, "\u5b57" * 80, "=1+1", "-o", "%s%n"),
    *("\u202egpj", "a;b,c"),
)
"""Odd names of files."""

WAYS: dict[str, tuple[Mutation, ...]] = {
    "pictures": BYTES,
    "videos": (*BYTES, boxes_of_films, boxes_of_films, boxes_of_films),
    "records": (*BYTES, *TEXT, *TEXT),
    "archives": BYTES,
    "boxes": (*BYTES, *TEXT, *TEXT),
    "kaggle": (*BYTES, *TEXT, *TEXT),
    "journals": BYTES,
}
"""How the seeds of a kind are spoilt."""


@dataclass
class Tally:
    """What came of the inputs of one kind.

    Attributes:
        tried, read: number of inputs, and of those that were read without an error.
        faults: the first case of each fault, made small, and its outcome.
        hits: how many inputs showed each fault.
    """

    tried: int = 0
    read: int = 0
    faults: dict[str, tuple[Case, Outcome]] = field(default_factory=dict)
    hits: Counter[str] = field(default_factory=Counter)

    def add(self, case: Case, outcome: Outcome) -> bool:
        """Counts an outcome. Returns whether it is a fault that was not seen before."""
        self.tried += 1
        self.read += outcome.read
        if outcome.fault is None:
            return False
        self.hits[outcome.fault] += 1
        new = outcome.fault not in self.faults
        if new:
            self.faults[outcome.fault] = case, outcome
        return new


def mutated(kind: str, seed: int, number: int) -> Case:
    """The case of this number: it depends on nothing else."""
    random = Random(f"{kind} {seed} {number}")
    files = SEEDS[kind]()
    name = random.choice(sorted(files))
    content = files[name]
    if number >= len(files):
        content = mutate(random, content, WAYS[kind])
        if random.random() < 0.05:
            other = files[random.choice(sorted(files))]
            content = content[: random.randrange(len(content) + 1)] + other[len(other) // 2 :]
    else:
        # First the seeds themselves: some are hostile as they are.
        name = sorted(files)[number]
        content = files[name]
    if kind == "pictures" and random.random() < 0.1:
        name = Path(name).stem + random.choice(ENDINGS)
    if kind not in ("kaggle", "journals") and random.random() < 0.1:
        name = random.choice(STEMS) + "".join(Path(name).suffixes)
    return Case(kind, name, content, random.randrange(120))


def explore(kind: str, worker: Worker, seed: int, end: float, tally: Tally) -> Iterator[Case]:
    """Tries cases until the end (monotonic time); yields each that shows a new fault."""
    structures = kind in structured.FILES
    number = 0
    while time.monotonic() < end:
        for _ in range(100):
            if time.monotonic() >= end:
                return
            case = mutated(kind, seed, number)
            number += 1
            if tally.add(case, worker(case)):
                yield case
        if structures:
            new: list[Case] = []
            from_hypothesis(kind, worker, seed + number, end, tally, new, count=100)
            yield from new


def from_hypothesis(
    kind: str, worker: Worker, seed: int, end: float, tally: Tally, new: list[Case], count: int
) -> None:
    """Tries cases that hypothesis makes up; a new fault does not stop it."""

    @hypothesis_seed(seed)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    @given(structured.cases(kind))
    def attempt(case: Case) -> None:
        if time.monotonic() < end and tally.add(case, worker(case)):
            new.append(case)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            attempt()
        except HypothesisException as error:
            print(f"{kind}: hypothesis: {error}")


def shrunk(case: Case, fault: str, worker: Worker, seconds: float = SHRINKING) -> Case:
    """A smaller case of the same fault: pieces that are not needed are left out."""
    end = time.monotonic() + seconds
    size = len(case.content) // 2
    while size and time.monotonic() < end:
        at, smaller = 0, False
        while at < len(case.content) and time.monotonic() < end:
            less = case._replace(content=case.content[:at] + case.content[at + size :])
            if worker(less).fault == fault:
                case, smaller = less, True
            else:
                at += size
        size = size if smaller and size > 1 else size // 2
    return case


def keep(case: Case, outcome: Outcome) -> Path | None:
    """Puts a finding into the corpus, unless it is large or there already."""
    if len(case.content) > LARGEST:
        return None
    digest = hashlib.sha256(
        case.content + case.name.encode("utf-8", "surrogateescape")
    ).hexdigest()[:10]
    endings = "".join(Path(case.name).suffixes[-2:]) or ".bin"
    packed = case.kind == "journals"  # a database is mostly zeros
    path = CORPUS / case.kind / f"{digest}{endings}{'.gz' if packed else ''}"
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(case.content, mtime=0) if packed else case.content)
    entry = {
        "file": str(path.relative_to(CORPUS)),
        "name": case.name,
        "variant": case.variant,
        "note": outcome.fault,
        "xfail": "not mended yet",
    }
    with INDEX.open("a") as stream:
        stream.write(json.dumps(entry) + "\n")
    return path


def corpus() -> list[tuple[Case, dict[str, Any]]]:
    """The cases of the corpus, each with its line of the index."""
    cases = []
    for line in INDEX.read_text().splitlines():
        entry = json.loads(line)
        path = CORPUS / entry["file"]
        kind = path.relative_to(CORPUS).parts[0]
        content = path.read_bytes()
        if kind == "journals":
            content = gzip.decompress(content)
        cases.append((Case(kind, entry["name"], content, entry["variant"]), entry))
    return cases


def unmark(worker: Worker) -> None:
    """Takes the mark from the cases of the corpus that do no harm any more."""
    lines = []
    for case, entry in corpus():
        if "xfail" in entry and worker(case).fault is None:
            print(f"mended: {entry['file']}: {entry['note']}", flush=True)
            entry = {key: value for key, value in entry.items() if key not in ("xfail", "run")}
        lines.append(json.dumps(entry) + "\n")
    INDEX.write_text("".join(lines))


def main() -> int:
    """Runs the kinds one after another. Returns 1 if there was a fault."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--kind", action="append", choices=sorted(SEEDS))
    parser.add_argument("--seed", type=int, default=None, help="of an earlier run")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for each kind")
    parser.add_argument("--case", type=int, help="only the mutated case of this number")
    parser.add_argument("--dry", action="store_true", help="keep nothing")
    parser.add_argument("--mended", action="store_true", help="only unmark what is mended")
    options = parser.parse_args()
    if options.mended:
        with Worker() as worker:
            unmark(worker)
        return 0
    seed = options.seed if options.seed is not None else time.time_ns() // 10**9 % 10**6
    found = 0
    for kind in options.kind or SEEDS:
        with Worker() as worker:
            if options.case is not None:
                print(worker(mutated(kind, seed, options.case)))
                continue
            found += run(kind, worker, seed, options.seconds, kept=not options.dry)
    return int(found > 0)


def run(kind: str, worker: Worker, seed: int, seconds: float, *, kept: bool) -> int:
    """Explores one kind, reports and keeps the faults. Returns their number."""
    tally = Tally()
    end = time.monotonic() + seconds
    for case in explore(kind, worker, seed, end, tally):
        fault = next(f for f, (c, _) in tally.faults.items() if c is case)
        outcome = tally.faults[fault][1]
        print(f"{kind}: {fault} (variant {case.variant}, {case.name!r})\n{outcome.detail}")
        if kept:
            # A page of a database that is left out makes it unreadable; slow cases take too long.
            slow = kind == "journals" or fault in ("time", "waits for ever", "memory")
            begun = time.monotonic()
            small = shrunk(case, fault, worker, 0 if slow else SHRINKING)
            end += time.monotonic() - begun
            print(f"  kept: {keep(small, outcome)} ({len(small.content)} bytes)", flush=True)
    print(
        f"== {kind}: seed {seed}, {tally.tried} inputs, {tally.read} read, "
        f"{len(tally.faults)} faults in {tally.hits.total()} inputs",
        flush=True,
    )
    for fault, count in tally.hits.most_common():
        print(f"   {count:5} {fault}", flush=True)
    return len(tally.faults)
