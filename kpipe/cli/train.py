"""`kpipe train`: a network of one's own from labelled faces."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from kpipe.structures.detections import Detections


def train(
    context: typer.Context,
    data: Annotated[
        list[Path],
        typer.Option(
            "--data",
            metavar="FOLDER|CSV",
            help="Pictures with .pts files, or a YouTube Faces keypoint CSV; may be repeated. Of "
            "kaggle15, a training.csv.",
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="Of the run; resumes there.")
    ],
    scheme: Annotated[
        str,
        typer.Option(metavar="ibug68|kaggle15", help="The 68 points, or Kaggle's 15 named ones."),
    ] = "ibug68",
    arch: Annotated[
        str | None,
        typer.Option(help="Of kaggle15: heatmap, or a baseline: naimishnet, five-conv, dense."),
    ] = None,
    negatives: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Photographs without any face.")
    ] = None,
    exclude: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FOLDER|CSV",
            help="Labelled faces to be measured on later: copies of them in the data are left out.",
        ),
    ] = None,
    negative_share: Annotated[
        float, typer.Option(min=0.0, max=0.9, help="Share of the crops that show no face.")
    ] = 0.12,
    stage: Annotated[
        str,
        typer.Option(
            help="Which network: refine, the accurate landmarks; coarse, the face score and rough "
            "landmarks in a detector's boxes; classifier, the face score that rejects most boxes."
        ),
    ] = "refine",
    start_from: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="RUN",
            help="Begin with the weights of another run's network; repeated, with the mean of "
            "several, as kpipe export has it.",
        ),
    ] = None,
    relabel_by: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="Labels that follow another scheme than 300-W's are replaced by what another "
            "run's network, which has learned both, makes of them.",
        ),
    ] = None,
    size: Annotated[str, typer.Option(help="nano, tiny, small, medium or large.")] = "medium",
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps.")] = 20_000,
    batch: Annotated[int, typer.Option(min=2, help="Crops a step.")] = 64,
    learning_rate: Annotated[float, typer.Option(min=0.0, help="Peak learning rate.")] = 2e-3,
    validation: Annotated[
        float, typer.Option(min=0.0, max=0.9, help="Share of the photographs or persons kept out.")
    ] = 0.05,
    label_offset: Annotated[
        float,
        typer.Option(
            help="How far the labels lie to the right of where the pictures have the points, in "
            "sides of the landmarks' square: mirrored, they still do."
        ),
    ] = 0.0,
    seed: Annotated[int, typer.Option(help="Repeats a run.")] = 0,
    workers: Annotated[int, typer.Option(min=0, help="Processes that make crops.")] = 2,
    checkpoint_every: Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")] = 1000,
    skip_bad: Annotated[
        bool,
        typer.Option("--skip-bad", help="Leave out faces that cannot be used, and count them."),
    ] = False,
) -> None:
    """Train the network. Stopped at any time, the same command goes on from its last checkpoint.

    With --scheme kaggle15 it learns Kaggle's 15 points, a few minutes on a CPU: the options from
    --steps to --seed apply, with defaults of their own, and network.onnx is ready at the end.

    Needs the extra: pip install 'kpipe[train]'. Writes checkpoint.pt, settings.json, log.csv and
    curves.png to the folder; kpipe export makes the ONNX file. Several GPUs: torchrun
    --nproc-per-node N -m kpipe train ...
    """
    if scheme == "kaggle15":
        from kpipe.cli.kaggle import train_kaggle15

        apart = ("context", "data", "output", "scheme")
        train_kaggle15(data, output, options_set(context, apart))
        return
    if scheme != "ibug68":
        raise typer.BadParameter("choose ibug68 or kaggle15", param_hint="--scheme")
    if arch is not None:
        raise typer.BadParameter("goes with --scheme kaggle15 alone", param_hint="--arch")

    from kpipe.cli.extras import require

    require("train", "torch", "onnx")

    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from kpipe.cli.console import console, error, say
    from kpipe.cli.console import progress as shown
    from kpipe.datasets import DatasetError, read_samples
    from kpipe.detectors.proposals import ProposalDetector
    from kpipe.networks.stages import STAGES
    from kpipe.pipeline import Pipeline
    from kpipe.training.crops import NegativePhoto
    from kpipe.training.duplicates import without_duplicates
    from kpipe.training.landmarks import (
        TrainSettings,
        load_empty,
        load_faces,
        load_run,
        mean_network,
        with_hard_negatives,
    )
    from kpipe.training.landmarks import train as run
    from kpipe.training.loss import FACE_FIRST, LossWeights
    from kpipe.training.network import SIZES
    from kpipe.training.relabel import relabelled

    if size not in SIZES:
        raise typer.BadParameter(f"choose {', '.join(SIZES)}", param_hint="--size")
    if stage not in STAGES:
        raise typer.BadParameter(f"choose {', '.join(STAGES)}", param_hint="--stage")
    settings = TrainSettings(
        stage=stage,
        size=size,
        steps=steps,
        batch=batch,
        negative_share=negative_share,
        learning_rate=learning_rate,
        validation=validation,
        label_offset=label_offset,
        seed=seed,
        loss=LossWeights() if STAGES[stage].points else FACE_FIRST,
    )
    skipped: list[DatasetError] = []
    on_bad = skipped.append if skip_bad else None
    samples = [sample for part in data for sample in read_samples(part, on_bad)]
    faces = load_faces(samples, validation, on_bad)
    others = [sample for part in exclude or [] for sample in read_samples(part, on_bad)]
    training = without_duplicates(faces.training, load_faces(others, 0.0, on_bad).training)
    twins = len(faces.training) - len(training)
    if relabel_by is not None:
        teacher, its = load_run(relabel_by)
        training = relabelled(
            shown(training, len(training), "labels"), teacher, STAGES[its["stage"]], label_offset
        )
    empty: list[NegativePhoto] = []
    if negatives is not None:
        # More mistakes than the pipeline would look at: the sure ones are soon learned.
        detector = ProposalDetector(min_score=0.05, limit=200)
        pipeline = Pipeline(detector, min_score=0.02)

        def candidates(gray: NDArray[np.uint8]) -> Detections:
            # The looks learn from what a glance leaves, and then some.
            found = detector(gray)
            return found if stage == "classifier" else pipeline.classify(gray, found)

        empty = load_empty(negatives, candidates, on_bad=on_bad)[0]
        training = with_hard_negatives(
            shown(training, len(training), "faces"), candidates, pipeline
        )
    faces = replace(faces, training=training)
    for problem in skipped:
        error(str(problem))
    say(
        f"{len(faces.training)} faces to train on, {len(faces.validation)} for validation, "
        f"{len(skipped)} left out, {twins} copies of excluded ones, "
        f"{len(empty)} photographs without faces"
    )

    columns = (
        TextColumn("step"),
        MofNCompleteColumn(),
        BarColumn(),
        TextColumn("{task.fields[figures]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=steps, figures="")

        def show(step: int, figures: dict[str, float]) -> None:
            if step % 10 == 0 or step == steps:
                progress.update(task, completed=step, figures=f"loss {figures['loss']:.2f}")
            if "validation_nme" in figures:
                say(f"step {step}: NME {figures['validation_nme']:.2f} % on validation faces")

        run(
            settings,
            faces,
            empty,
            output,
            start=mean_network([load_run(r)[0] for r in start_from]) if start_from else None,
            workers=workers,
            checkpoint_every=checkpoint_every,
            on_step=show,
        )
    say(f"trained: kpipe export {output} -o network.onnx makes the network usable")


def options_set(context: typer.Context, apart: tuple[str, ...]) -> dict[str, Any]:
    """The options that the user set, by name, but for some."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return {
        name: context.params[name]
        for name, source in sources.items()
        if name not in apart and source is not None and source.name != "DEFAULT"
    }
