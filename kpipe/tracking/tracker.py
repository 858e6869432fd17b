"""Frames to faces that keep their identity and whose points do not tremble.

Detection costs more than all the rest, so it runs only now and then. Between two detections the
crop of each face follows from its points in the last frame, carried on by the motion measured in
the frames, and the association decides whether the face in it is still the same one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from kpipe.measures.expression import openness
from kpipe.measures.pose import head_pose
from kpipe.pipeline import Pipeline
from kpipe.preprocessing.affine import transform
from kpipe.preprocessing.boxes import head_box
from kpipe.preprocessing.crops import checked_gray
from kpipe.structures.defaults import DETECT_EVERY as DETECT_EVERY
from kpipe.structures.faces import Face, Faces
from kpipe.tracking.association import (
    SAME_FACE_DISTANCE,
    Distance,
    MatchPolicy,
    appearance,
    point_distance,
    similarity,
    unit,
)
from kpipe.tracking.blink import BlinkDetector
from kpipe.tracking.filters import Filter, KalmanPoints
from kpipe.tracking.motion import camera_motion, face_motion

DETECT_AGAIN = 0.1
"""Seconds from one detection to the next where a face has just been lost."""

KEEP_SCORE = 0.5
"""Minimum face score of a face that is already followed; a new one needs the pipeline's."""

LOST_TRACK_SECONDS = 1.5
"""Seconds for which a lost track is kept."""

APPEARANCE_MEMORY = 0.9
"""Share of a track's appearance that stays when a new observation is averaged in."""

FRAME_SECONDS = 1 / 30
"""From one frame to the next, where their times are not given."""

FilterFactory = Callable[[NDArray[np.floating], NDArray[np.floating]], Filter]


@dataclass(eq=False)
class _Track:
    """One face through time.

    Attributes:
        number: its identity, from 1.
        filter: carries its points.
        appearance: average over the frames.
        sigma, score: of the last observation.
        seen: time of the last observation (seconds).
        lost: whether it was not observed in the last frame.
        motion_known: whether its motion, or the camera's, since the last observation is known.
    """

    number: int
    filter: Filter
    appearance: NDArray[np.float32]
    sigma: NDArray[np.float32]
    score: float
    seen: float
    lost: bool = False
    motion_known: bool = True
    blink: BlinkDetector = field(default_factory=BlinkDetector)


@dataclass(frozen=True, eq=False)
class _Observation:
    """One face in one frame, which may continue a track."""

    points: NDArray[np.float32]
    sigma: NDArray[np.float32]
    score: float
    appearance: NDArray[np.float32]


