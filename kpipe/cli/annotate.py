"""`kpipe annotate`: photographs to annotated photographs and data."""

from __future__ import annotations

import os
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from kpipe.cli.options import DetectorsMinFace, Model, Tilt

if TYPE_CHECKING:
    from kpipe.faces import Faces
    from kpipe.media.images import Photo
    from kpipe.renderer import Style
    from kpipe.schemes import Scheme

STREAM = "-"


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

    from kpipe.boxes import BoxesError, GivenBoxes, candidates, read_boxes
    from kpipe.cli.report import error, say, table, track
    from kpipe.detectors import TILTS, make_detector
    from kpipe.media.images import ImageError, shown
    from kpipe.opencv import cv2
    from kpipe.pipeline import Pipeline
    from kpipe.predictor import LandmarkPredictor
    from kpipe.renderer import Style
    from kpipe.schemes import SCHEMES

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

    outputs = Outputs(photos, force)
    try:
        finder = make_detector(detector, min_face=min_face, tilt=tilt, cascades=cascades)
    except ValueError as problem:
        raise typer.BadParameter(str(problem)) from None
    pipeline = Pipeline(finder, LandmarkPredictor(model), min_score=min_score, max_roll=TILTS[tilt])
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
        for name, picture in track(jobs, len(jobs), "photographs"):
            try:
                # Before the work, so that a result that is in the way costs no time.
                outputs.claim(picture)
                photo = _read(name)
                start = time.perf_counter()
                told = None
                if given is not None:
                    there = given.of(name)
                    if there is None:
                        say(f"{shown(name)}: not in {boxes}")
                    told = candidates(np.zeros((0, 4)) if there is None else there)
                faces = pipeline(photo.image, told).to_scheme(SCHEMES[scheme]).at(name)
                elapsed = time.perf_counter() - start
            except (ImageError, BoxesError, MemoryError, cv2.error) as problem:
                reason = " ".join(str(problem).split()) or "not enough memory"
                named = isinstance(problem, (ImageError, BoxesError))
                reason = reason if named else f"{shown(name)}: {reason}"
                failed = True
                error(reason)
                tables.add_error(name, reason)
                continue
            tables.add(faces)
            rows.append(_row(faces, elapsed))
            if not faces:
                say(f"{shown(name)}: no face found")
            # What was found is kept even if one of its files cannot be written.
            try:
                if picture is not None:
                    _write_picture(photo, faces, picture, style)
                    if picture != STREAM:
                        written.append(picture)
                _write_parts(photo, faces, pts, crops, outputs)
            except ImageError as problem:
                failed = True
                error(str(problem))
    if rows and not quiet:
        table(("photograph", "pixels", "faces", "sizes, px", "mean sigma, px", "ms"), rows)
    if written and not quiet:
        folder = Path(written[0]).parent
        together = len(written) > 1 and all(Path(path).parent == folder for path in written)
        where = f"{len(written)} pictures in {folder}" if together else ", ".join(written)
        say(f"written: {shown(where)}")
    if failed:
        raise typer.Exit(1)


@dataclass
class Outputs:
    """Guards the files of a run: never an input, never one twice, no existing one without force.

    Attributes:
        photos: the inputs, as the user named them.
        force: whether files that exist may be replaced.
        what: the inputs are, as errors call them.
        otherwise: what to do about a file that exists.
    """

    photos: list[str]
    force: bool
    what: str = "photograph"
    otherwise: str = "--force replaces it"

    def __post_init__(self) -> None:
        self._inputs = {_identity(Path(name)) for name in self.photos if name != STREAM}
        self._claimed: set[str] = set()

    def claim(self, target: str | Path | None) -> None:
        """Raises ImageError if the file must not be written."""
        from kpipe.media.images import ImageError, shown

        if target is None or str(target) == STREAM:
            return
        path = Path(target)
        place = os.path.realpath(path)
        if _identity(path) in self._inputs:
            raise ImageError(f"{shown(path)}: is an input {self.what}; name another result")
        if place in self._claimed:
            raise ImageError(f"{shown(path)}: would be the result of two {self.what}s or options")
        if path.is_dir():
            raise ImageError(f"{shown(path)}: is a folder")
        if path.is_file() and not self.force:
            raise ImageError(f"{shown(path)}: exists; {self.otherwise}")
        self._claimed.add(place)

    def open(self, target: str) -> TextIO:
        """A text file that was claimed, or standard output, which stays open."""
        from kpipe.media.images import ImageError, shown

        try:
            if target == STREAM and sys.stdout is None:
                raise ImageError("standard output: closed")
            if target == STREAM:
                destination: int | str = sys.stdout.fileno()
            else:
                Path(target).parent.mkdir(parents=True, exist_ok=True)
                destination = target
            return open(
                destination,
                "w",
                encoding="utf-8",
                errors="surrogateescape",
                newline="",
                closefd=target != STREAM,
            )
        except OSError as problem:
            reason = problem.strerror or problem
            raise ImageError(f"{shown(target)}: cannot be written ({reason})") from None


@dataclass(frozen=True)
class Tables:
    """The text files that a run adds to, photograph by photograph."""

    json: TextIO | None
    csv: TextIO | None
    scheme: Scheme

    def __post_init__(self) -> None:
        if self.csv is not None:
            from kpipe.writers import csv_table

            self.csv.write(csv_table.header(self.scheme))

    def add(self, faces: Faces) -> None:
        from kpipe.writers import csv_table, records

        if self.json is not None:
            self.json.write(records.to_json(faces) + "\n")
            self.json.flush()
        if self.csv is not None:
            self.csv.write(csv_table.rows(faces))
            self.csv.flush()

    def add_error(self, name: str, reason: str) -> None:
        from kpipe.writers import records

        if self.json is not None:
            self.json.write(records.error_to_json(name, reason) + "\n")
            self.json.flush()


def _identity(path: Path) -> object:
    """Equal for two names of one file: links, and upper and lower case where they are the same."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return os.path.realpath(path)
    return status.st_dev, status.st_ino


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
    from kpipe.media.images import ImageError, read_photo

    if name == STREAM:
        if sys.stdin is None:
            raise ImageError("standard input: closed")
        return read_photo(sys.stdin.buffer.read(), "standard input")
    return read_photo(name)


def _write_picture(photo: Photo, faces: Faces, target: str, style: Style) -> None:
    from kpipe.media.images import ImageError, encode, shown, write_file

    suffix = ".jpg" if target == STREAM else Path(target).suffix
    try:
        content = encode(faces.render(photo.image, style), suffix, photo)
    except ImageError as problem:
        raise ImageError(f"{shown(target)}: {problem}") from None
    if target == STREAM:
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
    else:
        write_file(Path(target), content)


def _write_parts(
    photo: Photo, faces: Faces, pts: Path | None, crops: Path | None, outputs: Outputs
) -> None:
    """One file a face: PHOTO.pts or, of several faces, PHOTO_1.pts, PHOTO_2.pts …"""
    from kpipe.media.images import encode, write_file
    from kpipe.renderer import face_picture
    from kpipe.writers.pts import to_pts

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
    from kpipe.media.images import shown

    sizes = ", ".join(f"{face.size:.0f}" for face in faces[:6]) + (" …" if len(faces) > 6 else "")
    sigmas = [float(face.sigma.mean()) for face in faces]
    return (
        shown(Path(str(faces.path)).name),
        f"{faces.width} x {faces.height}",
        str(len(faces)),
        sizes,
        f"{sum(sigmas) / len(sigmas):.1f}" if sigmas else "",
        f"{seconds * 1000:.0f}",
    )
