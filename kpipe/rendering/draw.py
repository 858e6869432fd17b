"""Faces drawn on their photograph.

Line widths, dots and letters scale with the size of the face. A small face is drawn on an enlarged
copy of its part of the picture, which is then reduced again: lines may be finer than a pixel, and
pixels that no line touches keep their exact values.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kpipe.preprocessing.crops import face_crop
from kpipe.structures.faces import Face, Faces
from kpipe.structures.schemes import Scheme
from kpipe.structures.style import Color, Style
from kpipe.utils.opencv import cv2

UNCERTAIN = 0.053
"""Points with a sigma above this share of the face's size are drawn hollow."""

LINE_MARGIN, MARGIN = 0.02, 0.3
"""How far lines, and text, may reach beyond a face's box and points (sides of the box)."""

_FRACTION = 4
"""Fractional bits of the coordinates that OpenCV draws at."""


@dataclass(frozen=True)
class Canvas:
    """An enlarged part of a picture, to draw on.

    Attributes:
        pixels: (h, w, 3) uint8, RGB; changed by drawing.
        corner: x, y of the part's top-left pixel in the picture.
        zoom: side of a picture pixel (canvas pixels).
    """

    pixels: NDArray[np.uint8]
    corner: tuple[int, int]
    zoom: int

    def at(self, points: NDArray[np.floating]) -> NDArray[np.int32]:
        """Points (..., 2) of the picture as the fixed-point places that the methods below take."""
        places = (np.asarray(points, np.float64) - self.corner + 0.5) * self.zoom - 0.5
        return np.asarray(np.round(places * 2**_FRACTION), np.int32)

    def line(self, places: NDArray[np.int32], closed: bool, color: Color, width: float) -> None:
        """Draws a line through places (n, 2); its width in picture pixels."""
        thickness = max(round(width * self.zoom), 1)
        cv2.polylines(self.pixels, [places], closed, color, thickness, cv2.LINE_AA, _FRACTION)

    def dot(self, place: tuple[int, int], radius: float, color: Color, hollow: bool) -> None:
        """Draws a disc, or its rim if hollow; the radius in picture pixels."""
        size = round(radius * self.zoom * 2**_FRACTION)
        thickness = max(round(radius * self.zoom / 3), 1) if hollow else cv2.FILLED
        cv2.circle(self.pixels, place, size, color, thickness, cv2.LINE_AA, _FRACTION)

    def text(
        self, words: str, left_base: NDArray[np.floating], height: float, color: Color
    ) -> None:
        """Writes text with a dark edge.

        Args:
            words: in ASCII.
            left_base: x, y of the left end of the base line (picture pixels).
            height: of capitals (picture pixels).
            color: RGB.
        """
        scale = height * self.zoom / 21
        x, y = (self.at(left_base) >> _FRACTION).tolist()
        for shade, extra in (((0, 0, 0), 2), (color, 0)):
            thickness = max(round(2 * scale), 1) + (extra * max(round(scale), 1) if extra else 0)
            cv2.putText(
                self.pixels,
                words,
                (x, y),
                cv2.FONT_HERSHEY_SIMPLEX,
                scale,
                shade,
                thickness,
                cv2.LINE_AA,
            )


@dataclass(frozen=True)
class Subject:
    """A face to draw.

    Attributes:
        face: with its points (pixels of the picture).
        number: of its track or, in a photograph, its own from 1.
        scheme: what its points are.
    """

    face: Face
    number: int
    scheme: Scheme


def _stroke(face: Face) -> float:
    return max(face.size / 200, 0.45)


def draw_boxes(canvas: Canvas, subject: Subject, style: Style) -> None:
    """Draws the square around the whole face."""
    x0, y0, x1, y1 = subject.face.box
    corners = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])
    canvas.line(canvas.at(corners), True, style.palette["box"], _stroke(subject.face))


def draw_lines(canvas: Canvas, subject: Subject, style: Style) -> None:
    """Draws each face part as lines in its color."""
    places, stroke = canvas.at(subject.face.points), _stroke(subject.face)
    for line in subject.scheme.polylines:
        color = style.palette[line.group]
        canvas.line(places[list(line.indices)], line.closed, color, stroke)


def draw_points(canvas: Canvas, subject: Subject, style: Style) -> None:
    """Draws a dot on each point, hollow where its sigma exceeds `UNCERTAIN`."""
    face = subject.face
    radius = max(face.size / 110, 0.5)
    hollow = (face.sigma > UNCERTAIN * face.size).tolist()
    places = canvas.at(face.points).tolist()
    for group, indices in subject.scheme.groups.items():
        for index in indices:
            canvas.dot(places[index], radius, style.palette[group], hollow[index])


