import numpy as np
import pytest

from kpipe.measures.alignment import aligned_chip
from kpipe.measures.expression import openness
from kpipe.measures.pose import head_pose, mean_face, scaled_orthographic
from kpipe.structures.schemes import IBUG68
from kpipe.tracking.blink import BlinkDetector


def turned(yaw: float, pitch: float, roll: float, face: np.ndarray | None = None) -> np.ndarray:
    """The mean face, or another, seen from the camera after the subject turned its head."""
    y, p, r = np.deg2rad([-yaw, -pitch, roll])
    about_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(p), -np.sin(p)], [0, np.sin(p), np.cos(p)]])
    about_z = np.array([[np.cos(r), -np.sin(r), 0], [np.sin(r), np.cos(r), 0], [0, 0, 1]])
    return (mean_face() if face is None else face) @ (about_z @ about_x @ about_y).T


@pytest.mark.parametrize(
    "angles", [(0, 0, 0), (30, 0, 0), (0, -20, 0), (0, 0, 50), (-40, 15, -120)]
)
def test_pose_of_a_turned_mean_face(angles: tuple[float, float, float]) -> None:
    points = turned(*angles)[:, :2] * 130 + (400, 300)
    assert head_pose(points) == pytest.approx(angles, abs=1e-6)


def test_signs_are_as_documented() -> None:
    tip, eyes = 30, [36, 45]
    to_its_left = turned(25, 0, 0)
    assert to_its_left[tip, 0] > to_its_left[eyes, 0].mean()
    looks_up = turned(0, 25, 0)
    upwards = mean_face()[tip, 1] - mean_face()[eyes, 1].mean()
    assert looks_up[tip, 1] - looks_up[eyes, 1].mean() < upwards
    clockwise = turned(0, 0, 25)
    assert clockwise[45, 1] > clockwise[36, 1]


def test_the_mean_face_is_symmetric_and_its_nose_is_in_front() -> None:
    face = mean_face()
    assert face[IBUG68.mirror] * (-1, 1, 1) == pytest.approx(face, abs=1e-3)
    assert face[30, 2] == face[:, 2].min()
    assert np.linalg.norm(face[36] - face[45]) == pytest.approx(1, abs=1e-3)


def test_many_views_at_once() -> None:
    views = np.stack([turned(10, 0, 0)[:, :2] * 50, turned(0, 0, 30)[:, :2] * 80])
    scales, rotations = scaled_orthographic(mean_face(), views)
    assert scales == pytest.approx([50, 80])
    assert rotations @ rotations.transpose(0, 2, 1) == pytest.approx(np.stack([np.eye(3)] * 2))


@pytest.mark.slow
def test_the_mean_face_can_be_found_again_from_its_views() -> None:
    pytest.importorskip("torch")
    from kpipe.training.mean_face import mean_face as recover

    rng = np.random.default_rng(0)
    angles = rng.normal(0, (25, 12, 8), (150, 3))
    views = np.stack([turned(*a)[:, :2] * rng.uniform(50, 200) for a in angles])
    found = recover(views + rng.normal(0, 0.2, views.shape))
    centered = mean_face() - mean_face().mean(axis=0)
    assert found == pytest.approx(centered, abs=0.1)


def with_eyes(share: float) -> np.ndarray:
    """The mean face with its eyes open by a share of what is usual."""
    face = mean_face().copy()
    for upper, lower in ((37, 41), (38, 40), (43, 47), (44, 46)):
        middle = (face[upper] + face[lower]) / 2
        for lid in (upper, lower):
            face[lid] = middle + share * (face[lid] - middle)
    return face


@pytest.mark.parametrize("angles", [(0, 0, 0), (35, 0, 0), (-20, 15, 40), (0, -25, 170)])
def test_openness_is_that_of_the_face_from_its_front(angles: tuple[float, float, float]) -> None:
    for share in (1.0, 0.4):
        front = openness(with_eyes(share)[:, :2])
        turned_ = openness(turned(*angles, with_eyes(share))[:, :2] * 90 + (300, 200))
        assert tuple(turned_) == pytest.approx(tuple(front), rel=0.12, abs=0.04)
    half, whole = openness(with_eyes(0.5)[:, :2]), openness(with_eyes(1.0)[:, :2])
    assert half.right_eye == pytest.approx(whole.right_eye / 2, rel=0.05)
    assert half.mouth == pytest.approx(whole.mouth, rel=0.05)


