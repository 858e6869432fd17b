"""The whole way of a photograph: detect, crop, predict, map back."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kpipe.detectors.proposals import ProposalDetector
from kpipe.measures.pose import head_angles, mean_face
from kpipe.networks.classifier import FaceClassifier
from kpipe.networks.landmarker import COARSE, Landmarker, Prediction
from kpipe.preprocessing.affine import crop_transforms
from kpipe.preprocessing.boxes import head_box, iou, landmark_box, nms
from kpipe.preprocessing.crops import ImagePyramid, checked_gray, warp
from kpipe.structures.detections import Detections, Detector
from kpipe.structures.faces import Face, Faces, Pose
from kpipe.structures.landmarks import Landmarks
from kpipe.utils.resources import packaged

MIN_SCORE = 0.7
"""Least probability of a face that is reported. All held-out faces, turned and reduced to as little
as 16 pixels, have more; on 188 photographs without faces, each seen in three ways, 5 are seen."""


MIN_CLASSIFIER_SCORE = 0.1
"""Least probability, at a glance, of a candidate that is looked at. Of 352 held-out faces, turned
and reduced to as little as 16 pixels, none is lost by it; of what is no face 86 % are."""


USUAL_SPREAD, DOUBT = 0.033, 150.0
"""Mean sigma of a face, in sides of its landmarks' square, that no held-out face of 416 exceeds,
and how much the log odds of a face fall by for each side more. What passes for a face on
photographs without any has 0.033 to 0.055."""


COARSE_WEIGHTS = (-1.0, 1.77, 0.58)
REFINED_WEIGHTS = (-0.77, 1.44, 0.29, 0.30)
"""Intercept and weights of the log odds of a face, by the detection network, the first look and the
second, see `combined`."""

POSSIBLE_FACE = 0.3
"""Share of the least probability of a face from which on the second look is asked too."""

ANCHORED, GUESSED = 0.3, 0.15
"""IoU with the detector's box below which a network's points are no face's there; and the sigma of
the mean face's points that take their place, in sides of the box."""


