"""The tracker on little films made of the example portraits, whose faces' places are known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from kpipe import Face, Faces, Pipeline, Tracker, read_image
from kpipe.structures.detections import Detections
from kpipe.tracking.filters import UnfilteredPoints
from kpipe.tracking.tracker import point_distance
from kpipe.utils.opencv import cv2
from tests.conftest import EXAMPLES

WIDTH, HEIGHT = 480, 270
SIDE = 90.0
"""Of a face's box in the films, pixels."""

FPS = 30

Image = NDArray[np.uint8]
Place = tuple[float, float] | None


class Actor:
    """A face cut out of a portrait, and where its points are."""

    def __init__(self, image: Image, face: Face) -> None:
        scale = SIDE / face.size
        x0, y0, x1, y1 = face.box
        margin = 0.25 * face.size
        cut = image[
            max(int(y0 - margin), 0) : int(y1 + 0.3 * margin),
            max(int(x0 - 0.3 * margin), 0) : int(x1 + 0.3 * margin),
        ]
        corner = np.array([max(int(x0 - 0.3 * margin), 0), max(int(y0 - margin), 0)])
        self.image = cv2.resize(cut, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        self.points = (face.points - corner + 0.5) * scale - 0.5
        self.center = self.points.mean(axis=0)

    def draw(self, scene: Image, place: tuple[float, float]) -> None:
        """Puts the middle of the points at a place."""
        x, y = np.array(place) - self.center
        matrix = np.array([[1, 0, x], [0, 1, y]])
        size = (scene.shape[1], scene.shape[0])
        mask = cv2.warpAffine(np.full(self.image.shape[:2], 255, np.uint8), matrix, size)
        scene[mask > 127] = cv2.warpAffine(self.image, matrix, size)[mask > 127]

    def at(self, place: tuple[float, float]) -> NDArray[np.float64]:
        return self.points - self.center + place


@pytest.fixture(scope="module")
def actors(pipeline: Pipeline) -> list[Actor]:
    paths = sorted((EXAMPLES / "portraits").glob("*.jpg"))[:2]
    images = [read_image(path) for path in paths]
    return [Actor(image, pipeline(image)[0]) for image in images]


def scene() -> Image:
    """A picture of smooth blotches, in which motion can be seen and no face be found."""
    rng = np.random.default_rng(0)
    small = rng.integers(60, 200, (9, 16, 3)).astype(np.uint8)
    return np.asarray(cv2.resize(small, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC), np.uint8)


def film(actors: list[Actor], places: list[list[Place]], noise: float = 2.0) -> list[Image]:
    """Frames with each actor at its place; the last actor is in front."""
    rng = np.random.default_rng(1)
    frames = []
    for row in places:
        frame = scene()
        for actor, place in zip(actors, row):
            if place is not None:
                actor.draw(frame, place)
        noisy = frame + rng.normal(0, noise, frame.shape)
        frames.append(np.clip(noisy, 0, 255).astype(np.uint8))
    return frames


class Finder:
    """A detector that knows where the faces are that are in sight, roughly as a cascade does."""

    def __init__(self, actors: list[Actor]) -> None:
        self.actors = actors
        self.places: list[Place] = []
        self.calls = 0

    def __call__(self, _gray: Image) -> Detections:
        self.calls += 1
        there = [place for place in self.places if place is not None]
        boxes = [[x - 42, y - 50, x + 50, y + 42] for x, y in there]
        return Detections(
            np.array(boxes, np.float32).reshape(-1, 4), np.zeros(len(boxes), np.float32)
        )


def run(
    tracker_of: Callable[..., Tracker],
    pipeline: Pipeline,
    actors: list[Actor],
    places: list[list[Place]],
    hidden: range | None = None,
) -> tuple[list[Faces], int]:
    """Faces frame by frame, and how often the detector was asked."""
    finder = Finder(actors)
    tracker = tracker_of(Pipeline(finder, pipeline.landmarker))
    results = []
    for k, frame in enumerate(film(actors, places)):
        finder.places = places[k]
        if hidden is not None and k in hidden:
            x, y = places[k][0] or (0, 0)
            frame[int(y) - 70 : int(y) + 70, int(x) - 70 : int(x) + 70] = (90, 60, 50)
            finder.places = []
        results.append(tracker(frame, k / FPS))
    return results, finder.calls


def numbers(faces: Faces) -> list[int | None]:
    return sorted(face.track or 0 for face in faces)


def face_near(faces: Faces, place: tuple[float, float]) -> Face | None:
    for face in faces:
        if np.linalg.norm(face.points.mean(axis=0) - place) < 0.3 * SIDE:
            return face
    return None


def test_a_face_is_followed_with_few_detections(pipeline: Pipeline, actors: list[Actor]) -> None:
    places: list[list[Place]] = [[(150.0 + 3 * k, 130.0 + k / 2)] for k in range(45)]
    results, calls = run(Tracker, pipeline, actors[:1], places)
    assert all(numbers(faces) == [1] for faces in results)
    assert calls == 4
    assert [faces.frame for faces in results] == list(range(45))
    assert results[30].time == pytest.approx(1.0)
    offsets = [
        faces[0].points.mean(axis=0) - actors[0].at(row[0] or (0, 0)).mean(axis=0)
        for faces, row in zip(results, places)
    ]
    # Wherever the network sees the face against its labels: it must not fall behind as it moves.
    assert np.linalg.norm(np.ptp(offsets[5:], axis=0)) < 0.02 * SIDE
    face = results[-1][0]
    assert face.openness is not None and face.blink is not None and face.pose is not None


def test_few_frames_a_second_are_no_absence(pipeline: Pipeline, actors: list[Actor]) -> None:
    tracker = Tracker(pipeline)
    (frame,) = film(actors[:1], [[(150.0, 130.0)]])
    assert [numbers(tracker(frame, time)) for time in (0.0, 2.0, 4.0, 30.0)] == [[1]] * 4


def test_faces_come_and_go(pipeline: Pipeline, actors: list[Actor]) -> None:
    here: Place = (330.0, 140.0)
    places = [[(120.0, 140.0), here if 10 <= k < 40 else None] for k in range(60)]
    results, _ = run(Tracker, pipeline, actors, places)
    seen = [k for k, faces in enumerate(results) if 2 in numbers(faces)]
    assert 10 <= seen[0] <= 10 + FPS / 2
    assert 39 <= seen[-1] <= 39 + FPS / 2
    assert seen == list(range(seen[0], seen[-1] + 1))
    assert all(1 in numbers(faces) for faces in results)


def test_identity_survives_an_occlusion(pipeline: Pipeline, actors: list[Actor]) -> None:
    places: list[list[Place]] = [[(200.0 + k, 140.0)] for k in range(60)]
    results, _ = run(Tracker, pipeline, actors[:1], places, hidden=range(20, 35))
    assert not any(results[k] for k in range(22, 35))
    assert all(numbers(faces) == [1] for faces in results[:19])
    assert all(numbers(faces) == [1] for faces in results[38:])


def test_identities_survive_passing_each_other(pipeline: Pipeline, actors: list[Actor]) -> None:
    places: list[list[Place]] = [
        [(100.0 + 4.5 * k, 140.0), (370.0 - 4.5 * k, 145.0)] for k in range(60)
    ]
    results, _ = run(Tracker, pipeline, actors, places)
    first = {k: face_near(results[3], places[3][k] or (0, 0)) for k in (0, 1)}
    last = {k: face_near(results[-1], places[-1][k] or (0, 0)) for k in (0, 1)}
    for k in (0, 1):
        before, after = first[k], last[k]
        assert before is not None and after is not None
        assert before.track == after.track
    assert {n for faces in results for n in numbers(faces)} == {1, 2}


def test_points_are_steadier_than_raw_ones(pipeline: Pipeline, actors: list[Actor]) -> None:
    places: list[list[Place]] = [[(240.0, 140.0)]] * 40
    spreads = []
    for make in (Tracker, lambda p: Tracker(p, smoothing=UnfilteredPoints)):
        results, _ = run(make, pipeline, actors[:1], places)
        points = np.array([faces[0].points for faces in results[15:]])
        spreads.append(np.sqrt(points.var(axis=0).sum(axis=-1)).mean())
    assert spreads[0] < 0.6 * spreads[1]
    assert spreads[0] < 0.001 * SIDE


def test_a_cut_to_another_face_is_another_face(pipeline: Pipeline, actors: list[Actor]) -> None:
    here: Place = (240.0, 140.0)
    there: Place = (245.0, 138.0)
    places = [[here, None] if k < 20 else [None, there] for k in range(40)]
    results, _ = run(Tracker, pipeline, actors, places)
    assert numbers(results[19]) == [1]
    assert numbers(results[-1]) == [2]


def test_frames_of_another_size_begin_anew(pipeline: Pipeline, actors: list[Actor]) -> None:
    finder = Finder(actors)
    finder.places = [(200.0, 140.0)]
    tracker = Tracker(Pipeline(finder, pipeline.landmarker))
    (frame,) = film(actors[:1], [[(200.0, 140.0)]])
    assert numbers(tracker(frame)) == [1]
    wider = np.pad(frame, ((0, 20), (0, 30), (0, 0)))
    assert numbers(tracker(wider)) == [2]
    gray = cv2.cvtColor(wider, cv2.COLOR_RGB2GRAY)
    assert numbers(tracker(np.asarray(gray, np.uint8))) == [2]


def test_what_is_no_next_frame_is_refused(pipeline: Pipeline) -> None:
    tracker = Tracker(Pipeline(Finder([]), pipeline.landmarker))
    assert len(tracker(scene(), 1.0)) == 0
    with pytest.raises(ValueError, match="comes after"):
        tracker(scene(), 0.5)
    with pytest.raises(ValueError, match="expected uint8"):
        tracker(scene().astype(np.float32), 2.0)
    results = list(tracker.follow([], fps=25))
    assert results == []


def test_point_distance() -> None:
    points = np.array([[0.0, 0], [10, 0], [0, 10]])
    assert point_distance(points, points) == 0
    assert point_distance(points, points + (3, 4)) == pytest.approx(0.5)
    assert point_distance(points, points * 2) == point_distance(points * 2, points)
