"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

MinFace = Annotated[
    float,
    typer.Option(
        min=0.005,
        help="Smallest face looked for: in pixels, or below 1 as a share of the longer side.",
    ),
]
Tilt = Annotated[
    str,
    typer.Option(metavar="any|upright", help="Whether to look for heads that lean or lie."),
]
Model = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Another network, from kpipe export.")
]
