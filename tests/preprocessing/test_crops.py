import numpy as np
import pytest

from kpipe.preprocessing.affine import CROP_SIZE, crop_transform, crop_transforms, invert, transform
from kpipe.preprocessing.boxes import landmark_box
from kpipe.preprocessing.crops import ImagePyramid, face_crop, warp


def spot(size: tuple[int, int], x: float, y: float, radius: float) -> np.ndarray:
    """A gray picture with one soft white spot."""
    ys, xs = np.mgrid[: size[1], : size[0]]
    return (255 * np.exp(-((xs - x) ** 2 + (ys - y) ** 2) / (2 * radius**2))).astype(np.uint8)


def centroid(picture: np.ndarray) -> np.ndarray:
    ys, xs = np.mgrid[: picture.shape[0], : picture.shape[1]]
    weights = picture.astype(float)
    return np.array([(xs * weights).sum(), (ys * weights).sum()]) / weights.sum()


@pytest.mark.parametrize("side", [40, 100, 250, 700])
@pytest.mark.parametrize("roll", [0.0, 30.0, -75.0])
def test_a_spot_lands_where_the_matrix_says(side: float, roll: float) -> None:
    place = (512.3, 430.8)
    picture = spot((1000, 900), *place, radius=side / 30)
    box = np.array([480.0, 400.0, 480.0 + side, 400.0 + side])
    matrix = crop_transform(box, roll)
    expected = transform(matrix, np.array([place]))[0]
    if not (expected.min() > 10 and expected.max() < CROP_SIZE - 10):
        pytest.skip("outside this crop")
    assert centroid(warp(picture, matrix)) == pytest.approx(expected, abs=0.1)


def test_the_inverse_brings_points_back() -> None:
    matrix = crop_transform(np.array([10.0, 20.0, 110.0, 120.0]), 33.0)
    points = np.random.default_rng(0).uniform(0, 200, (68, 2)).astype(np.float32)
    assert transform(invert(matrix), transform(matrix, points)) == pytest.approx(points, abs=1e-3)


def test_a_face_turned_by_its_roll_stands_upright_in_the_crop() -> None:
    # An eye line that falls to the right by 20 degrees is a head turned clockwise.
    angle = np.deg2rad(20)
    eyes = np.array([[100.0, 100.0], [100 + 50 * np.cos(angle), 100 + 50 * np.sin(angle)]])
    upright = transform(crop_transform(landmark_box(eyes, 20.0), 20.0), eyes)
    assert upright[0, 1] == pytest.approx(upright[1, 1], abs=1e-3)
    assert upright[0, 0] < upright[1, 0]


def test_the_box_is_the_square_around_the_points() -> None:
    points = np.array([[10.0, 20.0], [50.0, 30.0]])
    assert landmark_box(points).tolist() == [10, 5, 50, 45]


@pytest.mark.parametrize("box", [(-500, -500, -400, -400), (5000, 10, 5100, 110)])
def test_outside_the_picture_is_black(box: tuple[float, ...]) -> None:
    picture = np.full((50, 60), 200, np.uint8)
    assert not warp(picture, crop_transform(np.array(box, float))).any()
    assert not warp(picture, crop_transform(np.array(box, float) * 20)).any()


@pytest.mark.parametrize("shape", [(60, 40_000), (60, 40_000, 3), (40_000, 60)])
def test_pictures_longer_than_opencv_can_warp(shape: tuple[int, ...]) -> None:
    place = (39_950.0, 30.0) if shape[1] > shape[0] else (30.0, 39_950.0)
    picture = np.zeros(shape, np.uint8)
    picture[int(place[1]) - 5 : int(place[1]) + 6, int(place[0]) - 5 : int(place[0]) + 6] = 255
    box = np.array([place[0] - 25, place[1] - 25, place[0] + 25, place[1] + 25])
    crop = warp(picture, crop_transform(box))
    assert crop.shape == (CROP_SIZE, CROP_SIZE, *shape[2:])
    gray = crop if crop.ndim == 2 else crop[..., 0]
    assert centroid(gray) == pytest.approx((63.5, 63.5), abs=0.1)


