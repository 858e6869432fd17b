"""A job: what was found, what is done already, who does the rest, and the files that come of it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from kpipe import __version__
from kpipe.batch.engines.local import Answer
from kpipe.batch.journal import Done, Journal, Totals, Wanted
from kpipe.batch.sources import (
    ANNOTATED,
    CROPS,
    JOURNAL,
    LISTS,
    POINTS,
    SHEET,
    STATE,
    STREAM,
    Scan,
    Selection,
    open_archive,
)
from kpipe.batch.tables import GrowingTable
from kpipe.batch.worker import Settings, Task, annotated_name, crop_name, temporary_folder, unread
from kpipe.errors import BatchError, ReadError, SourceError
from kpipe.formats import Record, load_format
from kpipe.utils.files import display_name, write_file
from kpipe.utils.resources import packaged

SUMMARY, ERRORS = "summary.json", "errors.csv"
FILES = {
    "jsonl": "faces.jsonl",
    "csv": "faces.csv",
    "parquet": "faces.parquet",
    "coco": "faces.json",
    "pts": POINTS,
}
"""The file, or folder, of each format in the folder of results."""

COMMIT_EVERY = 0.25
"""Seconds of work that a crash can cost."""

COMMIT_COUNT = 1000


class Engine(Protocol):
    """Whoever does the photographs; see `kpipe.batch.engines.local.LocalEngine.run`."""

    def run(self, tasks: Iterator[Task]) -> Iterator[list[tuple[Task, Answer]]]: ...


@dataclass(frozen=True)
class Plan:
    """What is to be done.

    Attributes:
        inputs: see `Scan`.
        results: the folder of results.
        settings: how photographs are done.
        selection: which of the files found are wanted.
        formats: of the results, keys of `FILES`.
        compare: whether a photograph has changed is told by size and time, or by its content.
        retry: do again what failed.
        sheet: make a contact sheet.
        shard: photographs in a Parquet file, 0 for all in one.
    """

    inputs: Sequence[str]
    results: Path
    settings: Settings
    selection: Selection = field(default_factory=Selection)
    formats: tuple[str, ...] = ("jsonl",)
    compare: str = "time"
    retry: bool = False
    sheet: bool = False
    shard: int = 0


class News(NamedTuple):
    """How far a job is.

    Attributes:
        photographs: how many there are.
        done: how many are done, `kept` of them by earlier runs.
        faces, errors: of all that are done.
        problems: the reasons of the photographs that failed since the last news.
    """

    photographs: int
    done: int
    kept: int
    faces: int
    errors: int
    problems: tuple[str, ...] = ()


class Outcome(NamedTuple):
    """What a job came to.

    Attributes:
        totals: over all photographs.
        kept: how many were done by earlier runs.
        seconds: that this run took.
        complete: whether it was not stopped.
        unreadable: folders, lists and archives that could not be read.
        lost: what the formats could not hold, by format.
    """

    totals: Totals
    kept: int
    seconds: float
    complete: bool
    unreadable: int
    lost: dict[str, dict[str, int]]


def _ignore(_: object) -> None:
    pass


def run(
    plan: Plan,
    engine: Callable[[], AbstractContextManager[Engine]],
    *,
    say: Callable[[str], None] = _ignore,
    problem: Callable[[str], None] = _ignore,
    news: Callable[[News], None] = _ignore,
    stopped: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Does a job, or what an earlier run has left of it.

    Args:
        plan: what to do.
        engine: started only if there is something to do.
        say: told what the user should know.
        problem: told of folders, lists and archives that cannot be read.
        news: told of progress.
        stopped: asked several times a second whether to stop; what is done stays done.

    Raises:
        BatchError: an input is not there, no worker starts, the results cannot be written or are
            another program's.
        FormatError: a file of results cannot be written.
    """
    start = time.monotonic()
    job = _Job(plan, say, problem, news, stopped)
    try:
        job.look()
        # Stopped amid the looking, nothing is known of the rest: the results stay as they are.
        seen = not stopped()
        complete = seen and job.work(engine)
        lost = job.finish(complete)
        outcome = Outcome(
            job.journal.totals(), job.kept, time.monotonic() - start, complete,
            len(job.unreadable), lost,
        )  # fmt: skip
        if seen:
            job.write_summary(outcome)
        return outcome
    finally:
        job.close()


