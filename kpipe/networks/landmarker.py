"""The landmark networks: gray crops to 68 points, their expected error and a face score."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kpipe.errors import ModelError
from kpipe.networks.session import check_crops, open_network
from kpipe.structures.schemes import IBUG68, Scheme
from kpipe.utils.resources import packaged

COARSE = "models/first_look.onnx"


REFINE = "models/landmarks.onnx"
"""The packaged networks: `kpipe.pipeline` says what each is for."""


BATCH, BATCH = 32, 256
"""Crops a run of a network of points, or of a sieve: memory does not grow with their number."""


class Prediction(NamedTuple):
    """What the network says of n crops.

    Attributes:
        points: (n, 68, 2) float32, crop pixels; NaN where they were not asked for.
        sigma: (n, 68) float32, expected error of each point, crop pixels; likewise.
        face: (n,) float32, probability that the crop shows a face.
    """

    points: NDArray[np.float32]
    sigma: NDArray[np.float32]
    face: NDArray[np.float32]


class Landmarker:
    """Gray crops to points. One object serves any number of threads.

    Args:
        model: an ONNX file written by `kpipe export`; without it the packaged one.
        threads: of one prediction; 0 for all cores.

    Attributes:
        crop_size, crop_margin: how its crops are to be cut, see `kpipe.preprocessor`.
        sigma_bounds: a point's error is below so many sigma in 50 and in 90 % of cases.

    Raises:
        ModelError: the file cannot be used.
    """

    scheme: Scheme = IBUG68

    def __init__(self, model: str | Path | None = None, threads: int = 0) -> None:
        path = Path(model) if model is not None else packaged(REFINE)
        self._session, notes = open_network(path, threads)
        if "points" not in {output.name for output in self._session.get_outputs()}:
            raise ModelError(f"{path}: a network of kpipe's, but one that gives no points")
        self.crop_size = int(notes["kpipe.crop_size"])
        self.crop_margin = float(notes["kpipe.crop_margin"])
        self.sigma_bounds = (
            float(notes["kpipe.sigma_bound50"]),
            float(notes["kpipe.sigma_bound90"]),
        )

    def __call__(self, crops: NDArray[np.uint8], least: float = 0.0) -> Prediction:
        """Points of the crops.

        Args:
            crops: (n, side, side) uint8.
            least: probability of a face below which a crop's points are not wanted, which saves
                half of its time.

        Raises:
            ValueError: the crops are of another shape or type.
        """
        check_crops(crops, self.crop_size)
        count = len(self.scheme)
        found = Prediction(
            np.full((len(crops), count, 2), np.nan, np.float32),
            np.full((len(crops), count), np.nan, np.float32),
            np.zeros(len(crops), np.float32),
        )
        for start in range(0, len(crops), BATCH):
            batch = np.ascontiguousarray(crops[start : start + BATCH, None])
            points, sigma, face = self._session.run(
                ["points", "sigma", "face"],
                {"crops": batch, "least": np.array(least, np.float32)},
            )
            # The most probable one comes in any case.
            chosen = start + np.flatnonzero(face >= min(np.float32(least), face.max()))
            found.points[chosen], found.sigma[chosen] = points, sigma
            found.face[start : start + BATCH] = face
        return found
