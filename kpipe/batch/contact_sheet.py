"""A contact sheet: a page of small pictures to see at a glance how a job went."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from kpipe.batch.engines.local import LocalEngine
from kpipe.batch.journal import Journal
from kpipe.batch.sources import InputPhoto, open_archive
from kpipe.batch.worker import THUMBNAIL, Settings, Task
from kpipe.errors import ReadError, SourceError
from kpipe.utils.files import display_name, write_file

COLUMNS, ROWS = 8, 8
GAP, CAPTION = 8, 16
PAPER, INK = (250, 250, 250), (60, 60, 60)


def write_sheet(path: Path, journal: Journal, settings: Settings) -> None:
    """Draws some photographs with faces, spread evenly over all, with what was found in them.

    Raises:
        ImageError: the file cannot be written.
    """
    chosen = journal.sample(COLUMNS * ROWS)
    tiles: dict[str, bytes] = {}
    # In a worker: a photograph can need any time and memory here too.
    with LocalEngine(settings, workers=min(2, max(len(chosen), 1))) as engine:
        for batch in engine.run(_tasks(chosen)):
            tiles |= {task.name: tile for task, tile in batch if isinstance(tile, bytes)}
    rows = max(-(-len(tiles) // COLUMNS), 1)
    columns = max(min(len(tiles), COLUMNS), 1)
    cell = (THUMBNAIL + GAP, THUMBNAIL + GAP + CAPTION)
    sheet = Image.new("RGB", (columns * cell[0] + GAP, rows * cell[1] + GAP), PAPER)
    draw = ImageDraw.Draw(sheet)
    for place, name in enumerate(sorted(tiles)):
        x, y = (GAP + n * side for n, side in zip((place % COLUMNS, place // COLUMNS), cell))
        with Image.open(io.BytesIO(tiles[name])) as tile:
            sheet.paste(
                tile, (x + (THUMBNAIL - tile.width) // 2, y + (THUMBNAIL - tile.height) // 2)
            )
        draw.text((x, y + THUMBNAIL + 2), _short(display_name(name)), INK)
    content = io.BytesIO()
    sheet.save(content, "JPEG", quality=90)
    write_file(path, content.getvalue())


def _tasks(chosen: Sequence[tuple[InputPhoto, str]]) -> Iterator[Task]:
    """What is to be drawn: each photograph with its record; those in archives with their bytes."""
    archives: dict[str, dict[str, Task]] = {}
    for photo, record in chosen:
        task = Task(-1, photo.name, photo.place, None, photo.size, photo.mtime, None, record)
        if photo.member is None:
            yield task
        else:
            archives.setdefault(photo.place, {})[photo.member] = task
    for path, wanted in archives.items():
        # What cannot be read any more is left out.
        with contextlib.suppress(SourceError), open_archive(path) as archive:
            for member in archive:
                if member.name in wanted:
                    with contextlib.suppress(ReadError):
                        yield wanted[member.name]._replace(content=member.read())


def _short(name: str) -> str:
    """The end of a name, as much as fits under a tile."""
    text = name.encode("ascii", "replace").decode()
    return text if len(text) <= 31 else "..." + text[-28:]