class _Job:
    def __init__(
        self,
        plan: Plan,
        say: Callable[[str], None],
        problem: Callable[[str], None],
        news: Callable[[News], None],
        stopped: Callable[[], bool],
    ) -> None:
        self.plan = plan
        self.say, self.problem, self.news, self.stopped = say, problem, news, stopped
        self.unreadable: list[tuple[str, str]] = []
        self.kept = 0
        self._folder = plan.results
        # What is wrong with the inputs is found before anything is made.
        self._scan = Scan(plan.inputs, plan.selection, plan.results, self._cannot_read)
        self._make_folder()
        self._options = options_of(plan.settings)
        settings = plan.settings
        crops = f"{settings.crops} {settings.crop_size}" if settings.crops else None
        drawn = None if settings.draw is None else ",".join(settings.draw)
        self.journal = Journal(
            self._folder / JOURNAL,
            Wanted(self._options, drawn, crops),
        )
        try:
            # The journal is ours alone now: what lies here was left by a run that was killed.
            shutil.rmtree(temporary_folder(self._folder), ignore_errors=True)
            temporary_folder(self._folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            self.journal.close()
            raise self._cannot_write(error) from None
        self._tables: list[GrowingTable] = []

    def close(self) -> None:
        for table in self._tables:
            table.close()
        self.journal.close()

    def _make_folder(self) -> None:
        state = self._folder / STATE
        try:
            if not state.exists():
                for name in (*FILES.values(), ANNOTATED, CROPS, SUMMARY, ERRORS, SHEET):
                    if (self._folder / name).exists():
                        raise BatchError(
                            f"{display_name(self._folder / name)}: exists and is no result of "
                            "kpipe batch; choose another folder for the results"
                        )
            state.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._cannot_write(error) from None

    def _cannot_write(self, error: OSError) -> BatchError:
        return BatchError(
            f"{display_name(self._folder)}: cannot be written ({error.strerror or error})"
        )

    def look(self) -> None:
        """Finds the photographs, and which of them are done."""
        plan, scan = self.plan, self._scan
        twice = self.journal.look(self._until_stopped(scan))
        self.journal.keep(plan.compare == "content", plan.retry)
        if scan.left_aside:
            self.say(f"left aside: {scan.left_aside} files that are no photographs or not wanted")
        if twice:
            self.say(f"named more than once, done once: {twice}")
        count, changes = self.journal.differences()
        if count:
            self.say(f"doing {count} photographs again: {'; '.join(changes)}")
        self._totals = self.journal.totals()
        self.kept = self._totals.done

    def _until_stopped(self, items: Iterable[Any]) -> Iterator[Any]:
        for number, item in enumerate(items):
            if number % 100 == 0 and self.stopped():
                return
            yield item

    def _cannot_read(self, name: str, reason: str) -> None:
        if (name, reason) in self.unreadable:
            return  # an archive is read twice
        self.unreadable.append((name, reason))
        self.problem(reason if display_name(name) in reason else f"{display_name(name)}: {reason}")

    def work(self, engine: Callable[[], AbstractContextManager[Engine]]) -> bool:
        """Does what is not done. Returns whether all is."""
        self._drop_gone()
        self._open_tables()
        self._tell()
        if self._totals.done == self._totals.photographs:
            return True
        # If this run is killed, it says nothing false.
        self._remove(SUMMARY)
        with engine() as running:
            complete = self._consume(running.run(self._tasks()))
        return complete and not self.stopped()

    def _consume(self, batches: Iterator[list[tuple[Task, Answer]]]) -> bool:
        waiting: list[Done] = []
        last = time.monotonic()
        try:
            for batch in batches:
                waiting += [answer for _, answer in batch if isinstance(answer, Done)]
                now = time.monotonic()
                if waiting and (now - last > COMMIT_EVERY or len(waiting) >= COMMIT_COUNT):
                    taken, waiting = waiting, []
                    self._commit(taken)
                    last = now
                if self.stopped():
                    return False
            return True
        finally:
            # Also on the way out with an error, if it can be had.
            self._commit(waiting)

    def _commit(self, results: list[Done]) -> None:
        if not results:
            return
        self.journal.add(results, self._remove_pictures)
        lines = [self.journal.record(done.name) if done.same else done.record for done in results]
        for table in self._tables:
            table.add(lines)
        # Counted here: to ask the journal would take longer than the work.
        problems = tuple(done.error for done in results if done.error is not None)
        faces = [
            len(json.loads(line)["faces"]) if done.same else done.faces
            for done, line in zip(results, lines)
        ]
        counts = (0, len(results), sum(faces), faces.count(0) - len(problems), len(problems))
        self._totals = Totals(*(a + b for a, b in zip(self._totals, counts)))
        self._tell(problems)

    def _tell(self, problems: tuple[str, ...] = ()) -> None:
        totals = self._totals
        self.news(
            News(totals.photographs, totals.done, self.kept, totals.faces, totals.errors, problems)
        )

    def _tasks(self) -> Iterator[Task]:
        for pending in self.journal.pending():
            photo = pending.photo
            yield Task(
                pending.id, photo.name, photo.place, None, photo.size, photo.mtime, pending.digest
            )
        for archive in self.journal.archives():
            yield from self._archive_tasks(archive)

    def _archive_tasks(self, path: str) -> Iterator[Task]:
        # The parent reads: most archives can only be read from beginning to end.
        wanted = self.journal.pending_members(path)
        try:
            with open_archive(path) as archive:
                for member in archive:
                    pending = wanted.pop(member.name, None)
                    if pending is None:
                        continue
                    photo = pending.photo
                    task = Task(
                        pending.id, photo.name, path, b"", photo.size, photo.mtime, pending.digest
                    )
                    try:
                        yield task._replace(content=member.read())
                    except ReadError as error:
                        self._commit([unread(task, str(error))])
        except SourceError as error:
            self._cannot_read(path, str(error))
        for pending in wanted.values():
            task = Task(pending.id, pending.photo.name, path, b"", -1, 0, None)
            reason = "cannot be taken from the archive any more"
            self._commit([unread(task, reason)])

    def _remove_pictures(self, done: Done, parts: str, faces: int) -> None:
        """Pictures of an older result that the new one has not replaced."""
        settings = self.plan.settings
        if "drawn" in parts and (settings.draw is None or done.error is not None):
            self._remove(annotated_name(done.name))
        if "cropped" in parts:
            first = done.faces if settings.crops is not None else 0
            self._remove(*(crop_name(done.name, index) for index in range(first, faces)))

    def _drop_gone(self) -> None:
        """Takes away the pictures of photographs that are gone, not of those that were not asked
        for this time.

        Before the work: what is there now may be one of them under another name.
        """
        if self.unreadable or not self._asked_for_again():
            return
        for name, faces in self.journal.drop_gone():
            self._remove(annotated_name(name), *(crop_name(name, k) for k in range(faces)))

    def _asked_for_again(self) -> bool:
        """Whether the last run that came to its end was to look at the same places."""
        try:
            last = json.loads((self._folder / SUMMARY).read_bytes())
            same = all(last.get(name) == values for name, values in self._asked.items())
        except (OSError, ValueError, AttributeError):
            return False
        # A list may name others each time.
        listed = any(given == STREAM or given.lower().endswith(LISTS) for given in self.plan.inputs)
        return same and not listed

    @property
    def _asked(self) -> dict[str, list[str]]:
        plan = self.plan
        parts = {
            "inputs": plan.inputs,
            "include": plan.selection.include,
            "exclude": plan.selection.exclude,
        }
        return {name: [display_name(given) for given in values] for name, values in parts.items()}

    def _remove(self, *pictures: str) -> None:
        # What cannot be taken away stays.
        for name in pictures:
            with contextlib.suppress(OSError):
                (self._folder / name).unlink()

    def _open_tables(self) -> None:
        """The tables that grow with the job: made anew from the journal, then added to."""
        folder = self._folder
        tables = [GrowingTable(folder / ERRORS, "errors")]
        tables += [
            GrowingTable(folder / FILES[name], name)
            for name in ("jsonl", "csv")
            if name in self.plan.formats
        ]
        for table in tables:
            table.begin(self.journal.records(), temporary_folder(folder))
            self._tables.append(table)
        for name, reason in self.unreadable:
            self._tables[0].add_row(name, reason)

    def finish(self, complete: bool) -> dict[str, dict[str, int]]:
        """Makes the files that are made in one go. Returns what they could not hold."""
        if not complete:
            return {}
        for name, file in FILES.items():
            if name not in self.plan.formats and (self._folder / file).exists():
                self.say(
                    f"{file}: of an earlier run, as it was; --format {name} brings it up to date"
                )
        lost = {}
        for name in self.plan.formats:
            if name not in ("jsonl", "csv"):
                lost[name] = self._export(name)
        if self.plan.sheet:
            from kpipe.batch.contact_sheet import write_sheet

            write_sheet(self._folder / SHEET, self.journal, self.plan.settings)
        return lost

    def _export(self, name: str) -> dict[str, int]:
        target = self._folder / FILES[name]
        records = (json.loads(line) for line in self.journal.records())
        if name == "pts" or (name == "parquet" and self.plan.shard):
            # A folder is made anew beside the old one and takes its place.
            fresh = temporary_folder(self._folder) / name
            lost = self._write_folder(name, fresh, records)
            try:
                if target.is_dir():
                    shutil.rmtree(target)
                elif target.exists():
                    target.unlink()
                fresh.mkdir(parents=True, exist_ok=True)
                fresh.replace(target)
            except OSError as error:
                raise self._cannot_write(error) from None
            return lost
        if target.is_dir():
            shutil.rmtree(target)
        return load_format(name).write(target, records)

    def _write_folder(self, name: str, fresh: Path, records: Iterator[Record]) -> dict[str, int]:
        if name == "pts":
            return load_format(name).write(fresh, records)
        shards = load_format(name)
        for number, first in enumerate(records):
            piece = _some(first, records, self.plan.shard)
            shards.write(fresh / f"part-{number:05d}.parquet", piece)
        return {}

    def write_summary(self, outcome: Outcome) -> None:
        """`summary.json`: counts, options, speed."""
        totals = outcome.totals
        now = totals.done - outcome.kept
        summary = {
            "kpipe": __version__,
            "complete": outcome.complete and not outcome.unreadable,
            **self._asked,
            "photographs": totals.photographs,
            "done": totals.done,
            "faces": totals.faces,
            "without_face": totals.faceless,
            "errors": totals.errors,
            "unreadable": [display_name(name) for name, _ in self.unreadable],
            "done_by_this_run": now,
            "seconds": round(outcome.seconds, 2),
            "photographs_per_second": round(now / outcome.seconds, 2) if outcome.seconds else 0,
            "options": self._options,
        }
        text = json.dumps(summary, indent=1) + "\n"
        write_file(self._folder / SUMMARY, text.encode())


def _some(first: Record, rest: Iterator[Record], count: int) -> Iterator[Record]:
    yield first
    for _ in range(count - 1):
        record = next(rest, None)
        if record is None:
            return
        yield record


def options_of(settings: Settings) -> dict[str, object]:
    """All that a record depends on besides the photograph.

    Raises:
        BatchError: a file of them cannot be read.
    """
    cascades = "OpenCV's"
    models = sorted(packaged("models").glob("*.onnx"))
    models += [Path(settings.model)] if settings.model is not None else []
    models += [Path(settings.detector)] if settings.detector.endswith(".onnx") else []
    if settings.cascades is not None:
        cascades = _fingerprint(sorted(Path(settings.cascades).glob("*.xml")))
    return {
        "kpipe": __version__,
        "model": _fingerprint(models),
        "--detector": settings.detector,
        "cascades": cascades,
        "--min-score": settings.min_score,
        "--min-face": settings.min_face,
        "--tilt": settings.tilt,
    }


def _fingerprint(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    try:
        for file in files:
            digest.update(file.name.encode("utf-8", "surrogateescape") + file.read_bytes())
    except OSError as error:
        raise BatchError(f"{display_name(file)}: {error.strerror or error}") from None
    return digest.hexdigest()[:16]
