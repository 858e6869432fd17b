"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
