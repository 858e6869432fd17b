"""From a network's ONNX file to one that computes its convolutions in 8-bit integers.

Static quantization with scales for each output channel (Jacob et al., CVPR 2018). Weights keep to 7
bits: the sums of full 8-bit products overflow on processors without VNNI instructions.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
    """Batches of crops, and 0 for every other input of the model."""

    def __init__(self, crops: NDArray[np.uint8], inputs: Sequence[str]) -> None:
        self.batches = iter(np.array_split(crops[:, None], max(len(crops) // BATCH, 1)))
        self.others = {name: np.zeros((), np.float32) for name in inputs if name != "crops"}

    def get_next(self) -> dict[str, Any] | None:
        batch = next(self.batches, None)
        return None if batch is None else {"crops": batch, **self.others}


def quantized(
    model: onnx.ModelProto, crops: NDArray[np.uint8], levels: tuple[float, int] | None = None
) -> onnx.ModelProto:
    """The model with convolutions in 8-bit integers.

    The first convolution stays float with all nodes before it, and so does every softmax (the
    heatmaps) with all nodes behind it.

    Args:
        model: metadata included.
        crops: (n, side, side) uint8, as the network gets them in use. They set the ranges.
        levels: scale and zero, if all that the network does before its first convolution is
            (gray level - zero) * scale. It then computes with the gray levels themselves, and
            nothing before the heatmaps stays float.
    """
    with tempfile.TemporaryDirectory() as folder:
        whole, folded, small = (Path(folder, f"{name}.onnx") for name in ("a", "b", "c"))
        onnx.save(model, whole)
        quant_pre_process(whole, folded, skip_symbolic_shape=True)
        graph = onnx.load(folded).graph
        first = next(node for node in graph.node if node.op_type == "Conv")
        heads = [node for node in graph.node if node.op_type == "Softmax"]
        eight_bit = _reached(graph, [first]) - _reached(graph, heads)
        known = {}
        if levels is None:
            eight_bit -= {first.name}
        else:
            scale, zero = np.float32(levels[0]), np.uint8(levels[1])
            known[first.input[0]] = [{"scale": np.array(scale), "zero_point": np.array(zero)}]
        root = logging.getLogger()
        level = root.level
        root.setLevel(logging.ERROR)  # it advises quant_pre_process, which has just run
        try:
            quantize_static(
                folded,
                small,
                _Crops(crops, [value.name for value in graph.input]),
                quant_format=QuantFormat.QDQ,
                calibrate_method=CalibrationMethod.MinMax,
                op_types_to_quantize=["Conv", "Add", "Relu", "Gather"],
                nodes_to_exclude=[n.name for n in graph.node if n.name not in eight_bit],
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                per_channel=True,
                reduce_range=True,
                extra_options={"TensorQuantOverrides": known},
            )
        finally:
            root.setLevel(level)
        result = onnx.load(small)
    if levels is not None:
        _start_with_levels(result.graph)
    notes = {entry.key: entry.value for entry in model.metadata_props}
    onnx.helper.set_model_props(result, notes)
    return result


def _start_with_levels(graph: onnx.GraphProto) -> None:
    """Removes the nodes that turn gray levels into floats and those into 8-bit integers.

    Raises:
        ValueError: other nodes stand before the first convolution.
    """
    makers = {value: node for node in graph.node for value in node.output}
    first = next(node for node in graph.node if node.op_type == "Conv")
    start = makers[first.input[0]]
    node = makers[start.input[0]]
    while node.op_type != "Cast":
        if node.op_type not in ("QuantizeLinear", "Mul", "Div", "Add", "Sub"):
            raise ValueError(f"{node.op_type} between the levels and the first convolution")
        graph.node.remove(node)
        node = makers[node.input[0]]
    graph.node.remove(node)
    start.input[0] = node.input[0]


def _reached(graph: onnx.GraphProto, start: Sequence[onnx.NodeProto]) -> set[str]:
    """Names of some nodes of a graph and of all that depend on them."""
    names = {node.name for node in start}
    values = {value for node in start for value in node.output}
    for node in graph.node:  # in the order of execution
        if values.intersection(node.input):
            names.add(node.name)
            values.update(node.output)
    return names
