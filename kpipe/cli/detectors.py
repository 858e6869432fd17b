"""The detector that a command's options name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from kpipe.detector import Detector

MIN_FACE = 0.025
UPRIGHT_ROLL = 45.0
"""Degrees up to which a head counts as upright."""


def make_detector(
    name: str, min_face: float = MIN_FACE, tilt: str = "any", cascades: Path | None = None
) -> Detector:
    """The detector of that name: `proposals`, `haar`, or a YuNet file that ends in .onnx.

    Raises:
        typer.BadParameter: there is none.
    """
    from kpipe.detector import LEANING, LYING, UPRIGHT, HaarDetector
    from kpipe.proposals import ProposalDetector
    from kpipe.yunet import YuNetDetector

    if tilt not in ("any", "upright"):
        raise typer.BadParameter("choose any or upright", param_hint="--tilt")
    if name == "haar" or cascades is not None:
        views = UPRIGHT + LEANING + LYING if tilt == "any" else UPRIGHT
        return HaarDetector(views, min_face=min_face, folder=cascades)
    if name == "proposals":
        roll = 180.0 if tilt == "any" else UPRIGHT_ROLL
        return ProposalDetector(min_face=min_face, max_roll=roll)
    if name.endswith(".onnx"):
        return YuNetDetector(Path(name), min_face=min_face)
    raise typer.BadParameter(
        "choose proposals, haar or a YuNet .onnx file", param_hint="--detector"
    )
