"""The 68-point network at work, by ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from kpipe.resources import packaged
from kpipe.schemes import IBUG68, Scheme

GLANCE = "models/glance.onnx"
FIRST_LOOK = "models/first_look.onnx"
SECOND_LOOK = "models/landmarks.onnx"
"""The packaged networks: `kpipe.pipeline` says what each is for."""

BATCH, SIEVED = 32, 256
"""Crops a run of a network of points, or of a sieve: memory does not grow with their number."""


class ModelError(RuntimeError):
    """The file of a network is missing, damaged or of another kind."""


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


def open_session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    """ONNX Runtime with a network loaded.

    Args:
        path: of the ONNX file.
        threads: of one prediction; 0 for all cores.

    Raises:
        ModelError: the file cannot be used.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such model file")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # Threads that spin while they wait take the processor from whatever runs beside them.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions share no base but this.
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"{path}: not a usable ONNX file ({reason})") from None


def _open(path: Path, threads: int) -> tuple[onnxruntime.InferenceSession, dict[str, str]]:
    """A network that `kpipe export` wrote, and what it says of itself."""
    session = open_session(path, threads)
    notes = session.get_modelmeta().custom_metadata_map
    outputs = {output.name for output in session.get_outputs()}
    needed = {"kpipe.crop_size", "kpipe.crop_margin"}
    if "points" in outputs:
        needed |= {"kpipe.sigma_bound50", "kpipe.sigma_bound90"}
    if notes.get("kpipe.scheme") != IBUG68.name or not needed <= notes.keys():
        raise ModelError(f"{path}: an ONNX file, but not one of kpipe's 68-point networks")
    if "points" in outputs and "least" not in {value.name for value in session.get_inputs()}:
        raise ModelError(f"{path}: of an older kpipe; write it anew with kpipe export")
    return session, notes


def _check(crops: NDArray[np.uint8], side: int) -> None:
    if crops.dtype != np.uint8 or crops.ndim != 3 or crops.shape[1:] != (side, side):
        raise ValueError(
            f"crops: expected uint8 (n, {side}, {side}), got {crops.dtype} {crops.shape}"
        )


class FaceSieve:
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
        path = Path(model) if model is not None else packaged(GLANCE)
        self._session, notes = _open(path, threads)
        self.crop_size = int(notes["kpipe.crop_size"])
        self.crop_margin = float(notes["kpipe.crop_margin"])

    def __call__(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(n,) float32 probabilities of a face in crops (n, side, side) uint8.

        Raises:
            ValueError: the crops are of another shape or type.
        """
        _check(crops, self.crop_size)
        parts = [
            self._session.run(["face"], {"crops": crops[start : start + SIEVED, None]})[0]
            for start in range(0, max(len(crops), 1), SIEVED)
        ]
        return np.concatenate(parts)


class LandmarkPredictor:
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
        path = Path(model) if model is not None else packaged(SECOND_LOOK)
        self._session, notes = _open(path, threads)
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
        _check(crops, self.crop_size)
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
