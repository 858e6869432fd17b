"""The whole pipeline against OpenCV's Haar detector alone, in one process, one thread.

    python benchmarks/detection.py [FOLDER]

Photographs made of the example portraits: 640x480 with two faces, 1920x1080 with five, and a
24-megapixel JPEG, which is also decoded. Medians of alternating runs, and their ratios, which are
what to compare machines by. FOLDER gets the three pictures, annotated.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.table import Table

from kpipe import HaarDetector, Pipeline
from kpipe.detectors.haar import FRONTAL_DEFAULT, load_cascade
from kpipe.evaluation.timing import alternate
from kpipe.media.images import encode, read_image
from kpipe.preprocessing.crops import to_gray
from kpipe.utils.files import write_file
from kpipe.utils.opencv import cv2

PORTRAITS = Path(__file__).parent.parent / "examples" / "portraits"
BACKGROUND = (92, 104, 110)

# Name, size, and each portrait's place: name, height, left, top.
SCENES = {
    "640x480, two faces": (
        (640, 480),
        [("obama_smiling.jpg", 380, 20, 60), ("collins.jpg", 300, 330, 120)],
    ),
    "1920x1080, five faces": (
        (1920, 1080),
        [
            ("obama_standing.jpg", 620, 20, 60),
            ("biden_standing.jpg", 560, 500, 200),
            ("obama_speaking.jpg", 420, 950, 40),
            ("obama_smiling.jpg", 520, 1000, 520),
            ("collins.jpg", 300, 1550, 300),
        ],
    ),
}
LARGE = "6000x4000, two faces"
LARGE_SIZE = (6000, 4000)


def scene(
    size: tuple[int, int], places: list[tuple[str, int, int, int]], scale: float = 1.0
) -> NDArray[np.uint8]:
    picture = Image.new("RGB", size, BACKGROUND)
    for name, height, left, top in places:
        with Image.open(PORTRAITS / name) as portrait:
            width = portrait.width * height / portrait.height
            area = (round(width * scale), round(height * scale))
            print_ = portrait.convert("RGB").resize(area, Image.Resampling.LANCZOS)
        picture.paste(print_, (round(left * scale), round(top * scale)))
    return np.asarray(picture)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--runs", type=int, default=15)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    pipeline = Pipeline(threads=1)
    haar = Pipeline(
        HaarDetector(),
        pipeline.landmarker,
        coarse=pipeline.coarse,
        classifier=pipeline.classifier,
    )
    stock = load_cascade(FRONTAL_DEFAULT)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("picture", "what", "faces", "ms", "ratio"):
        table.add_column(name, justify="left" if name in ("picture", "what") else "right")

    def compare(
        name: str, picture: NDArray[np.uint8], jobs: dict[str, Callable[[], object]], runs: int
    ) -> None:
        """The first job is what the others are measured by."""
        times = alternate(jobs, runs)
        base = next(iter(times.values()))
        faces = pipeline(picture)
        for index, (job, ms) in enumerate(times.items()):
            count = str(len(faces)) if job.startswith("kpipe") else ""
            table.add_row("" if index else name, job, count, f"{ms:.1f}", f"{ms / base:.3f}")
        if arguments.folder is not None:
            drawn = encode(faces.render(picture), ".jpg")
            write_file(arguments.folder / f"{name.split(',')[0]}.jpg", drawn)

    for name, (size, places) in SCENES.items():
        picture = scene(size, places)
        gray = to_gray(picture)
        compare(
            name,
            picture,
            {
                "stock Haar, detection alone": lambda gray=gray: stock.detectMultiScale(
                    gray, 1.1, 4
                ),
                "kpipe, detection to points": lambda picture=picture: pipeline(picture),
                "  proposals": lambda gray=gray: pipeline.detector(gray),
                "kpipe with --detector haar": lambda picture=picture: haar(picture),
            },
            arguments.runs,
        )
    size, places = SCENES["640x480, two faces"]
    picture = scene(LARGE_SIZE, places, LARGE_SIZE[1] / size[1])
    jpeg = encode(picture, ".jpg")
    compare(
        LARGE,
        picture,
        {
            "decoding the JPEG": lambda: read_image(jpeg),
            "kpipe, decoding to points": lambda: pipeline(read_image(jpeg)),
        },
        max(arguments.runs // 3, 1),
    )
    Console().print(table)


if __name__ == "__main__":
    main()
