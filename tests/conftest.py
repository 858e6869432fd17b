from __future__ import annotations

import shutil
import subprocess
import sys
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

Run = Callable[..., "subprocess.CompletedProcess[bytes]"]


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
        return subprocess.run(command, capture_output=True, timeout=120, check=False, **options)

    return run


@pytest.fixture
def labelled(tmp_path: Path, pipeline: Pipeline) -> Path:
    """A folder in the format of 300-W: the example portraits with what the network sees in them."""
    from kpipe.formats.pts import to_pts

    folder = tmp_path / "labelled"
    folder.mkdir()
    for path in sorted((EXAMPLES / "portraits").glob("*.jpg")):
        image = read_image(path)
        face = pipeline(image)[0]
        shutil.copy(path, folder)
        (folder / path.name).with_suffix(".pts").write_text(to_pts(face))
    return folder
