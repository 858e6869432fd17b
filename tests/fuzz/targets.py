"""The public entries that read inputs, by kind of input."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from pathlib import Path
from unittest.mock import patch

import numpy as np

from tests.fuzz.worker import Case, Fault, Target

FRAMES = 40
"""Frames of a video that are read."""

RECORDS = 200
"""Records of a file that are read."""

COMMAND_SHARE = {"pictures": 50, "videos": 50, "records": 4, "boxes": 40, "archives": 0}
"""One in so many cases goes through the command line; 0 for none."""

SMALL = 1 << 21
"""Pixels: pictures with more are not written again."""


def place(case: Case, folder: Path) -> Path:
    """Puts the input where it is read from."""
    if case.kind == "journals":
        from tests.fuzz.seeds import job_photos

        job_photos(folder)
        results = folder.parent / "out"
        (results / ".kpipe").mkdir()
        (results / ".kpipe" / "journal.sqlite").write_bytes(case.content)
        return folder
    if _names_another(case):
        from tests.fuzz.seeds import videos

        (folder / "beside.ts").write_bytes(videos()["film.ts"])
    if case.name.endswith(".pts"):
        folder = folder / "points"
        folder.mkdir()
    path = folder / case.name
    path.write_bytes(case.content)
    return folder if case.name.endswith(".pts") else path


def _names_another(case: Case) -> bool:
    """Whether the case is a list of other files, and has no pictures of its own."""
    return case.content.startswith((b"#EXTM3U", b"ffconcat")) and case.content.isascii()


def is_command(case: Case) -> bool:
    share = COMMAND_SHARE.get(case.kind, 0)
    return bool(share) and case.variant % share == 0


def read(case: Case, source: Path, results: Path) -> None:
    """Reads a case in one of the ways that its kind is read.

    Raises:
        KpipeError: it is refused.
        Fault: the result is not as it should be.
    """
    if is_command(case):
        _command(_arguments(case, source, results))
    else:
        TARGETS[case.kind](case, source, results)


def warm_up() -> None:
    """Imports and builds what all cases share."""
    from kpipe.options import PipelineOptions

    # Building the networks for each case would take longer than all the rest.
    patch.object(PipelineOptions, "build", functools.cache(PipelineOptions.build)).start()
    PipelineOptions(min_face=0.3, threads=1).build()(np.zeros((64, 64, 3), np.uint8))


def _command(arguments: list[str]) -> None:
    from kpipe.cli import main

    with patch.object(sys, "argv", ["kpipe", *arguments]):
        try:
            main()
        except SystemExit as end:
            if end.code not in (0, 1, 2, None):
                raise Fault(f"exit code {end.code}") from None


def _arguments(case: Case, source: Path, results: Path) -> list[str]:
    if case.kind == "pictures":
        return ["annotate", str(source), "--json", str(results / "a.json"), "--no-picture"]
    if case.kind == "videos":
        data = ["--json", str(results / "a.json"), "--to", "1"]
        target = ["-o", str(results / "a.mp4")] if case.variant == 50 else ["--no-video"]
        return ["video", str(source), *target, *data]
    if case.kind == "boxes":
        from tests.conftest import PORTRAIT

        options = ["--no-picture", "--json", str(results / "a.json"), "--boxes", str(source)]
        return ["annotate", str(PORTRAIT), *options]
    ending = (".jsonl", ".csv", ".json", ".xml", "", ".parquet")[case.variant // 4 % 6]
    return ["convert", str(source), str(results / f"target{ending}"), "--force"]


def _picture(case: Case, source: Path, results: Path) -> None:
    from kpipe.media.images import can_write, encode, read_photo

    number = case.variant
    photo = read_photo(source if number % 2 else case.content)
    image = photo.image
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise Fault(f"a picture of {image.dtype} {image.shape}")
    if image.size < 3 * SMALL:
        suffix = source.suffix if can_write(source.suffix) else ".jpg"
        (results / "again").write_bytes(encode(image, suffix, photo))


def _video(case: Case, source: Path, results: Path) -> None:
    from kpipe.media.video_reader import VideoReader

    last = -1.0
    with VideoReader(source) as video:
        for frame in islice(video, FRAMES):
            if frame.image.shape != (video.height, video.width, 3):
                raise Fault("a frame of another size", f"{frame.image.shape}")
            if not last < frame.time < float("inf"):
                raise Fault("times do not grow", f"{last} {frame.time}")
            last = frame.time
        len(video)
        if _names_another(case) and last >= 0:
            raise Fault("another file than the given one is read")
        if video.problem is not None and not video.problem.isprintable():
            raise Fault("a problem has control characters", ascii(video.problem))
        size, unit = (video.width, video.height), video.time_base
    if case.variant % 4 == 0 and last >= 0 and size[0] * size[1] < SMALL:
        _sound(source, results, size, unit)


def _sound(source: Path, results: Path, size: tuple[int, int], unit: object) -> None:
    from kpipe.media.video_writer import VideoWriter

    target = results / f"again.{'mkv' if source.suffix == '.mkv' else 'mp4'}"
    image = np.zeros((size[1], size[0], 3), np.uint8)
    with VideoWriter(target, *size, time_base=unit, sound=source) as writer:  # type: ignore[arg-type]
        for k in range(4):
            writer.write(image, k / 10)


def _records(case: Case, source: Path, results: Path) -> None:
    from kpipe.datasets import read_samples
    from kpipe.formats import FORMATS, format_of, load_format

    number = case.variant
    if number % 5 == 0 and not case.name.endswith((".jsonl", ".parquet")):
        read_samples(source, on_bad=lambda error: None if number % 2 else _raise(error))
        return
    names = [name for name in FORMATS if name != format_of(source)]
    target = names[number // 5 % len(names)]
    endings = FORMATS[target]
    records = load_format(format_of(source)).read(source)
    load_format(target).write(results / f"target{endings[0]}", islice(records, RECORDS))


def _raise(error: Exception) -> None:
    raise error


class Workers:
    """An engine in this process that does what the workers of a job do."""

    def __init__(self, options: object) -> None:
        self._options = options

    def __call__(self) -> AbstractContextManager[Workers]:
        return nullcontext(self)

    def run(self, tasks: Iterator[object]) -> Iterator[list[tuple[object, object]]]:
        from kpipe.batch.worker import PhotoWorker, thumbnail
        from kpipe.errors import KpipeError

        work = PhotoWorker(self._options.pipeline, self._options.pictures)  # type: ignore[attr-defined]
        for task in tasks:
            if task.thumbnail is None:  # type: ignore[attr-defined]
                answer: object = work(task)  # type: ignore[arg-type]
                if getattr(answer, "error", None) and not answer.error.isprintable():  # type: ignore[attr-defined]
                    raise Fault("an error line has control characters", ascii(answer.error))  # type: ignore[attr-defined]
            else:
                try:
                    answer = thumbnail(task)  # type: ignore[arg-type]
                except KpipeError:
                    answer = None
            yield [(task, answer)]


def _job(case: Case, source: Path, results: Path) -> None:
    from kpipe.batch.job import run
    from kpipe.batch.types import JobOptions, PictureOptions
    from kpipe.options import PipelineOptions

    number = case.variant
    pictures = PictureOptions(
        str(results),
        draw=("points",) if number % 3 == 0 else None,
        crops="square" if number % 3 == 1 else None,
        crop_size=32,
    )
    formats = ("jsonl", ("csv", "coco", "parquet", "pts")[number // 3 % 4])
    options = JobOptions(
        [str(source)],
        results,
        PipelineOptions(min_face=0.3, threads=1),
        pictures,
        formats=formats,
        retry=number // 12 % 2 == 0,
    )
    lines: list[str] = []
    run(
        options,
        Workers(options),  # type: ignore[arg-type]
        notice=lines.append,
        input_error=lines.append,
        progress=lambda report: lines.extend(report.problems),
    )
    for line in lines:
        if not line.isprintable():
            raise Fault("a line of the job has control characters", ascii(line)[:300])


def _boxes(case: Case, source: Path, results: Path) -> None:
    from kpipe.formats.boxes import GivenBoxes, read_boxes

    found = read_boxes(source)
    for name, boxes in islice(found.items(), RECORDS):
        if boxes.ndim != 2 or boxes.shape[1] != 4 or not np.isfinite(boxes).all():
            raise Fault("boxes that are not boxes", ascii(boxes))
        GivenBoxes(found).of(name)


def _kaggle(case: Case, source: Path, results: Path) -> None:
    from kpipe.kaggle import files

    files.is_test(source)
    readers: dict[str, Callable[[Path], object]] = {
        "training": files.read_training,
        "test": files.read_test,
        "IdLookupTable": files.read_lookup,
        "SampleSubmission": files.read_sample,
    }
    if case.name.startswith("training") and case.variant % 4 == 0:
        files.read_labels(source)
        return
    readers[case.name.partition(".")[0]](source)


TARGETS: dict[str, Target] = {
    "pictures": _picture,
    "videos": _video,
    "records": _records,
    "archives": _job,
    "boxes": _boxes,
    "kaggle": _kaggle,
    "journals": _job,
}
"""Kinds of input, and what reads one."""
