"""ONNX files opened, and checked to be what they are taken for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from kpipe.errors import ModelError
from kpipe.structures.schemes import IBUG68


class OnnxSession:
    """A network in ONNX Runtime, on the CPU. It pickles: the copy carries the file's bytes.

    Args:
        path: of the ONNX file.
        threads: of one run; 0 for all cores.

    Attributes:
        metadata: of the file.
        inputs, outputs: names.

    Raises:
        ModelError: the file cannot be used.
    """

    def __init__(self, path: Path, threads: int) -> None:
        if not path.is_file():
            raise ModelError(f"{path}: no such model file")
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ModelError(f"{path}: {error.strerror or error}") from None
        self._open(str(path), content, threads)

    def _open(self, name: str, content: bytes, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        # Threads that spin while they wait take the processor from whatever runs beside them.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(
                content, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime's exceptions share no base but this.
            reason = " ".join(str(error).split())[:200]
            raise ModelError(f"{name}: not a usable ONNX file ({reason})") from None
        self._state = (name, content, threads)
        self.metadata: dict[str, str] = self._session.get_modelmeta().custom_metadata_map
        self.inputs = {value.name for value in self._session.get_inputs()}
        self.outputs = {value.name for value in self._session.get_outputs()}

    def run(self, outputs: list[str], inputs: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """The named outputs for the named inputs."""
        values: list[NDArray[Any]] = self._session.run(outputs, inputs)
        return values

    def __getstate__(self) -> tuple[str, bytes, int]:
        """The file's name and bytes: ONNX Runtime's own session does not pickle."""
        return self._state

    def __setstate__(self, state: tuple[str, bytes, int]) -> None:
        self._open(*state)


def open_network(path: Path, threads: int) -> OnnxSession:
    """A network that `kpipe export` wrote.

    Raises:
        ModelError: the file cannot be used, or is of another kind.
    """
    session = OnnxSession(path, threads)
    needed = {"kpipe.crop_size", "kpipe.crop_margin"}
    if "points" in session.outputs:
        needed |= {"kpipe.sigma_bound50", "kpipe.sigma_bound90"}
    if session.metadata.get("kpipe.scheme") != IBUG68.name or not needed <= session.metadata.keys():
        raise ModelError(f"{path}: an ONNX file, but not one of kpipe's 68-point networks")
    if "points" in session.outputs and "least" not in session.inputs:
        raise ModelError(f"{path}: of an older kpipe; write it anew with kpipe export")
    return session


def check_crops(crops: NDArray[np.uint8], side: int) -> None:
    """Raises ValueError unless the crops are uint8 (n, side, side)."""
    if crops.dtype != np.uint8 or crops.ndim != 3 or crops.shape[1:] != (side, side):
        raise ValueError(
            f"crops: expected uint8 (n, {side}, {side}), got {crops.dtype} {crops.shape}"
        )
