"""Photographs turned, reduced or cut before they are measured on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kpipe.preprocessing.affine import transform
from kpipe.preprocessing.boxes import landmark_box
from kpipe.utils.opencv import cv2


@dataclass(frozen=True)
class Perturbation:
    """What is done to each photograph before it is looked at, its labels with it.

    Attributes:
        turn: degrees clockwise in the plane of the picture.
        face_size: side of the face's box, pixels, to which larger ones are reduced.
        cut: share of the face's box that then lies beyond the picture's left edge.
    """

    turn: float = 0.0
    face_size: float = float("inf")
    cut: float = 0.0

    def __call__(
        self, image: NDArray[np.uint8], points: NDArray[np.float32]
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """The altered picture, (h, w) or (h, w, 3), and points (68, 2)."""
        box = landmark_box(points)
        scale = min(self.face_size / float(box[2] - box[0]), 1.0)
        if scale < 1:
            height, width = image.shape[:2]
            size = (max(round(width * scale), 1), max(round(height * scale), 1))
            factors = np.array([size[0] / width, size[1] / height])
            image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
            points = np.asarray((points + 0.5) * factors - 0.5, np.float32)
        if self.turn:
            height, width = image.shape[:2]
            middle = ((width - 1) / 2, (height - 1) / 2)
            matrix = np.array(cv2.getRotationMatrix2D(middle, -self.turn, 1.0), np.float64)
            reach = np.abs(matrix[:, :2]) @ (width, height)
            matrix[:, 2] += (reach - (width, height)) / 2
            turned = cv2.warpAffine(image, matrix, tuple(np.ceil(reach).astype(int).tolist()))
            image, points = np.asarray(turned, np.uint8), transform(matrix, points)
        if self.cut:
            box = landmark_box(points)
            edge = max(round(float(box[0] + self.cut * (box[2] - box[0]))), 0)
            image, points = image[:, edge:], points - np.array((edge, 0), np.float32)
        return image, points


UNPERTURBED = Perturbation()
