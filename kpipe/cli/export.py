"""`kpipe export`: from a training run to the ONNX file that the other commands use."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def export(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN",
            help="The folder of a training run; or of several that share a beginning "
            "(--start-from), whose weights are averaged.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The ONNX file.")],
    data: Annotated[
        list[Path] | None,
        typer.Option(
            "--data",
            metavar="FOLDER|CSV",
            help="The run's data: sigma, and how labels lie to the face, are calibrated on the "
            "validation part of it, and the ranges of 8-bit numbers are set on the rest.",
        ),
    ] = None,
    negatives: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="The run's photographs without faces: the proposal network needs them for int8.",
        ),
    ] = None,
    precision: Annotated[
        str,
        typer.Option(
            metavar="int8|float", help="Of the convolutions; int8 needs --data. [default: int8]"
        ),
    ] = "",
) -> None:
    """Write the network of a training run as ONNX, calibrated on faces it never saw.

    Several runs that share a beginning, as when some start from another, make one network that is
    more accurate than each at the same cost. Of runs that do not, the mean is of no use at all.
    """
    from kpipe.cli.extras import require

    require("train", "torch", "onnx")

    from kpipe.cli.console import say
    from kpipe.training import proposals
    from kpipe.training.loop import stage_of

    precision = precision or ("int8" if data else "float")
    if precision not in ("int8", "float"):
        raise typer.BadParameter("choose int8 or float", param_hint="--precision")
    int8 = precision == "int8"
    if int8 and not data:
        raise typer.BadParameter("int8 needs the run's --data", param_hint="--precision")
    if stage_of(runs[0]) == proposals.STAGE:
        _export_proposals(runs, data or [], negatives, output, int8)
    else:
        _export_landmarks(runs, data or [], output, int8)
    say(f"{output}: {output.stat().st_size / 1e6:.1f} MB")


def _export_proposals(
    runs: list[Path], data: list[Path], negatives: Path | None, output: Path, int8: bool
) -> None:
    from kpipe.training.prepare import DataFiles
    from kpipe.training.proposals import export_run

    if len(runs) > 1:
        raise typer.BadParameter("takes one run of the proposal network", param_hint="RUN")
    if int8 and negatives is None:
        message = "int8 of the proposal network needs the run's --negatives"
        raise typer.BadParameter(message, param_hint="--precision")
    export_run(runs[0], DataFiles(data, negatives=negatives), output, int8)


def _export_landmarks(runs: list[Path], data: list[Path], output: Path, int8: bool) -> None:
    from kpipe.cli.console import say
    from kpipe.training.export import export_runs

    calibration = export_runs(runs, data, output, int8)
    if calibration is None:
        return
    if calibration.faces:
        say(
            f"calibrated on {calibration.faces} faces: sigma times {calibration.factor:.3f}, "
            f"points moved by {calibration.offset:.3f} pixels of the crop along x"
        )
    else:
        say("not calibrated: that takes --data of which the run held out a part (--validation)")
