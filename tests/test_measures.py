import numpy as np
import pytest

from kpipe.measures import head_pose, mean_face, scaled_orthographic
from kpipe.schemes import IBUG68


def turned(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """The mean face seen from the camera after the subject turned its head."""
    y, p, r = np.deg2rad([-yaw, -pitch, roll])
    about_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(p), -np.sin(p)], [0, np.sin(p), np.cos(p)]])
    about_z = np.array([[np.cos(r), -np.sin(r), 0], [np.sin(r), np.cos(r), 0], [0, 0, 1]])
    return mean_face() @ (about_z @ about_x @ about_y).T


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


def test_the_mean_face_can_be_found_again_from_its_views() -> None:
    pytest.importorskip("torch")
    from kpipe.training.mean_face import mean_face as recover

    rng = np.random.default_rng(0)
    angles = rng.normal(0, (25, 12, 8), (150, 3))
    views = np.stack([turned(*a)[:, :2] * rng.uniform(50, 200) for a in angles])
    found = recover(views + rng.normal(0, 0.2, views.shape))
    centred = mean_face() - mean_face().mean(axis=0)
    assert found == pytest.approx(centred, abs=0.1)
