"""`kpipe annotate`: photographs to annotated photographs and data."""

from __future__ import annotations

import os
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kpipe.cli.options import DetectorsMinFace, Model, Tilt
from kpipe.cli.outputs import STREAM, OutputGuard, Tables
from kpipe.errors import KpipeError

if TYPE_CHECKING:
    from kpipe.media.images import Photo
    from kpipe.rendering.draw import Style
    from kpipe.structures.faces import Faces


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
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Replace results that exist.")
    ] = False,
    draw: Annotated[
        str, typer.Option(metavar="PARTS", help="Any of boxes,lines,points,numbers,index.")
    ] = "boxes,lines,points",
    no_picture: Annotated[
        bool, typer.Option("--no-picture", help="Write data, no annotated picture.")
    ] = False,
    json: Annotated[
        str | None, typer.Option(metavar="FILE|-", help="Faces as JSON, one line a photograph.")
    ] = None,
    csv: Annotated[
        str | None, typer.Option(metavar="FILE|-", help="Faces as CSV, one row a face.")
    ] = None,
    pts: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Points as iBUG .pts, one file a face.")
    ] = None,
    crops: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="One picture a face, with its points.")
    ] = None,
    min_score: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Least probability of a face.")
    ] = 0.7,
    min_face: DetectorsMinFace = None,
    tilt: Tilt = "any",
    detector: Annotated[
        str,
        typer.Option(
            metavar="proposals|haar|FILE",
            help="What finds the candidates: a small network, OpenCV's Haar cascades, or a YuNet "
            ".onnx file.",
        ),
    ] = "proposals",
    boxes: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Where to look instead: boxes of faces as COCO JSON, or CSV with image, x0, y0, "
            "x1 and y1.",
        ),
    ] = None,
    cascades: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Cascade files of OpenCV's names; means --detector haar."
        ),
    ] = None,
    scheme: Annotated[
        str,
        typer.Option(metavar="ibug68|kaggle15", help="The 68 points, or Kaggle's 15 named ones."),
    ] = "ibug68",
    model: Model = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No table, errors alone.")] = False,
) -> None:
    """Find the faces in photographs; draw their points on a copy and write them as data.

    Exit code 1 if a photograph could not be read or a result not be written; the others are done
    all the same. Exit code 2 if nothing was begun.
    """
    import numpy as np

    from kpipe.cli.console import error, progress, say, table
    from kpipe.detectors.registry import TILTS, make_detector
    from kpipe.formats.boxes import GivenBoxes, read_boxes
    from kpipe.networks.landmarker import Landmarker
    from kpipe.pipeline import Pipeline
    from kpipe.rendering.draw import Style
    from kpipe.structures.detections import Detections
    from kpipe.structures.schemes import SCHEMES
    from kpipe.utils.files import display_name
    from kpipe.utils.opencv import cv2

    try:
        style = Style(tuple(part for part in draw.split(",") if part))
    except ValueError as problem:
        raise typer.BadParameter(str(problem), param_hint="--draw") from None
    if scheme not in SCHEMES:
        raise typer.BadParameter(f"choose {' or '.join(SCHEMES)}", param_hint="--scheme")
    streams = [value for value in (None if no_picture else output, json, csv) if value == STREAM]
    if len(streams) > 1:
        raise typer.BadParameter("standard output can take one result, not several")
    pictures: list[str | None] = [None] * len(photos)
    if not no_picture:
        pictures = _pictures(photos, output, stdout_taken=bool(streams))

    outputs = OutputGuard(photos, force)
    try:
        finder = make_detector(detector, min_face=min_face, tilt=tilt, cascades=cascades)
    except ValueError as problem:
        raise typer.BadParameter(str(problem)) from None
    pipeline = Pipeline(finder, Landmarker(model), min_score=min_score, max_roll=TILTS[tilt])
    given = GivenBoxes(read_boxes(boxes)) if boxes is not None else None
    rows: list[tuple[str, ...]] = []
    written: list[str] = []
    failed = False
    with ExitStack() as stack:
        for target in (json, csv):
            outputs.claim(target)
        tables = Tables(
            json=stack.enter_context(outputs.open(json)) if json else None,
            csv=stack.enter_context(outputs.open(csv)) if csv else None,
            scheme=SCHEMES[scheme],
        )
        jobs = list(zip(photos, pictures))
        for name, picture in progress(jobs, len(jobs), "photographs"):
            try:
                # Before the work, so that a result that is in the way costs no time.
                outputs.claim(picture)
                photo = _read(name)
                start = time.perf_counter()
                told = None
                if given is not None:
                    there = given.of(name)
                    if there is None:
                        say(f"{display_name(name)}: not in {boxes}")
                    told = Detections.from_face_boxes(np.zeros((0, 4)) if there is None else there)
                faces = pipeline(photo.image, told).to_scheme(SCHEMES[scheme]).at(name)
                elapsed = time.perf_counter() - start
            except (KpipeError, MemoryError, cv2.error) as problem:
                reason = " ".join(str(problem).split()) or "not enough memory"
                named = isinstance(problem, KpipeError)
                reason = reason if named else f"{display_name(name)}: {reason}"
                failed = True
                error(reason)
                tables.add_error(name, reason)
                continue
            tables.add(faces)
            rows.append(_row(faces, elapsed))
            if not faces:
                say(f"{display_name(name)}: no face found")
            # What was found is kept even if one of its files cannot be written.
            try:
                if picture is not None:
                    _write_picture(photo, faces, picture, style)
                    if picture != STREAM:
                        written.append(picture)
                _write_parts(photo, faces, pts, crops, outputs)
            except KpipeError as problem:
                failed = True
                error(str(problem))
    if rows and not quiet:
        table(("photograph", "pixels", "faces", "sizes, px", "mean sigma, px", "ms"), rows)
    if written and not quiet:
        folder = Path(written[0]).parent
        together = len(written) > 1 and all(Path(path).parent == folder for path in written)
        where = f"{len(written)} pictures in {folder}" if together else ", ".join(written)
        say(f"written: {display_name(where)}")
    if failed:
        raise typer.Exit(1)


