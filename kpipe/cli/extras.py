"""Packages that only some commands need, installed as extras."""

from __future__ import annotations

from importlib.util import find_spec

import typer


def require(extra: str, *packages: str) -> None:
    """Ends the program with one line and exit code 2 if a package of an extra is missing."""
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        typer.echo(
            f"kpipe: this command needs {', '.join(missing)}: pip install 'kpipe[{extra}]'",
            err=True,
        )
        raise typer.Exit(2)
