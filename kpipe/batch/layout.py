"""Names of the files and folders in a results folder."""

from __future__ import annotations

from pathlib import Path

from kpipe.formats.records import inside

STATE, ANNOTATED, CROPS, POINTS, SHEET = ".kpipe", "annotated", "crops", "pts", "sheet.jpg"


RESULTS = (STATE, ANNOTATED, CROPS, POINTS, SHEET)
"""Entries of a results folder that a scan must not mistake for photographs."""


JOURNAL = f"{STATE}/journal.sqlite"
"""The database of the job; a folder with it is a results folder."""


SUMMARY, ERRORS = "summary.json", "errors.csv"


FILES = {
    "jsonl": "faces.jsonl",
    "csv": "faces.csv",
    "parquet": "faces.parquet",
    "coco": "faces.json",
    "pts": POINTS,
}
"""The file, or folder, of each format."""


def temporary_folder(results: Path) -> Path:
    """Where files are written before they take their places; emptied when a job starts."""
    return results / STATE / "tmp"


def annotated_name(name: str) -> str:
    """The annotated picture of a photograph: same tree, same format if kpipe can write it."""
    from kpipe.media.images import can_write

    path = f"{ANNOTATED}/{inside(name)}"
    return path if can_write(Path(path).suffix) else f"{path}_annotated.jpg"


def crop_name(name: str, index: int) -> str:
    """The crop of one face (index from 0) of a photograph."""
    return f"{CROPS}/{inside(name)}_{index + 1}.jpg"
