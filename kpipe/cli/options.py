"""Options that several commands have, and the one place where their choices are checked.

A wrong choice is a usage error: one line that names the option, and exit code 2.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ParamSpec, TypeVar

import typer

if TYPE_CHECKING:
    from kpipe.structures.style import Style

P = ParamSpec("P")
T = TypeVar("T")


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


def checked(option: str, make: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What `make` returns; its ValueError becomes a usage error of the option."""
    try:
        return make(*args, **kwargs)
    except ValueError as problem:
        raise typer.BadParameter(str(problem), param_hint=option) from None


def style_of(draw: str) -> Style:
    """The style of a --draw option that has been checked."""
    from kpipe.structures.style import Style

    return Style(tuple(part for part in draw.split(",") if part))


def text(path: Path | None) -> str | None:
    """An optional path as `kpipe.options` takes it."""
    return None if path is None else str(path)


def _check_draw(draw: str) -> str:
    try:
        style_of(draw)
    except ValueError as problem:
        raise typer.BadParameter(str(problem)) from None
    return draw


def _check_detector(detector: str) -> str:
    if detector not in ("proposals", "haar") and not detector.endswith(".onnx"):
        raise typer.BadParameter("choose proposals, haar or a YuNet .onnx file")
    return detector


MIN_FACE = (
    "Smallest face to look for: in pixels, or below 1 as a share of the longer side (in panoramas, "
    "of twice the shorter side)."
)

Force = Annotated[bool, typer.Option("--force", "-f", help="Replace results that exist.")]
Draw = Annotated[
    str,
    typer.Option(
        metavar="PARTS",
        callback=_check_draw,
        help="What to draw: any of boxes,lines,points,numbers,index.",
    ),
]
PhotoJson = Annotated[
    str | None, typer.Option(metavar="FILE|-", help="Faces as JSON, one line a photograph.")
]
FrameJson = Annotated[
    str | None, typer.Option(metavar="FILE|-", help="Faces as JSON, one line a frame.")
]
MinScore = Annotated[float, typer.Option(min=0.0, max=1.0, help="Minimum face confidence, 0-1.")]
NewFaceMinScore = Annotated[
    float, typer.Option(min=0.0, max=1.0, help="Minimum confidence of a new face, 0-1.")
]
MinFace = Annotated[float, typer.Option(min=0.005, max=1e6, help=MIN_FACE)]
DetectorsMinFace = Annotated[
    float | None,
    typer.Option(
        min=0.005, max=1e6, help=MIN_FACE, show_default="1/80, with another --detector 1/40"
    ),
]
Tilt = Annotated[
    str,
    typer.Option(
        metavar="any|upright",
        callback=one_of("any", "upright"),
        help="Which heads to look for: any, or none that lean by more than 45 degrees.",
    ),
]
Detector = Annotated[
    str,
    typer.Option(
        metavar="proposals|haar|FILE",
        callback=_check_detector,
        help="What finds the candidates: a small network, OpenCV's Haar cascades, or a YuNet "
        ".onnx file.",
    ),
]
Cascades = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="Cascade files under OpenCV's names, used in place of its own; means --detector haar.",
    ),
]
SchemeName = Annotated[
    str,
    typer.Option(
        "--scheme",
        metavar="ibug68|kaggle15",
        callback=one_of("ibug68", "kaggle15"),
        help="The 68 points, or Kaggle's 15 named ones.",
    ),
]
Model = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Another landmark network, from kpipe export."),
]
Raw = Annotated[
    bool, typer.Option("--raw", help="Points as the network predicts them, unfiltered.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors alone.")]