def draw_numbers(canvas: Canvas, subject: Subject, style: Style) -> None:
    """Writes the number of each point, from 0."""
    height = max(subject.face.size / 55, 2.0)
    for group, indices in subject.scheme.groups.items():
        for index in indices:
            place = subject.face.points[index] + (height * 0.5, -height * 0.4)
            canvas.text(str(index), place, height, style.palette[group])


def draw_index(canvas: Canvas, subject: Subject, style: Style) -> None:
    """Writes the number of the face, or of its track, above its box."""
    face = subject.face
    height = max(face.size / 10, 5.0)
    x, y = face.box[:2] - (0, height * 0.4)
    place = np.array([max(x, 1.0), max(y, height * 1.2)])  # inside the picture's left and top edges
    canvas.text(str(subject.number), place, height, style.palette["box"])


_DRAWERS: dict[str, Callable[[Canvas, Subject, Style], None]] = {
    "boxes": draw_boxes,
    "lines": draw_lines,
    "points": draw_points,
    "numbers": draw_numbers,
    "index": draw_index,
}

WORDS = {"numbers", "index"}
"""The layers that write text."""


def render(image: NDArray[np.uint8], faces: Faces, style: Style | None = None) -> NDArray[np.uint8]:
    """A copy of a photograph with its faces drawn on it.

    Args:
        image: (h, w, 3) uint8, RGB; the upright photograph that the faces were found in.
        faces: to draw; their size of the photograph must be that of the image.
        style: which layers and colors; without it boxes, lines and points.

    Returns:
        (h, w, 3) uint8, RGB.

    Raises:
        ValueError: the image has another type, shape or size.
    """
    expected = (faces.height, faces.width, 3)
    if image.dtype != np.uint8 or image.shape != expected:
        raise ValueError(f"image: expected uint8 {expected}, got {image.dtype} {image.shape}")
    style = style or Style()
    picture: NDArray[np.uint8] = image.copy()
    # Small faces are drawn last: one in front of a large face stays whole.
    for number, face in sorted(enumerate(faces, 1), key=lambda item: -item[1].size):
        _draw(picture, Subject(face, face.track or number, faces.scheme), style)
    return picture


def _draw(picture: NDArray[np.uint8], subject: Subject, style: Style) -> None:
    face = subject.face
    height, width = picture.shape[:2]
    extent = np.vstack([face.box.reshape(2, 2), face.points])
    reach = (MARGIN if WORDS.intersection(style.draw) else LINE_MARGIN) * face.size + 4
    x0, y0 = np.clip(np.floor(extent.min(axis=0) - reach), 0, (width, height)).astype(int)
    x1, y1 = np.clip(np.ceil(extent.max(axis=0) + reach), 0, (width, height)).astype(int)
    if x0 >= x1 or y0 >= y1:
        return
    finest, most = (400, 8) if WORDS.intersection(style.draw) else (200, 2)
    zoom = int(np.clip(np.ceil(finest / max(face.size, 1.0)), 1, most))
    part = picture[y0:y1, x0:x1]
    larger = (int(x1 - x0) * zoom, int(y1 - y0) * zoom)
    enlarged = np.asarray(cv2.resize(part, larger, interpolation=cv2.INTER_NEAREST), np.uint8)
    canvas = Canvas(enlarged, (int(x0), int(y0)), zoom)
    for name in style.draw:
        _DRAWERS[name](canvas, subject, style)
    size = (int(x1 - x0), int(y1 - y0))
    part[:] = cv2.resize(enlarged, size, interpolation=cv2.INTER_AREA)


def face_picture(
    image: NDArray[np.uint8], faces: Faces, index: int, side: int = 224, style: Style | None = None
) -> NDArray[np.uint8]:
    """The crop of one face, see `kpipe.preprocessing.crops.face_crop`, with the face drawn on it.

    Args:
        image: (h, w, 3) uint8, RGB; the photograph.
        faces: of the photograph.
        index: of the face, from 0.
        side: of the crop (pixels).
        style: which layers and colors; without it points alone.

    Returns:
        (side, side, 3) uint8.
    """
    crop, matrix = face_crop(image, faces[index].points, size=side)
    alone = dataclasses.replace(faces, faces=(faces[index],)).transform(matrix, side, side)
    return render(crop, alone, style or Style(("points",)))
