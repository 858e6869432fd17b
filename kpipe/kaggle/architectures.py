"""Networks of Kaggle's 15 points: ours, and those that people began with."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from kpipe.kaggle.files import SIDE
from kpipe.structures.schemes import KAGGLE15
from kpipe.training.network import normalize

POINTS = len(KAGGLE15)


STRIDE = 4
"""Pixels from one cell of our heatmaps to the next."""


# Architectures. Each takes gray levels (n, 1, 96, 96) of 0-255 and gives points in pixels.


class Regression(nn.Module):
    """Layers that end in 30 numbers, learned by the squared error as the baselines were.

    Args:
        layers: from pictures (n, 1, 96, 96) of 0-1 to (n, 30): coordinates from the picture's
            middle, in halves of its side.
    """

    def __init__(self, layers: nn.Sequential) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, pictures: Tensor) -> Tensor:
        """(n, 15, 2) pixels."""
        values: Tensor = self.layers(pictures / 255).reshape(-1, POINTS, 2)
        return values * (SIDE / 2) + (SIDE - 1) / 2

    def loss(self, pictures: Tensor, labels: Tensor) -> Tensor:
        """Mean squared error over the labels that are not NaN, in halves of the side."""
        errors: Tensor = (self(pictures) - labels) / (SIDE / 2)
        return errors[~labels.isnan()].square().mean()


def naimishnet() -> Regression:
    """Four convolutions of shrinking kernels, dropout growing with depth (Agarwal, Krohn-Grimberghe
    and Vyas, 2017), with one output for all points in place of a network a point.
    """
    layers: list[nn.Module] = []
    channels = 1
    for depth, (width, kernel) in enumerate(((32, 4), (64, 3), (128, 2), (256, 1)), 1):
        layers += [nn.Conv2d(channels, width, kernel), nn.ELU(), nn.MaxPool2d(2)]
        layers += [nn.Dropout(depth / 10)]
        channels = width
    layers += [nn.Flatten(), nn.Linear(256 * 5 * 5, 1000), nn.ELU(), nn.Dropout(0.5)]
    layers += [nn.Linear(1000, 1000), nn.Dropout(0.6), nn.Linear(1000, 2 * POINTS)]
    return Regression(nn.Sequential(*layers))


def five_convolutions() -> Regression:
    """Five 3x3 convolutions, three poolings and two dense layers."""
    layers: list[nn.Module] = []
    channels = 1
    for width, pooled in ((16, True), (32, False), (64, True), (64, False), (128, True)):
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if pooled else []
        channels = width
    layers += [nn.Flatten(), nn.Linear(128 * 12 * 12, 256), nn.ReLU(), nn.Dropout(0.2)]
    return Regression(nn.Sequential(*layers, nn.Linear(256, 2 * POINTS)))


def dense() -> Regression:
    """Two dense layers on the pixels."""
    return Regression(
        nn.Sequential(
            nn.Flatten(),
            nn.Linear(SIDE * SIDE, 500),
            nn.ReLU(),
            nn.Linear(500, 200),
            nn.ReLU(),
            nn.Linear(200, 2 * POINTS),
        )
    )


def _conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
    )


class _Residual(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al., CVPR 2016)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = _conv(inputs, outputs, stride=stride)
        self.second = _conv(outputs, outputs)
        self.shortcut = _conv(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.shortcut(x) + self.second(functional.relu(self.first(x))))


class HeatmapNetwork(nn.Module):
    """Ours: a small residual encoder, a feature pyramid, heatmaps at a quarter of the size; the
    points are the means of the heatmaps (Sun et al., ECCV 2018).
    """

    WIDTHS = (32, 48, 96, 128)
    PYRAMID = 48

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(_conv(1, 16, stride=2), nn.ReLU())
        inputs = (16, *self.WIDTHS[:-1])
        self.stages = nn.ModuleList(_Residual(a, b, 2) for a, b in zip(inputs, self.WIDTHS))
        self.lateral = nn.ModuleList(_conv(width, self.PYRAMID, 1) for width in self.WIDTHS)
        self.head = nn.Sequential(
            _conv(self.PYRAMID, self.PYRAMID), nn.ReLU(), nn.Conv2d(self.PYRAMID, POINTS, 1)
        )
        middles = (torch.arange(SIDE // STRIDE) + 0.5) * STRIDE - 0.5
        self.register_buffer("middles", middles, persistent=False)

    def forward(self, pictures: Tensor) -> Tensor:
        """(n, 15, 2) pixels."""
        return self._points(self._log_heatmaps(pictures))

    def loss(self, pictures: Tensor, labels: Tensor) -> Tensor:
        """Distance in pixels along each axis, and the cross-entropy of each heatmap with a normal
        distribution around its label, both over the labels that are not NaN.
        """
        log_heatmaps = self._log_heatmaps(pictures)
        there = ~labels.isnan()
        distance = (self._points(log_heatmaps) - labels)[there].abs().mean()
        whole = there.all(dim=2)
        middles = self.get_buffer("middles")
        spread = -((middles - labels[whole][..., None]) ** 2) / (2 * STRIDE**2)
        along = spread.softmax(dim=2)
        target = (along[:, 1, :, None] * along[:, 0, None, :]).flatten(1)
        entropy = -(target * log_heatmaps[whole]).sum(dim=1)
        return distance + 0.3 * entropy.sum() / whole.sum().clamp(min=1)

    def _log_heatmaps(self, pictures: Tensor) -> Tensor:
        x = self.stem(normalize(pictures))
        levels = []
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        merged = self.lateral[-1](levels[-1])
        for lateral, level in zip(self.lateral[-2::-1], levels[-2::-1]):
            merged = lateral(level) + functional.interpolate(
                merged, scale_factor=2.0, mode="nearest"
            )
        heatmaps: Tensor = self.head(functional.relu(merged))
        return heatmaps.flatten(2).log_softmax(dim=2)

    def _points(self, log_heatmaps: Tensor) -> Tensor:
        cells = SIDE // STRIDE
        heatmaps = log_heatmaps.exp().reshape(-1, POINTS, cells, cells)
        middles = self.get_buffer("middles")
        return torch.stack([heatmaps.sum(dim=2) @ middles, heatmaps.sum(dim=3) @ middles], dim=2)


Network = Regression | HeatmapNetwork


ARCHITECTURES: dict[str, Callable[[], Network]] = {
    "heatmap": HeatmapNetwork,
    "naimishnet": naimishnet,
    "five-conv": five_convolutions,
    "dense": dense,
}
"""By the name that `--arch` takes; the first is ours."""


LEARNING_RATES = {"heatmap": 3e-3, "naimishnet": 1e-3, "five-conv": 1e-3, "dense": 1e-3}
"""At the peak."""
