"""From a photograph to its faces: detect, classify, coarse landmarks, refine, suppress."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from kpipe import _deprecated
from kpipe.detectors.proposals import ProposalDetector
from kpipe.measures.pose import head_angles
from kpipe.networks.classifier import FaceClassifier
from kpipe.networks.fusion import (
    COARSE_WEIGHTS,
    REFINED_WEIGHTS,
    anchored,
    face_probability,
    fused_score,
)
from kpipe.networks.landmarker import COARSE, Landmarker
from kpipe.preprocessing.affine import crop_transforms
from kpipe.preprocessing.boxes import head_box, landmark_box, nms
from kpipe.preprocessing.crops import ImagePyramid, checked_gray, warp
from kpipe.structures.defaults import MIN_SCORE as MIN_SCORE
from kpipe.structures.detections import Detections, Detector
from kpipe.structures.faces import Face, Faces, Pose
from kpipe.structures.landmarks import Landmarks
from kpipe.utils.resources import packaged

MIN_CLASSIFIER_SCORE = 0.1
"""Candidates that the classifier scores below this are dropped. On held-out data that keeps all 352
faces (any rotation, down to 16 pixels) and rejects 86 % of the non-faces."""

MIN_COARSE_SCORE = 0.02
"""Candidates that the coarse landmarker scores below this get no landmarks of it, which saves a
third of its time. If the detector is confident, the mean face in its box stands for them."""

CONFIDENT, UNLIKELY, OTHER_TURNS = 0.4, 0.5, (90.0, 180.0, 270.0)
"""Detections with a score of at least the first whose coarse score is below the second are tried at
the other quarter turns too. Of 89 held-out faces upside down 1 is then missed, otherwise 4."""

REFINED_SHARE = 0.3
"""Candidates are refined if their probability of a face, by detector and coarse landmarks, is at
least this share of the minimum score."""

Network = TypeVar("Network")


class Pipeline:
    """Photographs to faces. Load it once, use it often, from any number of threads; it pickles.

    Two networks run in cascade on the detector's candidates. The coarse landmarker (64x64 crops)
    gives each a face probability and rough landmarks. The landmarker (128x128) refines them in an
    upright crop framed by the rough ones. The face's score combines theirs with the detector's.
    Candidates of a detector that states no scores first pass the face classifier (32x32), which
    rejects most non-faces.

    Args:
        detector: finds candidates; without it the proposal network.
        landmarker: the network of the refine stage; without it the packaged one.
        classifier: the network of the classifier stage; without it the packaged one.
        coarse: the network of the coarse stage; without it the packaged one.
        min_score: minimum face confidence of a reported face, 0 to 1.
        overlap: of two faces whose landmark boxes overlap by more (IoU), the less probable goes.
        max_roll: degrees; faces turned further in the plane of the picture are left out.
        threads: of the packaged networks; 0 for all cores.
        predictor, first, sieve: old names of landmarker, coarse and classifier; deprecated.

    Raises:
        ModelError: a packaged network cannot be used.
    """

    def __init__(
        self,
        detector: Detector | None = None,
        landmarker: Landmarker | None = None,
        *,
        classifier: FaceClassifier | None = None,
        coarse: Landmarker | None = None,
        min_score: float = MIN_SCORE,
        overlap: float = 0.2,
        max_roll: float = 180.0,
        threads: int = 0,
        predictor: Landmarker | None = None,
        first: Landmarker | None = None,
        sieve: FaceClassifier | None = None,
    ) -> None:
        landmarker = _renamed("predictor", predictor, "landmarker", landmarker)
        coarse = _renamed("first", first, "coarse", coarse)
        classifier = _renamed("sieve", sieve, "classifier", classifier)
        self.detector = detector or ProposalDetector(threads=threads)
        self.classifier = classifier or FaceClassifier(threads=threads)
        self.coarse = coarse or Landmarker(packaged(COARSE), threads)
        self.landmarker = landmarker or Landmarker(threads=threads)
        self.min_score = min_score
        self.overlap = overlap
        self.max_roll = max_roll

    def __call__(
        self,
        image: NDArray[np.uint8],
        detections: Detections | None = None,
        *,
        candidates: Detections | None = None,
    ) -> Faces:
        """The faces of a picture, largest first.

        Args:
            image: RGB (h, w, 3) or gray (h, w), uint8, upright.
            detections: candidates to use in place of the detector's; the classifier, too, is left
                out. `Detections.from_face_boxes` makes them of ordinary boxes.
            candidates: old name of `detections`; deprecated.

        Raises:
            ValueError: the picture is of another shape or type.
        """
        detections = _renamed("candidates", candidates, "detections", detections)
        gray = checked_gray(image)
        height, width = gray.shape
        pyramid = ImagePyramid(gray)
        own = detections is None
        if detections is None:
            detections = _checked(self.detector(gray))
        if detections.scores is not None:
            fused = self._scored_faces(gray, pyramid, detections, detections.scores)
        else:
            if own:
                detections = self._classify(pyramid, detections)
            fused = self._unscored_faces(gray, pyramid, detections)
        # Two candidates can settle on one face: the refined landmarks show it.
        faces = _as_faces(fused[self._suppress(fused, self.min_score)], self.max_roll)
        return Faces(faces, width, height, scheme=self.landmarker.scheme)

    def _unscored_faces(
        self, gray: NDArray[np.uint8], pyramid: ImagePyramid, detections: Detections
    ) -> Landmarks:
        """Faces among candidates of a detector that states no scores: both landmarkers decide."""
        coarse = self._coarse_landmarks(pyramid, detections, self.min_score)
        # A face's final score is never above its coarse score.
        coarse = coarse[self._suppress(coarse, self.min_score)]
        refined = self.refine(gray, coarse.points, self.min_score)
        sure = np.flatnonzero(refined.scores >= self.min_score)
        coarse, refined = coarse[sure], refined[sure]
        return Landmarks(refined.points, refined.sigma, fused_score(coarse, refined))

    def _scored_faces(
        self,
        gray: NDArray[np.uint8],
        pyramid: ImagePyramid,
        detections: Detections,
        detected: NDArray[np.float32],
    ) -> Landmarks:
        """Faces by the detector's scores (n,) and both landmarkers' together.

        The landmarkers learned from nearly frontal faces. The detector is confident of profiles and
        half hidden faces too, which they may reject.
        """
        coarse = self._anchored_coarse(pyramid, detections)
        # A confident detection whose crop shows no upright face may lie at another quarter turn.
        doubtful = np.flatnonzero((detected >= CONFIDENT) & (coarse.scores < UNLIKELY))
        if len(doubtful):
            again = np.tile(doubtful, len(OTHER_TURNS))
            rolls = detections.rolls[again] + np.repeat(OTHER_TURNS, len(doubtful))
            turned = Detections(detections.boxes[again], rolls, detected[again])
            more = self._anchored_coarse(pyramid, turned)
            likely = more.scores >= UNLIKELY
            detections, coarse = detections.joined(turned[likely]), coarse.joined(more[likely])
            detected = np.concatenate([detected, detected[again][likely]])
        scores = face_probability(COARSE_WEIGHTS, detected, coarse.scores)
        probable = Landmarks(coarse.points, coarse.sigma, scores)
        chosen = self._suppress(probable, REFINED_SHARE * self.min_score)
        detections, detected, coarse = detections[chosen], detected[chosen], coarse[chosen]
        refined = anchored(self.refine(gray, coarse.points), detections)
        scores = face_probability(REFINED_WEIGHTS, detected, coarse.scores, refined.scores)
        return Landmarks(refined.points, refined.sigma, scores)

    def landmarks(self, image: NDArray[np.uint8], detections: Detections) -> Landmarks:
        """Landmarks in the given boxes, coarse then refined; no box is dropped.

        Args:
            image: RGB (h, w, 3) or gray (h, w), uint8.
            detections: n boxes.

        Raises:
            ValueError: the picture is of another shape or type.
        """
        gray = checked_gray(image)
        return self.refine(gray, self.coarse_landmarks(gray, detections).points)

    def classify(self, gray: NDArray[np.uint8], detections: Detections) -> Detections:
        """The candidates that the face classifier does not reject.

        Args:
            gray: picture (h, w) uint8.
            detections: n candidates.
        """
        return self._classify(ImagePyramid(gray), detections)

    def coarse_landmarks(
        self, gray: NDArray[np.uint8], detections: Detections, min_score: float = 0.0
    ) -> Landmarks:
        """Rough landmarks and a face score of each candidate, in the same order.

        Args:
            gray: picture (h, w) uint8.
            detections: n candidates.
            min_score: face score below which points and sigma may be NaN, which saves time.
        """
        return self._coarse_landmarks(ImagePyramid(gray), detections, min_score)

    def refine(
        self, gray: NDArray[np.uint8], points: NDArray[np.floating], min_score: float = 0.0
    ) -> Landmarks:
        """Accurate landmarks from rough ones, in upright crops framed by them, in the same order.

        Args:
            gray: picture (h, w) uint8.
            points: (n, 68, 2) rough landmarks, pixels.
            min_score: face score below which points and sigma may be NaN, which saves time.
        """
        size = self.landmarker.crop_size
        rolls = head_angles(points)[:, 2].astype(np.float32)
        boxes = landmark_box(points, rolls)
        matrices = crop_transforms(boxes, rolls, size, self.landmarker.crop_margin)
        crops = [warp(gray, matrix, size) for matrix in matrices]
        found = self.landmarker(np.reshape(crops, (-1, size, size)).astype(np.uint8), min_score)
        return found.mapped_back(matrices)

    def __getattr__(self, name: str) -> Any:
        # Reached only by names that are not there: those of version 0.1.
        return _deprecated.pipeline_attribute(self, name)

    def _classify(self, pyramid: ImagePyramid, detections: Detections) -> Detections:
        matrices = _crop_matrices(detections, self.classifier)
        scores = self.classifier(pyramid.crops(matrices, self.classifier.crop_size))
        return detections[scores >= min(MIN_CLASSIFIER_SCORE, self.min_score)]

    def _coarse_landmarks(
        self, pyramid: ImagePyramid, detections: Detections, min_score: float
    ) -> Landmarks:
        matrices = _crop_matrices(detections, self.coarse)
        found = self.coarse(pyramid.crops(matrices, self.coarse.crop_size), min_score)
        return found.mapped_back(matrices)

    def _anchored_coarse(self, pyramid: ImagePyramid, detections: Detections) -> Landmarks:
        found = self._coarse_landmarks(pyramid, detections, MIN_COARSE_SCORE)
        return anchored(found, detections)

    def _suppress(self, found: Landmarks, min_score: float) -> NDArray[np.intp]:
        """Indices of the probable faces that no more probable one overlaps."""
        probable = np.flatnonzero(found.scores >= min_score)
        boxes = landmark_box(found.points[probable])
        return probable[nms(boxes, found.scores[probable], self.overlap)]


def _checked(found: Detections | Sequence[NDArray[np.floating]]) -> Detections:
    """What a detector of the user's gave: `Detections`, or just boxes and rolls."""
    return found if isinstance(found, Detections) else Detections(*found)


def _crop_matrices(
    detections: Detections, network: FaceClassifier | Landmarker
) -> NDArray[np.float64]:
    """(n, 2, 3): from the picture to the crops that a network takes."""
    return crop_transforms(
        detections.boxes, detections.rolls, network.crop_size, network.crop_margin
    )


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


def _renamed(
    old: str, old_value: Network | None, new: str, value: Network | None
) -> Network | None:
    """The value of an argument that may come under its name of version 0.1."""
    if old_value is None:
        return value
    warnings.warn(f"{old}= is now {new}=", DeprecationWarning, stacklevel=3)
    return old_value
