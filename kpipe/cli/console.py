"""Standard error: messages and errors of one line, progress, a table. Standard output: results.

All text passes `printable` here before it is printed: names of files, cells of tables and messages
of other libraries may hold characters that a terminal obeys.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

from rich.console import Console

from kpipe.utils.files import display_name

if TYPE_CHECKING:
    from rich.console import OverflowMethod
    from rich.table import Table

T = TypeVar("T")

UNBOUNDED = 10_000
"""Width that no table reaches (characters)."""

console = Console(stderr=True, highlight=False, emoji=False)
if not console.is_terminal:
    # In a file or a pipe no row of a table is broken over lines.
    console.width = UNBOUNDED


def printable(text: str) -> str:
    """Any text on one line, with no character that a terminal obeys or that changes its direction:
    controls, line ends, bidirectional overrides and halves of surrogate pairs become escapes.
    """
    return display_name(text)


def say(message: str) -> None:
    """Prints one line to standard error, never wrapped, brackets as they are."""
    console.print(printable(message), markup=False, soft_wrap=True)


def error(message: str) -> None:
    """Prints one line on what went wrong to standard error."""
    say(f"kpipe: {message}")


def progress(items: Iterable[T], total: int | None, what: str, rate: bool = False) -> Iterator[T]:
    """The items; on a terminal with a progress bar, unless there are fewer than two.

    Args:
        items: to work through.
        total: their number, or None if it is not known.
        what: they are.
        rate: whether the bar shows how many are done a second.
    """
    if not console.is_terminal or (total is not None and total < 2):
        yield from items
        return
    # Imported where they are used: a start-up without them is noticeably faster.
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    speed = (TextColumn("{task.fields[rate]:.1f} " + f"{what}/s"),) if rate else ()
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), *speed, TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=total, rate=0.0)
        for item in items:
            yield item
            bar.update(task, advance=1, rate=bar.tasks[task].speed or 0.0)


def table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    """Prints a table to standard error: text in the first column, numbers in the others."""
    console.print(_grid(columns, rows, overflow="fold"), markup=False)


def print_table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    """Prints a table of results to standard output."""
    grid = _grid(columns, rows, overflow="ellipsis")
    Console(width=110, highlight=False).print(grid, markup=False)


def _grid(columns: Iterable[str], rows: Iterable[Iterable[str]], overflow: OverflowMethod) -> Table:
    from rich.table import Table

    grid = Table(box=None, pad_edge=False, header_style="bold")
    for number, name in enumerate(columns):
        grid.add_column(
            printable(name), justify="left" if number == 0 else "right", overflow=overflow
        )
    for row in rows:
        grid.add_row(*map(printable, row))
    return grid
