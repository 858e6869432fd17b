"""Training scenes of the detection network: pieces of whole photographs, and their targets.

A scene is a piece of a labeled photograph, scaled until a random face of it has a random size,
turned, relit and blurred; or a photograph, into which faces with landmarks are pasted at any roll.
Scene i of a run is the same whenever it is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from kpipe.preprocessing.affine import transform
from kpipe.preprocessing.boxes import landmark_box
from kpipe.training.augment import degrade_scene
from kpipe.training.data import LabeledFace
from kpipe.training.photographs import LEAST_SIDE, Gray, LabeledScene
from kpipe.training.targets import SCENE, targets
from kpipe.utils.opencv import cv2

Rng = np.random.Generator


class DetectionScenes(Dataset[tuple[Gray, NDArray[np.float32], NDArray[np.float32]]]):
    """Endless random scenes, addressed by their number.

    Args:
        photos: labeled photographs.
        faces: faces with landmarks, in pictures that show their surroundings.
        empty: photographs without faces.
        length: number of scenes that the run will ask for.
        seed: of the run.
    """

    def __init__(
        self,
        photos: Sequence[LabeledScene],
        faces: Sequence[LabeledFace],
        empty: Sequence[Gray],
        length: int,
        seed: int,
    ) -> None:
        nothing = np.zeros((0, 4), np.float32), np.zeros(0, bool)
        self.photos = [photo for photo in photos if photo.counted.any()]
        self.others = [photo for photo in photos if not photo.counted.any()]
        self.others += [LabeledScene(gray, *nothing) for gray in empty]
        self.faces = faces
        self.length = length
        self.seed = seed

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Gray, NDArray[np.float32], NDArray[np.float32]]:
        """A scene (1, 256, 256) and its targets at strides 8 and 16, see `targets`."""
        rng = np.random.default_rng((self.seed, index))
        scene, places, counted = self.draw(rng)
        fine, coarse = targets(places, counted)
        return scene[None], fine, coarse

    def draw(self, rng: Rng) -> tuple[Gray, NDArray[np.float32], NDArray[np.bool_]]:
        """A scene (256, 256), and its places and which of them count, as in `LabeledScene`."""
        kind = rng.random()
        photo = self.photos[int(rng.integers(len(self.photos)))]
        if kind < FROM_PHOTOS:
            scene, places, counted = _piece(photo, rng, at_face=rng.random() < AT_FACE)
        else:
            if self.others and rng.random() < 0.75:
                photo = self.others[int(rng.integers(len(self.others)))]
            scene, places, counted = _piece(photo, rng, at_face=False)
            if self.faces and kind < FROM_PHOTOS + PASTED:
                for _ in range(int(rng.integers(1, 5))):
                    face = self.faces[int(rng.integers(len(self.faces)))]
                    places, counted = _pasted(scene, places, counted, face, rng)
        texture = self.others or self.photos
        _hide_faces(scene, places, counted, texture[int(rng.integers(len(texture)))].gray, rng)
        if rng.random() < 0.25:
            scene = _blurred(scene, rng)
        return degrade_scene(scene, rng), places, counted


FROM_PHOTOS, PASTED = 0.68, 0.20
"""Shares of the scenes that are pieces of labeled photographs, and that have pasted faces; the
rest are mostly empty."""


AT_FACE = 0.85
"""Share of the former that show a certain face."""


GREATEST_ZOOM = 1.8
"""Photographs are enlarged by so much at most."""


def _random_turn(rng: Rng) -> float:
    """Degrees: mostly nearly upright, some by right angles, some by any angle."""
    kind = rng.random()
    if kind < 0.55:
        return float(rng.normal(0, 10))
    if kind < 0.7:
        return float(rng.choice((90, 180, 270)) + rng.normal(0, 10))
    return float(rng.uniform(-180, 180))


def _piece(
    photo: LabeledScene, rng: Rng, *, at_face: bool
) -> tuple[Gray, NDArray[np.float32], NDArray[np.bool_]]:
    """A piece of a photograph; around a random face of it, or anywhere."""
    gray, places, counted = photo.gray, photo.places, photo.counted
    height, width = gray.shape
    turn = _random_turn(rng)
    mirrored = bool(rng.random() < 0.5)
    if at_face:
        choices = np.flatnonzero(counted)
        chosen = places[int(rng.choice(choices))]
        side = float(np.exp(rng.uniform(np.log(13), np.log(90))))
        zoom = min(side / chosen[2], GREATEST_ZOOM)
        source = chosen[:2].astype(np.float64)
        reach = SCENE / 2 - 0.3 * min(zoom * float(chosen[2]), 100)
        target = SCENE / 2 + rng.uniform(-reach, reach, 2)
        if rng.random() < CUT:
            gray, corner = _cut_by_edge(gray, chosen, rng)
            places = places - np.array([*corner, 0, 0], np.float32)
            source = source - corner
            places, counted = _inside(places, counted, gray.shape)
    else:
        zoom = float(np.exp(rng.uniform(np.log(0.3), np.log(GREATEST_ZOOM))))
        zoom = min(max(zoom, SCENE / min(height, width) * 0.7), GREATEST_ZOOM)
        source = rng.uniform(0, 1, 2) * (width, height)
        target = np.array([SCENE, SCENE]) / 2
        inner = np.minimum(0.4 * SCENE / zoom, np.array([width, height]) / 2)
        source = np.clip(source, inner, np.array([width, height]) - inner)
    matrix = similarity(zoom, turn, source, target, mirrored)
    scene = _warped(gray, matrix, rng)
    moved = _moved(places, matrix, zoom, turn, mirrored)
    counted = counted & (moved[:, 2] >= LEAST_SIDE)
    return scene, *_inside(moved, counted, scene.shape)


CUT = 0.15
"""Share of the scenes around a face in which the picture's edge cuts the face."""


