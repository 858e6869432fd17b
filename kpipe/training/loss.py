"""Training losses of the landmark networks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kpipe.training.network import LandmarkTensors


@dataclass(frozen=True)
class LossWeights:
    """Weights of the four terms."""

    coordinates: float = 1.0
    heatmap: float = 0.3
    error: float = 0.1
    face: float = 1.0


FACE_FIRST = LossWeights(coordinates=0.1, heatmap=0.03, error=0.0)
"""For a network that is used for its face score alone. Landmarks help it to learn what a face is,
but need not be accurate."""


def landmark_losses(prediction: LandmarkTensors, points: Tensor, side: int) -> tuple[Tensor, ...]:
    """Losses of each face against its points (n, 68, 2), crop pixels.

    Returns:
        coordinates: (n,) L1 distance, pixels.
        heatmap: (n,) cross-entropy of each point's distribution with a normal one around the label,
            one cell wide: what keeps soft-argmax from answering with a flat map (Nibali et al.,
            2018). Points beyond the crop do not count.
        error: (n,) negative log-likelihood of the distance under an exponential distribution, whose
            mean is then the expected error.
    """
    coordinates = (prediction.points - points).abs().mean(dim=(1, 2))

    cells = int(prediction.log_heatmap.shape[2] ** 0.5)
    stride = side / cells
    centers = (torch.arange(cells, device=points.device) + 0.5) * stride - 0.5
    spread = -((centers - points[..., None]) ** 2) / (2 * stride**2)
    along = spread.softmax(dim=3)
    inside = ((points >= 0) & (points <= side - 1)).all(dim=2)
    # The target is the product of one distribution down and one across: it need not be written out.
    maps = prediction.log_heatmap.view(*points.shape[:2], cells, cells)
    across = (along[:, :, 1, None] @ maps).squeeze(2)
    entropy = -(across * along[:, :, 0]).sum(dim=2)
    heatmap = (entropy * inside).mean(dim=1)

    distance = (prediction.points.detach() - points).norm(dim=2)
    error = (distance * torch.exp(-prediction.log_sigma) + prediction.log_sigma).mean(dim=1)
    return coordinates, heatmap, error
