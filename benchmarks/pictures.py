"""Makes the pictures of docs/: the detectors side by side, and where the networks come to grief.

    python benchmarks/pictures.py

Both are drawn from the example photographs alone.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kpipe import Faces, Pipeline, Style, read_image
from kpipe.detectors.haar import FRONTAL_DEFAULT, load_cascade
from kpipe.media.images import encode
from kpipe.preprocessing.boxes import landmark_box
from kpipe.preprocessing.crops import to_gray
from kpipe.rendering.draw import face_picture
from kpipe.utils.files import write_file
from kpipe.utils.opencv import cv2

ROOT = Path(__file__).parent.parent
PORTRAITS = ROOT / "examples" / "portraits"
SIDE, WIDTH = 300, 620
LINES = Style(("lines", "points"))
WHITE, RED, GREEN = (255, 255, 255), (255, 70, 70), (90, 255, 120)

Image = NDArray[np.uint8]


def resized(image: Image, scale: float) -> Image:
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, None, fx=scale, fy=scale, interpolation=method), np.uint8)


def turned(image: Image, angle: float) -> Image:
    height, width = image.shape[:2]
    matrix = np.array(cv2.getRotationMatrix2D((width / 2, height / 2), -angle, 1.0))
    reach = np.abs(matrix[:, :2]) @ (width, height)
    matrix[:, 2] += (reach - (width, height)) / 2
    size = tuple(np.ceil(reach).astype(int).tolist())
    return np.asarray(cv2.warpAffine(image, matrix, size), np.uint8)


def outlined(image: Image, boxes: Iterable[Iterable[float]], color: tuple[int, ...]) -> Image:
    picture = image.copy()
    for x0, y0, x1, y1 in boxes:
        cv2.rectangle(picture, (round(x0), round(y0)), (round(x1), round(y1)), color, 6)
    return picture


def captioned(image: Image, text: str) -> Image:
    bar = np.zeros((30, image.shape[1], 3), np.uint8)
    cv2.putText(bar, text, (8, 21), cv2.FONT_HERSHEY_SIMPLEX, 0.5, WHITE, 1, cv2.LINE_AA)
    return np.vstack([bar, image])


def detectors(pipeline: Pipeline) -> Image:
    """Stock Haar on the left, kpipe on the right: the group photograph, and the same turned."""
    stock = load_cascade(FRONTAL_DEFAULT)
    rows = []
    image = read_image(ROOT / "examples" / "group_photo.jpg")
    for angle in (0, 40):
        picture = turned(image, angle)
        windows = stock.detectMultiScale(to_gray(picture), 1.1, 4)
        boxed = outlined(picture, [(x, y, x + w, y + h) for x, y, w, h in windows], RED)
        faces = pipeline(picture)
        drawn = outlined(picture, [face.box for face in faces], GREEN)
        scale = WIDTH / picture.shape[1]
        left = captioned(resized(boxed, scale), f"stock Haar: {len(windows)} windows")
        right = captioned(resized(drawn, scale), f"kpipe: {len(faces)} faces")
        rows.append(np.hstack([left, right]))
    return np.vstack(rows)


def hardships(image: Image, points: NDArray[np.float32]) -> dict[str, Image]:
    """One portrait under what photographs suffer from."""
    x0, _, x1, y1 = (round(float(v)) for v in landmark_box(points))
    side, (eyes_x, eyes_y) = x1 - x0, points[36:48].mean(axis=0).astype(int)
    mouth_y = int(points[48:68, 1].mean())
    sunglasses, scarf, dark = image.copy(), image.copy(), image.astype(np.float32)
    for eye in (points[36:42], points[42:48]):
        center = tuple(eye.mean(axis=0).astype(int).tolist())
        cv2.ellipse(sunglasses, center, (side // 6, side // 8), 0, 0, 360, (15, 15, 15), -1)
    cv2.line(sunglasses, (x0, eyes_y), (x1, eyes_y), (15, 15, 15), max(side // 30, 1))
    scarf[mouth_y - side // 6 : y1 + side // 6, x0 - side // 6 : x1 + side // 6] = (150, 60, 60)
    dark[:, eyes_x:] *= 0.06
    small = resized(image, 12 / side)
    blur = cv2.GaussianBlur(image, (0, 0), side / 14)
    encoded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 3])[1]
    jpeg = read_image(encoded.tobytes())
    gray = to_gray(image)
    edges = cv2.Canny(cv2.GaussianBlur(gray, (0, 0), 1.2), 40, 90)
    drawing = 255 - cv2.dilate(edges, np.ones((2, 2)))
    narrow = cv2.resize(image, None, fx=0.55, fy=1.0, interpolation=cv2.INTER_AREA)
    return {
        "as it is": image,
        "sunglasses": sunglasses,
        "lower half hidden": scarf,
        "half in the dark": np.asarray(dark, np.uint8),
        "cut by the edge": np.ascontiguousarray(image[:, eyes_x:]),
        "face of 12 pixels": small,
        "blurred": np.asarray(blur, np.uint8),
        "JPEG quality 3": jpeg,
        "a drawing": np.repeat(np.asarray(drawing, np.uint8)[..., None], 3, axis=2),
        "squeezed to half": np.asarray(narrow, np.uint8),
    }


def tile(name: str, image: Image, faces: Faces) -> Image:
    """The surest face, enlarged, with what the networks say of it."""
    if not faces:
        scale = SIDE / max(image.shape[:2])
        shown = resized(image, scale)[:SIDE, :SIDE]
        pad = ((0, SIDE - shown.shape[0]), (0, SIDE - shown.shape[1]), (0, 0))
        return captioned(np.pad(shown, pad), f"{name}: no face found")
    face = max(faces, key=lambda face: face.score)
    crop = face_picture(image, faces, faces.faces.index(face), SIDE, LINES)
    share = face.sigma.mean() / np.linalg.norm(face.points[36] - face.points[45])
    return captioned(crop, f"{name}: {face.score:.2f}, sigma {share:.0%}")


def failures(pipeline: Pipeline) -> Image:
    image = read_image(PORTRAITS / "obama_smiling.jpg")
    points = pipeline(image)[0].points
    tiles = [
        tile(name, picture, pipeline(picture)) for name, picture in hardships(image, points).items()
    ]
    rows = [np.hstack(tiles[k : k + 5]) for k in range(0, len(tiles), 5)]
    return np.vstack(rows)


def main() -> None:
    pipeline = Pipeline()
    for name, picture in (("detectors", detectors(pipeline)), ("hardships", failures(pipeline))):
        write_file(ROOT / "docs" / f"{name}.jpg", encode(picture, ".jpg"))
        print(f"docs/{name}.jpg")


if __name__ == "__main__":
    main()
