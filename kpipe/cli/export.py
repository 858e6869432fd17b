"""`kpipe export`: from a training run to the ONNX file that the other commands use."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from kpipe.training.prepare import DataFiles


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
    detection: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="JSON",
            help="The run's photographs with labeled boxes: the scores of the detection network "
            "are calibrated on the validation part of them.",
        ),
    ] = None,
    negatives: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FOLDER", help="The run's photographs without faces, of a detection network."
        ),
    ] = None,
    exclude: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FOLDER|CSV|JSON", help="What the run left out, of a detection network."
        ),
    ] = None,
    precision: Annotated[
        str,
        typer.Option(
            metavar="int8|float",
            help="Of the convolutions; int8 needs --data, of a detection network --detection. "
            "[default: int8]",
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
    from kpipe.training.detection import RECORDED
    from kpipe.training.loop import stage_of
    from kpipe.training.prepare import DataFiles

    files = DataFiles(data or [], exclude or [], negatives or [], detection or [])
    precision = precision or ("int8" if data or detection else "float")
    if precision not in ("int8", "float"):
        raise typer.BadParameter("choose int8 or float", param_hint="--precision")
    int8 = precision == "int8"
    if stage_of(runs[0]) in RECORDED:
        _export_detection(runs, files, output, int8)
    else:
        _export_landmarks(runs, files, output, int8)
    say(f"{output}: {output.stat().st_size / 1e6:.1f} MB")


def _export_detection(runs: list[Path], files: DataFiles, output: Path, int8: bool) -> None:
    from kpipe.cli.console import say
    from kpipe.training.detection import export_run

    if len(runs) > 1:
        raise typer.BadParameter("takes one run of the detection network", param_hint="RUN")
    if int8 and not files.detection:
        message = "int8 of the detection network needs the run's --detection"
        raise typer.BadParameter(message, param_hint="--precision")
    found = export_run(runs[0], files, output, int8)
    if found.photos:
        say(
            f"scores calibrated on {found.photos} photographs: "
            f"{found.shift:.2f} + {found.scale:.2f} log odds"
        )
    else:
        say("scores not calibrated: that takes --detection with faces that the network detects")


def _export_landmarks(runs: list[Path], files: DataFiles, output: Path, int8: bool) -> None:
    from kpipe.cli.console import say
    from kpipe.training.export import export_runs

    others = {"detection": files.detection, "negatives": files.negatives, "exclude": files.exclude}
    for name, given in others.items():
        if given:
            message = "goes with a run of the detection network alone"
            raise typer.BadParameter(message, param_hint=f"--{name}")
    if int8 and not files.data:
        raise typer.BadParameter("int8 needs the run's --data", param_hint="--precision")
    calibration = export_runs(runs, files.data, output, int8)
    if calibration is None:
        return
    if calibration.faces:
        say(
            f"calibrated on {calibration.faces} faces: sigma times {calibration.factor:.3f}, "
            f"points moved by {calibration.offset:.3f} pixels of the crop along x"
        )
    else:
        say("not calibrated: that takes --data of which the run held out a part (--validation)")
