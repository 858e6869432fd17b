"""Frames to faces that keep their identity and whose points do not tremble.

Detection costs more than all the rest, so it is asked only now and then. In between each face's
crop comes from where its points were, carried on as the frames show that it moved, and the
network's face score and the face's own looks say whether it is still there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from kpipe.measures.expression import openness
from kpipe.measures.pose import head_pose
from kpipe.pipeline import Pipeline
from kpipe.preprocessing.affine import crop_transform, transform
from kpipe.preprocessing.boxes import head_box, landmark_box
from kpipe.preprocessing.crops import checked_gray, warp
from kpipe.structures.faces import Face, Faces
from kpipe.structures.landmarks import Landmarks
from kpipe.tracking.blink import BlinkDetector
from kpipe.tracking.filters import Filter, KalmanPoints
from kpipe.tracking.motion import camera_motion, face_motion
from kpipe.utils.opencv import cv2

DETECT_EVERY = 0.4
"""Seconds from one detection to the next: a new face shows within half a second."""

DETECT_AGAIN = 0.1
"""Seconds from one detection to the next where a face has just been lost."""

KEEP_SCORE = 0.5
"""A face that is known is kept at a lower score than a new one needs."""

LOST_TRACK_SECONDS = 1.5
"""Seconds that a face which is not seen is remembered."""

MIN_SIMILARITY = 0.35
"""Least correlation of a face with what it looked like, where it is expected. Two people's faces
correlate by 0.2 in the median and by 0.5 in one of twenty pairs, one person's in frames of one
video by 0.9."""

MIN_SIMILARITY_ANYWHERE = 0.6
"""The same where nothing tells where it is to be expected, as after a cut to another scene."""

SIMILARITY_PER_DISTANCE = 0.15
"""How much more alike a face must be, for each of its sizes that it is away from there."""

NEAR = 0.1
SIMILARITY_PER_DISTANCE_NEAR = 1.5
"""Where its motion could be seen, a face so near to where it should be, in sizes of it, need not be
alike at all, as when a moving camera blurs it, and further off needs to be more and more so."""

SAME_PLACE = 0.25
"""Mean distance of two faces' points, in sizes of the face, below which they are one face."""

CHIP = 24
"""Side of the small picture by which a face is known again, pixels."""

FRAME_SECONDS = 1 / 30
"""From one frame to the next, where their times are not given."""

FilterFactory = Callable[[NDArray[np.floating], NDArray[np.floating]], Filter]
Distance = Callable[[NDArray[np.floating], NDArray[np.floating]], float]