@pytest.mark.parametrize("shape", [(60, 40_000), (40_000, 60), (2, 40_000), (40_000, 1)])
def test_pyramids_of_long_pictures(shape: tuple[int, int]) -> None:
    """One crop shows a spot large, one shows it small, and one is of the whole picture."""
    thin = min(shape) < 60
    place = np.array([39_950.0, 30.0] if shape[1] > shape[0] else [30.0, 39_950.0])
    picture = np.zeros(shape, np.uint8)
    ends = [slice(max(int(v) - 5, 0), int(v) + 6) for v in place[::-1]]
    picture[ends[0], ends[1]] = 255
    boxes = np.array([[*(place - half), *(place + half)] for half in (25, 60, 30_000)])
    crops = ImagePyramid(picture).crops(crop_transforms(boxes, np.zeros(3), 64, 1.45), 64)
    assert crops.shape == (3, 64, 64)
    for crop in crops[: 0 if thin else 2]:
        assert centroid(crop) == pytest.approx((31.5, 31.5), abs=0.6)


def test_no_crops_of_a_pyramid() -> None:
    assert ImagePyramid(np.zeros((5, 5), np.uint8)).crops(np.zeros((0, 2, 3)), 32).shape == (
        0,
        32,
        32,
    )


def test_fine_patterns_are_averaged_not_sampled() -> None:
    checkerboard = (np.indices((900, 900)).sum(axis=0) % 2 * 255).astype(np.uint8)
    crop = warp(checkerboard, crop_transform(np.array([100.0, 100.0, 800.0, 800.0])))
    assert crop[20:-20, 20:-20].std() < 20


@pytest.mark.parametrize("scale", [3.0, 1.0, 0.4, 0.11, 0.05])
def test_a_pyramid_cuts_what_warp_cuts(scale: float) -> None:
    rows, columns = np.mgrid[0:1001, 0:1503]
    smooth = (100 + 60 * np.sin(columns / 60) + 60 * np.cos(rows / 45)).astype(np.uint8)
    angle = 0.3
    linear = scale * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    matrix = np.column_stack([linear, np.array([32, 32]) - linear @ (750, 500)])
    expected, found = warp(smooth, matrix, 64), ImagePyramid(smooth).crops(matrix[None], 64)[0]
    inside = warp(np.full_like(smooth, 255), matrix, 64) == 255
    assert inside.sum() > 100
    assert np.abs(expected.astype(int) - found)[inside].mean() < 2.5


@pytest.mark.parametrize("roll", [0.0, 30.0, -100.0])
def test_a_face_crop_is_the_landmark_box_with_a_margin_and_the_roll_undone(roll: float) -> None:
    angle = np.deg2rad(roll)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    upright = np.array([[-50.0, -40.0], [50.0, -40.0], [0.0, 0.0], [0.0, 60.0]])
    points = upright @ turn + (300.0, 200.0)
    image = spot((600, 400), *points[2], radius=3)
    crop, matrix = face_crop(image, points, roll, 145)
    assert crop.shape == (145, 145)
    inside = transform(matrix, points)
    # The longer side of the box, 100 pixels, is 1 / CROP_MARGIN of the crop: here 100 pixels too.
    assert inside - inside[2] == pytest.approx(upright, abs=1e-3)
    low, high = inside.min(axis=0), inside.max(axis=0)
    assert (low + high) / 2 == pytest.approx(np.array([72.0, 72.0]), abs=1e-3)
    assert centroid(crop) == pytest.approx(inside[2], abs=0.1)
    color = np.repeat(image[..., None], 3, axis=2)
    assert face_crop(color, points, roll, 145)[0].shape == (145, 145, 3)
