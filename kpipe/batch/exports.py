"""The files that are made from the journal when a job ends."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import chain, islice
from pathlib import Path

from kpipe import __version__
from kpipe.batch.journal import Journal
from kpipe.batch.layout import FILES, SUMMARY, OwnResults, temporary_file, temporary_folder
from kpipe.batch.tables import KINDS
from kpipe.batch.types import JobResult
from kpipe.formats import Record, load_format
from kpipe.formats.records import checked_record
from kpipe.utils.files import display_name, write_file


def export(
    journal: Journal, results: Path, own: OwnResults, formats: tuple[str, ...], shard: int
) -> dict[str, dict[str, int]]:
    """Writes the formats that cannot grow with the job: all but JSON Lines and CSV.

    Args:
        journal: of the job.
        results: the results folder.
        own: its entries.
        formats: keys of `kpipe.batch.layout.FILES`.
        shard: photographs in one Parquet file; 0 for one file of all.

    Returns:
        What each format could not hold and how often.

    Raises:
        BatchError, FormatError, WriteError: a file cannot be written.
    """
    lost = {}
    for name in formats:
        if name in KINDS:
            continue
        # A file or folder is completed elsewhere and then takes the place of the old one.
        fresh = temporary_folder(results) / FILES[name]
        records = _records(journal)
        if name == "pts" or (name == "parquet" and shard):
            lost[name] = _write_folder(name, fresh, records, shard)
            fresh.mkdir(parents=True, exist_ok=True)
        else:
            lost[name] = load_format(name).write(fresh, records)
        own.place(fresh, FILES[name])
    return lost


def _records(journal: Journal) -> Iterator[Record]:
    for line in journal.records():
        record = json.loads(line)
        name = display_name(record["image"])
        yield checked_record(record, f"the record of {name} in the journal")


def _write_folder(name: str, folder: Path, records: Iterator[Record], shard: int) -> dict[str, int]:
    format_ = load_format(name)
    if name == "pts":
        return format_.write(folder, records)
    for number, first in enumerate(records):
        part = chain([first], islice(records, shard - 1))
        format_.write(folder / f"part-{number:05d}.parquet", part)
    return {}


def write_summary(
    results: Path,
    own: OwnResults,
    result: JobResult,
    asked: Mapping[str, list[str]],
    unreadable: list[str],
    options: Mapping[str, object],
) -> None:
    """Writes `summary.json`: counts, options, speed.

    Args:
        results: the results folder.
        own: its entries.
        result: of the job.
        asked: the inputs and patterns, as the user gave them.
        unreadable: names of folders, lists and archives that could not be read.
        options: see `PipelineOptions.fingerprint`.

    Raises:
        WriteError: the file cannot be written.
    """
    totals = result.totals
    now = totals.done - result.kept
    summary = {
        "kpipe": __version__,
        "complete": result.complete and not unreadable,
        **asked,
        "photographs": totals.photographs,
        "done": totals.done,
        "faces": totals.faces,
        "without_face": totals.faceless,
        "errors": totals.errors,
        "unreadable": [display_name(name) for name in unreadable],
        "done_by_this_run": now,
        "seconds": round(result.seconds, 2),
        "photographs_per_second": round(now / result.seconds, 2) if result.seconds else 0,
        "options": options,
    }
    content = (json.dumps(summary, indent=1) + "\n").encode()
    write_file(own.claim(SUMMARY), content, temporary_file(results))


def read_asked(results: Path) -> dict[str, object]:
    """The inputs and patterns of the last run that ended; empty if there is none."""
    try:
        summary = json.loads((results / SUMMARY).read_bytes())
        return {name: summary.get(name) for name in ("inputs", "include", "exclude")}
    except (OSError, ValueError, AttributeError, RecursionError):
        return {}
