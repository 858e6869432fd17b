"""The stream of training scenes of the proposal network, and their targets.

A scene is a piece of a photograph without faces, into which faces with landmarks are pasted at any
roll and size. Scene i of a run is the same whenever it is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from kpipe.detectors.proposals import NOMINAL_SIDE, OCTAVE, STRIDE
from kpipe.preprocessing.affine import transform
from kpipe.preprocessing.boxes import landmark_box
from kpipe.preprocessing.crops import warp
from kpipe.training.augment import degrade_scene
from kpipe.training.data import LabelledFace, NegativePhoto
from kpipe.utils.opencv import cv2

Gray = NDArray[np.uint8]
Rng = np.random.Generator

SCENE = 128
"""Side of a training scene [px]."""


@dataclass(frozen=True)
class Placed:
    """A face in a scene: center and side [px], roll [degrees]."""

    x: float
    y: float
    side: float
    roll: float


class SceneStream(Dataset[tuple[Gray, NDArray[np.float32]]]):
    """Random scenes, addressed by their number.

    Args:
        faces: labelled faces, with their surroundings.
        negatives: photographs without faces, as backgrounds; without any they are flat gray.
        length: number of scenes of the run.
        seed: of the run.
    """

    def __init__(
        self,
        faces: Sequence[LabelledFace],
        negatives: Sequence[NegativePhoto],
        length: int,
        seed: int,
    ) -> None:
        self.faces = faces
        self.negatives = negatives
        self.length = length
        self.seed = seed

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Gray, NDArray[np.float32]]:
        """A scene (1, 128, 128) uint8 and its targets (8, 16, 16) float32.

        Channels 0 to 5 of the targets are those of the network, with the score 0 or 1. Channel 6 is
        1 in the cells whose score counts in the loss, channel 7 in those whose other channels do.
        """
        rng = np.random.default_rng((self.seed, index))
        scene = self._background(rng)
        targets = np.zeros((8, SCENE // STRIDE, SCENE // STRIDE), np.float32)
        targets[6] = 1
        placed: list[Placed] = []
        for _ in range(int(rng.choice(3, p=(0.3, 0.4, 0.3)))):
            face = self.faces[int(rng.integers(len(self.faces)))]
            place = _put(scene, targets, placed, face, rng)
            if place is not None:
                placed.append(place)
        for place in placed:
            _mark(targets, place)
        return degrade_scene(scene, rng)[None], targets

    def _background(self, rng: Rng) -> Gray:
        if not self.negatives:
            return np.full((SCENE, SCENE), int(rng.uniform(0, 256)), np.uint8)
        gray = self.negatives[int(rng.integers(len(self.negatives)))].gray
        height, width = gray.shape
        zoom = np.exp(rng.uniform(np.log(0.2), np.log(1.2)))
        zoom = max(zoom, SCENE / min(height, width) * 0.8)
        turn = rng.normal(0, 8) if rng.random() < 0.7 else rng.uniform(-180, 180)
        # Mostly inside the photograph; some scenes cross its edge.
        reach = np.minimum(0.45 * SCENE / zoom, np.array([width, height]) / 2)
        centre = rng.uniform(reach, (width, height) - reach)
        matrix = _similarity(zoom, turn, centre, (SCENE / 2, SCENE / 2), rng.random() < 0.5)
        return warp(gray, matrix, SCENE)


def _similarity(
    scale: float,
    turn: float,
    source: Sequence[float] | NDArray[np.floating],
    target: Sequence[float],
    mirrored: bool,
) -> NDArray[np.float64]:
    """(2, 3) matrix that takes `source` to `target`, scales, and turns clockwise [degrees]."""
    angle = np.deg2rad(turn)
    linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    if mirrored:
        linear = linear @ np.diag([-1.0, 1.0])
    return np.column_stack([linear, np.asarray(target) - linear @ np.asarray(source)])


def _put(
    scene: Gray, targets: NDArray[np.float32], placed: list[Placed], face: LabelledFace, rng: Rng
) -> Placed | None:
    """Pastes a face with its surroundings into the scene, unless it would cover another face.

    Cells of the pasted picture far from its face no longer count in the targets: the picture may
    show other people there, who have no label.
    """
    box = landmark_box(face.points, face.roll)
    low, high = OCTAVE
    if rng.random() < 0.12:
        side = np.exp(rng.uniform(np.log(high * 1.4), np.log(110)))
    else:
        side = np.exp(rng.uniform(np.log(low * 0.8), np.log(high * 1.3)))
    turn = rng.normal(0, 15) if rng.random() < 0.5 else rng.uniform(-180, 180)
    x, y = rng.uniform(0, SCENE, 2)
    mirrored = bool(rng.random() < 0.5)
    matrix = _similarity(side / (box[2] - box[0]), turn, (box[:2] + box[2:]) / 2, (x, y), mirrored)
    roll = turn + (-face.roll if mirrored else face.roll)
    height, width = face.gray.shape
    corners = transform(matrix, np.array([[0, 0], [width, 0], [width, height], [0, height]]))
    mask = np.zeros((SCENE, SCENE), np.uint8)
    cv2.fillPoly(mask, [np.round(corners).astype(np.int32)], 1)
    if rng.random() < 0.4:
        # A disc in place of the whole picture: straight edges must not give faces away.
        keep = np.zeros_like(mask)
        reach = side * rng.uniform(0.75, 1.3)
        cv2.circle(keep, (int(x), int(y)), int(reach), 1, -1)
        mask &= keep
    rows, columns = np.mgrid[0:SCENE, 0:SCENE]
    for other in placed:
        near = np.hypot(columns - other.x, rows - other.y) < 0.7 * other.side
        if mask[near].any():
            return None
    scene[mask > 0] = warp(face.gray, matrix, SCENE)[mask > 0]
    cells = mask[STRIDE // 2 :: STRIDE, STRIDE // 2 :: STRIDE] > 0
    far = _distances(x, y) > 1.2 * side
    targets[6][cells & far] = 0
    return Placed(x, y, side, roll)


def _cell_centres() -> NDArray[np.float64]:
    return np.asarray(np.arange(SCENE // STRIDE) * STRIDE + (STRIDE - 1) / 2, np.float64)


def _distances(x: float, y: float) -> NDArray[np.float64]:
    """(rows, columns) distances of the cells' centers from a point [px]."""
    centres = _cell_centres()
    return np.asarray(np.hypot(centres[None] - x, centres[:, None] - y), np.float64)