class Pipeline:
    """Photographs to faces. Loaded once, used often, from any number of threads.

    A glance, by a very small network, drops most of the detector's candidates. A first look, by a
    small one, at the others gives their face score, place, size and roll; what may be a face gets a
    second look, by the accurate one, through an upright crop framed by the points of the first.

    Args:
        detector: finds candidates, which all get a glance; without it the proposal network.
        predictor: the network of the second look; without it the packaged one.
        first: the network of the first look; without it the packaged one.
        sieve: the network of the glance; without it the packaged one.
        min_score: least probability of a face that is reported.
        overlap: of two faces whose boxes overlap by more (IoU) the less probable one goes.
        max_roll: degrees; faces turned further in the plane of the picture are left out.
        threads: of the packaged networks; 0 for all cores.
    """

    def __init__(
        self,
        detector: Detector | None = None,
        predictor: Landmarker | None = None,
        *,
        first: Landmarker | None = None,
        sieve: FaceClassifier | None = None,
        min_score: float = MIN_SCORE,
        overlap: float = 0.2,
        max_roll: float = 180.0,
        threads: int = 0,
    ) -> None:
        self.detector = detector or ProposalDetector(threads=threads)
        self.first = first or Landmarker(packaged(COARSE), threads)
        self.sieve = sieve or FaceClassifier(threads=threads)
        self.predictor = predictor or Landmarker(threads=threads)
        self.min_score = min_score
        self.overlap = overlap
        self.max_roll = max_roll

    def __call__(self, image: NDArray[np.uint8], candidates: Detections | None = None) -> Faces:
        """The faces of a picture, largest first.

        Args:
            image: RGB (h, w, 3) or gray (h, w), uint8, upright.
            candidates: where to look, without a glance before, instead of where the detector says.

        Raises:
            ValueError: it is of another shape or type, or so are the candidates.
        """
        gray = checked_gray(image)
        height, width = gray.shape
        pyramid = ImagePyramid(gray)
        detections = _checked(self.detector(gray) if candidates is None else candidates)
        if detections.scores is not None:
            faces = self._weighed(gray, pyramid, detections, detections.scores)
        else:
            if candidates is None:
                detections = self._glance(pyramid, detections)
            faces = self._agreed(gray, self._first_look(pyramid, detections, self.min_score))
        # Two candidates can settle on one face: the second look shows it.
        chosen = nms(faces, self.min_score, self.overlap)
        kept = _as_faces(faces.take(chosen), self.max_roll)
        return Faces(kept, width, height, scheme=self.predictor.scheme)

    def _agreed(self, gray: NDArray[np.uint8], found: Landmarks) -> Landmarks:
        """Faces that both networks of points take for such; the first look's are given."""
        # A face is never more probable than at its first look.
        first = found.take(nms(found, self.min_score, self.overlap))
        second = self.second_look(gray, first, self.min_score)
        sure = np.flatnonzero(second.scores >= self.min_score)
        first, second = first.take(sure), second.take(sure)
        return second._replace(scores=fused_score(first, second))

    def _weighed(
        self,
        gray: NDArray[np.uint8],
        pyramid: ImagePyramid,
        detections: Detections,
        detected: NDArray[np.float32],
    ) -> Landmarks:
        """Faces by the detector's score (n,) and both networks' of points together.

        These know frontal faces best: of a profile, or of one half hidden, the detector may be sure
        where they are not. If their points leave its box, the mean face's points stand in it.
        """
        first = anchored(self._first_look(pyramid, detections, 0.0), detections)
        coarse = first.scores
        first = first._replace(scores=combined(COARSE_WEIGHTS, detected, first.scores))
        chosen = nms(first, POSSIBLE_FACE * self.min_score, self.overlap)
        first, detected, coarse = first.take(chosen), detected[chosen], coarse[chosen]
        second = self.second_look(gray, first)
        scores = combined(REFINED_WEIGHTS, detected, coarse, second.scores)
        boxes = Detections(detections.boxes[chosen], detections.rolls[chosen])
        # What the second look takes for no face has no points that it could be sure of.
        sides = boxes.boxes[:, 2:3] - boxes.boxes[:, 0:1]
        doubt = GUESSED * sides * (1 - second.scores[:, None])
        second = second._replace(sigma=np.maximum(second.sigma, doubt).astype(np.float32))
        return anchored(second, boxes)._replace(scores=scores)

    def locate(self, image: NDArray[np.uint8], detections: Detections) -> Landmarks:
        """The points in given boxes, both looks, nothing left out.

        Raises:
            ValueError: the picture is of another shape or type than RGB or gray uint8.
        """
        gray = checked_gray(image)
        return self.second_look(gray, self.first_look(gray, detections))

    def glance(self, gray: NDArray[np.uint8], detections: Detections) -> Detections:
        """The candidates that may be faces, as far as a small and fast network can tell.

        Args:
            gray: picture (h, w) uint8.
            detections: n candidates.

        Returns:
            Some of them.
        """
        return self._glance(ImagePyramid(gray), detections)

    def first_look(
        self, gray: NDArray[np.uint8], detections: Detections, least: float = 0.0
    ) -> Landmarks:
        """Points in the boxes that a detector gave.

        Args:
            gray: picture (h, w) uint8.
            detections: n candidates.
            least: probability below which points are not wanted.

        Returns:
            Of all of them, in the same order; points and sigma that are not wanted may be NaN.
        """
        return self._first_look(ImagePyramid(gray), detections, least)

    def second_look(
        self, gray: NDArray[np.uint8], first: Landmarks, least: float = 0.0
    ) -> Landmarks:
        """Points in upright crops framed by the points of a first look.

        Args:
            gray: picture (h, w) uint8.
            first: what was seen of n faces.
            least: probability below which points are not wanted.

        Returns:
            Of all of them, in the same order; points and sigma that are not wanted may be NaN.
        """
        size = self.predictor.crop_size
        rolls = head_angles(first.points)[:, 2].astype(np.float32)
        boxes = landmark_box(first.points, rolls)
        matrices = _framed(Detections(boxes, rolls), self.predictor)
        crops = [warp(gray, matrix, size) for matrix in matrices]
        seen = self.predictor(np.reshape(crops, (-1, size, size)).astype(np.uint8), least)
        return _in_picture(seen, matrices)

    def _glance(self, pyramid: ImagePyramid, detections: Detections) -> Detections:
        detections = _checked(detections)
        matrices = _framed(detections, self.sieve)
        seen = self.sieve(pyramid.crops(matrices, self.sieve.crop_size))
        chosen = seen >= min(MIN_CLASSIFIER_SCORE, self.min_score)
        scores = None if detections.scores is None else detections.scores[chosen]
        return Detections(detections.boxes[chosen], detections.rolls[chosen], scores)

    def _first_look(self, pyramid: ImagePyramid, detections: Detections, least: float) -> Landmarks:
        matrices = _framed(_checked(detections), self.first)
        seen = self.first(pyramid.crops(matrices, self.first.crop_size), least)
        return _in_picture(seen, matrices)


def anchored(found: Landmarks, detections: Detections) -> Landmarks:
    """The points, where they lie in the boxes of confident detections; elsewhere the mean face's,
    put in the box, with a sigma that says that they are no more than that.
    """
    squares = landmark_box(found.points, np.asarray(detections.rolls))
    astray = iou(squares, detections.boxes) < ANCHORED
    if not astray.any():
        return found
    points, sigma = found.points.copy(), found.sigma.copy()
    points[astray] = mean_points(detections.boxes[astray], detections.rolls[astray])
    sides = detections.boxes[astray, 2] - detections.boxes[astray, 0]
    sigma[astray] = GUESSED * sides[:, None]
    return found._replace(points=points, sigma=sigma)


