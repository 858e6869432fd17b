"""What the commands say on standard error: progress, a table, errors of one line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console

T = TypeVar("T")

console = Console(stderr=True, highlight=False, emoji=False)


def say(message: str) -> None:
    """One line, never wrapped, whatever brackets are in it."""
    console.print(message, markup=False, soft_wrap=True)


def error(message: str) -> None:
    """One line about something that went wrong."""
    say(f"kpipe: {message}")


def progress(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    """The items, with a progress bar where someone is there to see it and it is worth it."""
    if total < 2 or not console.is_terminal:
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

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        yield from progress.track(items, total)


def table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    """A table; the first column is text, the others are numbers, all shown whole."""
    from rich.table import Table

    grid = Table(box=None, pad_edge=False, header_style="bold")
    for number, name in enumerate(columns):
        grid.add_column(name, justify="left" if number == 0 else "right", overflow="fold")
    for row in rows:
        grid.add_row(*row)
    console.print(grid, markup=False)


def print_table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    """A table of results on standard output."""
    from rich.table import Table

    grid = Table(box=None, pad_edge=False, header_style="bold")
    for number, name in enumerate(columns):
        grid.add_column(name, justify="left" if number == 0 else "right")
    for row in rows:
        grid.add_row(*row)
    Console(width=110, highlight=False).print(grid, markup=False)