def _pictures(photos: list[str], output: str | None, stdout_taken: bool) -> list[str | None]:
    """Where the annotated picture of each photograph goes, if anywhere."""
    from kpipe.media.images import can_write

    if output is None:
        if photos == [STREAM]:
            # From a pipe into a pipe; data that goes there takes the picture's place.
            if stdout_taken:
                return [None]
            if sys.stdout is None:
                raise typer.BadParameter("standard output is closed; name a file with -o")
            if sys.stdout.isatty():
                raise typer.BadParameter("a terminal shows no pictures; name a file with -o")
            return [STREAM]
        return [_result_name(name, Path(name).parent) for name in photos]
    folder = output != STREAM and (output.endswith(os.sep) or Path(output).is_dir())
    if folder or len(photos) > 1:
        if output == STREAM or (Path(output).exists() and not Path(output).is_dir()):
            raise typer.BadParameter("several photographs need a folder", param_hint="-o")
        return [_result_name(name, Path(output)) for name in photos]
    if output != STREAM and not can_write(Path(output).suffix):
        raise typer.BadParameter(f"no picture format is named {output}", param_hint="-o")
    return [output]


def _stem(name: str) -> str:
    return "stdin" if name == STREAM else Path(name).stem


def _result_name(name: str, folder: Path) -> str:
    return str(folder / f"{_stem(name)}_annotated.jpg")


def _read(name: str) -> Photo:
    from kpipe.errors import ImageError
    from kpipe.media.images import read_photo

    if name == STREAM:
        if sys.stdin is None:
            raise ImageError("standard input: closed")
        return read_photo(sys.stdin.buffer.read(), "standard input")
    return read_photo(name)


def _write_picture(photo: Photo, faces: Faces, target: str, style: Style) -> None:
    from kpipe.errors import ImageError
    from kpipe.media.images import encode
    from kpipe.utils.files import display_name, write_file

    suffix = ".jpg" if target == STREAM else Path(target).suffix
    try:
        content = encode(faces.render(photo.image, style), suffix, photo)
    except ImageError as problem:
        raise ImageError(f"{display_name(target)}: {problem}") from None
    if target == STREAM:
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
    else:
        write_file(Path(target), content)


def _write_parts(
    photo: Photo, faces: Faces, pts: Path | None, crops: Path | None, outputs: OutputGuard
) -> None:
    """One file a face: PHOTO.pts or, of several faces, PHOTO_1.pts, PHOTO_2.pts …"""
    from kpipe.formats.pts import to_pts
    from kpipe.media.images import encode
    from kpipe.rendering.draw import face_picture
    from kpipe.utils.files import write_file

    stem = _stem(str(faces.path))
    names = [stem if len(faces) == 1 else f"{stem}_{k + 1}" for k in range(len(faces))]
    for index, (name, face) in enumerate(zip(names, faces)):
        if pts is not None:
            outputs.claim(pts / f"{name}.pts")
            write_file(pts / f"{name}.pts", to_pts(face).encode())
        if crops is not None:
            outputs.claim(crops / f"{name}.jpg")
            picture = encode(face_picture(photo.image, faces, index), ".jpg")
            write_file(crops / f"{name}.jpg", picture)


def _row(faces: Faces, seconds: float) -> tuple[str, ...]:
    from kpipe.utils.files import display_name

    sizes = ", ".join(f"{face.size:.0f}" for face in faces[:6]) + (" …" if len(faces) > 6 else "")
    sigmas = [float(face.sigma.mean()) for face in faces]
    return (
        display_name(Path(str(faces.path)).name),
        f"{faces.width} x {faces.height}",
        str(len(faces)),
        sizes,
        f"{sum(sigmas) / len(sigmas):.1f}" if sigmas else "",
        f"{seconds * 1000:.0f}",
    )