def test_an_open_mouth() -> None:
    face = mean_face().copy()
    closed = openness(face[:, :2]).mouth
    face[[65, 66, 67], 1] += 0.2
    assert openness(face[:, :2]).mouth > closed + 0.3


def test_blinks() -> None:
    detector = BlinkDetector()
    found = []
    for k in range(90):
        share = 0.3 if k in (40, 41, 42, 43) else 1.0
        found.append(detector(openness(with_eyes(share)[:, :2]), k / 30))
    assert [k for k, blink in enumerate(found) if blink] == [40, 41, 42, 43]
    # Eyes that are narrow by nature are not closed.
    narrow = BlinkDetector()
    looks = [narrow(openness(with_eyes(0.55)[:, :2]), k / 3) for k in range(120)]
    assert not any(looks[60:])
    assert narrow(openness(with_eyes(0.2)[:, :2]), 40.1)
    # That is known soon; and a face that comes amid a blink has not been blinking ever since.
    narrow = BlinkDetector()
    looks = [narrow(openness(with_eyes(0.55)[:, :2]), k / 30) for k in range(60)]
    assert not any(looks[10:])
    amid = BlinkDetector()
    shares = [0.3] * 5 + [1.0] * 85
    shares[60:64] = [0.3] * 4
    found = [amid(openness(with_eyes(s)[:, :2]), k / 30) for k, s in enumerate(shares)]
    assert [k for k, blink in enumerate(found) if blink] == [0, 1, 2, 3, 4, 60, 61, 62, 63]


@pytest.mark.parametrize("angles", [(0, 0, 0), (25, 0, 0), (-35, 10, 5), (10, -20, -15)])
def test_pose_agrees_with_perspective_n_points(angles: tuple[float, float, float]) -> None:
    """As a camera sees a head from a metre or so, and as OpenCV's solvePnP takes it apart."""
    from kpipe.utils.opencv import cv2

    away, focal = 10.0, 1000.0
    head = turned(*angles) - turned(*angles).mean(axis=0)
    seen_ = head[:, :2] / (head[:, 2:] + away) * focal + (400, 300)
    assert head_pose(seen_) == pytest.approx(angles, abs=2.5)

    camera = np.array([[focal, 0, 400], [0, focal, 300], [0, 0, 1.0]])
    shape = mean_face() - mean_face().mean(axis=0)
    solved, rotation, _ = cv2.solvePnP(shape, seen_, camera, None, flags=cv2.SOLVEPNP_SQPNP)
    assert solved
    matrix = cv2.Rodrigues(rotation)[0]
    yaw = np.arctan2(matrix[2, 0], matrix[2, 2])
    pitch = -np.arcsin(matrix[2, 1])
    roll = np.arctan2(-matrix[0, 1], matrix[1, 1])
    assert np.rad2deg([yaw, pitch, roll]) == pytest.approx(angles, abs=0.5)
    assert head_pose(seen_) == pytest.approx(np.rad2deg([yaw, pitch, roll]), abs=2.5)


def test_chips_are_upright_and_framed_alike() -> None:
    image = np.zeros((400, 500, 3), np.uint8)
    points = turned(0, 0, 30)[:, :2] * 80 + (250, 200)
    for index in (36, 45):
        x, y = points[index].round().astype(int)
        image[y - 2 : y + 3, x - 2 : x + 3] = 255
    chip = aligned_chip(image, points, 160)
    assert chip.shape == (160, 160, 3)
    rows, columns = np.nonzero(chip[..., 0] > 128)
    assert np.ptp(rows) <= 8
    assert np.ptp(columns) == pytest.approx(0.45 * 160, abs=8)
