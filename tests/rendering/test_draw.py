from __future__ import annotations

import numpy as np
import pytest

from kpipe import IBUG68, Face, Faces, Style, render
from kpipe.rendering.draw import face_picture
from kpipe.structures.style import LAYERS, PALETTE


def faces_of_size(side: float, sigma: float = 0.1) -> Faces:
    """A face whose points lie on a grid over its box, in a picture twice its size."""
    size = max(int(2 * side), 4)
    grid = np.linspace(0.05, 0.95, 68)
    points = np.stack([grid, np.roll(grid, 30)], axis=1) * side + side / 2
    box = np.array([side / 2, side / 2, 1.5 * side, 1.5 * side], np.float32)
    face = Face(box, 0.9, points.astype(np.float32), np.full(68, sigma, np.float32))
    return Faces((face,), size, size)


@pytest.mark.parametrize("layer", sorted(LAYERS))
@pytest.mark.parametrize("side", [6, 20, 150, 2000])
def test_every_layer_draws_something_at_every_size(layer: str, side: int) -> None:
    faces = faces_of_size(side)
    blank = np.full((faces.height, faces.width, 3), 90, np.uint8)
    drawn = render(blank, faces, Style((layer,)))
    assert (drawn != blank).any()
    assert (blank == 90).all(), "the photograph itself must stay as it was"


def test_lines_cover_the_same_share_of_a_small_and_a_large_face() -> None:
    shares = []
    for side in (100, 400, 2000):
        faces = faces_of_size(side)
        blank = np.zeros((faces.height, faces.width, 3), np.uint8)
        drawn = render(blank, faces, Style(("lines",)))
        shares.append((drawn.max(axis=2) / 255).mean())
    assert max(shares) < 2 * min(shares)


def test_a_tiny_face_stays_visible_under_its_points() -> None:
    faces = faces_of_size(20)
    blank = np.full((40, 40, 3), 90, np.uint8)
    drawn = render(blank, faces, Style(("lines",)))
    inside = drawn[10:30, 10:30]
    assert 0.02 < (np.abs(inside.astype(int) - 90).max(axis=2) > 40).mean() < 0.6


def test_pixels_that_nothing_touches_keep_their_values() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (120, 120, 3), np.uint8)
    drawn = render(noise, faces_of_size(60), Style(("boxes",)))
    assert (drawn[50:70, 50:70] == noise[50:70, 50:70]).all()
    assert (drawn[:10] == noise[:10]).all()


def test_each_part_has_its_color() -> None:
    faces = faces_of_size(400)
    drawn = render(np.zeros((800, 800, 3), np.uint8), faces, Style(("points",)))
    for group, indices in IBUG68.groups.items():
        x, y = faces[0].points[indices[0]].round().astype(int)
        assert drawn[y, x] == pytest.approx(PALETTE[group], abs=3)
    assert len(set(PALETTE.values())) == len(PALETTE)


def test_uncertain_points_are_hollow() -> None:
    black = np.zeros((800, 800, 3), np.uint8)
    x, y = faces_of_size(400)[0].points[0].round().astype(int)
    sure = render(black, faces_of_size(400, 0.1), Style(("points",)))
    unsure = render(black, faces_of_size(400, 60), Style(("points",)))
    assert sure[y, x].any()
    assert not unsure[y, x].any()
    assert unsure.any()


def test_faces_beyond_the_edge() -> None:
    face = faces_of_size(100)[0]
    moved = Face(face.box - 120, 0.9, face.points - 120, face.sigma)
    far = Face(face.box + 9000, 0.9, face.points + 9000, face.sigma)
    drawn = render(np.zeros((60, 60, 3), np.uint8), Faces((moved, far), 60, 60))
    assert drawn.any()


def test_the_number_of_a_face_at_the_edge_is_seen() -> None:
    face = faces_of_size(100)[0]
    at_edge = Face(face.box - 50, 0.9, face.points - 50, face.sigma)
    drawn = render(
        np.zeros((100, 100, 3), np.uint8), Faces((at_edge,), 100, 100), Style(("index",))
    )
    assert drawn.any()


def test_wrong_pictures_and_styles_are_refused() -> None:
    faces = faces_of_size(50)
    with pytest.raises(ValueError, match=r"expected uint8 \(100, 100, 3\)"):
        render(np.zeros((50, 50, 3), np.uint8), faces)
    with pytest.raises(ValueError, match="cannot draw 'nose'; choose from boxes, lines"):
        Style(("nose",))


def test_the_picture_of_one_face() -> None:
    faces = faces_of_size(300)
    picture = face_picture(np.full((600, 600, 3), 50, np.uint8), faces, 0, side=160)
    assert picture.shape == (160, 160, 3)
    assert (picture != 50).any()
