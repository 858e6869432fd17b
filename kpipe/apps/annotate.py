"""Photographs to annotated photographs and data."""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from kpipe.apps.outputs import STREAM, OutputGuard
from kpipe.apps.sinks import FAILURES, Run, Sink, Sinks, reason_of
from kpipe.detectors.face_size import COARSE_MIN_FACE, min_face_pixels
from kpipe.detectors.proposals import MIN_FACE as PROPOSALS_MIN_FACE
from kpipe.errors import ImageError, WriteError
from kpipe.formats.boxes import GivenBoxes, read_boxes
from kpipe.media.images import Photo, read_photo
from kpipe.media.limits import check_size, memory_limit
from kpipe.pipeline import Pipeline
from kpipe.structures.detections import Detections, Detector
from kpipe.structures.faces import Faces
from kpipe.structures.schemes import IBUG68, Scheme
from kpipe.utils.files import display_name

DEFAULT_SHARES = (PROPOSALS_MIN_FACE, COARSE_MIN_FACE)
"""The default smallest face of the detectors, as a share: see `min_face_pixels`."""

NORMAL_FACE, LARGE_FACE = 40, 120
"""Sides of faces [px]: the smallest that is worth a remark if it is not looked for in an elongated
picture, and the smallest in any. Photographs of 24 megapixels, 3:2, leave out faces below 75."""

LARGEST_SHARE = 1 / 25
"""Share of the shorter side above which the smallest face makes a picture an elongated one: a
panorama of more than 31:1."""


@dataclass
class AnnotatedPhoto:
    """What became of one photograph.

    Attributes:
        name: the photograph, as the user named it.
        faces: its faces, or None if it could not be used or none of its results be written.
        seconds: that the pipeline took.
        notes: remarks of one line, such as that there is no face.
        problems: errors of one line: of the photograph, which may be cut short and yet have been
            used as far as it goes, or of files that could not be written.
    """

    name: str
    faces: Faces | None = None
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def annotate(
    photos: Iterable[str | os.PathLike[str]],
    pipeline: Pipeline | None = None,
    sinks: Sequence[Sink] = (),
    *,
    boxes: str | os.PathLike[str] | None = None,
    scheme: Scheme = IBUG68,
    force: bool = False,
    progress: Callable[[Sequence[str]], Iterable[str]] = iter,
    on_result: Callable[[AnnotatedPhoto], object] | None = None,
) -> list[AnnotatedPhoto]:
    """Finds the faces of photographs and gives them to sinks.

    A photograph that cannot be used, or a file that cannot be written, is reported in the result
    and costs nothing else.

    >>> from kpipe.apps.sinks import JsonLines, Pictures
    >>> annotate(["a.jpg", "b.jpg"], sinks=[JsonLines("faces.jsonl"), Pictures("out/")])

    Args:
        photos: files; `-` is standard input.
        pipeline: finds the faces; without it `Pipeline()`.
        sinks: where the faces go, see `kpipe.apps.sinks`.
        boxes: file with the boxes of all faces, used in place of the detector: COCO's JSON, or CSV
            with image, x0, y0, x1 and y1.
        scheme: what the points of the results are.
        force: whether files that exist may be replaced; inputs never are.
        progress: wraps the names that are worked through, as `tqdm` does.
        on_result: called after each photograph.

    Returns:
        One result a photograph, in their order.

    Raises:
        WriteError: a file exists already or cannot be opened; nothing was begun. Or the results are
            not all written.
        BoxesError: the file of boxes cannot be used.
        ValueError: a sink does not suit the photographs.
    """
    names = [os.fspath(photo) for photo in photos]
    pipeline = pipeline or Pipeline()
    given = None if boxes is None else (GivenBoxes(read_boxes(Path(boxes))), os.fspath(boxes))
    outputs = Sinks(sinks, Run(OutputGuard(names, force), names, scheme))
    results = []
    try:
        for name in progress(names):
            result = AnnotatedPhoto(name)
            # Before the work, so that a result that is in the way costs no time.
            result.problems += outputs.begin(name)
            if not outputs.idle:
                _annotate(result, pipeline, outputs, given, scheme)
            results.append(result)
            if on_result is not None:
                on_result(result)
        problems = outputs.close()
    finally:
        outputs.abandon()
    if problems:
        raise WriteError(problems[0])
    return results


def _annotate(
    result: AnnotatedPhoto,
    pipeline: Pipeline,
    outputs: Sinks,
    given: tuple[GivenBoxes, str] | None,
    scheme: Scheme,
) -> None:
    name = result.name
    try:
        photo = _read(name)
        start = time.perf_counter()
        if given is not None:
            detections = _detections(result, *given)
        else:
            detections = None
            result.notes += _not_looked_for(name, pipeline.detector, photo.image.shape)
        faces = pipeline(photo.image, detections).to_scheme(scheme).at(name)
        faces = dataclasses.replace(faces, warning=photo.warning)
        result.seconds = time.perf_counter() - start
    except FAILURES as problem:
        reason = reason_of(problem, name)
        result.problems += [reason, *outputs.fail(name, reason)]
        return
    result.faces = faces
    if photo.warning is not None:
        result.problems.append(f"{display_name(_called(name))}: {photo.warning}")
    if not faces:
        result.notes.append(f"{display_name(name)}: no face found")
    result.problems += outputs.append(faces, photo)


def _detections(result: AnnotatedPhoto, given: GivenBoxes, file: str) -> Detections:
    boxes = given.of(result.name)
    if boxes is None:
        result.notes.append(f"{display_name(result.name)}: not in {file}")
        boxes = np.zeros((0, 4))
    return Detections.from_face_boxes(boxes)


def _not_looked_for(name: str, detector: Detector, shape: tuple[int, ...]) -> list[str]:
    """A remark if the default of the detector leaves out faces of a normal size.

    Args:
        name: the photograph.
        detector: with the attribute `min_face`, or without a default.
        shape: of the picture, (h, w, 3).
    """
    share = getattr(detector, "min_face", None)
    if share not in DEFAULT_SHARES:
        return []
    smallest = min_face_pixels(share, shape)
    elongated = smallest > LARGEST_SHARE * min(shape[:2]) and smallest > NORMAL_FACE
    if not elongated and smallest <= LARGE_FACE:
        return []
    return [
        f"{display_name(_called(name))}: faces below {smallest:.0f} pixels were not looked for; "
        f"--min-face {NORMAL_FACE} does"
    ]


def _read(name: str) -> Photo:
    if name != STREAM:
        return read_photo(name)
    if sys.stdin is None:
        raise ImageError("standard input: closed")
    limit = int(memory_limit())
    content = sys.stdin.buffer.read(limit + 1)
    check_size(len(content), _called(name))
    return read_photo(content, _called(name))


def _called(name: str) -> str:
    """What messages call a photograph."""
    return "standard input" if name == STREAM else name
