"""`kpipe export`: from a training run to the ONNX file that the other commands use."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a training run.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The ONNX file.")],
    data: Annotated[
        list[Path] | None,
        typer.Option(
            "--data",
            metavar="FOLDER|CSV",
            help="The run's data: sigma is calibrated on the validation part of it.",
        ),
    ] = None,
) -> None:
    """Write the network of a training run as ONNX, its sigma calibrated on faces it never saw."""
    from kpipe.cli.extras import require

    require("train", "torch", "onnx")

    from kpipe.cli.report import say
    from kpipe.datasets import held_out, read_samples
    from kpipe.training.export import calibrate
    from kpipe.training.export import export as write
    from kpipe.training.train import load_faces, load_run

    network, settings = load_run(run)
    share = settings["validation"]
    samples = [
        sample
        for part in data or []
        for sample in read_samples(part)
        if sample.source == network.sources[0] and held_out(sample.group, share)
    ]
    faces = load_faces(samples, share).validation
    calibration = calibrate(network, faces)
    write(network, output, calibration, {"kpipe.run": f"{settings}"})
    if faces:
        say(f"sigma calibrated on {len(faces)} faces: {calibration}")
    else:
        say("sigma is not calibrated: give the run's --data")
    say(f"{output}: {output.stat().st_size / 1e6:.1f} MB")