def _cut_by_edge(
    gray: Gray, place: NDArray[np.floating], rng: Rng
) -> tuple[Gray, NDArray[np.float64]]:
    """The photograph cut off so that a share of a face lies beyond its edge, and the piece's corner
    (x, y) in the photograph.
    """
    height, width = gray.shape
    x, y, side = (float(v) for v in place[:3])
    beyond = rng.uniform(0.1, 0.6) - 0.5  # in sides, from the face's center
    x0, y0, x1, y1 = 0, 0, width, height
    edge = int(rng.integers(4))
    if edge == 0:
        x0 = min(max(int(x + beyond * side), 0), width - 8)
    elif edge == 1:
        y0 = min(max(int(y + beyond * side), 0), height - 8)
    elif edge == 2:
        x1 = max(min(int(x - beyond * side), width), 8)
    else:
        y1 = max(min(int(y - beyond * side), height), 8)
    return gray[y0:y1, x0:x1], np.array([x0, y0], np.float64)


def _inside(
    places: NDArray[np.float32], counted: NDArray[np.bool_], shape: tuple[int, ...]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The faces that a picture shows; those that are mostly beyond its edge do not count."""
    height, width = shape
    half = places[:, 2:3] / 2
    low = np.clip(places[:, :2] - half, 0, (width, height))
    high = np.clip(places[:, :2] + half, 0, (width, height))
    share = (high - low).prod(axis=1) / np.maximum(places[:, 2] ** 2, 1e-6)
    kept = share > 0.05
    return places[kept], (counted & (share >= SHOWN))[kept]


SHOWN = 0.4
"""Share of a face's square inside the picture from which on it is to be detected."""


def similarity(
    scale: float,
    turn: float,
    source: NDArray[np.floating],
    target: NDArray[np.floating],
    mirrored: bool,
) -> NDArray[np.float64]:
    """The 2x3 matrix that mirrors, scales, turns (degrees, clockwise) and moves a point."""
    angle = np.deg2rad(turn)
    linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    if mirrored:
        linear = linear @ np.diag([-1.0, 1.0])
    return np.column_stack([linear, np.asarray(target) - linear @ np.asarray(source)])


def _moved(
    places: NDArray[np.float32],
    matrix: NDArray[np.float64],
    scale: float,
    turn: float,
    mirrored: bool,
) -> NDArray[np.float32]:
    moved: NDArray[np.float32] = places.copy()
    moved[:, :2] = transform(matrix, places[:, :2])
    moved[:, 2] *= scale
    moved[:, 3] = turn + (-places[:, 3] if mirrored else places[:, 3])
    return moved


def _warped(gray: Gray, matrix: NDArray[np.float64], rng: Rng) -> Gray:
    """The scene that the matrix cuts out; beyond the photograph its edge goes on, or one gray."""
    shrink = max(int(1 / np.hypot(matrix[0, 0], matrix[1, 0])), 1)
    height, width = gray.shape[0] // shrink, gray.shape[1] // shrink
    if shrink > 1 and min(height, width) > 0:
        part = gray[: height * shrink, : width * shrink]
        gray = np.asarray(cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
        offset = matrix[:, :2].sum(axis=1) * (shrink - 1) / 2
        matrix = np.column_stack([matrix[:, :2] * shrink, matrix[:, 2] + offset])
    plain = rng.random() < 0.4
    border = cv2.BORDER_CONSTANT if plain else cv2.BORDER_REPLICATE
    scene = cv2.warpAffine(
        gray, matrix, (SCENE, SCENE), borderMode=border, borderValue=int(rng.integers(256))
    )
    return np.asarray(scene, np.uint8)


def _pasted(
    scene: Gray,
    places: NDArray[np.float32],
    counted: NDArray[np.bool_],
    face: LabeledFace,
    rng: Rng,
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Puts a face with landmarks and its surroundings into the scene, unless it hides another."""
    box = landmark_box(face.points, face.roll)
    side = float(np.exp(rng.uniform(np.log(13), np.log(90))))
    turn = float(rng.normal(0, 15) if rng.random() < 0.35 else rng.uniform(-180, 180))
    center = rng.uniform(0, SCENE, 2)
    place = np.array([[*center, side, 0]], np.float32)
    apart = np.abs(places[:, :2] - center).max(axis=1) if len(places) else np.zeros(0)
    if (apart < 0.9 * (side + places[:, 2])).any():
        return places, counted
    mirrored = bool(rng.random() < 0.5)
    scale = side / float(box[2] - box[0])
    matrix = similarity(scale, turn, (box[:2] + box[2:]) / 2, center, mirrored)
    place[0, 3] = turn + (-face.roll if mirrored else face.roll)
    height, width = face.gray.shape
    corners = transform(matrix, np.array([[0, 0], [width, 0], [width, height], [0, height]]))
    mask = np.zeros((SCENE, SCENE), np.uint8)
    cv2.fillPoly(mask, [np.round(corners).astype(np.int32)], 1)
    # Further from its face the photograph may show other people, whom nobody has labeled; and its
    # straight edges must not tell.
    keep = np.zeros_like(mask)
    axes = (side * rng.uniform(0.75, 1.5, 2)).astype(int)
    lifted = center + 0.15 * side * np.array(
        [np.sin(np.deg2rad(place[0, 3])), -np.cos(np.deg2rad(place[0, 3]))]
    )
    if rng.random() < 0.5:
        cv2.ellipse(keep, lifted.astype(int).tolist(), axes.tolist(), turn, 0, 360, 1, -1)
    else:
        cv2.fillPoly(keep, [_rectangle(lifted, axes, turn)], 1)
    inside = (mask & keep) > 0
    scene[inside] = _warped(face.gray, matrix, rng)[inside]
    place, kept = _inside(place, np.ones(1, bool), scene.shape)
    return np.vstack([places, place]), np.concatenate([counted, kept])


def _rectangle(
    center: NDArray[np.floating], halves: NDArray[np.floating], turn: float
) -> NDArray[np.int32]:
    shape = (center.tolist(), (2 * np.asarray(halves, np.float64)).tolist(), float(turn))
    return np.asarray(np.round(cv2.boxPoints(shape)), np.int32)


MASKED, COVERED, DARKENED = 0.10, 0.12, 0.10
"""Shares of the faces that get a mask over mouth and nose, something in front, half in the dark."""


def _hide_faces(
    scene: Gray,
    places: NDArray[np.float32],
    counted: NDArray[np.bool_],
    texture: Gray,
    rng: Rng,
) -> None:
    """Hides parts of some faces, in place."""
    for place in places[counted]:
        x, y, side, roll = (float(v) for v in place)
        angle = np.deg2rad(0.0 if np.isnan(roll) else roll)
        right = side * np.array([np.cos(angle), np.sin(angle)])
        down = np.array([-right[1], right[0]])
        center = np.array([x, y])
        draw = rng.random()
        if draw < MASKED and not np.isnan(roll):
            upper = rng.uniform(-0.12, 0.12)
            corners = np.array(
                [[-0.5, upper], [0.0, upper - rng.uniform(0, 0.15)], [0.5, upper]]
                + [[0.42, 0.35], [0.2, 0.55], [-0.2, 0.55], [-0.42, 0.35]]
            )
            corners += rng.normal(0, 0.03, corners.shape)
            shape = center + corners @ np.array([right, down])
            mask = np.zeros_like(scene)
            cv2.fillPoly(mask, [np.round(shape).astype(np.int32)], 1)
            _cover(scene, mask, texture, rng, plain=0.8)
        elif draw < MASKED + COVERED:
            mask = np.zeros_like(scene)
            aside = rng.uniform(-0.6, 0.6, 2) * side
            halves = rng.uniform(0.15, 0.45, 2) * side
            cv2.fillPoly(mask, [_rectangle(center + aside, halves, rng.uniform(0, 180))], 1)
            _cover(scene, mask, texture, rng, plain=0.3)
        elif draw < MASKED + COVERED + DARKENED:
            # One side of a line through the face is dark, softly or sharply.
            way = rng.uniform(0, 2 * np.pi)
            rows, columns = np.mgrid[0:SCENE, 0:SCENE].astype(np.float32)
            along = (columns - x) * np.cos(way) + (rows - y) * np.sin(way)
            near = np.maximum(np.abs(columns - x), np.abs(rows - y)) < 0.9 * side
            softness = max(rng.uniform(0, 0.3) * side, 0.5)
            light = np.clip(0.5 - (along - rng.uniform(-0.2, 0.2) * side) / softness, 0, 1)
            light = np.where(near, light * (1 - (low := rng.uniform(0.1, 0.5))) + low, 1)
            scene[:] = (scene * light).astype(np.uint8)


def _cover(scene: Gray, mask: Gray, texture: Gray, rng: Rng, *, plain: float) -> None:
    """Fills the mask with one gray, or with a piece of another photograph."""
    inside = mask > 0
    if rng.random() < plain:
        scene[inside] = int(rng.integers(256))
        return
    height, width = texture.shape
    row, column = int(rng.integers(max(height - 64, 1))), int(rng.integers(max(width - 64, 1)))
    piece = texture[row : row + 256, column : column + 256]
    scene[inside] = cv2.resize(piece, (SCENE, SCENE))[inside]


def _blurred(scene: Gray, rng: Rng) -> Gray:
    """Out of focus, moved, or of a small picture enlarged."""
    kind = rng.random()
    if kind < 0.4:
        return np.asarray(cv2.GaussianBlur(scene, (0, 0), rng.uniform(0.8, 3.5)), np.uint8)
    if kind < 0.7:
        length = int(rng.integers(3, 10))
        kernel = np.zeros((length, length), np.float32)
        angle = rng.uniform(0, np.pi)
        reach = np.array([np.cos(angle), np.sin(angle)]) * (length - 1) / 2
        middle = (length - 1) / 2
        start, end = (np.round(middle + s * reach).astype(int).tolist() for s in (-1, 1))
        cv2.line(kernel, start, end, 1.0)
        return np.asarray(cv2.filter2D(scene, -1, kernel / kernel.sum()), np.uint8)
    small = int(SCENE * rng.uniform(0.4, 0.8))
    reduced = cv2.resize(scene, (small, small), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(reduced, (SCENE, SCENE), interpolation=cv2.INTER_LINEAR), np.uint8)