class Tracker:
    """Follows faces through the frames of one video or camera. It pickles, amid a video too.

    Args:
        pipeline: finds faces and their landmarks; without it the packaged one.
        smoothing: makes the filter of a new face: `KalmanPoints`, or `UnfilteredPoints` to have the
            points as the network predicts them.
        distance: of two faces' points; below `SAME_FACE_DISTANCE` they are one face.
        policy: how similar a face must be to continue a track.
        detect_every: seconds from one detection to the next.
    """

    def __init__(
        self,
        pipeline: Pipeline | None = None,
        *,
        smoothing: FilterFactory = KalmanPoints,
        distance: Distance = point_distance,
        policy: MatchPolicy | None = None,
        detect_every: float = DETECT_EVERY,
    ) -> None:
        self.pipeline = pipeline if pipeline is not None else Pipeline()
        self.smoothing = smoothing
        self.distance = distance
        self.policy = policy if policy is not None else MatchPolicy()
        self.detect_every = detect_every
        self._tracks: list[_Track] = []
        self._count = 0
        self._frame = 0
        self._time = -np.inf
        self._detected = -np.inf
        self._before: NDArray[np.uint8] | None = None

    def follow(self, frames: Iterable[NDArray[np.uint8]], fps: float = 30.0) -> Iterator[Faces]:
        """The faces of each of the frames, which come at a constant rate."""
        for number, frame in enumerate(frames):
            yield self(frame, number / fps)

    def __call__(self, image: NDArray[np.uint8], time: float | None = None) -> Faces:
        """The faces of the next frame, largest first, each with its track's number.

        Args:
            image: RGB (h, w, 3) or gray (h, w), uint8, upright. A frame of another size than the
                last begins anew.
            time: of the frame, seconds; without it a thirtieth of a second after the last.

        Raises:
            ValueError: the picture is of another shape or type, or the time goes back.
        """
        gray = checked_gray(image)
        if time is None:
            time = self._time + FRAME_SECONDS if self._frame else 0.0
        if time < self._time:
            raise ValueError(f"time: {time:.3f} s comes after {self._time:.3f} s")
        just_lost = False
        if self._before is not None and self._before.shape == gray.shape:
            just_lost = self._follow(self._before, gray, time)
        else:
            self._tracks, self._detected = [], -np.inf
        if time - self._detected >= (DETECT_AGAIN if just_lost else self.detect_every) - 1e-6:
            self._detect(image, gray, time)
        faces = [self._face(track, time) for track in self._tracks if not track.lost]
        height, width = gray.shape
        result = Faces(
            tuple(sorted(faces, key=lambda face: -face.size)),
            width,
            height,
            scheme=self.pipeline.landmarker.scheme,
            frame=self._frame,
            time=time,
        )
        self._before, self._time, self._frame = gray, time, self._frame + 1
        return result

    def _follow(self, before: NDArray[np.uint8], gray: NDArray[np.uint8], time: float) -> bool:
        """Observes each track where the motion carried it; whether one was lost in this frame."""
        self._tracks = [
            t for t in self._tracks if not t.lost or time - t.seen <= LOST_TRACK_SECONDS
        ]
        if not self._tracks:
            return False
        self._predict(before, gray, time - self._time)
        found = self.pipeline.refine(gray, np.stack([t.filter.points for t in self._tracks]))
        observed = [
            (track, _observation(gray, points, sigma, float(score)))
            for track, points, sigma, score in zip(
                self._tracks, found.points, found.sigma, found.scores
            )
        ]
        # If two tracks land on one face, an active track beats a lost one, then the more similar
        # appearance wins.
        observed.sort(key=lambda pair: (pair[0].lost, -_similarity(*pair)))
        taken: list[NDArray[np.float32]] = []
        just_lost = False
        for track, observation in observed:
            free = all(self._apart(observation.points, other) for other in taken)
            needed = self.pipeline.min_score if track.lost else KEEP_SCORE
            if free and observation.score >= needed and self._matches(track, observation):
                taken.append(observation.points)
                self._update(track, observation, time)
            else:
                just_lost |= not track.lost
                track.lost = True
        return just_lost

    def _predict(self, before: NDArray[np.uint8], gray: NDArray[np.uint8], seconds: float) -> None:
        """Moves each track to where its face should be in the new frame."""
        motions = [
            None if track.lost else face_motion(before, gray, track.filter.points)
            for track in self._tracks
        ]
        # A face whose own motion is unknown, hidden ones among them, moves as the picture does.
        camera = None
        if any(motion is None for motion in motions):
            camera = camera_motion(before, gray)
        for track, motion in zip(self._tracks, motions):
            track.filter.predict(seconds, motion)
            track.motion_known &= motion is not None or camera is not None
            if motion is None and camera is not None:
                track.filter.points = transform(camera, track.filter.points)

    def _detect(self, image: NDArray[np.uint8], gray: NDArray[np.uint8], time: float) -> None:
        """Detects in the whole frame: lost tracks are found again, other faces begin new ones."""
        self._detected = time
        active = [track.filter.points for track in self._tracks if not track.lost]
        observations = [
            _observation(gray, face.points, face.sigma, face.score)
            for face in self.pipeline(image)
            if all(self._apart(face.points, points) for points in active)
        ]
        pairs = [
            (self._affinity(track, observation), track, observation)
            for track in self._tracks
            if track.lost
            for observation in observations
            if self._matches(track, observation)
        ]
        for _, track, observation in sorted(pairs, key=lambda pair: -pair[0]):
            if track.lost and observation in observations:
                self._update(track, observation, time)
                observations.remove(observation)
        for observation in observations:
            self._begin(observation, time)

    def _apart(self, a: NDArray[np.float32], b: NDArray[np.float32]) -> bool:
        return self.distance(a, b) >= SAME_FACE_DISTANCE

    def _matches(self, track: _Track, observation: _Observation) -> bool:
        distance = self.distance(observation.points, track.filter.points)
        needed = self.policy.min_similarity(distance, track.motion_known)
        return _similarity(track, observation) >= needed

    def _affinity(self, track: _Track, observation: _Observation) -> float:
        """How well a detected face fits a lost track: similar appearance, near its place."""
        distance = self.distance(observation.points, track.filter.points)
        return _similarity(track, observation) - self.policy.per_distance * distance

    def _begin(self, observation: _Observation, time: float) -> None:
        self._count += 1
        self._tracks.append(
            _Track(
                self._count,
                self.smoothing(observation.points, observation.sigma),
                observation.appearance,
                observation.sigma,
                observation.score,
                time,
            )
        )

    def _update(self, track: _Track, observation: _Observation, time: float) -> None:
        if track.lost:
            track.filter = self.smoothing(observation.points, observation.sigma)
        else:
            track.filter.update(observation.points, observation.sigma)
        share = APPEARANCE_MEMORY
        track.appearance = unit(share * track.appearance + (1 - share) * observation.appearance)
        track.sigma, track.score = observation.sigma, observation.score
        track.seen, track.lost, track.motion_known = time, False, True

    def _face(self, track: _Track, time: float) -> Face:
        points = track.filter.points
        opened, pose = openness(points), head_pose(points)
        return Face(
            head_box(points, pose.roll),
            track.score,
            points,
            track.sigma,
            pose,
            track.number,
            opened,
            track.blink(opened, time),
        )


def _observation(
    gray: NDArray[np.uint8],
    points: NDArray[np.float32],
    sigma: NDArray[np.float32],
    score: float,
) -> _Observation:
    return _Observation(points, sigma, score, appearance(gray, points))


def _similarity(track: _Track, observation: _Observation) -> float:
    return similarity(track.appearance, observation.appearance)
