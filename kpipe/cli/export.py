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
            help="The folder of a training run. Of several, each begun with the weights of another "
            "of them (--start-from), the mean of their weights is taken.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The ONNX file.")],
    data: Annotated[
        list[Path] | None,
        typer.Option(
            "--data",
            metavar="FOLDER|CSV",
            help="The run's data: sigma is calibrated on the validation part of it, and the ranges "
            "of 8-bit numbers are set on the rest.",
        ),
    ] = None,
    precision: Annotated[
        str,
        typer.Option(
            metavar="int8|float", help="Of the convolutions; int8 needs --data. [default: int8]"
        ),
    ] = "",
) -> None:
    """Write the network of a training run as ONNX, its sigma calibrated on faces it never saw.

    Several runs that began with the same weights make one network, the mean of theirs, that is more
    accurate than each at the same cost.
    """
    from kpipe.cli.extras import require

    require("train", "torch", "onnx")

    from kpipe.cli.report import say
    from kpipe.datasets import read_samples
    from kpipe.training.export import calibrate, sample_crops
    from kpipe.training.export import export as write
    from kpipe.training.looks import LOOKS
    from kpipe.training.train import load_faces, load_run, mean_network

    precision = precision or ("int8" if data else "float")
    if precision not in ("int8", "float"):
        raise typer.BadParameter("choose int8 or float", param_hint="--precision")
    if precision == "int8" and not data:
        raise typer.BadParameter("int8 needs the run's --data", param_hint="--precision")
    loaded = [load_run(run) for run in runs]
    settings = loaded[0][1]
    if len({(other["look"], other["size"]) for _, other in loaded}) > 1:
        raise typer.BadParameter("of different looks or sizes: no mean of theirs is of use")
    network = mean_network([network for network, _ in loaded])
    share = settings["validation"]
    samples = [
        sample
        for part in data or []
        for sample in read_samples(part)
        if sample.source == network.sources[0]
    ]
    split = load_faces(samples, share)
    faces = split.validation
    look = LOOKS[settings["look"]]
    calibration = calibrate(network, look, faces)
    crops = sample_crops(look, split.training) if precision == "int8" else None
    write(network, look, output, calibration, {"kpipe.run": f"{[s for _, s in loaded]}"}, crops)
    if faces:
        say(f"sigma calibrated on {len(faces)} faces: {calibration}")
    else:
        say("sigma is not calibrated: give the run's --data")
    say(f"{output}: {output.stat().st_size / 1e6:.1f} MB")
