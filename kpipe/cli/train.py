"""`kpipe train`: a network of one's own from labeled faces."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

if TYPE_CHECKING:
    from kpipe.training.detection import DetectionSettings
    from kpipe.training.landmarks import TrainSettings
    from kpipe.training.loop import Figures
    from kpipe.training.prepare import DataFiles

PROPOSALS = "proposals"

T = TypeVar("T")

LANDMARKS_ALONE = ("size", "negative_share", "relabel_by", "label_offset")
"""Options that the detection network has no use for."""

Data = Annotated[
    list[Path],
    typer.Option(
        "--data",
        metavar="FOLDER|CSV",
        help="Pictures with .pts files, or a YouTube Faces keypoint CSV; may be repeated.",
    ),
]
Output = Annotated[
    Path, typer.Option("--output", "-o", metavar="FOLDER", help="Of the run; resumes there.")
]
StageName = Annotated[
    str,
    typer.Option(
        metavar="proposals|classifier|coarse|refine",
        help="Which network: proposals, the detector's, which learns from photographs with "
        "labeled boxes; classifier, the face score that rejects most of its boxes; coarse, the "
        "face score and rough landmarks in the others; refine, the accurate landmarks.",
    ),
]
Detection = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="JSON",
        help="Photographs with labeled boxes, COCO's format, for --stage proposals; may be "
        "repeated. The faces of --data are pasted into them.",
    ),
]
Negatives = Annotated[
    list[Path] | None,
    typer.Option(metavar="FOLDER", help="Photographs without any face; may be repeated."),
]
Exclude = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="FOLDER|CSV|JSON",
        help="Labeled faces or photographs to be measured on later: copies of them in the data "
        "are left out.",
    ),
]
NegativeShare = Annotated[
    float, typer.Option(min=0.0, max=0.9, help="Share of the crops that show no face.")
]
StartFrom = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="RUN",
        help="Begin with the weights of another run's network; repeated, with the mean of "
        "several, as kpipe export makes it.",
    ),
]
RelabelBy = Annotated[
    Path | None,
    typer.Option(
        metavar="RUN",
        help="Replace labels of other schemes than 300-W's by the landmarks that the network of "
        "another run, which has learned both schemes, predicts.",
    ),
]
Size = Annotated[str, typer.Option(help="nano, tiny, small, medium or large.")]
Steps = Annotated[
    int | None,
    typer.Option(
        min=1, help="Optimizer steps.", show_default="20000; of the detection network 14000"
    ),
]
Batch = Annotated[
    int | None,
    typer.Option(
        min=2,
        help="Crops, or pieces of photographs, a step.",
        show_default="64; of the detection network 32",
    ),
]
LearningRate = Annotated[
    float | None,
    typer.Option(
        min=0.0, help="Peak learning rate.", show_default="0.002; of the detection network 0.003"
    ),
]
Validation = Annotated[
    float,
    typer.Option(min=0.0, max=0.9, help="Share of the photographs or persons of --data kept out."),
]
LabelOffset = Annotated[
    float,
    typer.Option(
        help="How far the labels lie to the right of where the pictures have the points, in "
        "sides of the landmarks' square: mirrored, they still do."
    ),
]
Seed = Annotated[int, typer.Option(help="Repeats a run.")]
Workers = Annotated[int, typer.Option(min=0, help="Processes that make crops or pieces.")]
CheckpointEvery = Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")]
SkipBad = Annotated[
    bool, typer.Option("--skip-bad", help="Leave out faces that cannot be used, and count them.")
]
Hidden = Annotated[str | None, typer.Option(hidden=True)]


def train(
    context: typer.Context,
    data: Data,
    output: Output,
    stage: StageName = "refine",
    detection: Detection = None,
    negatives: Negatives = None,
    exclude: Exclude = None,
    negative_share: NegativeShare = 0.12,
    start_from: StartFrom = None,
    relabel_by: RelabelBy = None,
    size: Size = "medium",
    steps: Steps = None,
    batch: Batch = None,
    learning_rate: LearningRate = None,
    validation: Validation = 0.05,
    label_offset: LabelOffset = 0.0,
    seed: Seed = 0,
    workers: Workers = 2,
    checkpoint_every: CheckpointEvery = 1000,
    skip_bad: SkipBad = False,
    look: Hidden = None,
    scheme: Hidden = None,
    arch: Hidden = None,
) -> None:
    """Train a network. Stopped at any time, the same command goes on from its last checkpoint.

    Needs the extra: pip install 'kpipe[train]'. Writes checkpoint.pt, settings.json, log.csv and
    curves.png to the folder; kpipe export makes the ONNX file. Several GPUs, but for the detection
    network: torchrun --nproc-per-node N -m kpipe train ... Kaggle's 15 points: kpipe kaggle train.
    """
    chosen = _chosen(context)
    if _is_kaggle(scheme, arch):
        _train_keypoints(data, output, chosen)
        return
    from kpipe.cli.extras import require

    require("train", "torch", "onnx")

    from kpipe.datasets import DatasetError
    from kpipe.training.prepare import DataFiles

    stage = _stage(stage, look)
    skipped: list[DatasetError] = []
    on_bad = skipped.append if skip_bad else None
    files = DataFiles(data, exclude or [], negatives or [], detection or [], on_bad)
    given = {"steps": steps, "batch": batch, "learning_rate": learning_rate}
    learning: dict[str, Any] = {name: v for name, v in given.items() if v is not None}
    learning |= {"validation": validation, "seed": seed}
    process = {"workers": workers, "checkpoint_every": checkpoint_every}
    if stage == PROPOSALS:
        settings = _detection_settings(learning, files, chosen)
        _train_detection(settings, files, output, skipped, start_from or [], **process)
    else:
        if detection:
            raise typer.BadParameter("goes with --stage proposals alone", param_hint="--detection")
        learning |= {"negative_share": negative_share, "label_offset": label_offset}
        landmarks = _landmark_settings(stage, size, learning)
        _train_landmarks(landmarks, files, output, skipped, start_from or [], relabel_by, **process)
    from kpipe.cli.console import say

    say(f"trained: kpipe export {output} -o network.onnx makes the network usable")


def _stage(stage: str, look: str | None) -> str:
    """The stage, also by its name of version 0.1."""
    from kpipe.cli.deprecation import renamed
    from kpipe.networks.stages import OLD_NAMES, STAGES

    if look is not None:
        stage = OLD_NAMES.get(look, look)
        renamed("--look", f"--stage; {look} is now {stage}" if stage != look else "--stage")
    names = (PROPOSALS, *STAGES)
    if stage not in names:
        raise typer.BadParameter(f"choose {', '.join(names)}", param_hint="--stage")
    return stage


def _landmark_settings(stage: str, size: str, learning: dict[str, Any]) -> TrainSettings:
    from kpipe.networks.stages import STAGES
    from kpipe.training.landmarks import TrainSettings
    from kpipe.training.loss import FACE_FIRST, LossWeights
    from kpipe.training.network import SIZES

    if size not in SIZES:
        raise typer.BadParameter(f"choose {', '.join(SIZES)}", param_hint="--size")
    loss = LossWeights() if STAGES[stage].points else FACE_FIRST
    return TrainSettings(stage=stage, size=size, loss=loss, **learning)


def _detection_settings(
    learning: dict[str, Any], files: DataFiles, chosen: dict[str, Any]
) -> DetectionSettings:
    from kpipe.training.detection import DetectionSettings

    for name in LANDMARKS_ALONE:
        if name in chosen:
            hint = "--" + name.replace("_", "-")
            raise typer.BadParameter("does not go with --stage proposals", param_hint=hint)
    if not files.detection:
        raise typer.BadParameter("--stage proposals needs it", param_hint="--detection")
    if len(chosen.get("start_from", ())) > 1:
        message = "--stage proposals takes one run"
        raise typer.BadParameter(message, param_hint="--start-from")
    return DetectionSettings(**learning)


def _train_landmarks(
    settings: TrainSettings,
    files: DataFiles,
    output: Path,
    skipped: list[Any],
    start_from: list[Path],
    relabel_by: Path | None,
    workers: int,
    checkpoint_every: int,
) -> None:
    from dataclasses import replace

    from kpipe.training.landmarks import load_run, mean_network, train
    from kpipe.training.prepare import relabeled_by

    split, copies = files.faces(settings.validation)
    training = split.training
    if relabel_by is not None:
        training = relabeled_by(relabel_by, training, settings.label_offset, _progress)
    training, photos = files.hard_negatives(settings.stage, training, _progress)
    _say_data(len(training), len(split.validation), skipped, copies, len(photos))
    start = mean_network([load_run(run)[0] for run in start_from]) if start_from else None
    with _showing(settings.steps) as on_step:
        train(
            settings,
            replace(split, training=training),
            photos,
            output,
            start=start,
            workers=workers,
            checkpoint_every=checkpoint_every,
            on_step=on_step,
        )


def _train_detection(
    settings: DetectionSettings,
    files: DataFiles,
    output: Path,
    skipped: list[Any],
    start_from: list[Path],
    workers: int,
    checkpoint_every: int,
) -> None:
    from kpipe.cli.console import say
    from kpipe.training.detection import load_run, train
    from kpipe.training.scenes import DetectionScenes

    start = load_run(start_from[0])[0] if start_from else None
    faces, face_copies = files.faces(settings.validation)
    empty = files.backgrounds()
    photos, photo_copies = files.photographs(output, _progress)
    say(f"{len(photos.training)} photographs to train on, {len(photos.validation)} for validation")
    copies = face_copies + photo_copies
    _say_data(len(faces.training), len(faces.validation), skipped, copies, len(empty))
    length = settings.steps * settings.batch
    grays = [photo.gray for photo in empty]
    scenes = DetectionScenes(photos.training, faces.training, grays, length, settings.seed)
    with _showing(settings.steps) as on_step:
        train(
            settings,
            scenes,
            output,
            start=start,
            workers=workers,
            checkpoint_every=checkpoint_every,
            on_step=on_step,
        )


def _say_data(faces: int, held_out: int, skipped: list[Any], copies: int, photos: int) -> None:
    from kpipe.cli.console import error, say

    for problem in skipped:
        error(str(problem))
    say(
        f"{faces} faces to train on, {held_out} for validation, {len(skipped)} left out, "
        f"{copies} copies of excluded ones, {photos} photographs without faces"
    )


def _progress(items: list[T], what: str) -> Iterator[T]:
    from kpipe.cli.console import progress

    return progress(items, len(items), what)


@contextmanager
def _showing(steps: int) -> Iterator[Callable[[int, Figures], None]]:
    """A function that shows the steps, the loss, and the error on validation faces."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from kpipe.cli.console import console, say

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

        def show(step: int, figures: Figures) -> None:
            if step % 10 == 0 or step == steps:
                progress.update(task, completed=step, figures=f"loss {figures['loss']:.2f}")
            if "validation_nme" in figures:
                say(f"step {step}: NME {figures['validation_nme']:.2f} % on validation faces")

        yield show


