"""`kpipe annotate`: photographs to annotated photographs and data."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kpipe.cli import options

if TYPE_CHECKING:
    from kpipe.apps.annotate import AnnotatedPhoto


def annotate(
    photos: Annotated[
        list[str],
        typer.Argument(metavar="PHOTO...", help="Photographs; - reads one from standard input."),
    ],
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE|FOLDER|-",
            help="The annotated picture, or the folder for several. [default: PHOTO_annotated.jpg]",
        ),
    ] = None,
    force: options.Force = False,
    draw: options.Draw = "boxes,lines,points",
    no_picture: Annotated[
        bool, typer.Option("--no-picture", help="Write data, no annotated picture.")
    ] = False,
    json: options.PhotoJson = None,
    csv: Annotated[
        str | None, typer.Option(metavar="FILE|-", help="Faces as CSV, one row a face.")
    ] = None,
    pts: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Points as iBUG .pts, one file a face.")
    ] = None,
    crops: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="One picture a face, with its points.")
    ] = None,
    min_score: options.MinScore = 0.7,
    min_face: options.DetectorsMinFace = None,
    tilt: options.Tilt = "any",
    detector: options.Detector = "proposals",
    boxes: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Boxes of the faces, used in place of the detector: COCO JSON, or CSV with image, "
            "x0, y0, x1 and y1.",
        ),
    ] = None,
    cascades: options.Cascades = None,
    scheme: options.SchemeName = "ibug68",
    model: options.Model = None,
    quiet: options.Quiet = False,
) -> None:
    """Find the faces in photographs; draw their points on a copy and write them as data.

    Exit code 1 if a photograph could not be read or is cut short, or a result could not be written;
    the others are done all the same. Exit code 2 if nothing was begun.
    """
    from kpipe.apps import annotate as app
    from kpipe.apps.outputs import STREAM
    from kpipe.apps.sinks import Crops, Csv, JsonLines, Pictures, PtsFolder, Sink, picture_paths
    from kpipe.cli.console import error, progress, say
    from kpipe.options import PipelineOptions
    from kpipe.structures.schemes import SCHEMES

    streams = [value for value in (None if no_picture else output, json, csv) if value == STREAM]
    if len(streams) > 1:
        raise typer.BadParameter("standard output can take one result, not several")
    if output is None and photos == [STREAM]:
        # From a pipe into a pipe; data that goes there takes the picture's place.
        no_picture = no_picture or bool(streams)
        output = STREAM
        if not no_picture:
            _check_standard_output()
    pictures = Pictures(output, options.style_of(draw))
    sinks: list[Sink] = [JsonLines(json)] if json else []
    sinks += [Csv(csv)] if csv else []
    if not no_picture:
        options.checked("-o", picture_paths, photos, output)
        sinks.append(pictures)
    sinks += [PtsFolder(pts)] if pts else []
    sinks += [Crops(crops)] if crops else []
    settings = PipelineOptions(
        detector=detector,
        cascades=options.text(cascades),
        model=options.text(model),
        min_score=min_score,
        min_face=min_face,
        tilt=tilt,
    )

    def report(result: AnnotatedPhoto) -> None:
        for note in result.notes:
            say(note)
        for problem in result.problems:
            error(problem)

    results = app.annotate(
        photos,
        settings.build(),
        sinks,
        boxes=boxes,
        scheme=SCHEMES[scheme],
        force=force,
        progress=partial(progress, total=len(photos), what="photographs"),
        on_result=report,
    )
    if not quiet:
        _summary(results, pictures.written)
    if any(result.problems for result in results):
        raise typer.Exit(1)


def _check_standard_output() -> None:
    if sys.stdout is None:
        raise typer.BadParameter("standard output is closed; name a file with -o")
    if sys.stdout.isatty():
        raise typer.BadParameter("a terminal shows no pictures; name a file with -o")


def _summary(results: list[AnnotatedPhoto], written: list[str]) -> None:
    """A table of the photographs, and where the pictures are."""
    from kpipe.cli.console import say, table
    from kpipe.utils.files import display_name

    rows = [row for result in results if (row := _row(result))]
    if rows:
        table(("photograph", "pixels", "faces", "sizes, px", "expected error, px", "ms"), rows)
    if written:
        folder = Path(written[0]).parent
        together = len(written) > 1 and all(Path(path).parent == folder for path in written)
        where = f"{len(written)} pictures in {folder}" if together else ", ".join(written)
        say(f"written: {display_name(where)}")


def _row(result: AnnotatedPhoto) -> tuple[str, ...]:
    from kpipe.utils.files import display_name

    faces = result.faces
    if faces is None:
        return ()
    sizes = ", ".join(f"{face.size:.0f}" for face in faces[:6]) + (" …" if len(faces) > 6 else "")
    sigmas = [float(face.sigma.mean()) for face in faces]
    return (
        display_name(Path(result.name).name),
        f"{faces.width} x {faces.height}",
        str(len(faces)),
        sizes,
        f"{sum(sigmas) / len(sigmas):.1f}" if sigmas else "",
        f"{result.seconds * 1000:.0f}",
    )
