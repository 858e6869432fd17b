"""Packages that only some commands need, installed as extras."""

from __future__ import annotations

from importlib.util import find_spec

import typer


def require(extra: str, *packages: str) -> None:
    """Ends the program with one line and exit code 2 if a package of an extra is missing."""
    from kpipe.cli.console import error

    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        error(f"this command needs {', '.join(missing)}: pip install 'kpipe[{extra}]'")
        raise typer.Exit(2)
