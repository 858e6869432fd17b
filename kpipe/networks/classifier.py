"""The face classifier: gray crops to the probability that they show a face."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kpipe.networks.session import check_crops, open_network
from kpipe.utils.resources import packaged

CLASSIFIER = "models/face_classifier.onnx"
"""The packaged file."""

BATCH = 256
"""Crops in one run: memory does not grow with their number."""


class FaceClassifier:
    """Gray crops to face probabilities, in some 20 microseconds each.

    Args:
        model: an ONNX file written by `kpipe export` of a run with `--stage classifier`; without it
            the packaged one.
        threads: of one run; 0 for all cores.

    Attributes:
        crop_size: side of a crop (pixels).
        crop_margin: side of a crop over the side of the box that it is cut around.

    Raises:
        ModelError: the file cannot be used.
    """

    def __init__(self, model: str | Path | None = None, threads: int = 0) -> None:
        path = Path(model) if model is not None else packaged(CLASSIFIER)
        self._session = open_network(path, threads)
        self.crop_size = int(self._session.metadata["kpipe.crop_size"])
        self.crop_margin = float(self._session.metadata["kpipe.crop_margin"])

    def __call__(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(n,) float32, the face probability of each crop.

        Args:
            crops: (n, side, side) uint8.

        Raises:
            ValueError: the crops are of another shape or type.
        """
        check_crops(crops, self.crop_size)
        parts = [
            self._session.run(["face"], {"crops": crops[start : start + BATCH, None]})[0]
            for start in range(0, max(len(crops), 1), BATCH)
        ]
        return np.concatenate(parts)
