"""Commands that need more than the basic installation."""

from __future__ import annotations

from importlib.util import find_spec

import typer


def require(extra: str, *packages: str) -> None:
    """Stops with one line if a package of an extra is not installed."""
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        typer.echo(
            f"kpipe: this command needs {', '.join(missing)}: pip install 'kpipe[{extra}]'",
            err=True,
        )
        raise typer.Exit(2)
