"""What is done with one photograph: the one function of every engine."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from kpipe.batch.journal import Done
from kpipe.batch.sources import ANNOTATED, CROPS, STATE, is_address, read_content
from kpipe.errors import ImageError, OutputError, ReadError, WriteError
from kpipe.formats.jsonl import error_to_json, to_json
from kpipe.formats.records import inside
from kpipe.media.images import Photo, encode, read_photo
from kpipe.utils.files import display_name, write_file

if TYPE_CHECKING:
    from kpipe.pipeline import Pipeline
    from kpipe.structures.faces import Face, Faces


THUMBNAIL = 192
"""Side of a picture on the contact sheet, pixels."""


MEMORY = "needs more memory than a worker may have (--memory)"


FATAL_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)
"""What will not go better with the next photograph."""


@dataclass(frozen=True)
class Settings:
    """How photographs are done.

    Attributes:
        results: the folder of results, for pictures.
        model: the file of another network than the packaged one.
        detector: as `kpipe.detectors.registry.make_detector` names it.
        cascades: a folder of other cascades than OpenCV's own.
        min_score, min_face, tilt: as those of `kpipe annotate`.
        draw: parts drawn on an annotated picture; None for no such picture.
        crops: `square` or `aligned`, or None for none.
        crop_size: side of a crop, pixels.
    """

    results: str
    model: str | None = None
    detector: str = "proposals"
    cascades: str | None = None
    min_score: float = 0.7
    min_face: float | None = None
    tilt: str = "any"
    draw: tuple[str, ...] | None = None
    crops: str | None = None
    crop_size: int = 224


class Task(NamedTuple):
    """One photograph to be done.

    Attributes:
        id: of its row in the journal.
        name: what results call it.
        place: its path or address.
        content: its bytes, where it lies in an archive.
        size, mtime: as it was found.
        digest: of its content when it was last done, or None.
        thumbnail: its record, if not its faces are wanted but a small picture of them.
    """

    id: int
    name: str
    place: str
    content: bytes | None
    size: int
    mtime: int
    digest: bytes | None
    thumbnail: str | None = None


def load_pipeline(settings: Settings) -> Pipeline:
    """The pipeline on one thread: photographs are done side by side, each on one core.

    Raises:
        ModelError, CascadeError: a file cannot be used.
    """
    from kpipe.detectors.registry import TILTS, make_detector
    from kpipe.networks.landmarker import Landmarker
    from kpipe.pipeline import Pipeline
    from kpipe.utils.opencv import cv2

    cv2.setNumThreads(1)
    _keep_freed_memory()
    detector = make_detector(
        settings.detector,
        min_face=settings.min_face,
        tilt=settings.tilt,
        cascades=None if settings.cascades is None else Path(settings.cascades),
        threads=1,
    )
    predictor = Landmarker(settings.model, threads=1)
    max_roll = TILTS[settings.tilt]
    return Pipeline(detector, predictor, min_score=settings.min_score, max_roll=max_roll, threads=1)


def _keep_freed_memory() -> None:
    """Memory for a picture is taken from what the last one left, not from the system.

    What the system gives anew it has to clear, page by page: a tenth of the time of a small
    photograph. GNU's C library alone has this setting.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        for setting, size in ((MMAP_THRESHOLD, 32 << 20), (TRIM_THRESHOLD, KEPT)):
            ctypes.CDLL(None).mallopt(setting, size)


MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1
"""`M_MMAP_THRESHOLD` and `M_TRIM_THRESHOLD` of malloc.h."""


KEPT = 128 << 20
"""Bytes of freed memory that a worker keeps at most."""


