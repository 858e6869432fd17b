"""A job: finds photographs, has an engine process those without a result, and keeps the results."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from kpipe.batch import exports
from kpipe.batch.archives import open_archive
from kpipe.batch.journal import Journal
from kpipe.batch.layout import (
    ANNOTATED,
    CROPS,
    ERRORS,
    FILES,
    JOURNAL,
    SHEET,
    STATE,
    SUMMARY,
    OwnResults,
    annotated_name,
    crop_name,
    result_path,
    temporary_folder,
)
from kpipe.batch.sources import Scan, is_list
from kpipe.batch.tables import GrowingTable, has_warning
from kpipe.batch.types import (
    Answer,
    Engine,
    InputPhoto,
    JobOptions,
    JobResult,
    Pending,
    PhotoResult,
    Progress,
    ResultKey,
    Task,
    Totals,
)
from kpipe.batch.worker import unread
from kpipe.errors import BatchError, ReadError, SourceError, WriteError, reason_of
from kpipe.utils.files import display_name

COMMIT_EVERY = 0.25
"""Seconds between two commits: the work that a crash can cost."""


COMMIT_COUNT = 1000
"""Results that are committed at once even if less time has passed."""


def _ignore(_: object) -> None:
    pass


def run(
    options: JobOptions,
    engine: Callable[[], AbstractContextManager[Engine]],
    *,
    notice: Callable[[str], None] = _ignore,
    input_error: Callable[[str], None] = _ignore,
    progress: Callable[[Progress], None] = _ignore,
    stop_requested: Callable[[], bool] = lambda: False,
) -> JobResult:
    """Runs a job, or the rest of it that earlier runs have left.

    Args:
        options: of the job.
        engine: makes the engine; called only if a photograph has no valid result.
        notice: called with each sentence for the user, for instance why work is repeated.
        input_error: called with the name and the reason of each folder, list or archive that
            cannot be read.
        progress: called when results were committed.
        stop_requested: asked several times a second; True ends the run and keeps its results.

    Raises:
        SourceError: an input does not exist.
        BatchError: no worker starts, the results cannot be written, or the folder is not of a job.
        FormatError, WriteError: a file of results cannot be written.
        ModelError: the file of a network cannot be read.
    """
    start = time.monotonic()
    with _Job(options, notice, input_error, progress, stop_requested) as job:
        job.scan()
        # If scanning was interrupted, existing results are left untouched.
        scanned = not stop_requested()
        complete = scanned and job.work(engine)
        lost = job.export() if complete else {}
        result = job.result(time.monotonic() - start, complete, lost)
        if scanned:
            job.write_summary(result)
        return result


class _Job:
    """One run of a job; the arguments are those of `run`."""

    def __init__(
        self,
        options: JobOptions,
        notice: Callable[[str], None],
        input_error: Callable[[str], None],
        progress: Callable[[Progress], None],
        stop_requested: Callable[[], bool],
    ) -> None:
        self._options = options
        self._notice, self._input_error, self._progress = notice, input_error, progress
        self._stop_requested = stop_requested
        self._folder = options.results
        self._unreadable: list[tuple[str, str]] = []
        self._totals, self._kept = Totals(0, 0, 0, 0, 0), 0
        self._warnings = 0
        self._tables: list[GrowingTable] = []
        # Wrong inputs are reported before anything is written.
        self._scan = Scan(options.inputs, options.selection, options.results, self._cannot_read)
        self._fingerprint = options.pipeline.fingerprint()
        self._own = OwnResults(self._folder)
        pictures = options.pictures
        key = ResultKey(self._fingerprint, pictures.drawn_key, pictures.cropped_key)
        self._journal = Journal(self._folder / JOURNAL, key)
        try:
            self._empty_temporary_folder()
            self._own.load()
        except BaseException:
            self._journal.close()
            raise

    def __enter__(self) -> _Job:
        return self

    def __exit__(self, *_: object) -> None:
        for table in self._tables:
            table.close()
        self._journal.close()

    # The results folder

    def _empty_temporary_folder(self) -> None:
        # The open journal excludes other jobs: files here were left by a run that was killed.
        folder = result_path(self._folder, f"{STATE}/tmp")
        try:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(exist_ok=True)
        except OSError as error:
            name = display_name(folder)
            raise BatchError(f"{name}: cannot be written ({reason_of(error)})") from None

    # Scanning

    def scan(self) -> None:
        """Finds the photographs, and which of them have a valid result."""
        repeated = self._journal.add_found(self._until_stopped(self._scan))
        self._journal.mark_valid(self._options.compare == "content", self._options.retry)
        damaged = self._journal.drop_damaged()
        if damaged:
            photographs = _count(damaged, "photograph")
            self._notice(f"doing {photographs} again: the journal's record is damaged")
        if self._scan.skipped:
            self._notice(f"skipped {_count(self._scan.skipped, 'file')}: not an image, or excluded")
        if repeated:
            self._notice(f"named more than once, done once: {repeated}")
        outdated, changes = self._journal.outdated()
        if outdated:
            photographs = _count(outdated, "photograph")
            self._notice(f"doing {photographs} again: {'; '.join(changes)}")
        self._totals = self._journal.totals()
        self._kept = self._totals.done

    def _until_stopped(self, photos: Iterable[InputPhoto]) -> Iterator[InputPhoto]:
        for number, photo in enumerate(photos):
            if number % 100 == 0 and self._stop_requested():
                return
            yield photo

    def _cannot_read(self, name: str, reason: str) -> None:
        if (name, reason) in self._unreadable:
            return  # an archive is read twice
        self._unreadable.append((name, reason))
        shown = display_name(name)
        self._input_error(reason if shown in reason else f"{shown}: {reason}")

    # Working

    def work(self, engine: Callable[[], AbstractContextManager[Engine]]) -> bool:
        """Processes the photographs without a result. Returns whether all have one then."""
        self._check_results()
        self._drop_gone()
        self._open_tables()
        self._report()
        if self._totals.done == self._totals.photographs:
            return True
        # A run that is killed must not leave the summary of an earlier one.
        self._remove(SUMMARY)
        with engine() as running:
            complete = self._consume(running.run(self._tasks()))
        return complete and not self._stop_requested()

    def _check_results(self) -> None:
        """Looks for files in the way before hours of work, not only when they are written."""
        options = self._options
        files = [FILES[name] for name in options.formats]
        for name in (*files, ERRORS, SUMMARY, *([SHEET] if options.sheet else [])):
            self._own.check(name)
        if options.pictures.draw is not None:
            self._own.claim(ANNOTATED)
        if options.pictures.crops is not None:
            self._own.claim(CROPS)

    def _consume(self, batches: Iterator[list[tuple[Task, Answer]]]) -> bool:
        """Commits the engine's results as they come. Returns whether it was not stopped."""
        waiting: list[PhotoResult] = []
        last = time.monotonic()
        try:
            for batch in batches:
                waiting += [answer for _, answer in batch if isinstance(answer, PhotoResult)]
                for task, _ in batch:
                    if task.saved is not None:
                        Path(task.saved).unlink(missing_ok=True)
                now = time.monotonic()
                if waiting and (now - last > COMMIT_EVERY or len(waiting) >= COMMIT_COUNT):
                    taken, waiting = waiting, []
                    self._commit(taken)
                    last = now
                if self._stop_requested():
                    return False
            return True
        finally:
            # An error of the engine must not cost the results that have come before it.
            self._commit(waiting)

    def _commit(self, results: list[PhotoResult]) -> None:
        if not results:
            return
        self._journal.add(results, self._remove_replaced)
        records = [self._journal.record(r.name) if r.unchanged else r.record for r in results]
        self._warnings += sum(map(has_warning, records))
        for table in self._tables:
            table.add(records)
        # Counted here, because the journal would take longer to count than the work takes.
        problems = tuple(r.error for r in results if r.error is not None)
        faces = [
            len(json.loads(record)["faces"]) if r.unchanged else r.faces
            for r, record in zip(results, records)
        ]
        added = Totals(
            photographs=0,
            done=len(results),
            faces=sum(faces),
            faceless=faces.count(0) - len(problems),
            errors=len(problems),
        )
        self._totals = Totals(*(a + b for a, b in zip(self._totals, added)))
        self._report(problems + tuple(r.warning for r in results if r.warning is not None))

    def _report(self, problems: tuple[str, ...] = ()) -> None:
        totals = self._totals
        self._progress(
            Progress(
                totals.photographs, totals.done, self._kept, totals.faces, totals.errors, problems
            )
        )

    def _tasks(self) -> Iterator[Task]:
        for pending in self._journal.pending():
            yield _task(pending)
        for archive in self._journal.archives():
            yield from self._archive_tasks(archive)

    def _archive_tasks(self, path: str) -> Iterator[Task]:
        # The parent saves these members one by one, because each archive is read only once.
        pending = self._journal.pending_members(path)
        folder = temporary_folder(self._folder)
        try:
            with open_archive(path) as members:
                for member in members:
                    if member.name not in pending:
                        continue
                    task = _task(pending.pop(member.name))
                    try:
                        saved = member.save(folder, self._options.largest)
                        yield task._replace(saved=str(saved))
                    except ReadError as error:
                        self._commit([unread(task, str(error))])
        except SourceError as error:
            self._cannot_read(path, str(error))
        for rest in pending.values():
            # No photograph has this size and time, so whatever comes back is new.
            task = _task(rest)._replace(size=-1, mtime=0)
            self._commit([unread(task, "cannot be taken from the archive any more")])

    # Pictures of results that are replaced or gone

    def _remove_replaced(self, result: PhotoResult, drawn: bool, crops: int) -> None:
        """Removes the pictures of an older result that the new one has not overwritten."""
        options = self._options.pictures
        if drawn and (options.draw is None or result.error is not None):
            self._remove(annotated_name(result.name))
        kept = result.faces if options.crops is not None else 0
        self._remove(*(crop_name(result.name, index) for index in range(kept, crops)))

    def _drop_gone(self) -> None:
        """Removes the results with pictures of photographs that no longer exist.

        This comes before the work, because a new photograph may need the name of an old picture.
        """
        if self._unreadable or not self._asked_before():
            return
        for name, faces in self._journal.drop_gone():
            self._remove(annotated_name(name), *(crop_name(name, k) for k in range(faces)))

    def _asked_before(self) -> bool:
        """Whether the last run that ended had the same inputs, so that a missing one is gone."""
        # A list may name others each time.
        listed = any(map(is_list, self._options.inputs))
        return not listed and exports.read_asked(self._folder) == self._asked

    @property
    def _asked(self) -> dict[str, list[str]]:
        options = self._options
        parts = {
            "inputs": options.inputs,
            "include": options.selection.include,
            "exclude": options.selection.exclude,
        }
        return {name: [display_name(given) for given in values] for name, values in parts.items()}

    def _remove(self, *names: str) -> None:
        # A file that cannot be removed stays, and what lies behind a link is no result.
        for name in names:
            with contextlib.suppress(OSError, WriteError):
                result_path(self._folder, name).unlink()

    # Files of results

    def _open_tables(self) -> None:
        """Starts the tables that grow with the job from the journal."""
        self._warnings = sum(map(has_warning, self._journal.records()))
        files = {"errors": ERRORS, "jsonl": FILES["jsonl"], "csv": FILES["csv"]}
        for kind, file in files.items():
            if kind == "errors" or kind in self._options.formats:
                table = GrowingTable(self._own.claim(file), kind)
                table.begin(self._journal.records(), temporary_folder(self._folder))
                self._tables.append(table)
        for name, reason in self._unreadable:
            self._tables[0].add_row(name, reason)

    def export(self) -> dict[str, dict[str, int]]:
        """Writes the files that are made at the end. Returns what each format could not hold."""
        options = self._options
        for name, file in FILES.items():
            if name not in options.formats and (self._folder / file).exists():
                self._notice(
                    f"{file}: of an earlier run, as it was; --format {name} brings it up to date"
                )
        lost = exports.export(
            self._journal, self._folder, self._own, options.formats, options.shard
        )
        if options.sheet:
            from kpipe.batch.contact_sheet import write_sheet

            write_sheet(
                self._folder, self._own, self._journal, options.pipeline, options.pictures,
                options.largest,
            )  # fmt: skip
        return lost

    def result(self, seconds: float, complete: bool, lost: dict[str, dict[str, int]]) -> JobResult:
        totals = self._journal.totals()
        return JobResult(
            totals, self._kept, seconds, complete, len(self._unreadable), lost, self._warnings
        )

    def write_summary(self, result: JobResult) -> None:
        unreadable = [name for name, _ in self._unreadable]
        exports.write_summary(
            self._folder, self._own, result, self._asked, unreadable, self._fingerprint
        )


def _task(pending: Pending) -> Task:
    photo = pending.photo
    return Task(
        pending.id, photo.name, photo.place, None, photo.size, photo.mtime, pending.digest,
        offset=photo.offset,
    )  # fmt: skip


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
