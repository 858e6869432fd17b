"""The 68-point network: a plain residual encoder, a small feature pyramid, heatmaps, soft-argmax.

Coordinates are read as the mean of each heatmap's distribution (integral regression: Sun et al.,
ECCV 2018). The same distribution gathers the features that say how far off the point is, and the
deepest features say whether this is a face at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class NetworkSize:
    """Widths of the encoder at strides 4, 8, 16 and 32, of the pyramid, and blocks a stage."""

    widths: tuple[int, int, int, int]
    pyramid: int
    blocks: int


SIZES = {
    "nano": NetworkSize((16, 24, 32, 48), 16, 1),
    "tiny": NetworkSize((24, 48, 96, 128), 32, 1),
    "small": NetworkSize((32, 64, 128, 192), 48, 1),
    "medium": NetworkSize((32, 64, 128, 192), 48, 2),
    "large": NetworkSize((96, 192, 320, 384), 128, 3),
}


STRIDE = 4
"""Crop pixels from one heatmap cell to the next."""


class LandmarkTensors(NamedTuple):
    """Landmarks of n faces, before they leave torch.

    Attributes:
        points: (n, 68, 2), crop pixels.
        log_sigma: (n, 68), natural logarithm of the expected distance to the true point, crop
            pixels.
        log_heatmap: (n, 68, h * w), logarithm of each point's distribution over the cells.
    """

    points: Tensor
    log_sigma: Tensor
    log_heatmap: Tensor


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
    )


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al., CVPR 2016)."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.first = conv(inputs, outputs, stride=stride)
        self.second = conv(outputs, outputs)
        # Each block starts as its shortcut.
        nn.init.zeros_(self.second.get_submodule("1").get_parameter("weight"))
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else conv(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.shortcut(x) + self.second(functional.relu(self.first(x))))


class LandmarkNetwork(nn.Module):
    """Gray crops to 68 points, their expected errors and a face score.

    Args:
        size: widths and depth.
        sources: label sets, each with heatmaps of its own; the first is the one that is exported.
    """

    def __init__(
        self, size: NetworkSize, sources: tuple[str, ...] = ("300w",), points: int = 68
    ) -> None:
        super().__init__()
        a, b, c, d = size.widths
        self.sources = sources
        self.stem = nn.Sequential(
            conv(1, 32, stride=2), nn.ReLU(), conv(32, a, stride=2), nn.ReLU()
        )
        self.stages = nn.ModuleList(
            nn.Sequential(
                Block(inputs, outputs, stride),
                *(Block(outputs, outputs) for _ in range(size.blocks - 1)),
            )
            for inputs, outputs, stride in ((a, a, 1), (a, b, 2), (b, c, 2), (c, d, 2))
        )
        self.lateral = nn.ModuleList(conv(width, size.pyramid, 1) for width in size.widths)
        self.smooth = nn.Sequential(conv(size.pyramid, size.pyramid), nn.ReLU())
        self.heatmaps = nn.ModuleDict(
            {source: nn.Conv2d(size.pyramid, points, 1) for source in sources}
        )
        self.error = nn.Sequential(nn.Linear(size.pyramid, 64), nn.ReLU(), nn.Linear(64, 1))
        self.error_bias = nn.Parameter(torch.zeros(points))
        self.face = nn.Sequential(nn.Linear(d, 64), nn.ReLU(), nn.Linear(64, 1))

    def forward(self, crops: Tensor, source: str | None = None) -> tuple[LandmarkTensors, Tensor]:
        """The landmarks of n crops, and the logit (n,) of each being a face.

        Args:
            crops: (n, 1, side, side), gray levels 0-255.
            source: label set to predict; None for the first.
        """
        features, deepest = self.features(crops)
        landmarks = self.landmarks(features, source or self.sources[0])
        return landmarks, self.face_logit(deepest)

    def landmarks(self, features: Tensor, source: str) -> LandmarkTensors:
        """The landmarks in the scheme of a label set, from the pyramid's features (n, c, h, w)."""
        maps = self.heatmaps[source](features)
        height, width = maps.shape[2:]
        log_heatmap = maps.flatten(2).contiguous().float().log_softmax(dim=2)
        weights = log_heatmap.exp()
        # Not in the reduced precision of autocast, which knows no tenths of a pixel.
        with torch.autocast(maps.device.type, enabled=False):
            points = weights @ cell_centers(height, width).to(maps.device)
        # The error is only read off: it must not bend the features or the points.
        flat = features.detach().flatten(2).transpose(1, 2)
        gathered = weights.detach().to(flat.dtype) @ flat
        return LandmarkTensors(points, self.log_sigma(gathered), log_heatmap)

    def log_sigma(self, gathered: Tensor) -> Tensor:
        """(n, 68) from the pyramid's features (n, 68, c) under each point's distribution."""
        error: Tensor = self.error(gathered)
        return error.squeeze(2).float() + self.error_bias

    def face_logit(self, deepest: Tensor) -> Tensor:
        """(n,) from the encoder's features at stride 32."""
        logit: Tensor = self.face(deepest.mean(dim=(2, 3)))
        return logit.squeeze(1).float()

    def features(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """The pyramid's features at stride 4, and the encoder's at stride 32."""
        levels = self.levels(crops)
        return self.merged(levels), levels[-1]

    def levels(self, crops: Tensor) -> list[Tensor]:
        """The encoder's features at strides 4, 8, 16 and 32."""
        x = self.stem(normalize(crops))
        levels = []
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        return levels

    def merged(self, levels: Sequence[Tensor]) -> Tensor:
        """The pyramid's features at stride 4, from the encoder's."""
        merged = self.lateral[-1](levels[-1])
        for lateral, level in zip(self.lateral[-2::-1], levels[-2::-1]):
            merged = lateral(level) + functional.interpolate(
                merged, scale_factor=2.0, mode="nearest"
            )
        smooth: Tensor = self.smooth(functional.relu(merged))
        return smooth


def cell_centers(height: int, width: int) -> Tensor:
    """(height * width, 2): x and y in crop pixels of the middle of each heatmap cell."""
    xs = (torch.arange(width) + 0.5) * STRIDE - 0.5
    ys = (torch.arange(height) + 0.5) * STRIDE - 0.5
    return torch.stack([xs.repeat(height), ys.repeat_interleave(width)], dim=1)


def normalize(crops: Tensor) -> Tensor:
    """Each crop to zero mean and unit deviation, so that light and contrast do not matter."""
    mean = crops.mean(dim=(2, 3), keepdim=True)
    centered = crops - mean
    deviation = centered.square().mean(dim=(2, 3), keepdim=True).sqrt()
    return centered / (deviation + 4.0)
