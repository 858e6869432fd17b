"""Options that several commands have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer


def one_of(*choices: str) -> Callable[[str | None], str | None]:
    """The callback of an option with few values.

    Raises:
        typer.BadParameter: another value is given.
    """

    def check(value: str | None) -> str | None:
        if value is not None and value not in choices:
            raise typer.BadParameter(f"choose {' or '.join(choices)}")
        return value

    return check


SMALLEST = "Smallest face looked for: in pixels, or below 1 as a share of the longer side."

MinFace = Annotated[float, typer.Option(min=0.005, max=1e6, help=SMALLEST)]
DetectorsMinFace = Annotated[
    float | None,
    typer.Option(
        min=0.005, max=1e6, help=SMALLEST, show_default="1/80, with another --detector 1/40"
    ),
]
Tilt = Annotated[
    str,
    typer.Option(metavar="any|upright", help="Whether to look for heads that lean or lie."),
]
Model = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Another network, from kpipe export.")
]
