"""Video files as they come: turned, mirrored, of unknown kinds, damaged where it hurts."""

from __future__ import annotations

import contextlib
import itertools
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import Run

av = pytest.importorskip("av")

from kpipe.errors import VideoError
from kpipe.media.video_reader import VideoReader
from tests.films import pictures, turn, write_film

SIGNS = list(itertools.product((1, -1), repeat=2))
UPRIGHT = [((a, 0), (0, d)) for a, d in SIGNS]
ON_THEIR_SIDE = [((0, b), (c, 0)) for b, c in SIGNS]


@pytest.mark.parametrize("matrix", UPRIGHT + ON_THEIR_SIDE)
def test_all_eight_orientations(
    tmp_path: Path, matrix: tuple[tuple[int, int], tuple[int, int]]
) -> None:
    path = tmp_path / "film.mp4"
    stored = pictures(1, 96, 64)[0]
    write_film(path, [stored], options={})
    turn(path, matrix)
    # Where each stored pixel goes, by the definition of the matrix.
    (a, b), (c, d) = matrix
    rows, columns = np.mgrid[0:64, 0:96]
    x, y = a * columns + c * rows, b * columns + d * rows
    x, y = x - x.min(), y - y.min()
    expected = np.zeros((y.max() + 1, x.max() + 1, 3), np.uint8)
    expected[y, x] = stored
    with VideoReader(path) as reader:
        assert (reader.height, reader.width) == expected.shape[:2]
        (frame,) = reader
    assert np.abs(frame.image.astype(int) - expected).mean() < 8


def test_an_unknown_kind_of_video_is_one_line(kpipe: Run, tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    write_film(path, pictures(3), sound="aac")
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzzz"))
    with pytest.raises(VideoError, match="no decoder for the kind of video in it"):
        VideoReader(path)
    done = kpipe("video", "film.mp4")
    assert done.returncode == 1 and done.stderr.count(b"\n") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["film.mp4"]


def test_an_unknown_kind_of_sound_is_left_out_and_said(kpipe: Run, tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    write_film(path, pictures(3), sound="aac")
    path.write_bytes(path.read_bytes().replace(b"mp4a", b"zzzz").replace(b"esds", b"zzzz"))
    done = kpipe("video", "film.mp4", "--min-face", "0.3", "-q")
    assert done.returncode == 1
    assert done.stderr == b"kpipe: film.mp4: no decoder for its kind of sound: left out\n"
    with VideoReader(tmp_path / "film_annotated.mp4") as reader:
        assert len(list(reader)) == 3


@pytest.mark.parametrize(("codec", "header"), [("libx264", b"avcC"), ("libx265", b"hvcC")])
def test_a_decoder_that_cannot_be_opened_ends(tmp_path: Path, codec: str, header: bytes) -> None:
    path = tmp_path / "film.mp4"
    for _ in range(20):
        # libx265 now and then writes headers that the MP4 writer refuses.
        with contextlib.suppress(av.error.FFmpegError):
            write_film(path, pictures(3), codec=codec)
            break
    content = bytearray(path.read_bytes())
    start = content.index(header) + 4
    content[start : start + 60] = b"\xff" * 60
    path.write_bytes(content)
    with pytest.raises(VideoError, match=r"no picture can be decoded|not a video|cannot be opened"):
        VideoReader(path)
