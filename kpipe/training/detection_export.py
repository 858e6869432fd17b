"""The detection network as an ONNX file, from the picture's bytes, in 8-bit integers."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kpipe.training.detection_network import DetectionNetwork
from kpipe.training.quantize import quantized
from kpipe.utils.files import write_file


class _Exported(nn.Module):
    """The same function from bytes to probabilities."""

    def __init__(self, network: DetectionNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, pictures: Tensor) -> tuple[Tensor, ...]:
        count, _, height, width = pictures.shape
        # The bytes are rearranged as such, which `pixel_unshuffle` would not leave them as.
        rows = pictures.reshape(count, height // 4, 4, width // 4, 4)
        blocks = rows.transpose(2, 3).reshape(count, height // 4, width // 4, 16)
        maps = self.network.maps(blocks.permute(0, 3, 1, 2).float())
        return tuple(torch.cat([m[:, :1].sigmoid(), m[:, 1:]], dim=1) for m in maps)


def export(network: DetectionNetwork, path: Path, scenes: NDArray[np.uint8] | None = None) -> None:
    """Writes the ONNX file: input `crops` (n, 1, h, w) uint8, h and w multiples of 32; outputs
    `fine` and `coarse`, the network's maps, their scores as probabilities.

    Args:
        network: trained.
        path: of the file.
        scenes: (n, h, w) uint8, to set the ranges of 8-bit integers by; without them it stays
            float.
    """
    buffer = io.BytesIO()
    names = ["fine", "coarse"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _Exported(network).eval(),
            (torch.zeros(1, 1, 128, 128, dtype=torch.uint8),),
            buffer,  # type: ignore[arg-type]
            dynamo=False,
            input_names=["crops"],
            output_names=names,
            dynamic_axes={name: {0: "n", 2: "h", 3: "w"} for name in ("crops", *names)},
            opset_version=17,
        )
    model = onnx.load_from_string(buffer.getvalue())
    if scenes is not None:
        model = quantized(model, scenes, levels=(1 / 64, 128))
    onnx.helper.set_model_props(model, {"kpipe.network": "detection"})
    write_file(path, model.SerializeToString())
