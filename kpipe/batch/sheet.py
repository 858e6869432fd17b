"""A contact sheet: a page of small pictures to see at a glance how a job went."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image, ImageDraw

from kpipe.batch.journal import Journal
from kpipe.batch.local import LocalEngine
from kpipe.batch.work import TILE, Settings, Task
from kpipe.media.images import shown, write_file

COLUMNS, ROWS = 8, 8
GAP, CAPTION = 8, 16
PAPER, INK = (250, 250, 250), (60, 60, 60)


def write_sheet(path: Path, journal: Journal, settings: Settings) -> None:
    """Draws some photographs with faces, spread evenly over all, with what was found in them.

    Raises:
        ImageError: the file cannot be written.
    """
    tasks = [
        Task(-1, photo.name, photo.place, None, photo.size, photo.mtime, None, record)
        for photo, record in journal.sample(COLUMNS * ROWS)
    ]
    tiles: dict[str, bytes] = {}
    # In a worker: a photograph can need any time and memory here too.
    with LocalEngine(settings, workers=min(2, max(len(tasks), 1))) as engine:
        for batch in engine.run(iter(tasks)):
            tiles |= {task.name: tile for task, tile in batch if isinstance(tile, bytes)}
    rows = max(-(-len(tiles) // COLUMNS), 1)
    columns = max(min(len(tiles), COLUMNS), 1)
    cell = (TILE + GAP, TILE + GAP + CAPTION)
    sheet = Image.new("RGB", (columns * cell[0] + GAP, rows * cell[1] + GAP), PAPER)
    draw = ImageDraw.Draw(sheet)
    for place, name in enumerate(sorted(tiles)):
        x, y = (GAP + n * side for n, side in zip((place % COLUMNS, place // COLUMNS), cell))
        with Image.open(io.BytesIO(tiles[name])) as tile:
            sheet.paste(tile, (x + (TILE - tile.width) // 2, y + (TILE - tile.height) // 2))
        draw.text((x, y + TILE + 2), _short(shown(name)), INK)
    content = io.BytesIO()
    sheet.save(content, "JPEG", quality=90)
    write_file(path, content.getvalue())


def _short(name: str) -> str:
    """The end of a name, as much as fits under a tile."""
    text = name.encode("ascii", "replace").decode()
    return text if len(text) <= 31 else "..." + text[-28:]