def _mark(targets: NDArray[np.float32], place: Placed) -> None:
    """Enters a face into the targets (8, rows, columns).

    A face of the octave is a positive in the cells around its center. Around those, and everywhere
    on a face that is a little too small or too large, scores do not count. A face much too large is
    a negative between its center and its border.
    """
    low, high = OCTAVE
    near = _distances(place.x, place.y)
    targets[6][near < 0.6 * place.side] = 0
    if place.side > high * 1.4:
        targets[6][(near > 0.3 * place.side) & (near < 0.6 * place.side)] = 1
        return
    if not low * 0.9 <= place.side <= high * 1.1:
        return
    centres = _cell_centres()
    x, y = (centres[None] - place.x) / STRIDE, (centres[:, None] - place.y) / STRIDE
    reach = max(0.5, 0.2 * place.side / STRIDE)
    hit = (np.abs(x) <= reach) & (np.abs(y) <= reach)
    angle = np.deg2rad(place.roll)
    values = (1, 0, 0, np.log(place.side / NOMINAL_SIDE), np.cos(angle), np.sin(angle), 1, 1)
    for channel, value in zip(targets, values):
        channel[hit] = value
    targets[1][hit] = np.broadcast_to(-x, hit.shape)[hit]
    targets[2][hit] = np.broadcast_to(-y, hit.shape)[hit]
