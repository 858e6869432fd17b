"""From a network's ONNX file to one that computes its convolutions in 8-bit integers.

Static quantisation with scales for each output channel (Jacob et al., CVPR 2018). Weights keep to 7
bits: the sums of full 8-bit products overflow on processors without VNNI instructions.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

BATCH = 16


class _Crops(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, crops: NDArray[np.uint8]) -> None:
        self.batches = iter(np.array_split(crops[:, None], max(len(crops) // BATCH, 1)))

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        batch = next(self.batches, None)
        return None if batch is None else {"crops": batch}


def quantised(model: onnx.ModelProto, crops: NDArray[np.uint8]) -> onnx.ModelProto:
    """The model with convolutions in 8-bit integers.

    Float stay what comes before the first convolution, this itself, and heatmaps (what goes into a
    softmax) with all that is read off them.

    Args:
        model: metadata included.
        crops: (n, side, side) uint8, as the network will meet them: they set the ranges.
    """
    with tempfile.TemporaryDirectory() as folder:
        whole, folded, small = (Path(folder, f"{name}.onnx") for name in ("a", "b", "c"))
        onnx.save(model, whole)
        quant_pre_process(whole, folded, skip_symbolic_shape=True)
        graph = onnx.load(folded).graph
        first = next(node for node in graph.node if node.op_type == "Conv")
        heads = [node for node in graph.node if node.op_type == "Softmax"]
        eight_bit = _reached(graph, [first]) - {first.name} - _reached(graph, heads)
        root = logging.getLogger()
        level = root.level
        root.setLevel(logging.ERROR)  # it advises the preparation that has just been done
        try:
            quantize_static(
                folded,
                small,
                _Crops(crops),
                quant_format=QuantFormat.QDQ,
                calibrate_method=CalibrationMethod.MinMax,
                op_types_to_quantize=["Conv", "Add", "Relu"],
                nodes_to_exclude=[n.name for n in graph.node if n.name not in eight_bit],
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                per_channel=True,
                reduce_range=True,
            )
        finally:
            root.setLevel(level)
        result = onnx.load(small)
    notes = {entry.key: entry.value for entry in model.metadata_props}
    onnx.helper.set_model_props(result, notes)
    return result


def _reached(graph: onnx.GraphProto, start: Sequence[onnx.NodeProto]) -> set[str]:
    """Names of some nodes of a graph and of all that depend on them."""
    names = {node.name for node in start}
    values = {value for node in start for value in node.output}
    for node in graph.node:  # in the order of execution
        if values.intersection(node.input):
            names.add(node.name)
            values.update(node.output)
    return names
