"""Where faces may be: OpenCV's Haar cascades (Viola and Jones, CVPR 2001).

A cascade alone either misses faces or reports false ones. Here every window that passes it counts,
on a small copy of the picture and on turned ones, and what they find are candidates: the network's
face score decides.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kpipe.detectors.face_size import COARSE_MIN_FACE, min_face_pixels
from kpipe.errors import CascadeError
from kpipe.preprocessing.affine import invert, transform
from kpipe.structures.detections import Detections
from kpipe.utils.opencv import cv2


@dataclass(frozen=True)
class CascadeModel:
    """A cascade file and how its window lies on a face.

    The network wants the square around the landmarks. Where that is, seen from the cascade's
    window, is the median over the 300-W training faces; `benchmarks/haar_boxes.py` prints it.

    Attributes:
        file: name in OpenCV's data folder.
        sha256: of the file as it was measured.
        shift: center of the face's box from the center of the window, in sides of the window.
        scale: side of the face's box over the side of the window.
        mirrored: run on the mirrored picture: for profiles, which the file knows from one side.
    """

    file: str
    sha256: str
    shift: tuple[float, float]
    scale: float
    mirrored: bool = False

    def face_squares(
        self, windows: NDArray[np.floating], width: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Centers (n, 2) and sides (n, 1) of face boxes.

        Args:
            windows: (n, 4) x, y, w, h, as the cascade reports them.
            width: of the picture, pixels.
        """
        side = windows[:, 2:3]
        center = np.asarray(windows[:, :2] + (windows[:, 2:] - 1) / 2 + side * self.shift)
        if self.mirrored:
            center[:, 0] = width - 1 - center[:, 0]
        return center, np.asarray(side * self.scale)


FRONTAL_DEFAULT = CascadeModel(
    "haarcascade_frontalface_default.xml",
    "0f7d4527844eb514d4a4948e822da90fbb16a34a0bbbbc6adc6498747a5aafb0",
    (0.0, 0.149),
    0.874,
)


FRONTAL_ALT2 = CascadeModel(
    "haarcascade_frontalface_alt2.xml",
    "7b0c967d9abbdfbde025eb9c786947d151b6426040d07a8f9562ed8fd90724b4",
    (0.0, 0.155),
    0.884,
)


PROFILE = CascadeModel(
    "haarcascade_profileface.xml",
    "b39a4a3be45539db146a7fc1d3e761a292c196eb88421185e6a615b3055e612d",
    (-0.094, 0.157),
    0.755,
)


PROFILE_MIRRORED = replace(PROFILE, mirrored=True)


@dataclass(frozen=True)
class View:
    """One way of looking at a picture.

    Attributes:
        cascade: what is looked for.
        roll: degrees; how far a head may be turned clockwise to stand upright in this view.
        coarseness: the smallest face of this view over the detector's smallest face.
    """

    cascade: CascadeModel
    roll: float = 0.0
    coarseness: float = 1.0


UPRIGHT = (
    View(FRONTAL_ALT2),
    View(FRONTAL_DEFAULT, coarseness=2.0),
    View(PROFILE, coarseness=2.0),
    View(PROFILE_MIRRORED, coarseness=2.0),
)


LEANING = (View(FRONTAL_ALT2, -35.0, 1.25), View(FRONTAL_ALT2, 35.0, 1.25))


LYING = tuple(View(FRONTAL_ALT2, roll, 2.0) for roll in (70.0, 105.0, 140.0, 175.0)) + tuple(
    View(FRONTAL_ALT2, roll, 2.0) for roll in (-70.0, -105.0, -140.0)
)
"""For photographs where every head lies or stands on its crown: most were taken with the camera
turned. Together they take longer than all other views, so they are for a second try."""


LARGEST_ENLARGEMENT = 2.0
"""Largest factor by which a picture is enlarged, for faces smaller than a cascade's window."""


