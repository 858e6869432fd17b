"""What a worker does with one photograph: the same function for every engine."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from kpipe.batch.archives import read_member
from kpipe.batch.layout import (
    ANNOTATED,
    annotated_name,
    crop_name,
    result_path,
    temporary_file,
)
from kpipe.batch.reading import LARGEST_FILE, read_content
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


FATAL_ERRNOS = (
    errno.ENOSPC,
    getattr(errno, "EDQUOT", errno.ENOSPC),
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EIO,
)
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
        largest: bytes of a photograph's file at most.

    Raises:
        ModelError, CascadeError: a file cannot be used.
        ValueError: no detector has that name.
    """

    def __init__(
        self, pipeline: PipelineOptions, pictures: PictureOptions, largest: int = LARGEST_FILE
    ) -> None:
        from kpipe.utils.opencv import cv2

        cv2.setNumThreads(1)
        _keep_freed_memory()
        self._pictures, self._largest = pictures, largest
        self._pipeline = replace(pipeline, threads=1).build()

    def __call__(self, task: Task) -> PhotoResult:
        """The result of a photograph. An error of the photograph is a result too.

        Raises:
            OutputError: results cannot be written, neither this one nor the next.
        """
        try:
            task, content = _read(task, self._largest)
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
            # A picture that cannot be written costs the picture, not the faces.
            problems = self._write_pictures(photo, faces, task.place)
        except OutputError:
            raise
        except ImageError as error:
            reason = str(error).removeprefix(f"{display_name(task.name)}: ")
            return failed(task, reason)
        except MemoryError:
            return failed(task, OUT_OF_MEMORY)
        # OpenCV and ONNX Runtime raise errors of their own: one photograph must not end the job.
        except Exception as error:
            return failed(task, reason_of(error))
        warning = "; ".join(filter(None, [photo.warning, *problems])) or None
        faces = replace(faces, warning=warning)
        return result._replace(
            record=to_json(faces.to_dict()),
            faces=len(faces),
            warning=warning and f"{display_name(task.name)}: {warning}",
        )

    def _write_pictures(self, photo: Photo, faces: Faces, source: str) -> list[str]:
        """Writes the pictures of a photograph from `source`; why some could not be, one line each.

        Raises:
            OutputError: results cannot be written, neither this one nor the next.
        """
        problems = []
        for name, make in self._pictures_of(photo, faces):
            try:
                self._write(name, make(), source)
            except OutputError:
                raise
            except MemoryError:
                problems.append(f"{_called(name)}: {OUT_OF_MEMORY}")
            except Exception as error:  # as for the photograph itself
                # The file's name is that of the photograph, which the line has.
                reason = reason_of(error).rpartition(": ")[2]
                problems.append(f"{_called(name)}: {reason}")
        return problems

    def _pictures_of(self, photo: Photo, faces: Faces) -> Iterator[tuple[str, Callable[[], bytes]]]:
        """The names of the wanted pictures in the results folder, and how each is made."""
        options, name = self._pictures, str(faces.path)
        if options.draw is not None:
            from kpipe.structures.style import Style

            target, style = annotated_name(name), Style(options.draw)
            ending = PurePosixPath(target).suffix
            yield target, lambda: encode(faces.render(photo.image, style), ending, photo)
        if options.crops is not None:
            for index, face in enumerate(faces):
                yield crop_name(name, index), partial(self._crop, photo, face)

    def _crop(self, photo: Photo, face: Face) -> bytes:
        from kpipe.preprocessing.crops import face_crop

        options = self._pictures
        roll = face.pose.roll if options.crops == "aligned" and face.pose else 0.0
        crop, _ = face_crop(photo.image, face.points, roll, options.crop_size)
        return encode(crop, ".jpg")

    def _write(self, name: str, content: bytes, source: str) -> None:
        """Writes a file whole or not at all; a killed job leaves parts in one folder only."""
        results = Path(self._pictures.results)
        path = result_path(results, name)
        with contextlib.suppress(OSError, ValueError):
            # Without a link in its path too: a folder can be mounted at two places.
            if path.samefile(source) and Path(source).stat().st_nlink == 1:
                raise WriteError(f"{display_name(path)}: is the photograph itself")
        try:
            write_file(path, content, temporary_file(results))
        except WriteError as error:
            if error.errno in FATAL_ERRNOS:
                raise OutputError(str(error)) from None
            raise


def _called(name: str) -> str:
    """What a picture is called in the reason why it could not be written."""
    if name.startswith(f"{ANNOTATED}/"):
        return "its annotated picture"
    return f"its crop {PurePosixPath(name).stem.rpartition('_')[2]}"


def _keep_freed_memory() -> None:
    """Makes malloc reuse the memory of the last picture instead of asking the system for more.

    The system clears new memory page by page: a tenth of the time of a small photograph. Only GNU's
    C library has this setting.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, MMAP_BYTES)
        mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)


def _read(task: Task, largest: int = LARGEST_FILE) -> tuple[Task, bytes]:
    """The task with the size and time of its file as it was read, and the content.

    Raises:
        ReadError: the photograph cannot be read.
    """
    if task.content is not None:
        return task, task.content
    if task.saved is not None:
        return task, read_content(task.saved, largest).content
    if task.offset is not None:
        return task, read_member(task.place, task.offset, task.size, task.mtime, largest)
    content, size, mtime = read_content(task.place, largest)
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


def thumbnail(task: Task, largest: int = LARGEST_FILE) -> bytes:
    """A small picture (JPEG) of a photograph with the faces of its record.

    Args:
        task: with a record.
        largest: bytes of a photograph's file at most.

    Raises:
        ImageError, ReadError: the photograph cannot be read.
    """
    from kpipe.structures.faces import Faces
    from kpipe.utils.opencv import cv2

    _, content = _read(task, largest)
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
