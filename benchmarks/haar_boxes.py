"""How the windows of OpenCV's cascades lie on a face: what `kpipe/detector.py` and the framing in
`kpipe/training/augment.py` rest on.

    python benchmarks/haar_boxes.py DATA

DATA: a folder of pictures with .pts files, as 300-W's training set.
"""

import argparse
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from kpipe.datasets import read_samples
from kpipe.detectors.haar import opencv_data
from kpipe.preprocessing.boxes import landmark_box
from kpipe.utils.opencv import cv2

CASCADES = ("frontalface_default", "frontalface_alt2", "profileface")
NEAR = 0.4
"""A window belongs to a face if their centers are closer than this share of the face's side."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--every", type=int, default=1, help="take each n-th face")
    arguments = parser.parse_args()
    samples = read_samples(arguments.data)[:: arguments.every]
    # A profile's cascade knows one side: the mirrored picture shows it the other.
    views = [(name, mirrored) for name in CASCADES for mirrored in (False, True)]
    views = [view for view in views if view[0] == "profileface" or not view[1]]
    classifiers = {
        name: cv2.CascadeClassifier(str(opencv_data() / f"haarcascade_{name}.xml"))
        for name in CASCADES
    }
    rows: dict[tuple[str, bool], list[tuple[float, float, float]]] = {view: [] for view in views}
    for sample in track(samples, "faces"):
        gray = sample.read()
        box = landmark_box(sample.points)
        side = box[2] - box[0]
        center = (box[:2] + box[2:]) / 2
        for name, mirrored in views:
            view = np.ascontiguousarray(gray[:, ::-1]) if mirrored else gray
            place = np.array([gray.shape[1] - 1 - center[0], center[1]]) if mirrored else center
            windows = classifiers[name].detectMultiScale(
                view, scaleFactor=1.1, minNeighbors=2, minSize=(int(side * 0.5),) * 2
            )
            near = [
                (float(np.linalg.norm(middle - place)), (place - middle) / w, side / w)
                for x, y, w, h in windows
                for middle in [np.array([x + (w - 1) / 2, y + (h - 1) / 2])]
                if np.linalg.norm(middle - place) < NEAR * side
            ]
            if near:
                _, shift, scale = min(near, key=lambda item: item[0])
                rows[name, mirrored].append((shift[0], shift[1], scale))
    table = Table(title=f"face box seen from the cascade's window, {len(samples)} faces")
    for column in ("cascade", "found", "shift x", "shift y", "scale"):
        table.add_column(column, justify="left" if column == "cascade" else "right")
    for column in ("spread x", "spread y", "spread log scale"):
        table.add_column(column, justify="right")
    for (name, mirrored), found in rows.items():
        x, y, scale = np.array(found).T
        middle = np.median(scale)
        # Shifts are in sides of the window, spreads in sides of the face's box.
        cells = (np.median(x), np.median(y), middle)
        spreads = (x.std() / middle, y.std() / middle, np.log(scale).std())
        table.add_row(
            name + (", mirrored" if mirrored else ""),
            f"{len(found) / len(samples):.1%}",
            *(f"{value:.3f}" for value in (*cells, *spreads)),
        )
    Console().print(table)


if __name__ == "__main__":
    main()