def mean_points(boxes: NDArray[np.floating], rolls: NDArray[np.floating]) -> NDArray[np.float32]:
    """(n, 68, 2) the points of the mean face in landmark squares (n, 4), turned by rolls (n,)
    degrees.
    """
    shape = mean_face()[:, :2]
    x0, y0, x1, y1 = landmark_box(shape).astype(np.float64)
    shape = (shape - ((x0 + x1) / 2, (y0 + y1) / 2)) / (x1 - x0)
    angle = np.deg2rad(np.asarray(rolls, np.float64))
    along = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    down = np.stack([-along[:, 1], along[:, 0]], axis=1)
    sides = (boxes[:, 2:3] - boxes[:, 0:1])[..., None]
    offsets = shape[:, :1] * along[:, None] + shape[:, 1:] * down[:, None]
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    return np.asarray(centers[:, None] + sides * offsets, np.float32)


def combined(weights: tuple[float, ...], *scores: NDArray[np.floating]) -> NDArray[np.float32]:
    """(n,) the probability of a face from those (n,) of several networks: a logistic regression on
    their log odds.

    Args:
        weights: the intercept, and the weight of each network.
        scores: of the networks.
    """
    odds = np.full(len(scores[0]), weights[0])
    for weight, score in zip(weights[1:], scores):
        bounded = score.astype(np.float64).clip(1e-4, 1 - 1e-4)
        odds += weight * np.log(bounded / (1 - bounded))
    return np.asarray(1 / (1 + np.exp(-odds)), np.float32)


def _framed(detections: Detections, network: FaceClassifier | Landmarker) -> NDArray[np.float64]:
    """(n, 2, 3): from the picture to the crops that a network wants of it."""
    boxes, rolls = detections.boxes, detections.rolls
    return crop_transforms(boxes, rolls, network.crop_size, network.crop_margin)


def _checked(detections: Detections) -> Detections:
    """What a detector of the user's gave, as arrays of the right shape.

    Raises:
        ValueError: it is not boxes and as many rolls, or not finite.
    """
    boxes = np.asarray(detections.boxes, np.float32).reshape(-1, 4)
    rolls = np.asarray(detections.rolls, np.float32).reshape(-1)
    if len(boxes) != len(rolls):
        raise ValueError(f"detections: {len(boxes)} boxes, but {len(rolls)} rolls")
    if not (np.isfinite(boxes).all() and np.isfinite(rolls).all()):
        raise ValueError("detections: a box or a roll is not finite")
    if detections.scores is None:
        return Detections(boxes, rolls)
    scores = np.asarray(detections.scores, np.float32).reshape(-1)
    if len(scores) != len(boxes):
        raise ValueError(f"detections: {len(boxes)} boxes, but {len(scores)} scores")
    return Detections(boxes, rolls, scores)


def _in_picture(seen: Prediction, matrices: NDArray[np.float64]) -> Landmarks:
    """What was seen in crops, in pixels of the picture that the matrices cut them out of."""
    back = np.linalg.inv(matrices[:, :, :2]).transpose(0, 2, 1)
    points = (seen.points - matrices[:, None, :, 2]) @ back
    sigma = seen.sigma * np.hypot(back[:, 0, 0], back[:, 1, 0])[:, None]
    return Landmarks(points.astype(np.float32), sigma.astype(np.float32), seen.face)


def fused_score(first: Landmarks, second: Landmarks) -> NDArray[np.float32]:
    """(n,) how probable it is that these are faces: as both looks say, less where the second is
    unusually unsure of the points.

    What is a face by accident, such as a fold in a cloth, has points that could be anywhere.
    """
    least = np.minimum(first.scores, second.scores).astype(np.float64).clip(1e-6, 1 - 1e-6)
    sides = np.ptp(second.points, axis=1).max(axis=1)
    spread = second.sigma.mean(axis=1) / np.maximum(sides, 1e-6)
    odds = np.log(least / (1 - least)) - DOUBT * np.maximum(spread - USUAL_SPREAD, 0)
    return np.asarray(1 / (1 + np.exp(-odds)), np.float32)


def _as_faces(found: Landmarks, max_roll: float) -> tuple[Face, ...]:
    angles = head_angles(found.points)
    boxes = head_box(found.points, angles[:, 2])
    faces = [
        Face(box, float(score), points, sigma, Pose(*pose))
        for box, score, points, sigma, pose in zip(
            boxes, found.scores, found.points, found.sigma, angles.tolist()
        )
        if abs(pose[2]) <= max_roll
    ]
    return tuple(sorted(faces, key=lambda face: -face.size))
