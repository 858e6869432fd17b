"""The detection network: two maps of faces, at strides 8 and 16, in one pass over a gray picture.

A plain residual encoder down to stride 32 and a small feature pyramid (Lin et al., CVPR 2017) back
up to stride 8. Each cell predicts whether a face's center lies near it, and that face's box and
roll (Tian et al., FCOS, ICCV 2019). One pass covers faces of a fourfold range of sizes, `SIDES`;
larger ones are detected on copies of the picture reduced by four.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from kpipe.training.network import Block, conv

STRIDES = (8, 16)
"""Pixels from one cell to the next, of the two maps."""

NOMINAL_SIDES = (24.0, 48.0)
"""Sides [px] that predicted sizes are relative to, of the two maps: three cells of each."""

STEM = 32
"""Channels of the first convolution, over blocks of 4x4 pixels."""

WIDTHS = (48, 64, 96)
"""Channels of the encoder's stages at strides 8, 16 and 32."""

PYRAMID = 32
"""Channels of the feature pyramid."""

CHANNELS = 6
"""Of each map: logit of the score; offset of the face's center from the cell's, x and y [cells];
log of its side over the map's nominal side; cosine and sine of its roll."""


class DetectionNetwork(nn.Module):
    """Gray pictures to face maps.

    Args of the call:
        pictures: (n, 1, h, w) float, gray levels 0-255; h and w multiples of 32.

    Returns:
        A map (n, 6, h / stride, w / stride) for each stride, channels as `CHANNELS` says.
    """

    def __init__(self) -> None:
        super().__init__()
        (c, d, e), f = WIDTHS, PYRAMID
        self.stem = _layer(16, STEM, 1)
        self.fine = nn.Sequential(_layer(STEM, c, 2), Block(c, c))
        self.middle = nn.Sequential(Block(c, d, 2), Block(d, d))
        self.coarse = nn.Sequential(Block(d, e, 2), Block(e, e))
        self.lateral = nn.ModuleList(conv(width, f, 1) for width in WIDTHS)
        self.heads = nn.ModuleList(
            nn.Sequential(_layer(f, f, 1), _layer(f, f, 1), nn.Conv2d(f, CHANNELS, 1))
            for _ in STRIDES
        )
        for head in self.heads:
            bias = head.get_submodule("2").get_parameter("bias")
            with torch.no_grad():
                bias[0] = -4.0  # a face is rare

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        return self.maps(functional.pixel_unshuffle(pictures, 4))

    def maps(self, blocks: Tensor) -> tuple[Tensor, Tensor]:
        """The two maps from blocks of 4x4 pixels, row by row, as channels (n, 16, h / 4, w / 4)."""
        fine = self.fine(self.stem(blocks / 64 - 2))
        middle = self.middle(fine)
        coarse = self.lateral[2](self.coarse(middle))
        middle = self.lateral[1](middle) + _doubled(coarse)
        fine = self.lateral[0](fine) + _doubled(middle)
        return self.heads[0](functional.relu(fine)), self.heads[1](functional.relu(middle))


def _layer(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(conv(inputs, outputs, stride=stride), nn.ReLU())


def _doubled(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2.0, mode="nearest")


class DetectionLosses(NamedTuple):
    """The terms of the loss, each a mean over the positive cells of a batch."""

    score: Tensor
    box: Tensor
    roll: Tensor


def detection_losses(
    maps: tuple[Tensor, Tensor], targets: tuple[Tensor, Tensor]
) -> DetectionLosses:
    """Losses of both maps against the targets that `kpipe.training.scenes` marks.

    The score learns the overlap (IoU) of the predicted square with the label, so that the best
    framed of several cells wins (varifocal loss: Zhang et al., CVPR 2021).

    Args:
        maps: of the network.
        targets: (n, 9, rows, columns) for each map: its six channels, the score as 0 or 1; then the
            weights of the score, of the box, and of the roll.
    """
    score = box = roll = torch.zeros((), device=maps[0].device)
    positives = torch.zeros((), device=maps[0].device)
    for map_, target in zip(maps, targets):
        value = map_.permute(0, 2, 3, 1)
        label = target.permute(0, 2, 3, 1)
        score_weight, box_weight, roll_weight = label[..., 6], label[..., 7], label[..., 8]
        inside = box_weight > 0
        predicted, wanted = value[inside], label[inside]
        overlap = square_iou(predicted[:, 1:4], wanted[:, 1:4])
        quality = torch.zeros_like(score_weight)
        quality[inside] = overlap.detach().clamp(min=LEAST_QUALITY)
        logit = value[..., 0]
        entropy = functional.binary_cross_entropy_with_logits(logit, quality, reduction="none")
        weight = torch.where(inside, quality, NEGATIVE_WEIGHT * logit.detach().sigmoid().square())
        score = score + (entropy * weight * score_weight).sum()
        distance = (predicted[:, 1:4] - wanted[:, 1:4]).abs().sum(dim=1)
        box = box + ((1 - overlap + 0.3 * distance) * box_weight[inside]).sum()
        turned = (predicted[:, 4:6] - wanted[:, 4:6]).abs().sum(dim=1)
        roll = roll + (turned * roll_weight[inside]).sum()
        positives = positives + box_weight.sum()
    positives = positives.clamp(min=1)
    return DetectionLosses(score / positives, box / positives, roll / positives)


LEAST_QUALITY = 0.3
"""Score that a cell of a face learns at least, however poor its box still is."""

NEGATIVE_WEIGHT = 0.75
"""Weight of cells without a face, before the square of their score."""


def square_iou(ones: Tensor, others: Tensor) -> Tensor:
    """(n,) IoU of squares: x and y of the center [cells], and log of the side over 3 cells."""
    half, other = (1.5 * v[:, 2:3].clamp(-3, 3).exp() for v in (ones, others))
    high = torch.minimum(ones[:, :2] + half, others[:, :2] + other)
    low = torch.maximum(ones[:, :2] - half, others[:, :2] - other)
    shared = (high - low).clamp(min=0).prod(dim=1)
    both = (4 * half.square() + 4 * other.square()).squeeze(1) - shared
    return shared / both
