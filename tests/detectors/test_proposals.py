from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from kpipe import Faces, Pipeline
from kpipe.detectors.face_size import min_face_pixels
from kpipe.detectors.proposals import ProposalDetector
from kpipe.errors import ModelError
from kpipe.networks.landmarker import REFINE
from kpipe.preprocessing.affine import transform
from kpipe.preprocessing.boxes import landmark_box
from kpipe.preprocessing.crops import to_gray
from kpipe.utils.opencv import cv2
from kpipe.utils.resources import packaged


def near(boxes: NDArray[np.float32], box: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which boxes have nearly the place and size of one."""
    side = box[2] - box[0]
    away = np.abs((boxes[:, :2] + boxes[:, 2:]) / 2 - (box[:2] + box[2:]) / 2).max(axis=1)
    ratio = (boxes[:, 2] - boxes[:, 0]) / side
    return np.asarray((away < 0.25 * side) & (ratio > 0.6) & (ratio < 1.6))


@pytest.mark.parametrize("angle", [0, 45, 100, 180, -60])
def test_a_face_at_any_roll(
    portrait: NDArray[np.uint8], portrait_faces: Faces, angle: float
) -> None:
    face = portrait_faces[0]
    x, y = (float(v) for v in face.points.mean(axis=0))
    matrix = np.array(cv2.getRotationMatrix2D((x, y), -angle, 1.0))
    turned = np.asarray(cv2.warpAffine(to_gray(portrait), matrix, portrait.shape[1::-1]), np.uint8)
    found = ProposalDetector()(turned)
    boxes, rolls = found.boxes, found.rolls
    hit = near(boxes, landmark_box(transform(matrix, face.points), angle))
    assert hit.any()
    assert face.pose is not None
    away = np.abs((rolls[hit] - angle - face.pose.roll + 180) % 360 - 180)
    assert away.min() < 36


@pytest.mark.parametrize("scale", [0.3, 1.0, 3.0])
def test_the_size_of_the_picture_does_not_move_the_boxes(
    portrait: NDArray[np.uint8], portrait_faces: Faces, scale: float
) -> None:
    resized = cv2.resize(to_gray(portrait), None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    boxes = ProposalDetector()(np.asarray(resized, np.uint8)).boxes
    expected = (landmark_box(portrait_faces[0].points) + 0.5) * scale - 0.5
    assert near(boxes, expected.astype(np.float32)).any()


def test_only_so_many(portrait: NDArray[np.uint8]) -> None:
    gray = to_gray(portrait)
    every = ProposalDetector(min_score=0.001)(gray)
    few = ProposalDetector(min_score=0.001, limit=5)(gray)
    assert 5 < len({tuple(box) for box in few.boxes.tolist()}) < 20 < len(every.boxes)


def test_doubtful_places_are_limited_and_faces_allow_for_more(
    portrait: NDArray[np.uint8], portrait_faces: Faces
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (480, 640), np.uint8)
    detector = ProposalDetector(min_score=1e-6, limit=5)
    few = len(detector(noise).boxes)
    assert 5 <= few <= 11
    # More places to look at where smaller faces are wanted.
    assert few + 5 <= len(ProposalDetector(min_score=1e-6, limit=5, min_face=4)(noise).boxes) <= 30
    # Many faces are all found, however few doubtful places are wanted.
    box = portrait_faces[0].box.astype(int)
    head = to_gray(portrait)[max(box[1], 0) : box[3], max(box[0], 0) : box[2]]
    head = np.asarray(cv2.resize(head, (60, 60), interpolation=cv2.INTER_AREA), np.uint8)
    crowd = np.tile(np.pad(head, 10, "edge"), (6, 8))
    found = ProposalDetector(limit=5)(crowd).boxes
    centers = (found[:, :2] + found[:, 2:]) / 2
    for row in range(6):
        for column in range(8):
            away = np.abs(centers - (80 * column + 40, 80 * row + 40)).max(axis=1)
            assert away.min() < 20


def test_faces_below_the_smallest_are_not_looked_for(
    portrait: NDArray[np.uint8], portrait_faces: Faces
) -> None:
    box = landmark_box(portrait_faces[0].points)
    boxes = ProposalDetector(min_face=3 * float(box[2] - box[0]))(to_gray(portrait)).boxes
    assert not near(boxes, box).any()


def test_nothing_in_an_empty_picture_or_a_pixel() -> None:
    for shape in ((300, 400), (1, 1), (3000, 1), (1, 3000)):
        found = ProposalDetector()(np.full(shape, 128, np.uint8))
        assert found.boxes.shape == (0, 4) and found.rolls.shape == (0,)


def test_files_that_are_no_proposal_network(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"missing\.onnx: no such model file"):
        ProposalDetector(tmp_path / "missing.onnx")
    with pytest.raises(ModelError, match="not a detection network"):
        ProposalDetector(packaged(REFINE))


def test_a_file_of_version_0_1_has_one_map_and_scores_that_only_rank(tmp_path: Path) -> None:
    """The network takes light cells for faces of the nominal side."""
    onnx = pytest.importorskip("onnx")
    helper, kinds = onnx.helper, onnx.TensorProto
    nodes = [
        helper.make_node("Cast", ["crops"], ["levels"], to=kinds.FLOAT),
        helper.make_node("AveragePool", ["levels"], ["cells"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("Div", ["cells", "white"], ["score"]),
        helper.make_node("Sub", ["score", "score"], ["none"]),
        helper.make_node("Add", ["none", "one"], ["cosine"]),
        helper.make_node(
            "Concat", ["score", "none", "none", "none", "cosine", "none"], ["maps"], axis=1
        ),
    ]
    constants = [
        helper.make_tensor("white", kinds.FLOAT, [], [255.0]),
        helper.make_tensor("one", kinds.FLOAT, [], [1.0]),
    ]
    crops = helper.make_tensor_value_info("crops", kinds.UINT8, ["n", 1, "h", "w"])
    maps = helper.make_tensor_value_info("maps", kinds.FLOAT, ["n", 6, "r", "c"])
    graph = helper.make_graph(nodes, "old", [crops], [maps], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"kpipe.network": "proposals"})
    onnx.save(model, tmp_path / "old.onnx")
    gray = np.zeros((64, 96), np.uint8)
    gray[32:40, 48:56] = 255
    found = ProposalDetector(tmp_path / "old.onnx", min_face=16, min_score=0.9)(gray)
    assert found.scores is None
    assert found.boxes[0] == pytest.approx([51.5 - 11.3, 35.5 - 11.3, 51.5 + 11.3, 35.5 + 11.3])
    assert found.rolls[0] == 0


def test_a_panorama_keeps_its_faces(portrait: NDArray[np.uint8], pipeline: Pipeline) -> None:
    """Faces of 59 to 174 pixels, where 1/80 of the longer side is 250."""
    photo = np.full((960, 20_000, 3), 110, np.uint8)
    side = float(np.ptp(pipeline(portrait)[0].points, axis=0).max())
    for place, wanted in enumerate((59, 75, 92, 110, 140, 174)):
        scale = wanted / side
        small = cv2.resize(
            portrait[:340, 60:400], None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA
        )
        x = 1_000 + 3_200 * place
        photo[100 : 100 + small.shape[0], x : x + small.shape[1]] = small
    assert len(pipeline(photo)) == 6


@pytest.mark.parametrize(
    ("shape", "side"),
    [((480, 640), 16), ((1080, 1920), 24), ((3000, 4000), 50), ((1000, 2000), 25),
     ((1000, 12_000), 25), ((12_000, 1000), 25), ((1000, 48_000), 50), ((50, 40), 16)],
)  # fmt: skip
def test_the_smallest_face_follows_from_the_picture(shape: tuple[int, int], side: float) -> None:
    assert min_face_pixels(1 / 80, shape) == pytest.approx(side)
    assert min_face_pixels(33.0, shape) == 33
