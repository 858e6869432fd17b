from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from kpipe import Faces, Pipeline, read_image

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
GROUP = EXAMPLES / "group_photo.jpg"
PORTRAIT = EXAMPLES / "portraits" / "collins.jpg"
DATA = ROOT.parent / "shared" / "data"

PATIENCE = 600
"""Seconds after which what has not come never will: no test waits so long on a machine that is only
slow."""

Run = Callable[..., "subprocess.CompletedProcess[bytes]"]

if "PYTEST_XDIST_WORKER" in os.environ:
    # The workers share the cores: threads of each would only wait for one another.
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def wait_for(condition: Callable[[], object]) -> None:
    """Until the condition is true."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)


@pytest.fixture(scope="session")
def pipeline() -> Pipeline:
    return Pipeline()


@pytest.fixture(scope="session")
def portrait() -> NDArray[np.uint8]:
    return read_image(PORTRAIT)


@pytest.fixture(scope="session")
def portrait_faces(pipeline: Pipeline, portrait: NDArray[np.uint8]) -> Faces:
    return pipeline(portrait)


@pytest.fixture
def small_photo(tmp_path: Path) -> Path:
    """A photograph of 256 x 256 with one face, in a folder of its own."""
    path = tmp_path / "photo.jpg"
    with Image.open(PORTRAIT) as picture:
        picture.crop((60, 0, 400, 340)).resize((256, 256)).save(path, quality=92)
    return path


@pytest.fixture
def kpipe(tmp_path: Path) -> Run:
    """Runs the program in a folder of its own, as a user would."""

    def run(
        *arguments: str | bytes | Path, **options: object
    ) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-m", "kpipe", *arguments]
        options.setdefault("cwd", tmp_path)
        return subprocess.run(
            command, capture_output=True, timeout=PATIENCE, check=False, **options
        )

    return run


@pytest.fixture(scope="session")
def portrait_labels(pipeline: Pipeline) -> dict[Path, str]:
    """The example portraits, each with the text of a .pts file: what the network sees in it."""
    from kpipe.formats.pts import to_pts

    paths = sorted((EXAMPLES / "portraits").glob("*.jpg"))
    return {
        path: to_pts(np.round(pipeline(read_image(path))[0].points.astype(np.float64), 3))
        for path in paths
    }


@pytest.fixture
def labeled(tmp_path: Path, portrait_labels: dict[Path, str]) -> Path:
    """A folder in the format of 300-W: the example portraits with what the network sees in them."""
    folder = tmp_path / "labeled"
    folder.mkdir()
    for path, text in portrait_labels.items():
        shutil.copy(path, folder)
        (folder / path.name).with_suffix(".pts").write_text(text)
    return folder
