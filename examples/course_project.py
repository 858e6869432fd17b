"""The classic course project, step by step: find the faces in a photograph, see 68 points in each,
and put sunglasses on them.

    python examples/course_project.py [PHOTO] [-o FOLDER]

Cells begin with `# %%`: editors that know them show the script as a notebook.
"""

# %% What is needed
import argparse
from pathlib import Path

import numpy as np

from kpipe import Pipeline, Style, read_image
from kpipe.media.images import encode
from kpipe.preprocessing.affine import crop_transform, invert, transform
from kpipe.preprocessing.boxes import landmark_box
from kpipe.preprocessing.crops import to_gray, warp
from kpipe.utils.files import write_file
from kpipe.utils.opencv import cv2

parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
parser.add_argument(
    "photo", type=Path, nargs="?", default=Path(__file__).parent / "group_photo.jpg"
)
parser.add_argument("-o", "--output", type=Path, default=Path("course_project"))
arguments = parser.parse_args()

# %% 1. The photograph, RGB and upright
image = read_image(arguments.photo)
print(f"{arguments.photo.name}: {image.shape[1]} x {image.shape[0]} pixels")

# %% 2. The faces, each with 68 points; largest first
pipeline = Pipeline()
faces = pipeline(image)
for number, face in enumerate(faces, 1):
    print(f"face {number}: {face.size:.0f} pixels, probability {face.score:.3f}, {face.pose}")

# %% 3. What the network sees of each: the square around its landmarks, gray, upright, 128 x 128
network = pipeline.landmarker
gray = to_gray(image)
rolls = [face.pose.roll if face.pose else 0.0 for face in faces]
matrices = [
    crop_transform(landmark_box(face.points, roll), roll, network.crop_size, network.crop_margin)
    for face, roll in zip(faces, rolls)
]
crops = [warp(gray, matrix, network.crop_size) for matrix in matrices]

# %% 4. The network: gray crops in, points in pixels of the crops out; and back to the photograph
pictures = []
for number, (face, crop, matrix) in enumerate(zip(faces, crops, matrices), 1):
    points = network(crop[None]).points[0]
    back = transform(invert(matrix), points)
    away = np.linalg.norm(back - face.points, axis=1).mean() / face.size
    print(f"face {number}: {away:.2%} of its size from where the pipeline has its points")
    picture = cv2.cvtColor(crop, cv2.COLOR_GRAY2RGB)
    for x, y in points:
        cv2.circle(picture, (round(float(x)), round(float(y))), 1, (255, 60, 60), -1)
    pictures.append(picture)
if pictures:
    write_file(arguments.output / "crops.png", encode(np.hstack(pictures), ".png"))

# %% 5. The photograph with all that was found
annotated = faces.render(image, Style(("boxes", "lines", "points", "index")))
write_file(arguments.output / "annotated.jpg", encode(annotated, ".jpg"))

# %% 6. Sunglasses: a glass around each eye, as wide as its brow, and a bar between them
RIGHT_EYE, LEFT_EYE = range(36, 42), range(42, 48)
RIGHT_BROW, LEFT_BROW = range(17, 22), range(22, 27)
dressed = image.copy()
for face in faces:
    roll = face.pose.roll if face.pose else 0.0
    middles = []
    for eye, brow in ((RIGHT_EYE, RIGHT_BROW), (LEFT_EYE, LEFT_BROW)):
        middle = face.points[eye].mean(axis=0)
        width = float(np.linalg.norm(face.points[brow[0]] - face.points[brow[-1]]))
        glass = (middle.tolist(), (width, 0.75 * width), float(roll))
        cv2.ellipse(dressed, glass, (20, 20, 25), -1, cv2.LINE_AA)
        middles.append(middle)
    thickness = max(round(face.size / 30), 1)
    start, end = (tuple(np.round(middle).astype(int).tolist()) for middle in middles)
    cv2.line(dressed, start, end, (20, 20, 25), thickness, cv2.LINE_AA)
write_file(arguments.output / "sunglasses.jpg", encode(dressed, ".jpg"))
print(f"written: crops.png, annotated.jpg and sunglasses.jpg in {arguments.output}")
