"""What a worker does with one photograph: the same function for every engine."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kpipe.batch.layout import annotated_name, crop_name, temporary_folder
from kpipe.batch.reading import read_content
from kpipe.batch.remote import is_address
from kpipe.batch.types import PhotoResult, PictureOptions, Task
from kpipe.errors import ImageError, OutputError, ReadError, WriteError, reason_of
from kpipe.formats.jsonl import to_json
from kpipe.formats.records import error_record
from kpipe.media.images import Photo, encode, read_photo
from kpipe.utils.files import display_name, write_file

if TYPE_CHECKING:
    from kpipe.options import PipelineOptions
    from kpipe.structures.faces import Face, Faces


THUMBNAIL = 192
"""Longer side of a thumbnail on the contact sheet, pixels."""


OUT_OF_MEMORY = "needs more memory than a worker may have (--memory)"


FATAL_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)
"""Errors that every further photograph would hit too (disk full, read-only): the job stops."""


M_MMAP_THRESHOLD, M_TRIM_THRESHOLD = -3, -1
"""Settings of `mallopt`, as in malloc.h."""


MMAP_BYTES = 32 << 20
"""Blocks below this size (bytes) are taken from freed memory, not mapped anew."""


KEPT_BYTES = 128 << 20
"""Freed memory that a worker keeps at most (bytes)."""


class PhotoWorker:
    """Processes photographs one after another. A process loads it once.

    Args:
        pipeline: how faces are found; its `threads` is ignored, each worker runs on one core.
        pictures: which pictures are written.

    Raises:
        ModelError, CascadeError: a file cannot be used.
        ValueError: no detector has that name.
    """

    def __init__(self, pipeline: PipelineOptions, pictures: PictureOptions) -> None:
        from kpipe.utils.opencv import cv2

        cv2.setNumThreads(1)
        _keep_freed_memory()
        self._pictures = pictures
        self._pipeline = replace(pipeline, threads=1).build()

    def __call__(self, task: Task) -> PhotoResult:
        """The result of a photograph. An error of the photograph is a result too.

        Raises:
            OutputError: results cannot be written, neither this one nor the next.
        """
        try:
            task, content = _read(task)
        except ReadError as error:
            return unread(task, str(error))
        except MemoryError:
            return failed(task, OUT_OF_MEMORY)
        digest = hashlib.blake2b(content, digest_size=16).digest()
        result = PhotoResult(
            task.id, task.name, "", size=task.size, mtime=task.mtime, digest=digest
        )
        if digest == task.digest:
            return result._replace(unchanged=True)
        try:
            photo = read_photo(content, display_name(task.name))
            faces = self._pipeline(photo.image).at(task.name)
            self._write_pictures(photo, faces)
        except OutputError:
            raise
        except (ImageError, WriteError) as error:
            reason = str(error).removeprefix(f"{display_name(task.name)}: ")
            return failed(task, reason)
        except MemoryError:
            return failed(task, OUT_OF_MEMORY)
        # OpenCV and ONNX Runtime raise errors of their own: one photograph must not end the job.
        except Exception as error:
            return failed(task, reason_of(error))
        return result._replace(record=to_json(faces.to_dict()), faces=len(faces))

    def _write_pictures(self, photo: Photo, faces: Faces) -> None:
        options, name = self._pictures, str(faces.path)
        if options.draw is not None:
            from kpipe.structures.style import Style

            target = annotated_name(name)
            picture = faces.render(photo.image, Style(options.draw))
            self._write(target, encode(picture, Path(target).suffix, photo))
        if options.crops is not None:
            from kpipe.preprocessing.crops import face_crop

            for index, face in enumerate(faces):
                roll = face.pose.roll if options.crops == "aligned" and face.pose else 0.0
                crop, _ = face_crop(photo.image, face.points, roll, options.crop_size)
                self._write(crop_name(name, index), encode(crop, ".jpg"))

    def _write(self, name: str, content: bytes) -> None:
        """Writes a file whole or not at all; a killed job leaves parts in one folder only."""
        results = Path(self._pictures.results)
        try:
            write_file(results / name, content, temporary_folder(results) / str(os.getpid()))
        except WriteError as error:
            if error.errno in FATAL_ERRNOS:
                raise OutputError(str(error)) from None
            raise


def _keep_freed_memory() -> None:
    """Makes malloc reuse the memory of the last picture instead of asking the system for more.

    The system clears new memory page by page: a tenth of the time of a small photograph. Only GNU's
    C library has this setting.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, MMAP_BYTES)
        mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)


def _read(task: Task) -> tuple[Task, bytes]:
    """The task with the size and time of its file as it was read, and the content.

    Raises:
        ReadError: the photograph cannot be read.
    """
    if task.content is not None:
        return task, task.content
    content, size, mtime = read_content(task.place)
    # An address has no time of its own here: that of the scan counts.
    return (task if is_address(task.place) else task._replace(size=size, mtime=mtime)), content


def failed(task: Task, reason: str, *, retry: bool = False) -> PhotoResult:
    """The result of a photograph that cannot be processed; it stands until the photograph changes.

    Args:
        task: of the photograph.
        reason: one line, without the photograph's name.
        retry: whether the next run tries again in any case.
    """
    reason = f"{display_name(task.name)}: {reason}"
    return PhotoResult(
        task.id,
        task.name,
        to_json(error_record(task.name, reason)),
        error=reason,
        retry=retry,
        size=task.size,
        mtime=task.mtime,
    )


def unread(task: Task, reason: str) -> PhotoResult:
    """The result of a photograph that could not be read; the next run tries again."""
    return failed(task, reason, retry=True)


def thumbnail(task: Task) -> bytes:
    """A small picture (JPEG) of a photograph with the faces of its record.

    Raises:
        ImageError, ReadError: the photograph cannot be read.
    """
    from kpipe.structures.faces import Faces
    from kpipe.utils.opencv import cv2

    _, content = _read(task)
    photo = read_photo(content, display_name(task.name))
    faces = Faces.from_dict(json.loads(task.thumbnail or ""))
    scale = THUMBNAIL / max(photo.image.shape[:2])
    height, width = (max(round(side * scale), 1) for side in photo.image.shape[:2])
    small = np.asarray(
        cv2.resize(photo.image, (width, height), interpolation=cv2.INTER_AREA), np.uint8
    )
    # Faces are drawn after the reduction, which would make their lines too thin to see.
    scaled = tuple(_scaled(face, np.float32(scale)) for face in faces)
    picture = replace(faces, faces=scaled, width=width, height=height).render(small)
    return encode(picture, ".jpg")


def _scaled(face: Face, scale: np.float32) -> Face:
    """A face in a picture that is reduced by `scale`; pixel centers lie at whole numbers."""
    return replace(
        face,
        box=(face.box + np.float32(0.5)) * scale - np.float32(0.5),
        points=(face.points + np.float32(0.5)) * scale - np.float32(0.5),
        sigma=face.sigma * scale,
    )
