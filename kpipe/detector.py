"""Where faces may be: OpenCV's Haar cascades (Viola and Jones, CVPR 2001), several of them at once.

A cascade alone either misses faces or reports false ones. Here several run with low thresholds on a
small copy of the picture, and what they find are candidates: the network's face score decides.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from kpipe.opencv import cv2


class Detections(NamedTuple):
    """Places where a face may be.

    Attributes:
        boxes: (n, 4) float32, x0, y0, x1, y1: squares around the landmarks to be expected.
        rolls: (n,) float32, degrees: how far the face is turned clockwise in the picture.

    """

    boxes: NDArray[np.float32]
    rolls: NDArray[np.float32]


class Detector(Protocol):
    """Anything that finds candidates: a gray picture (h, w) uint8 in, `Detections` out."""

    def __call__(self, gray: NDArray[np.uint8]) -> Detections: ...


@dataclass(frozen=True)
class CascadeModel:
    """A cascade file and how its window lies on a face.

    The network wants the square around the landmarks. Where that is, seen from the cascade's
    window, is the median over the 300-W training faces; `benchmarks/haar_boxes.py` prints it.

    Attributes:
        file: name in OpenCV's data folder.
        sha256: of the file as it was measured.
        shift: centre of the face's box from the centre of the window, in sides of the window.
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
        """Centres (n, 2) and sides (n, 1) of face boxes.

        Args:
            windows: (n, 4) x, y, w, h, as the cascade reports them.
            width: of the picture, pixels.

        """
        side = windows[:, 2:3]
        centre = windows[:, :2] + (windows[:, 2:] - 1) / 2 + side * self.shift
        if self.mirrored:
            centre[:, 0] = width - 1 - centre[:, 0]
        return centre, side * self.scale


CASCADES = (
    CascadeModel(
        "haarcascade_frontalface_default.xml",
        "0f7d4527844eb514d4a4948e822da90fbb16a34a0bbbbc6adc6498747a5aafb0",
        (0.0, 0.145),
        0.865,
    ),
    CascadeModel(
        "haarcascade_frontalface_alt2.xml",
        "7b0c967d9abbdfbde025eb9c786947d151b6426040d07a8f9562ed8fd90724b4",
        (0.0, 0.150),
        0.885,
    ),
)


TILTS: dict[str, tuple[float, ...]] = {"upright": (0.0,), "any": (0.0, -35.0, 35.0)}
"""How far to turn the picture when looking for heads that lean, degrees."""


class CascadeError(RuntimeError):
    """A cascade file is missing, unreadable or not the one that was measured."""


class HaarDetector:
    """Candidates from several Haar cascades on a reduced copy of the picture.

    Args:
        cascades: what to look for.
        min_face: side of the smallest face wanted; a share of the picture's longer side if below 1,
            else pixels.
        neighbors: how many windows of one cascade must agree on a place.
        scale_step: from one window size to the next.
        rolls: degrees; how far to turn the picture to look for tilted faces.
        folder: where the cascade files lie; without it OpenCV's own.

    Raises:
        CascadeError: a cascade file is missing, unreadable or not the one that was measured.

    """

    def __init__(
        self,
        cascades: Sequence[CascadeModel] = CASCADES,
        *,
        min_face: float = 1 / 20,
        neighbors: int = 1,
        scale_step: float = 1.1,
        rolls: Sequence[float] = (0.0,),
        folder: Path | None = None,
    ) -> None:
        self.cascades = tuple(cascades)
        self.min_face = min_face
        self.neighbors = neighbors
        self.scale_step = scale_step
        self.rolls = tuple(rolls)
        self.folder = folder
        # OpenCV's classifier keeps the picture inside itself: each thread needs its own.
        self._own = threading.local()
        self._classifiers()

    def __call__(self, gray: NDArray[np.uint8]) -> Detections:
        """Candidates in a gray picture (h, w)."""
        height, width = gray.shape
        face = self.min_face * max(height, width) if self.min_face < 1 else self.min_face
        boxes, rolls = [], []
        for model, classifier in zip(self.cascades, self._classifiers()):
            reduction = min(classifier.getOriginalWindowSize()[0] * model.scale / face, 1.0)
            size = (max(round(width * reduction), 1), max(round(height * reduction), 1))
            small = cv2.resize(gray, size, interpolation=cv2.INTER_AREA)
            for roll in self.rolls:
                found = self._view(classifier, model, small, roll) * (width / size[0])
                boxes.append(found)
                rolls.append(np.full(len(found), roll))
        return merged(np.concatenate(boxes), np.concatenate(rolls))

    def _view(
        self,
        classifier: cv2.CascadeClassifier,
        model: CascadeModel,
        gray: NDArray[np.uint8],
        roll: float,
    ) -> NDArray[np.float64]:
        """Face boxes (n, 4) that one cascade reports on the picture turned upright by a roll."""
        height, width = gray.shape
        turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), roll, 1.0)
        view = gray
        if roll:
            reach = np.abs(turn[:, :2]) @ (width, height)
            turn[:, 2] += (reach - (width, height)) / 2
            view = cv2.warpAffine(gray, turn, tuple(np.ceil(reach).astype(int).tolist()))
        if model.mirrored:
            view = cv2.flip(view, 1)
        windows = classifier.detectMultiScale(
            view, scaleFactor=self.scale_step, minNeighbors=self.neighbors
        )
        if len(windows) == 0:
            return np.zeros((0, 4))
        centres, sides = model.face_squares(np.asarray(windows, np.float64), view.shape[1])
        back = cv2.invertAffineTransform(turn)
        centres = centres @ back[:, :2].T + back[:, 2]
        return np.hstack([centres - sides / 2, centres + sides / 2])

    def _classifiers(self) -> list[cv2.CascadeClassifier]:
        if not hasattr(self._own, "classifiers"):
            self._own.classifiers = [load_cascade(model, self.folder) for model in self.cascades]
        classifiers: list[cv2.CascadeClassifier] = self._own.classifiers
        return classifiers


def merged(boxes: NDArray[np.floating], rolls: NDArray[np.floating]) -> Detections:
    """One candidate for each group of nearly equal ones: the group's first."""
    kept: list[int] = []
    centres, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2] - boxes[:, 0]
    for index in range(len(boxes)):
        near = (
            (np.abs(centres[kept] - centres[index]).max(axis=1) < 0.15 * sides[index])
            & (np.abs(np.log(sides[kept] / sides[index])) < 0.2)
            & (np.abs(rolls[kept] - rolls[index]) < 1)
        )
        if not near.any():
            kept.append(index)
    return Detections(boxes[kept].astype(np.float32), rolls[kept].astype(np.float32))


def load_cascade(model: CascadeModel, folder: Path | None = None) -> cv2.CascadeClassifier:
    """The cascade of a model, from a folder or from OpenCV's own.

    Raises:
        CascadeError: the file is missing or is no cascade; or it is OpenCV's own and has changed.

    """
    path = (folder or Path(cv2.data.haarcascades)) / model.file
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CascadeError(f"{path}: {error.strerror or error}") from None
    if folder is None and hashlib.sha256(content).hexdigest() != model.sha256:
        raise CascadeError(f"{path}: not the cascade that kpipe was measured with")
    cascade = cv2.CascadeClassifier(str(path))
    if cascade.empty():
        raise CascadeError(f"{path}: not a Haar cascade")
    return cascade