def point_distance(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """Mean distance of two faces' points (n, 2), in sizes of the larger one."""
    size = max(float(np.ptp(points, axis=0).max()) for points in (a, b))
    return float(np.linalg.norm(a - b, axis=1).mean()) / max(size, 1e-6)


def appearance(gray: NDArray[np.uint8], points: NDArray[np.floating]) -> NDArray[np.float32]:
    """What a face looks like: a unit vector, whose product with another's is their correlation.

    The face upright and small, without what light and shadow do to large parts of it.
    """
    roll = head_pose(points).roll
    matrix = crop_transform(landmark_box(points, roll), roll, CHIP, 1.0)
    chip = warp(gray, matrix, CHIP).astype(np.float32)
    chip = chip - np.asarray(cv2.GaussianBlur(chip, (0, 0), CHIP / 6), np.float32)
    return _unit((chip - chip.mean()).ravel())


@dataclass(eq=False)
class _Track:
    """One face through time.

    Attributes:
        looks: its appearance, averaged.
        seen: when it was, last.
        lost: it is only remembered.
        carried: how it, or the camera, moved since it was seen is known.
    """

    number: int
    filter: Filter
    looks: NDArray[np.float32]
    sigma: NDArray[np.float32]
    score: float
    seen: float
    lost: bool = False
    carried: bool = True
    blink: BlinkDetector = field(default_factory=BlinkDetector)


@dataclass(frozen=True, eq=False)
class _Observation:
    """What may be a known face: as seen in this frame."""

    points: NDArray[np.float32]
    sigma: NDArray[np.float32]
    score: float
    looks: NDArray[np.float32]


class Tracker:
    """Follows faces through the frames of one video or camera.

    Args:
        pipeline: finds faces and sees their points; without it the packaged one.
        smoothing: makes the filter of a face that is new: `KalmanPoints`, or `RawPoints` to have
            the points as the network sees them.
        distance: of two faces' points; below `SAME_PLACE` they are one face.
        detect_every: seconds from one detection to the next.
    """

    def __init__(
        self,
        pipeline: Pipeline | None = None,
        *,
        smoothing: FilterFactory = KalmanPoints,
        distance: Distance = point_distance,
        detect_every: float = DETECT_EVERY,
    ) -> None:
        self.pipeline = pipeline if pipeline is not None else Pipeline()
        self.smoothing = smoothing
        self.distance = distance
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
            scheme=self.pipeline.predictor.scheme,
            frame=self._frame,
            time=time,
        )
        self._before, self._time, self._frame = gray, time, self._frame + 1
        return result

    def _follow(self, before: NDArray[np.uint8], gray: NDArray[np.uint8], time: float) -> bool:
        """Looks where the known faces should be; whether one of them was lost just now."""
        self._tracks = [
            t for t in self._tracks if not t.lost or time - t.seen <= LOST_TRACK_SECONDS
        ]
        if not self._tracks:
            return False
        self._predict(before, gray, time - self._time)
        points = np.stack([track.filter.points for track in self._tracks])
        sigma = np.stack([track.sigma for track in self._tracks])
        seen = self.pipeline.second_look(
            gray, Landmarks(points, sigma, np.ones(len(points), np.float32))
        )
        sights = [_sight(gray, *values) for values in zip(*seen)]
        alike = [float(s.looks @ t.looks) for s, t in zip(sights, self._tracks)]
        # Where two come to lie on one face, it is whose looks it has more of; one that has been
        # followed goes before one that is only remembered.
        order = sorted(range(len(sights)), key=lambda k: (self._tracks[k].lost, -alike[k]))
        taken: list[NDArray[np.float32]] = []
        just_lost = False
        for k in order:
            track, sight = self._tracks[k], sights[k]
            least = self.pipeline.min_score if track.lost else KEEP_SCORE
            off = self.distance(sight.points, track.filter.points)
            free = all(self.distance(sight.points, other) >= SAME_PLACE for other in taken)
            if free and sight.score >= least and alike[k] >= _least_alike(off, track.carried):
                taken.append(sight.points)
                self._see(track, sight, time)
            else:
                just_lost |= not track.lost
                track.lost = True
        return just_lost

    def _predict(self, before: NDArray[np.uint8], gray: NDArray[np.uint8], seconds: float) -> None:
        motions = [
            None if track.lost else face_motion(before, gray, track.filter.points)
            for track in self._tracks
        ]
        # A face whose motion cannot be seen, and one that is hidden, moves as the picture does.
        unseen = any(motion is None for motion in motions)
        camera = camera_motion(before, gray) if unseen else None
        for track, motion in zip(self._tracks, motions):
            track.filter.predict(seconds, motion)
            track.carried &= motion is not None or camera is not None
            if motion is None and camera is not None:
                track.filter.points = transform(camera, track.filter.points)

    def _detect(self, image: NDArray[np.uint8], gray: NDArray[np.uint8], time: float) -> None:
        """Looks everywhere: faces that are new, and known ones that were lost."""
        self._detected = time
        followed = [track.filter.points for track in self._tracks if not track.lost]
        sights = [
            _sight(gray, face.points, face.sigma, face.score)
            for face in self.pipeline(image)
            if all(self.distance(face.points, points) >= SAME_PLACE for points in followed)
        ]
        pairs = []
        for track in self._tracks:
            for sight in sights if track.lost else ():
                alike = float(sight.looks @ track.looks)
                off = self.distance(sight.points, track.filter.points)
                if alike >= _least_alike(off, track.carried):
                    pairs.append((alike - SIMILARITY_PER_DISTANCE * off, track, sight))
        for _, track, sight in sorted(pairs, key=lambda pair: -pair[0]):
            if track.lost and sight in sights:
                self._see(track, sight, time)
                sights.remove(sight)
        for sight in sights:
            self._count += 1
            filter_ = self.smoothing(sight.points, sight.sigma)
            self._tracks.append(
                _Track(self._count, filter_, sight.looks, sight.sigma, sight.score, time)
            )

    def _see(self, track: _Track, sight: _Observation, time: float) -> None:
        if track.lost:
            track.filter = self.smoothing(sight.points, sight.sigma)
        else:
            track.filter.update(sight.points, sight.sigma)
        track.looks = _unit(0.9 * track.looks + 0.1 * sight.looks)
        track.sigma, track.score = sight.sigma, sight.score
        track.seen, track.lost, track.carried = time, False, True

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


def _sight(
    gray: NDArray[np.uint8],
    points: NDArray[np.float32],
    sigma: NDArray[np.float32],
    score: float,
) -> _Observation:
    return _Observation(points, sigma, float(score), appearance(gray, points))


def _least_alike(off: float, carried: bool) -> float:
    """How much a face must be alike to be the same, so many sizes off where it should be."""
    least = MIN_SIMILARITY + SIMILARITY_PER_DISTANCE * off
    return (
        min(least, SIMILARITY_PER_DISTANCE_NEAR * (off - NEAR))
        if carried
        else max(least, MIN_SIMILARITY_ANYWHERE)
    )


def _unit(vector: NDArray[np.floating]) -> NDArray[np.float32]:
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-6), np.float32)
