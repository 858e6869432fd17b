"""The entries of a results folder: their names, their paths, and which of them are the job's."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kpipe.errors import BatchError, WriteError, reason_of
from kpipe.formats.records import inside
from kpipe.utils.files import display_name, write_file

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


NAMES = (*FILES.values(), ANNOTATED, CROPS, SHEET, SUMMARY, ERRORS)
"""The entries of a results folder that users see."""


OWN = f"{STATE}/results.json"
"""Which of `NAMES` a job has made, with the sizes that those files may have."""


def temporary_folder(results: Path) -> Path:
    """Where files are written before they take their places; emptied when a job starts."""
    return results / STATE / "tmp"


def temporary_file(results: Path) -> Path:
    """A new name in `temporary_folder`, which cannot be guessed."""
    return temporary_folder(results) / secrets.token_hex(8)


def result_path(results: Path, name: str) -> Path:
    """Where a result goes, checked: to be called at the moment of writing.

    Args:
        results: the results folder.
        name: of the result, with `/` between its parts: one of the names in this module.

    Raises:
        WriteError: the name would lead out of the folder, or a link in its path leads elsewhere.
    """
    path = results / name
    *folders, last = name.split("/")
    if {"", ".", ".."} & {*folders, last} or "\0" in name:
        raise WriteError(f"{display_name(path)}: not the name of a result")
    if Path(os.path.realpath(path.parent)) != Path(os.path.realpath(results), *folders):
        raise WriteError(
            f"{display_name(path)}: not written, because a folder in its path is a link; remove it "
            "or choose another folder for the results"
        )
    return path


def annotated_name(name: str) -> str:
    """The annotated picture of a photograph: same tree, same format if kpipe can write it."""
    from kpipe.media.images import can_write

    path = f"{ANNOTATED}/{inside(name)}"
    return path if can_write(Path(path).suffix) else f"{path}_annotated.jpg"


def crop_name(name: str, index: int) -> str:
    """The crop of one face (index from 0) of a photograph."""
    return f"{CROPS}/{inside(name)}_{index + 1}.jpg"


class OwnResults:
    """The entries of a results folder that its job has made. Nothing else is ever replaced.

    Args:
        folder: of the results; made if it is not there.

    Raises:
        BatchError: the folder holds files of these names that are no results, or cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._sizes: dict[str, list[int]] = {}
        state = folder / STATE
        with self._errors(folder):
            new = not os.path.lexists(state)
            for name in NAMES if new else ():
                if os.path.lexists(folder / name):
                    raise self._foreign(name)
            state.mkdir(parents=True, exist_ok=True)
            for link in (state, folder / JOURNAL, temporary_folder(folder)):
                if link.is_symlink():
                    raise BatchError(
                        f"{display_name(link)}: a link; choose another folder for the results"
                    )
            temporary_folder(folder).mkdir(exist_ok=True)
            if new:
                self._save()

    def load(self) -> None:
        """Reads which entries are ours. Only the job with the open journal does so.

        Raises:
            BatchError, WriteError: the folder cannot be read or written.
        """
        with self._errors(self._folder):
            self._sizes = self._read()
            self._save()

    def _read(self) -> dict[str, list[int]]:
        path = result_path(self._folder, OWN)
        try:
            sizes = json.loads(path.read_bytes())
            return {
                name: [int(size) for size in sizes[name]]
                for name in NAMES
                # What the user has removed is no longer ours.
                if name in sizes and os.path.lexists(self._folder / name)
            }
        except FileNotFoundError:
            # A folder of an earlier version: all files of these names are results.
            return {name: [] for name in NAMES if os.path.lexists(self._folder / name)}
        except (ValueError, TypeError, RecursionError):
            raise BatchError(
                f"{display_name(path)}: damaged; remove it if {', '.join(NAMES)} in this folder "
                "are all results of kpipe batch"
            ) from None

    def _save(self) -> None:
        content = json.dumps(self._sizes).encode()
        write_file(result_path(self._folder, OWN), content, temporary_file(self._folder))

    def check(self, name: str) -> Path:
        """The path of one of `NAMES` that may be written now: it is new, or was made by the job.

        Raises:
            BatchError: there is something else.
            WriteError: see `result_path`.
        """
        path = result_path(self._folder, name)
        if os.path.lexists(path):
            sizes = self._sizes.get(name)
            if sizes is None or path.is_symlink():
                raise self._foreign(name)
            if sizes and (not path.is_file() or path.stat().st_size not in sizes):
                raise BatchError(
                    f"{display_name(path)}: has changed since kpipe batch wrote it; move it away"
                )
        return path

    def claim(self, name: str) -> Path:
        """As `check`, for a file or folder that the job fills itself.

        Raises:
            BatchError, WriteError: see `check`.
        """
        path = self.check(name)
        if self._sizes.get(name) != []:
            self._sizes[name] = []
            self._save()
        return path

    def place(self, fresh: Path, name: str) -> None:
        """Moves a completed file or folder to its place.

        Args:
            fresh: on the same disk.
            name: one of `NAMES`.

        Raises:
            BatchError, WriteError: see `check`, or it cannot be moved.
        """
        path = self.check(name)
        with self._errors(path):
            # Should this be interrupted, the older size is right.
            sizes = [fresh.stat().st_size] if fresh.is_file() else []
            self._sizes[name] = [*self._sizes.get(name, [])[-1:], *sizes] if sizes else []
            self._save()
            if path.is_dir():
                shutil.rmtree(path)
            elif fresh.is_dir():
                path.unlink(missing_ok=True)
            fresh.replace(path)

    def _foreign(self, name: str) -> BatchError:
        return BatchError(
            f"{display_name(self._folder / name)}: exists and is no result of kpipe batch; move it "
            "away, or choose another folder for the results"
        )

    @contextmanager
    def _errors(self, path: Path) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            name = display_name(path)
            raise BatchError(f"{name}: cannot be written ({reason_of(error)})") from None
