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
    from kpipe.datasets import read_samples
    from kpipe.networks.stages import STAGES
    from kpipe.training.export import calibrate, sample_crops
    from kpipe.training.export import export as write
    from kpipe.training.landmarks import load_faces, load_run, mean_network

    precision = precision or ("int8" if data else "float")
    if precision not in ("int8", "float"):
        raise typer.BadParameter("choose int8 or float", param_hint="--precision")
    if precision == "int8" and not data:
        raise typer.BadParameter("int8 needs the run's --data", param_hint="--precision")
    loaded = [load_run(run) for run in runs]
    settings = loaded[0][1]
    if any(other["stage"] != settings["stage"] for _, other in loaded):
        raise typer.BadParameter("these are runs of different stages", param_hint="RUN")
    stage = STAGES[settings["stage"]]
    network = mean_network([network for network, _ in loaded])
    samples = [
        sample
        for part in data or []
        for sample in read_samples(part)
        if sample.source == network.sources[0]
    ]
    # What none of the runs saw.
    split = load_faces(samples, min(other["validation"] for _, other in loaded))
    if precision == "int8" and not split.training:
        wanted = f"none of the run's training faces ({network.sources[0]}) in it"
        raise typer.BadParameter(wanted, param_hint="--data")
    faces = split.validation if stage.points else []
    calibration = calibrate(network, stage, faces)
    crops = sample_crops(stage, split.training) if precision == "int8" else None
    write(network, stage, output, calibration, {"kpipe.run": f"{[s for _, s in loaded]}"}, crops)
    if faces:
        say(f"calibrated on {len(faces)} faces: {calibration}")
    elif stage.points:
        say("not calibrated: that takes --data of which the run held out a part (--validation)")
    say(f"{output}: {output.stat().st_size / 1e6:.1f} MB")
