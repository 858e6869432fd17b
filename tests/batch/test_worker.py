"""What a worker does with one photograph."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kpipe import Faces, read_image
from kpipe.batch.layout import temporary_folder
from kpipe.batch.types import PictureOptions, Task
from kpipe.batch.worker import PhotoWorker, failed, unread
from kpipe.options import PipelineOptions
from kpipe.preprocessing.crops import face_crop
from tests.conftest import GROUP

FAULTS = """
import resource, sys
from kpipe.batch.types import PictureOptions
from kpipe.batch.worker import PhotoWorker
from kpipe.media.images import encode, read_photo
from kpipe.options import PipelineOptions
PhotoWorker(PipelineOptions(), PictureOptions(results=""))
for _ in range(6):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    photo = read_photo(sys.argv[1])
    encode(photo.image.copy(), ".jpg", photo)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of GNU's C library")
def test_a_photograph_takes_the_memory_of_the_one_before() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FAULTS, GROUP],
        capture_output=True,
        text=True,
        check=True,
    )
    # Its pixels alone are 980 pages of memory.
    assert int(done.stdout) < 200


@pytest.mark.parametrize("kind", ["square", "aligned"])
def test_crops_are_those_of_the_shared_function(
    small_photo: Path, tmp_path: Path, kind: str
) -> None:
    temporary_folder(tmp_path).mkdir(parents=True)
    options = PipelineOptions(min_face=0.3)
    worker = PhotoWorker(options, PictureOptions(str(tmp_path), crops=kind, crop_size=100))
    result = worker(Task(1, "a.jpg", str(small_photo), None, -1, 0, None))
    (face,) = Faces.from_dict(json.loads(result.record))
    roll = face.pose.roll if kind == "aligned" else 0.0
    expected, _ = face_crop(read_image(small_photo), face.points, roll, 100)
    written = read_image(tmp_path / "crops/a.jpg_1.jpg")
    assert written.shape == (100, 100, 3)
    # JPEG changes a pixel by a few gray levels; another frame changes them by tens.
    assert np.abs(written.astype(int) - expected).mean() < 3


def test_only_a_photograph_that_could_not_be_read_is_tried_again() -> None:
    task = Task(7, "a\nb.jpg", "place", None, 5, 6, None)
    result = failed(task, "damaged")
    assert result.error == "a\\nb.jpg: damaged" and not result.retry
    assert json.loads(result.record)["error"] == result.error
    assert (result.id, result.size, result.mtime, result.faces) == (7, 5, 6, 0)
    assert unread(task, "no such file").retry
