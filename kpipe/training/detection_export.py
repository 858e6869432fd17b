"""The detection network as an ONNX file, from the picture's bytes, in 8-bit integers."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kpipe.training.detection_network import DetectionNetwork
from kpipe.training.quantize import quantized
from kpipe.training.tracing import onnx_model
from kpipe.utils.files import write_file


class _Exported(nn.Module):
    """The same function from bytes to probabilities."""

    def __init__(self, network: DetectionNetwork, calibration: tuple[float, ...]) -> None:
        super().__init__()
        self.network = copy.deepcopy(network)
        shift, scale = calibration
        with torch.no_grad():
            for head in self.network.heads:
                last = head.get_submodule("2")
                last.get_parameter("weight")[0] *= scale
                last.get_parameter("bias")[0] *= scale
                last.get_parameter("bias")[0] += shift

    def forward(self, pictures: Tensor) -> tuple[Tensor, ...]:
        count, _, height, width = pictures.shape
        # The bytes are rearranged as such, which `pixel_unshuffle` would not leave them as.
        rows = pictures.reshape(count, height // 4, 4, width // 4, 4)
        blocks = rows.transpose(2, 3).reshape(count, height // 4, width // 4, 16)
        maps = self.network.maps(blocks.permute(0, 3, 1, 2).float())
        return tuple(torch.cat([m[:, :1].sigmoid(), m[:, 1:]], dim=1) for m in maps)


def export(
    network: DetectionNetwork,
    path: Path,
    scenes: NDArray[np.uint8] | None = None,
    calibration: tuple[float, ...] = (0.0, 1.0),
) -> None:
    """Writes the ONNX file: input `crops` (n, 1, h, w) uint8, h and w multiples of 32; outputs
    `fine` and `coarse`, the network's maps, their scores as probabilities.

    Args:
        network: trained.
        path: of the file.
        scenes: (n, h, w) uint8, to set the ranges of 8-bit integers by; without them it stays
            float.
        calibration: intercept and weight of the log odds of the network's scores, which say how
            well a box fits, that make them probabilities.
    """
    names = ["fine", "coarse"]
    axes = {name: {0: "n", 2: "h", 3: "w"} for name in ("crops", *names)}
    picture = torch.zeros(1, 1, 128, 128, dtype=torch.uint8)
    model = onnx_model(_Exported(network, calibration).eval(), {"crops": picture}, names, axes)
    if scenes is not None:
        model = quantized(model, scenes, levels=(1 / 64, 128))
    onnx.helper.set_model_props(model, {"kpipe.network": "detection"})
    write_file(path, model.SerializeToString())
