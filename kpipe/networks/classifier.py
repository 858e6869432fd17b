"""The face classifier: gray crops to whether they may show a face."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kpipe.networks.landmarker import BATCH
from kpipe.networks.session import check_crops, open_network
from kpipe.utils.resources import packaged

CLASSIFIER = "models/glance.onnx"


class FaceClassifier:
    """Gray crops to whether they may show a face, in some 20 microseconds each.

    Args:
        model: an ONNX file written by `kpipe export` of a run with `--look glance`; without it the
            packaged one.
        threads: of one prediction; 0 for all cores.

    Attributes:
        crop_size, crop_margin: how its crops are to be cut, see `kpipe.preprocessor`.

    Raises:
        ModelError: the file cannot be used.
    """

    def __init__(self, model: str | Path | None = None, threads: int = 0) -> None:
        path = Path(model) if model is not None else packaged(CLASSIFIER)
        self._session, notes = open_network(path, threads)
        self.crop_size = int(notes["kpipe.crop_size"])
        self.crop_margin = float(notes["kpipe.crop_margin"])

    def __call__(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(n,) float32 probabilities of a face in crops (n, side, side) uint8.

        Raises:
            ValueError: the crops are of another shape or type.
        """
        check_crops(crops, self.crop_size)
        parts = [
            self._session.run(["face"], {"crops": crops[start : start + BATCH, None]})[0]
            for start in range(0, max(len(crops), 1), BATCH)
        ]
        return np.concatenate(parts)
