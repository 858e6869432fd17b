"""From a module of torch to an ONNX model."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence

import onnx
import torch
from torch import Tensor, nn

OPSET = 17
"""Version of the operator set."""


def onnx_model(
    module: nn.Module,
    inputs: Mapping[str, Tensor],
    outputs: Sequence[str],
    axes: Mapping[str, Mapping[int, str]],
) -> onnx.ModelProto:
    """The model that computes what the module does.

    Args:
        module: in evaluation mode. The exporter folds batch normalization into its weights.
        inputs: an example of each input, by its name.
        outputs: their names.
        axes: names of the axes whose size may vary, by input or output.
    """
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            tuple(inputs.values()),
            buffer,  # type: ignore[arg-type]
            dynamo=False,
            input_names=[*inputs],
            output_names=[*outputs],
            dynamic_axes={name: dict(sizes) for name, sizes in axes.items()},
            opset_version=OPSET,
        )
    return onnx.load_from_string(buffer.getvalue())
