"""A contact sheet: one picture with thumbnails of a sample of the photographs."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw

from kpipe.batch.archives import open_archive
from kpipe.batch.engines.local import LocalEngine
from kpipe.batch.journal import Journal
from kpipe.batch.layout import SHEET, OwnResults, temporary_file, temporary_folder
from kpipe.batch.reading import LARGEST_FILE
from kpipe.batch.types import InputPhoto, PictureOptions, Task
from kpipe.batch.worker import THUMBNAIL
from kpipe.errors import ReadError, SourceError
from kpipe.utils.files import display_name, write_file

if TYPE_CHECKING:
    from kpipe.options import PipelineOptions

COLUMNS, ROWS = 8, 8
GAP, CAPTION = 8, 16
"""Pixels between thumbnails, and for the name under each."""


CAPTION_LETTERS = 31
"""Letters that fit under a thumbnail."""


PAPER, INK = (250, 250, 250), (60, 60, 60)


def write_sheet(
    results: Path,
    own: OwnResults,
    journal: Journal,
    pipeline: PipelineOptions,
    pictures: PictureOptions,
    largest: int = LARGEST_FILE,
) -> None:
    """Draws photographs with faces, spread evenly over the job, with their boxes and landmarks.

    Args:
        results: the results folder.
        own: its entries.
        journal: of the job, with all results.
        pipeline, pictures, largest: those of the job.

    Raises:
        EngineError: workers do not start.
        BatchError, WriteError: the file cannot be written.
    """
    sample = journal.sample(COLUMNS * ROWS)
    thumbnails: dict[str, bytes] = {}
    # In workers, because here too a photograph can need any time and memory.
    workers = min(2, max(len(sample), 1))
    with LocalEngine(pipeline, pictures, workers, largest=largest) as engine:
        for batch in engine.run(_tasks(sample, temporary_folder(results), largest)):
            thumbnails |= {task.name: jpeg for task, jpeg in batch if isinstance(jpeg, bytes)}
            for task, _ in batch:
                if task.saved is not None:
                    Path(task.saved).unlink(missing_ok=True)
    content = io.BytesIO()
    _arrange(thumbnails).save(content, "JPEG", quality=90)
    fresh = temporary_file(results)
    write_file(fresh, content.getvalue())
    own.place(fresh, SHEET)


def _arrange(thumbnails: dict[str, bytes]) -> Image.Image:
    """The sheet: thumbnails in rows, by name, each centered in its cell above its name."""
    rows = max(-(-len(thumbnails) // COLUMNS), 1)
    columns = max(min(len(thumbnails), COLUMNS), 1)
    width, height = THUMBNAIL + GAP, THUMBNAIL + GAP + CAPTION
    sheet = Image.new("RGB", (columns * width + GAP, rows * height + GAP), PAPER)
    draw = ImageDraw.Draw(sheet)
    for place, name in enumerate(sorted(thumbnails)):
        row, column = divmod(place, COLUMNS)
        x, y = GAP + column * width, GAP + row * height
        with Image.open(io.BytesIO(thumbnails[name])) as picture:
            left, top = (THUMBNAIL - picture.width) // 2, (THUMBNAIL - picture.height) // 2
            sheet.paste(picture, (x + left, y + top))
        draw.text((x, y + THUMBNAIL + 2), _caption(name), INK)
    return sheet


def _tasks(sample: Sequence[tuple[InputPhoto, str]], folder: Path, largest: int) -> Iterator[Task]:
    """A thumbnail's task for each photograph and its record.

    Args:
        sample: photographs with their records.
        folder: of temporary files, for members of archives that have no place.
        largest: bytes of a photograph's file at most.
    """
    archives: dict[str, dict[str, Task]] = {}
    for photo, record in sample:
        task = Task(
            -1, photo.name, photo.place, None, photo.size, photo.mtime, None, record, photo.offset
        )
        if photo.member is None or photo.offset is not None:
            yield task
        else:
            archives.setdefault(photo.place, {})[photo.member] = task
    for path, tasks in archives.items():
        # A photograph that can no longer be read is left out.
        with contextlib.suppress(SourceError), open_archive(path) as members:
            for member in members:
                if member.name in tasks:
                    with contextlib.suppress(ReadError):
                        saved = member.save(folder, largest)
                        yield tasks.pop(member.name)._replace(saved=str(saved))


def _caption(name: str) -> str:
    """The end of a name, as much as fits under a thumbnail."""
    text = display_name(name).encode("ascii", "replace").decode()
    return text if len(text) <= CAPTION_LETTERS else "..." + text[3 - CAPTION_LETTERS :]