def _chosen(context: typer.Context) -> dict[str, Any]:
    """The options that the user set, by name."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return {
        name: context.params[name]
        for name, source in sources.items()
        if source is not None and source.name != "DEFAULT"
    }


def _is_kaggle(scheme: str | None, arch: str | None) -> bool:
    """Whether version 0.1's --scheme kaggle15 is meant, which is a command of its own now."""
    from kpipe.cli.deprecation import renamed

    if scheme not in (None, "ibug68", "kaggle15"):
        raise typer.BadParameter("choose ibug68 or kaggle15", param_hint="--scheme")
    if scheme == "kaggle15":
        renamed("kpipe train --scheme kaggle15", "kpipe kaggle train")
        return True
    if arch is not None:
        raise typer.BadParameter("goes with kpipe kaggle train alone", param_hint="--arch")
    if scheme is not None:
        renamed("--scheme ibug68", "what kpipe train always does: leave it out")
    return False


def _train_keypoints(data: list[Path], output: Path, chosen: dict[str, Any]) -> None:
    from kpipe.cli import keypoints

    options = {k: v for k, v in chosen.items() if k not in ("context", "data", "output", "scheme")}
    foreign = [name.replace("_", "-") for name in options if name not in keypoints.OPTIONS]
    if foreign:
        raise typer.BadParameter("does not go with --scheme kaggle15", param_hint=f"--{foreign[0]}")
    if len(data) != 1:
        raise typer.BadParameter("kaggle15 takes one training.csv", param_hint="--data")
    keypoints.train(data[0], output, **options)