class PhotoWorker:
    """Does photographs, one after another. Loaded once a process.

    Raises:
        ModelError, CascadeError: a file cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._pipeline = load_pipeline(settings)

    def __call__(self, task: Task) -> Done:
        """What came of a photograph; nothing that is wrong with it is raised.

        Raises:
            OutputError: its results cannot be written, and others' neither.
        """
        size, mtime, content = task.size, task.mtime, task.content
        try:
            if content is None:
                read = read_content(task.place)
                content = read.content
                if not is_address(task.place):
                    size, mtime = read.size, read.mtime
        except ReadError as problem:
            return unread(task, str(problem))
        except MemoryError:
            return failed(task, MEMORY)
        digest = hashlib.blake2b(content, digest_size=16).digest()
        if digest == task.digest:
            return Done(task.id, task.name, "", size=size, mtime=mtime, digest=digest, same=True)
        task = task._replace(size=size, mtime=mtime, digest=digest)
        try:
            photo = read_photo(content, display_name(task.name))
            faces = self._pipeline(photo.image).at(task.name)
            self._write_pictures(photo, faces)
        except OutputError:
            raise
        except (ImageError, WriteError) as problem:
            return failed(task, str(problem).removeprefix(f"{display_name(task.name)}: "))
        except MemoryError:
            return failed(task, MEMORY)
        except Exception as problem:  # OpenCV's, ONNX Runtime's: no photograph ends a job
            reason = " ".join(str(problem).split()) or type(problem).__name__
            return failed(task, reason)
        return Done(
            task.id,
            task.name,
            to_json(faces),
            len(faces),
            size=size,
            mtime=mtime,
            digest=digest,
        )

    def _write_pictures(self, photo: Photo, faces: Faces) -> None:
        settings, name = self._settings, str(faces.path)
        folder = Path(settings.results)
        if settings.draw is not None:
            from kpipe.rendering.draw import Style

            target = annotated_name(name)
            picture = faces.render(photo.image, Style(settings.draw))
            self._put(folder / target, encode(picture, Path(target).suffix, photo))
        if settings.crops is not None:
            from kpipe.preprocessing.affine import crop_transform
            from kpipe.preprocessing.boxes import landmark_box
            from kpipe.preprocessing.crops import warp

            for index, face in enumerate(faces):
                roll = face.pose.roll if settings.crops == "aligned" and face.pose else 0.0
                box = landmark_box(face.points, roll)
                matrix = crop_transform(box, roll, settings.crop_size)
                crop = warp(photo.image, matrix, settings.crop_size)
                self._put(folder / crop_name(name, index), encode(crop, ".jpg"))

    def _put(self, path: Path, content: bytes) -> None:
        """Writes a file, whole or not at all; what a killed job leaves lies in one place."""
        temporary = temporary_folder(Path(self._settings.results)) / str(os.getpid())
        try:
            write_file(path, content, temporary)
        except WriteError as error:
            if error.errno in FATAL_ERRNOS:
                raise OutputError(str(error)) from None
            raise


def failed(task: Task, reason: str, *, again: bool = False) -> Done:
    """The result of a photograph that could not be done, as long as it does not change."""
    reason = f"{display_name(task.name)}: {reason}"
    return Done(
        task.id,
        task.name,
        error_to_json(task.name, reason),
        error=reason,
        again=again,
        size=task.size,
        mtime=task.mtime,
    )


def unread(task: Task, reason: str) -> Done:
    """The result of a photograph that could not be had: the next run tries again."""
    return failed(task, reason, again=True)


def temporary_folder(results: Path) -> Path:
    return results / STATE / "tmp"


def annotated_name(name: str) -> str:
    """The annotated picture: where the photograph lies, in its format if it can be written."""
    from kpipe.media.images import can_write

    path = f"{ANNOTATED}/{inside(name)}"
    return path if can_write(Path(path).suffix) else f"{path}_annotated.jpg"


def crop_name(name: str, index: int) -> str:
    """The crop of a face (from 0)."""
    return f"{CROPS}/{inside(name)}_{index + 1}.jpg"


def thumbnail(task: Task) -> bytes:
    """A small picture of a photograph with the faces of its record, as JPEG.

    Raises:
        ImageError, ReadError: the photograph cannot be read.
    """
    from kpipe.structures.faces import Faces
    from kpipe.utils.opencv import cv2

    content = read_content(task.place).content if task.content is None else task.content
    photo = read_photo(content, display_name(task.name))
    faces = Faces.from_dict(json.loads(task.thumbnail or ""))
    scale = THUMBNAIL / max(photo.image.shape[:2])
    height, width = (max(round(side * scale), 1) for side in photo.image.shape[:2])
    small = np.asarray(
        cv2.resize(photo.image, (width, height), interpolation=cv2.INTER_AREA), np.uint8
    )
    # Drawn when it is small already: lines made thinner by reducing would hardly be seen.
    reduced = tuple(_scaled(face, np.float32(scale)) for face in faces)
    picture = replace(faces, faces=reduced, width=width, height=height).render(small)
    return encode(picture, ".jpg")


def _scaled(face: Face, scale: np.float32) -> Face:
    return replace(
        face,
        box=(face.box + np.float32(0.5)) * scale - np.float32(0.5),
        points=(face.points + np.float32(0.5)) * scale - np.float32(0.5),
        sigma=face.sigma * scale,
    )
