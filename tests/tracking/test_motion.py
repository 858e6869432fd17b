import numpy as np
import pytest
from numpy.typing import NDArray

from kpipe import Faces
from kpipe.preprocessing.affine import transform
from kpipe.preprocessing.crops import to_gray
from kpipe.tracking.motion import camera_motion, face_motion
from kpipe.utils.opencv import cv2


def moved(image: NDArray[np.uint8], matrix: NDArray[np.float64]) -> NDArray[np.uint8]:
    size = (image.shape[1], image.shape[0])
    return cv2.warpAffine(image, matrix, size, borderMode=cv2.BORDER_REPLICATE)


@pytest.mark.parametrize("x, y, turn, zoom", [(0, 0, 0, 1), (0.4, -0.3, 0, 1), (9, 5, 3, 1.02)])
def test_a_face_is_carried_along(
    portrait: NDArray[np.uint8],
    portrait_faces: Faces,
    x: float,
    y: float,
    turn: float,
    zoom: float,
) -> None:
    points = portrait_faces[0].points
    center = points.mean(axis=0).tolist()
    matrix = np.array(cv2.getRotationMatrix2D(center, turn, zoom))
    matrix[:, 2] += (x, y)
    gray = to_gray(portrait)
    motion = face_motion(gray, moved(gray, matrix), points)
    assert motion is not None
    off = np.linalg.norm(transform(motion, points) - transform(matrix, points), axis=1)
    assert off.mean() < 0.003 * portrait_faces[0].size


def test_a_hand_before_the_face_does_not_pull(
    portrait: NDArray[np.uint8], portrait_faces: Faces
) -> None:
    face = portrait_faces[0]
    gray = to_gray(portrait)
    matrix = np.array([[1.0, 0, 3], [0, 1, 2]])
    after = moved(gray, matrix)
    x0, y0, x1, y1 = face.box.astype(int)
    after[y0 : y0 + (y1 - y0) // 3, x0:x1] = np.random.default_rng(0).integers(
        0, 256, ((y1 - y0) // 3, x1 - x0)
    )
    motion = face_motion(gray, after, face.points)
    assert motion is not None
    assert transform(motion, face.points).mean(axis=0) == pytest.approx(
        transform(matrix, face.points).mean(axis=0), abs=0.01 * face.size
    )


def test_a_face_that_is_gone_has_no_motion(
    portrait: NDArray[np.uint8], portrait_faces: Faces
) -> None:
    gray = to_gray(portrait)
    noise = np.random.default_rng(0).integers(0, 256, gray.shape).astype(np.uint8)
    assert face_motion(gray, noise, portrait_faces[0].points) is None
    assert camera_motion(gray, noise) is None


def test_a_camera_that_is_swung_round(portrait: NDArray[np.uint8]) -> None:
    gray = to_gray(portrait)
    width = gray.shape[1]
    x, y = round(0.3 * width), round(-0.1 * width)
    motion = camera_motion(gray, moved(gray, np.array([[1.0, 0, x], [0, 1, y]])))
    assert motion is not None
    assert motion[:, 2] == pytest.approx((x, y), abs=0.02 * width)


def test_what_comes_into_the_picture_moves_no_camera(portrait: NDArray[np.uint8]) -> None:
    gray = to_gray(portrait)
    after = gray.copy()
    height, width = gray.shape
    after[: height // 2, width // 2 :] = 90
    motion = camera_motion(gray, after)
    assert motion is not None
    assert motion[:, 2] == pytest.approx((0, 0))
