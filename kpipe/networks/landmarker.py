"""The landmark networks: gray crops to 68 points, their expected error and a face score."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kpipe.errors import ModelError
from kpipe.networks.session import check_crops, open_network
from kpipe.structures.landmarks import Landmarks
from kpipe.structures.schemes import IBUG68, Scheme
from kpipe.utils.resources import packaged

COARSE = "models/coarse_landmarks.onnx"
REFINE = "models/landmarks.onnx"
"""The packaged files of the two stages: `kpipe.pipeline` says what each is for."""

BATCH = 32
"""Crops in one run: memory does not grow with their number."""


class Landmarker:
    """Gray crops to landmarks. One object serves any number of threads.

    Args:
        model: an ONNX file written by `kpipe export`; without it the packaged one of the refine
            stage.
        threads: of one run; 0 for all cores.

    Attributes:
        crop_size: side of a crop (pixels).
        crop_margin: side of a crop over the side of the box that it is cut around.
        sigma_bounds: the error of a point is below this many sigma in 50 and in 90 % of cases.

    Raises:
        ModelError: the file cannot be used.
    """

    scheme: Scheme = IBUG68

    def __init__(self, model: str | Path | None = None, threads: int = 0) -> None:
        path = Path(model) if model is not None else packaged(REFINE)
        self._session = open_network(path, threads)
        if "points" not in self._session.outputs:
            raise ModelError(f"{path}: a network of kpipe's, but one that gives no points")
        metadata = self._session.metadata
        self.crop_size = int(metadata["kpipe.crop_size"])
        self.crop_margin = float(metadata["kpipe.crop_margin"])
        self.sigma_bounds = (
            float(metadata["kpipe.sigma_bound50"]),
            float(metadata["kpipe.sigma_bound90"]),
        )

    def __call__(self, crops: NDArray[np.uint8], min_score: float = 0.0) -> Landmarks:
        """Landmarks of the crops, in crop pixels.

        Args:
            crops: (n, side, side) uint8.
            min_score: face probability below which a crop's points are not computed but NaN, which
                saves half of its time.

        Raises:
            ValueError: the crops are of another shape or type.
        """
        check_crops(crops, self.crop_size)
        count = len(self.scheme)
        found = Landmarks(
            np.full((len(crops), count, 2), np.nan, np.float32),
            np.full((len(crops), count), np.nan, np.float32),
            np.zeros(len(crops), np.float32),
        )
        for start in range(0, len(crops), BATCH):
            batch = np.ascontiguousarray(crops[start : start + BATCH, None])
            # The file calls its threshold `least`.
            points, sigma, face = self._session.run(
                ["points", "sigma", "face"],
                {"crops": batch, "least": np.array(min_score, np.float32)},
            )
            # The network computes the points of its most probable crop in any case.
            computed = start + np.flatnonzero(face >= min(np.float32(min_score), face.max()))
            found.points[computed], found.sigma[computed] = points, sigma
            found.scores[start : start + BATCH] = face
        return found
