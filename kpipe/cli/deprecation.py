"""Options of version 0.1 that have another name now. They work for one release more."""

from __future__ import annotations


def renamed(old: str, new: str) -> None:
    """Says on standard error that an option or command has a new name."""
    from kpipe.cli.console import error

    error(f"DeprecationWarning: {old} is now {new}")
