"""ONNX files opened, and checked to be what they are taken for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from kpipe.errors import ModelError
from kpipe.structures.schemes import IBUG68


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


def open_network(path: Path, threads: int) -> tuple[onnxruntime.InferenceSession, dict[str, str]]:
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


def check_crops(crops: NDArray[np.uint8], side: int) -> None:
    if crops.dtype != np.uint8 or crops.ndim != 3 or crops.shape[1:] != (side, side):
        raise ValueError(
            f"crops: expected uint8 (n, {side}, {side}), got {crops.dtype} {crops.shape}"
        )