class HaarDetector:
    """Candidates from Haar cascades in several views of a reduced copy of the picture.

    Every window that passes a cascade counts; windows that lie on each other are averaged.

    Args:
        views: ways of looking.
        min_face: side of the landmark box of the smallest face wanted: see `min_face_pixels`.
        scale_step: from one window size to the next.
        folder: where the cascade files lie; without it OpenCV's own.

    Raises:
        CascadeError: a cascade file is missing, unreadable or not the one that was measured.
    """

    def __init__(
        self,
        views: Sequence[View] = UPRIGHT + LEANING,
        *,
        min_face: float = COARSE_MIN_FACE,
        scale_step: float = 1.2,
        folder: Path | None = None,
    ) -> None:
        self.views = tuple(views)
        self.min_face = min_face
        self.scale_step = scale_step
        self.folder = folder
        # OpenCV's classifier keeps the picture inside itself: each thread needs its own.
        self._own = threading.local()
        self._classifiers()

    def __getstate__(self) -> dict[str, object]:
        """Without the classifiers: other processes load their own."""
        return {name: value for name, value in vars(self).items() if name != "_own"}

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state)
        self._own = threading.local()

    def __call__(self, gray: NDArray[np.uint8]) -> Detections:
        """Candidates in a gray picture (h, w)."""
        height, width = gray.shape
        smallest = min_face_pixels(self.min_face, gray.shape)
        classifiers = self._classifiers()
        boxes, rolls = [], []
        for view in self.views:
            classifier = classifiers[view.cascade.file]
            base = classifier.getOriginalWindowSize()[0] * view.cascade.scale
            reduction = min(base / (smallest * view.coarseness), LARGEST_ENLARGEMENT)
            size = (max(round(width * reduction), 1), max(round(height * reduction), 1))
            small = np.asarray(cv2.resize(gray, size, interpolation=cv2.INTER_AREA), np.uint8)
            factors = np.tile([width / size[0], height / size[1]], 2)
            found = (self._look(classifier, view, small) + 0.5) * factors - 0.5
            boxes.append(found)
            rolls.append(np.full(len(found), view.roll))
        return merged(np.concatenate(boxes), np.concatenate(rolls))

    def _look(
        self, classifier: cv2.CascadeClassifier, view: View, gray: NDArray[np.uint8]
    ) -> NDArray[np.float64]:
        """Face boxes (n, 4) in the pixels of `gray`."""
        height, width = gray.shape
        middle = ((width - 1) / 2, (height - 1) / 2)
        turn = np.array(cv2.getRotationMatrix2D(middle, view.roll, 1.0), np.float64)
        if view.roll:
            reach = np.abs(turn[:, :2]) @ (width, height)
            turn[:, 2] = turn[:, 2] + (reach - (width, height)) / 2
            turned = cv2.warpAffine(gray, turn, tuple(np.ceil(reach).astype(int).tolist()))
            gray = np.asarray(turned, np.uint8)
        if view.cascade.mirrored:
            gray = np.ascontiguousarray(gray[:, ::-1])
        windows = classifier.detectMultiScale(gray, scaleFactor=self.scale_step, minNeighbors=0)
        if len(windows) == 0:
            return np.zeros((0, 4))
        # OpenCV's threads report in any order; the result must not depend on it.
        ordered = np.array(sorted(map(tuple, windows)), np.float64)
        centers, sides = view.cascade.face_squares(ordered, gray.shape[1])
        back = transform(invert(turn), centers).astype(np.float64)
        return np.hstack([back - sides / 2, back + sides / 2])

    def _classifiers(self) -> dict[str, cv2.CascadeClassifier]:
        if not hasattr(self._own, "classifiers"):
            models = {view.cascade.file: view.cascade for view in self.views}
            self._own.classifiers = {
                file: load_cascade(model, self.folder) for file, model in models.items()
            }
        classifiers: dict[str, cv2.CascadeClassifier] = self._own.classifiers
        return classifiers


def merged(boxes: NDArray[np.floating], rolls: NDArray[np.floating]) -> Detections:
    """One candidate for each group of windows that lie on each other: their mean.

    Args:
        boxes: (n, 4) squares.
        rolls: (n,) degrees; only windows of one roll are put together.
    """
    groups: list[list[int]] = []
    centers, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2] - boxes[:, 0]
    for index in range(len(boxes)):
        for group in groups:
            first = group[0]
            if (
                rolls[first] == rolls[index]
                and np.abs(centers[first] - centers[index]).max() < 0.2 * sides[first]
                and abs(np.log(sides[first] / sides[index])) < 0.25
            ):
                group.append(index)
                break
        else:
            groups.append([index])
    means = [boxes[group].mean(axis=0) for group in groups]
    return Detections(
        np.array(means, np.float32).reshape(-1, 4),
        np.array([rolls[group[0]] for group in groups], np.float32),
    )


def opencv_data() -> Path:
    """The folder of cascade files inside the installed OpenCV package."""
    return Path(cv2.__file__).parent / "data"


def load_cascade(model: CascadeModel, folder: Path | None = None) -> cv2.CascadeClassifier:
    """The cascade of a model, from a folder or from OpenCV's own.

    Raises:
        CascadeError: the file is missing or is no cascade; or it is OpenCV's own and has changed.
    """
    path = (folder or opencv_data()) / model.file
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CascadeError(f"{path}: {error.strerror or error}") from None
    if folder is None and hashlib.sha256(content).hexdigest() != model.sha256:
        raise CascadeError(f"{path}: not the cascade that kpipe was measured with")
    try:
        cascade = cv2.CascadeClassifier(str(path))
    except (cv2.error, SystemError):  # OpenCV's binding raises the one out of the other
        cascade = None
    if cascade is None or cascade.empty():
        raise CascadeError(f"{path}: not a Haar cascade")
    return cascade
