from __future__ import annotations

import copy
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from kpipe import (
    IBUG68,
    Detections,
    Faces,
    Pipeline,
    PipelineOptions,
    Tracker,
    TrackerOptions,
    read_image,
)
from kpipe.detectors.registry import TILTS, make_detector
from kpipe.networks.fusion import fused_score
from kpipe.preprocessing.boxes import iou, landmark_box
from kpipe.preprocessing.crops import to_gray
from kpipe.structures.landmarks import Landmarks
from kpipe.utils.opencv import cv2
from tests.conftest import GROUP


def ocular(points: NDArray[np.float32]) -> float:
    return float(np.linalg.norm(points[36] - points[45]))


def difference(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Mean distance in percent of the inter-ocular distance."""
    return float(np.linalg.norm(a - b, axis=1).mean() / ocular(b) * 100)


def test_one_face_in_the_portrait(portrait_faces: Faces) -> None:
    assert len(portrait_faces) == 1
    face = portrait_faces[0]
    # Where the eyes and the mouth are in this photograph, read off by eye.
    assert face.points[36:42].mean(axis=0) == pytest.approx((206, 104), abs=4)
    assert face.points[42:48].mean(axis=0) == pytest.approx((245, 104), abs=4)
    assert face.points[48:68].mean(axis=0) == pytest.approx((225, 147), abs=5)
    assert face.score > 0.9
    assert 0 < face.sigma.mean() < 5
    assert face.pose is not None and abs(face.pose.roll) < 10


def test_the_whole_group(pipeline: Pipeline) -> None:
    faces = pipeline(read_image(GROUP))
    assert len(faces) == 6
    sizes = [face.size for face in faces]
    assert sizes == sorted(sizes, reverse=True)
    rolls = sorted(round(face.pose.roll) for face in faces if face.pose)
    assert rolls[0] < -25 and rolls[-1] > 15


def test_a_small_face_in_a_large_photo(
    pipeline: Pipeline, portrait: NDArray[np.uint8], portrait_faces: Faces
) -> None:
    side = float(np.ptp(portrait_faces[0].points, axis=0).max())
    shrink = 26 / side
    small = cv2.resize(portrait, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
    photo = np.full((1400, 2000, 3), 90, np.uint8)
    photo[600 : 600 + small.shape[0], 900 : 900 + small.shape[1]] = small
    found = pipeline(photo)
    assert len(found) == 1
    expected = portrait_faces[0].points * shrink + (900, 600)
    assert np.linalg.norm(found[0].points - expected, axis=1).mean() < 1.5


def test_the_classifier_drops_candidates_but_no_face(pipeline: Pipeline) -> None:
    image = read_image(GROUP)
    gray = to_gray(image)
    candidates = pipeline.detector(gray)
    possible = pipeline.classify(gray, candidates)
    assert 0 < len(possible) < 0.6 * len(candidates)
    without = pipeline(image, candidates)  # given candidates skip the classifier
    assert len(without) == len(pipeline(image)) == 6


def test_a_mirrored_photo_gives_mirrored_points(
    pipeline: Pipeline, portrait: NDArray[np.uint8], portrait_faces: Faces
) -> None:
    mirrored = pipeline(np.ascontiguousarray(portrait[:, ::-1]))[0].points[IBUG68.mirror]
    mirrored[:, 0] = portrait.shape[1] - 1 - mirrored[:, 0]
    assert difference(mirrored, portrait_faces[0].points) < 2.5


@pytest.mark.parametrize("angle", [-40, -20, 10, 30])
def test_a_turned_photo_gives_turned_points(
    pipeline: Pipeline, portrait: NDArray[np.uint8], portrait_faces: Faces, angle: float
) -> None:
    turn = cv2.getRotationMatrix2D((226, 120), -angle, 1.0)
    turned = cv2.warpAffine(portrait, turn, portrait.shape[1::-1], borderMode=cv2.BORDER_REFLECT)
    expected = portrait_faces[0].points @ turn[:, :2].T + turn[:, 2]
    found = min((f.points for f in pipeline(turned)), key=lambda p: difference(p, expected))
    assert difference(found, expected) < 3.5


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_photo_on_its_side(
    pipeline: Pipeline, portrait: NDArray[np.uint8], portrait_faces: Faces, quarters: int
) -> None:
    x, y = portrait_faces[0].points.T
    last = portrait.shape[0] - 1  # as wide as high
    places = {1: (y, last - x), 2: (last - x, last - y), 3: (last - y, x)}
    expected = np.stack(places[quarters], axis=1)
    found = pipeline(np.ascontiguousarray(np.rot90(portrait, quarters)))
    assert found
    surest = max(found, key=lambda face: face.score)
    assert difference(surest.points, expected) < 3


@pytest.mark.parametrize("name", ["proposals", "haar"])
def test_only_upright_heads(name: str, portrait: NDArray[np.uint8]) -> None:
    upright = Pipeline(make_detector(name, tilt="upright"), max_roll=TILTS["upright"])
    small = cv2.resize(portrait, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA)
    height, width = small.shape[:2]
    for turn in (0, 25, 60, 120, 180, -70):
        matrix = cv2.getRotationMatrix2D((width / 2, height / 2), -turn, 0.7)
        found = upright(cv2.warpAffine(small, matrix, (width, height)))
        assert len(found) == (abs(turn) < 45), turn
        assert all(face.pose is not None and abs(face.pose.roll) <= 45 for face in found)


@pytest.mark.parametrize("scale", [0.5, 2.0, 4.5])
def test_the_size_of_the_photo_does_not_matter(
    pipeline: Pipeline, portrait: NDArray[np.uint8], portrait_faces: Faces, scale: float
) -> None:
    area = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    resized = cv2.resize(portrait, None, fx=scale, fy=scale, interpolation=area)
    expected = (portrait_faces[0].points + 0.5) * scale - 0.5
    assert difference(pipeline(resized)[0].points, expected) < 2.5


def test_gray_and_rgb_are_the_same(
    pipeline: Pipeline, portrait: NDArray[np.uint8], portrait_faces: Faces
) -> None:
    gray = cv2.cvtColor(portrait, cv2.COLOR_RGB2GRAY)
    assert (pipeline(gray)[0].points == portrait_faces[0].points).all()


def test_a_hidden_half_is_known_to_be_uncertain(
    pipeline: Pipeline, portrait: NDArray[np.uint8], portrait_faces: Faces
) -> None:
    box = landmark_box(portrait_faces[0].points)
    x0, y0, x1, y1 = box.astype(int)
    hidden = portrait.copy()
    hidden[y0 - 10 : (y0 + y1) // 2, (x0 + x1) // 2 : x1 + 10] = 60
    seen = pipeline.landmarks(hidden, Detections(box[None], np.zeros(1, np.float32)))
    left_eye, mouth = seen.sigma[0, 42:48].mean(), seen.sigma[0, 48:60].mean()
    assert left_eye > 1.3 * portrait_faces[0].sigma[42:48].mean()
    assert left_eye > mouth


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 1), (5, 400, 3), (400, 5)])
def test_pictures_too_small_for_a_face(pipeline: Pipeline, shape: tuple[int, ...]) -> None:
    assert len(pipeline(np.zeros(shape, np.uint8))) == 0


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((10, 10, 3)),
        np.zeros((10, 10, 4), np.uint8),
        np.zeros((10,), np.uint8),
        np.zeros((0, 10, 3), np.uint8),
        [[1, 2], [3, 4]],
    ],
)
def test_what_is_no_picture_is_refused(pipeline: Pipeline, image: object) -> None:
    with pytest.raises(ValueError, match=r"image: expected uint8 \(h, w, 3\) RGB or \(h, w\) gray"):
        pipeline(image)  # type: ignore[arg-type]


def test_several_threads_at_once(
    pipeline: Pipeline, portrait: NDArray[np.uint8], portrait_faces: Faces
) -> None:
    with ThreadPoolExecutor(4) as pool:
        for faces in pool.map(pipeline, [portrait] * 8):
            assert faces[0].points == pytest.approx(portrait_faces[0].points, abs=0.01)


def test_a_detector_of_ones_own(
    pipeline: Pipeline, portrait: NDArray[np.uint8], portrait_faces: Faces
) -> None:
    box = landmark_box(portrait_faces[0].points)

    def told(gray: NDArray[np.uint8]) -> Detections:
        assert gray.ndim == 2
        return Detections(np.stack([box, box + 3]), np.zeros(2, np.float32))

    own = Pipeline(told, pipeline.landmarker, coarse=pipeline.coarse)
    for faces in (own(portrait), pipeline(portrait, told(portrait[..., 0]))):
        assert len(faces) == 1
        assert difference(faces[0].points, portrait_faces[0].points) < 1.5
    assert not pipeline(portrait, Detections.empty())
    nothing = Detections(np.array([]), np.array([]))
    assert not Pipeline(lambda _: nothing, pipeline.landmarker)(portrait)
    listed = Detections([box.tolist()], [0.0])  # type: ignore[arg-type]
    assert len(Pipeline(lambda _: listed, pipeline.landmarker)(portrait)) == 1
    with pytest.raises(ValueError, match="not finite"):
        pipeline(portrait, Detections(box[None] * np.inf, np.zeros(1, np.float32)))
    with pytest.raises(ValueError, match="1 boxes, but 2 rolls"):
        pipeline(portrait, Detections(box[None], np.zeros(2, np.float32)))


def test_the_box_reaches_from_the_forehead_to_the_chin(portrait_faces: Faces) -> None:
    face = portrait_faces[0]
    inner = landmark_box(face.points)
    assert face.box[1] < inner[1] - 0.15 * face.size
    assert inner[3] < face.box[3] < inner[3] + 0.1 * face.size
    assert (face.box[:2] < face.points.min(axis=0)).all()
    assert (face.box[2:] > face.points.max(axis=0)).all()


def test_intersection_over_union() -> None:
    a = np.array([0.0, 0.0, 10.0, 10.0])
    assert iou(a, a) == 1
    assert iou(a, a + 20) == 0
    assert iou(a, a + [5, 0, 5, 0]) == pytest.approx(1 / 3)


def test_a_face_whose_points_could_be_anywhere_is_less_probable(portrait_faces: Faces) -> None:
    face = portrait_faces[0]
    score = np.array([0.95], np.float32)
    seen = Landmarks(face.points[None], face.sigma[None], score)
    assert fused_score(seen, seen) == pytest.approx(0.95, abs=1e-3)
    assert fused_score(seen, replace(seen, scores=score / 2)) == pytest.approx(0.475, abs=1e-3)
    unsure = replace(seen, sigma=np.full((1, 68), 0.06 * face.size, np.float32))
    assert fused_score(seen, unsure) < 0.5


@pytest.mark.parametrize(
    "cut", [(0.2, -1, 1, 1), (-1, -1, 1, -0.2), (-1, 0.05, 1, 1), (0, 0, 0, 0)],
    ids=["left", "chin", "brows", "all around"],
)  # fmt: skip
def test_a_face_cut_by_the_edge(
    pipeline: Pipeline,
    portrait: NDArray[np.uint8],
    portrait_faces: Faces,
    cut: tuple[float, ...],
) -> None:
    """Cut by shares of its landmarks' square; negative: so much is left around it."""
    points = portrait_faces[0].points
    x0, y0, x1, y1 = landmark_box(points)
    edges = np.array([x0, y0, x1, y1]) + np.array(cut) * (x1 - x0)
    left, top, right, bottom = edges.clip(0).astype(int)
    found = pipeline(np.ascontiguousarray(portrait[top:bottom, left:right]))
    assert difference(found[0].points + np.float32((left, top)), points) < 4.5


def test_a_pipeline_and_a_tracker_travel_to_other_processes(
    pipeline: Pipeline, portrait: NDArray[np.uint8], portrait_faces: Faces
) -> None:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        faces = pool.submit(pipeline, portrait).result()
    assert (faces[0].points == portrait_faces[0].points).all()
    tracker = Tracker(pipeline)
    first = tracker(portrait, 0.0)
    for copied in (copy.deepcopy(tracker), pickle.loads(pickle.dumps(tracker))):
        again = copied(portrait, 0.04)
        assert [face.track for face in again] == [face.track for face in first]
    for options in (PipelineOptions(detector="haar", tilt="upright"), TrackerOptions(raw=True)):
        assert pickle.loads(pickle.dumps(options)) == options


def test_names_of_version_0_1_work_and_warn(
    pipeline: Pipeline, portrait: NDArray[np.uint8], portrait_faces: Faces
) -> None:
    with pytest.warns(DeprecationWarning, match="predictor= is now landmarker="):
        old = Pipeline(pipeline.detector, predictor=pipeline.landmarker, threads=1)
    assert old.landmarker is pipeline.landmarker
    gray = to_gray(portrait)
    given = Detections(landmark_box(portrait_faces[0].points)[None], np.zeros(1, np.float32))
    with pytest.warns(DeprecationWarning, match=r"Pipeline\.first_look is now"):
        first = pipeline.first_look(gray, given)
    with pytest.warns(DeprecationWarning, match=r"Pipeline\.second_look is now"):
        second = pipeline.second_look(gray, first)
    assert difference(second.points[0], portrait_faces[0].points) < 1.5
    with pytest.warns(DeprecationWarning, match="candidates= is now detections="):
        assert len(pipeline(portrait, candidates=given)) == 1
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = pipeline.nonsense


def test_boxes_of_another_detector_become_candidates(
    pipeline: Pipeline, portrait: NDArray[np.uint8], portrait_faces: Faces
) -> None:
    given = Detections.from_face_boxes(portrait_faces[0].box[None])
    upright = Detections.from_face_boxes(portrait_faces[0].box[None], np.zeros(1))
    assert len(given) == 3 * len(upright) == 6
    for detections in (given, upright):
        (face,) = pipeline(portrait, detections=detections)
        assert difference(face.points, portrait_faces[0].points) < 1.5
    assert len(given[given.rolls == 0]) == 2
    with pytest.raises(ValueError, match="1 boxes, but 2 rolls"):
        Detections(np.zeros((1, 4)), np.zeros(2))


@pytest.mark.parametrize("turn", [90.0, 180.0, -90.0])
def test_a_confident_detection_of_a_wrong_roll_is_tried_at_other_quarter_turns(
    pipeline: Pipeline, portrait: NDArray[np.uint8], portrait_faces: Faces, turn: float
) -> None:
    box = landmark_box(portrait_faces[0].points)[None]
    rolls, sure = np.array([turn], np.float32), np.array([0.9], np.float32)
    found = pipeline(portrait, Detections(box, rolls, sure))
    assert len(found) == 1
    assert difference(found[0].points, portrait_faces[0].points) < 2.5


def test_a_detector_is_believed_where_the_landmarks_are_hidden(
    pipeline: Pipeline, portrait: NDArray[np.uint8], portrait_faces: Faces
) -> None:
    """A face under a gray square: the landmarkers reject it, a detector may know better."""
    box = landmark_box(portrait_faces[0].points)
    x0, y0, x1, y1 = box.astype(int)
    hidden = portrait.copy()
    hidden[y0 - 20 : y1 + 20, x0 - 20 : x1 + 20] = 128
    roll = np.zeros(1, np.float32)
    for score, count in ((0.9999, 1), (0.3, 0)):
        found = pipeline(hidden, Detections(box[None], roll, np.array([score], np.float32)))
        assert len(found) == count
        for face in found:
            # Its landmarks are the mean face's, and sigma says that they are a guess.
            assert face.sigma.mean() > 0.1 * (x1 - x0)
            assert iou(landmark_box(face.points), box) > 0.7
    # Without a score both landmarkers decide.
    assert not pipeline(hidden, Detections(box[None], roll))
