"""`kpipe evaluate`: landmark errors, and recall and precision of detection, on labeled data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kpipe.cli.options import Model, checked, text

if TYPE_CHECKING:
    from kpipe.datasets import DatasetError, Sample
    from kpipe.evaluation.detection import Detected
    from kpipe.evaluation.perturbation import Perturbation
    from kpipe.pipeline import Pipeline

PRECISIONS = (0.9, 0.95, 0.97, 0.98, 0.99)
"""At which the highest recall is printed."""

THRESHOLDS = (0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99)


def evaluate(
    data: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[DATA...]",
            help="Labeled points: folders of pictures with .pts files, YouTube Faces CSVs, dlib "
            "XML, WFLW text or COCO JSON.",
        ),
    ] = None,
    detection: Annotated[
        Path | None,
        typer.Option(metavar="JSON", help="Labeled boxes, COCO's format: recall and precision."),
    ] = None,
    negatives: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Photographs without faces: counts the false faces; with DATA also measures how "
            "well the face score separates the two.",
        ),
    ] = None,
    model: Model = None,
    detector: Annotated[
        str,
        typer.Option(
            metavar="proposals|haar|FILE",
            help="What finds the candidates; FILE is a YuNet .onnx. With --detection those that "
            "give scores are measured alone too.",
        ),
    ] = "proposals",
    min_face_px: Annotated[
        float,
        typer.Option(
            metavar="PIXELS",
            min=0.0,
            help="With --detection: labeled boxes whose longer side is below this count neither "
            "as missed nor against a face found there.",
        ),
    ] = 0.0,
    turn: Annotated[
        float, typer.Option(metavar="DEGREES", help="First turn the photographs of DATA clockwise.")
    ] = 0.0,
    face_size: Annotated[
        float,
        typer.Option(
            metavar="PIXELS",
            min=4.0,
            help="First reduce the photographs of DATA until the face's box has this side.",
        ),
    ] = float("inf"),
    cut: Annotated[
        float,
        typer.Option(
            metavar="SHARE",
            min=0.0,
            max=0.9,
            help="First cut this share of each face of DATA off by the picture's left edge.",
        ),
    ] = 0.0,
    jitters: Annotated[int, typer.Option(min=1, help="Random boxes for each face.")] = 3,
    per_point: Annotated[
        bool, typer.Option("--per-point", help="Also print the error of each of the 68 points.")
    ] = False,
    by_group: Annotated[
        bool,
        typer.Option(
            "--groups", help="Also print errors by head pose, open mouth, brightness and size."
        ),
    ] = False,
    report: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Write an HTML page: curves, worst and random faces."),
    ] = None,
    skip_bad: Annotated[
        bool,
        typer.Option("--skip-bad", help="Skip faces that cannot be used, and count them."),
    ] = False,
) -> None:
    """Measure on labeled data: landmark errors, end to end and given the true box; recall and
    precision of detection; how well the face score separates faces from others.
    """
    from kpipe.cli.console import error, say
    from kpipe.datasets import read_samples
    from kpipe.evaluation.perturbation import Perturbation
    from kpipe.options import PipelineOptions

    if not data and detection is None and negatives is None:
        raise typer.BadParameter("nothing to measure on: give DATA, --detection or --negatives")
    skipped: list[DatasetError] = []
    on_bad = skipped.append if skip_bad else None
    options = PipelineOptions(detector=detector, model=text(model))
    pipeline = checked("--detector", options.build)
    open_pipeline = replace(options, min_score=0.1).build()
    samples = [sample for part in data or [] for sample in read_samples(part, on_bad)]
    if samples:
        perturbation = Perturbation(turn, face_size, cut)
        _points(samples, pipeline, perturbation, jitters, per_point, by_group, report, on_bad)
    if detection is not None:
        _detection(detection, open_pipeline, min_face_px, report, on_bad)
    if negatives is not None:
        _negatives(negatives, open_pipeline, samples, on_bad)
    # A picture that is read twice fails twice.
    problems = dict.fromkeys(map(str, skipped))
    for problem in problems:
        error(problem)
    if problems:
        say(f"{len(problems)} {'picture' if len(problems) == 1 else 'pictures'} left out")


def _points(
    samples: Sequence[Sample],
    pipeline: Pipeline,
    perturbation: Perturbation,
    jitters: int,
    per_point: bool,
    by_group: bool,
    report: Path | None,
    on_bad: Callable[[DatasetError], None] | None,
) -> None:
    from kpipe.cli.console import print_table, progress, say
    from kpipe.evaluation.landmarks import evaluate as measure
    from kpipe.evaluation.metrics import figures, groups
    from kpipe.evaluation.report import write_report
    from kpipe.structures.schemes import IBUG68

    faces = progress(samples, len(samples), "faces")
    results = measure(faces, pipeline, jitters, perturbation=perturbation, on_bad=on_bad)
    print_table(["", *(r.name for r in results)], [(n, *values) for n, values in figures(results)])
    if per_point:
        column = "end to end, % of the inter-ocular distance"
        names = [f"{index:2} {name}" for index, name in enumerate(IBUG68.names)]
        errors = [f"{results[0].group([index]):.2f}" for index in range(len(names))]
        print_table([column, "error"], zip(names, errors))
    if by_group:
        rows = [
            (name, f"{count}", f"{nme:.2f}", f"{failed:.1f}")
            for name, count, nme, failed in groups(results[0])
        ]
        print_table(["end to end", "faces", "NME, %", "failures, %"], rows)
    if report is not None:
        say(f"report: {write_report(report, 'kpipe evaluate', samples, results, perturbation)}")


def _detection(
    table: Path,
    pipeline: Pipeline,
    min_face: float,
    report: Path | None,
    on_bad: Callable[[DatasetError], None] | None,
) -> None:
    from kpipe.cli.console import print_table, progress, say
    from kpipe.evaluation.detection import STRICT_IOU, compared, detect, find_alone, read_photos
    from kpipe.evaluation.report import write_detection_report
    from kpipe.pipeline import MIN_SCORE

    everything = read_photos(table, on_bad)
    seen = progress(everything, len(everything), "photographs")
    result = detect(seen, pipeline, on_bad=on_bad, min_face=min_face)
    by_path = {str(photo.path): photo for photo in everything}
    photos = [by_path[str(faces.path)] for faces in result.found]
    strict = compared(photos, list(result.found), STRICT_IOU, min_face)
    _recall(f"{len(result.found)} photographs", result, strict)
    groups = result.by_group(MIN_SCORE)
    if groups:
        print_table(
            ["group", "value", "faces", f"recall at {MIN_SCORE}"],
            [(name, value, f"{count}", f"{recall:.3f}") for name, value, count, recall in groups],
        )
    print_table(
        ["score", "found", "mean score", "share of true faces"],
        [
            (f"{low:.2f}-{high:.2f}", f"{count}", f"{mean:.3f}", f"{share:.3f}")
            for low, high, count, mean, share in result.reliability()
        ],
    )
    found = find_alone(photos, pipeline.detector)
    alone = None
    if found is not None:
        alone = compared(*found, min_face=min_face)
        _recall("the detector alone", alone, compared(*found, STRICT_IOU, min_face))
    if report is not None:
        page = write_detection_report(report, photos, result, strict, alone, min_face)
        say(f"report: {page}")


def _recall(what: str, result: Detected, strict: Detected) -> None:
    """Recall and precision by score, and the best recall at some precisions."""
    from kpipe.cli.console import print_table, say
    from kpipe.evaluation.detection import MIN_IOU, STRICT_IOU

    rows = []
    for threshold in THRESHOLDS:
        recall, precision, false = result.at(threshold)
        rows.append((_threshold(threshold), f"{recall:.3f}", f"{precision:.3f}", f"{false}"))
    say(
        f"{what}, {result.labeled} faces, "
        f"average precision {result.average_precision:.3f} at IoU {MIN_IOU}, "
        f"{strict.average_precision:.3f} at {STRICT_IOU}"
    )
    print_table(["least score", "recall", "precision", "false faces"], rows)
    best = [(precision, *result.best(precision)) for precision in PRECISIONS]
    print_table(
        ["precision at least", "recall", "at a score of"],
        [
            (f"{precision:.2f}", f"{recall:.3f}", f"{score:.2f}")
            for precision, recall, score in best
        ],
    )


def _negatives(
    folder: Path,
    pipeline: Pipeline,
    samples: Sequence[Sample],
    on_bad: Callable[[DatasetError], None] | None,
) -> None:
    from kpipe.cli.console import print_table, progress, say
    from kpipe.evaluation.detection import KEPT, detect, empty_photos, separation

    photos = empty_photos(folder)
    result = detect(progress(photos, len(photos), "photographs"), pipeline, on_bad=on_bad)
    rows = []
    for threshold in THRESHOLDS:
        kept = result.scores >= threshold
        rows.append((_threshold(threshold), f"{kept.sum()}", f"{len(set(result.photos[kept]))}"))
    print_table(["least score", "false faces", f"in how many of {len(result.found)}"], rows)
    for score, place in sorted(zip(result.scores, result.photos), reverse=True)[:10]:
        say(f"{score:.3f} {result.found[place].path}")
    if samples:
        faces = progress(samples, len(samples), "faces")
        told = separation(faces, photos, pipeline, on_bad)
        say(
            f"face score: {KEPT:.0%} of {told.faces} faces reach {told.threshold:.4f}, "
            f"which rejects {told.rejected:.2%} of {told.others} proposals without a face"
        )


def _threshold(score: float) -> str:
    from kpipe.pipeline import MIN_SCORE

    return f"{score:.2f}{', the default' if score == MIN_SCORE else ''}"
