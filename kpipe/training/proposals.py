"""The proposal network, its training and its export.

Fully convolutional, one class, sizes of one octave: a face of any roll whose box has a side of
`OCTAVE` pixels raises the score of the cell of its center, whose other channels hold the face's
exact place, size and roll. Larger faces are found on reduced copies of the picture. (Region
proposals: Ren et al., NeurIPS 2015; points instead of anchors: Tian et al., FCOS, ICCV 2019.)
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from kpipe.errors import TrainingError
from kpipe.training.data import LabelledFace, NegativePhoto
from kpipe.training.loop import (
    Figures,
    Recipe,
    Run,
    averaged_weights,
    load_batches,
    mean_of,
    one_cycle,
    one_device,
    read_checkpoint,
    train_steps,
)
from kpipe.training.network import conv
from kpipe.training.plots import with_curves
from kpipe.training.prepare import DataFiles
from kpipe.training.quantize import quantized
from kpipe.training.scenes import SCENE, SceneStream
from kpipe.training.tracing import onnx_model
from kpipe.utils.files import write_file

Gray = NDArray[np.uint8]

CHANNELS = (12, 24, 32)
"""Of the convolutions at strides 2, 4 and 8."""

DEPTH = 4
"""Convolutions at stride 8 behind the first."""

CLIP = 5.0
"""L2 norm that the gradient is cut to."""

CALIBRATION = 400
"""Scenes that the ranges of 8-bit integers are set by."""

STAGE = "proposals"
"""Name of the stage in a run's settings and for `kpipe train --stage`."""


class ProposalNetwork(nn.Module):
    """Gray pictures (n, 1, h, w), levels 0-255, to (n, 6, h / 8, w / 8).

    Channels: logit of a face's centre lying in the cell; its offset from the cell's centre, x and
    y, in cells; log of its side over `NOMINAL_SIDE`; cosine and sine of its roll.
    """

    def __init__(self) -> None:
        super().__init__()
        a, b, c = CHANNELS
        self.stem = nn.Sequential(_layer(1, a, 2), _layer(a, b, 2))
        self.body = nn.Sequential(_layer(b, c, 2), *(_layer(c, c, 1) for _ in range(DEPTH)))
        self.head = nn.Conv2d(c, 6, 1)
        with torch.no_grad():
            bias = self.head.bias
            assert bias is not None
            bias[0] = -4.0  # a face is rare

    def forward(self, pictures: Tensor) -> Tensor:
        maps: Tensor = self.head(self.body(self.stem(pictures / 64 - 2)))
        return maps


def _layer(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(conv(inputs, outputs, stride=stride), nn.ReLU())


def loss(maps: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Focal loss of the scores (Lin et al., ICCV 2017) and L1 loss of place, size and roll.

    Args:
        maps: (n, 6, h, w) of the network.
        targets: (n, 8, h, w) of `SceneStream`.

    Returns:
        Both, each divided by the number of positive cells.
    """
    score, counts, inside = targets[:, 0], targets[:, 6], targets[:, 7]
    cells = inside.sum().clamp(min=1)
    probability = maps[:, 0].sigmoid()
    entropy = functional.binary_cross_entropy_with_logits(maps[:, 0], score, reduction="none")
    wrong = torch.where(score > 0, 1 - probability, probability)
    scores = (entropy * wrong.square() * counts).sum() / cells
    weights = torch.tensor([0.5, 0.5, 1.0, 1.0, 1.0], device=maps.device)[:, None, None]
    offsets = (maps[:, 1:] - targets[:, 1:6]).abs() * weights * inside[:, None]
    return scores, offsets.sum() / cells


@dataclass(frozen=True)
class ProposalSettings:
    """All that decides what a run learns.

    Attributes:
        steps: optimizer steps.
        batch: scenes a step.
        learning_rate: of AdamW at its peak, see `kpipe.training.loop.one_cycle`.
        weight_decay: of AdamW.
        ema_decay: of the moving average of the weights. The average is what a run results in.
        validation: share of the groups (persons, photographs) kept out of training.
        seed: repeats the run.
    """

    steps: int = 20_000
    batch: int = 64
    learning_rate: float = 4e-3
    weight_decay: float = 1e-4
    ema_decay: float = 0.998
    validation: float = 0.05
    seed: int = 0


def train(
    settings: ProposalSettings,
    faces: Sequence[LabelledFace],
    negatives: Sequence[NegativePhoto],
    folder: Path,
    *,
    workers: int = 2,
    checkpoint_every: int = 500,
    on_step: Callable[[int, Figures], None] | None = None,
) -> ProposalNetwork:
    """Trains, or goes on where the checkpoint in `folder` stands.

    Args:
        settings: of the run; a checkpoint of other settings is refused.
        faces: labelled faces, with their surroundings.
        negatives: photographs without faces.
        folder: gets `checkpoint.pt`, `settings.json`, `log.csv` and `curves.png`.
        workers: processes that make scenes.
        checkpoint_every: steps between checkpoints.
        on_step: called with the step's number and its figures.

    Returns:
        The averaged network.

    Raises:
        TrainingError: the folder holds a run of other settings or data, there is no face to learn
            from, or the loss is no longer finite.
    """
    if not faces:
        raise TrainingError("no face to train on: all were held out for validation")
    torch.manual_seed(settings.seed)
    network = ProposalNetwork().to(one_device())
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    data = {"faces": len(faces), "negatives": len(negatives)}
    recorded = {"stage": STAGE, **asdict(settings), "data": data}
    run = Run(network, optimizer, settings.ema_decay, recorded, folder)

    def schedule(step: int) -> dict[str, Any]:
        return one_cycle(step, settings.steps, settings.learning_rate)

    recipe = Recipe(settings.steps, schedule, CLIP, checkpoint_every)

    def report(step: int, recent: Sequence[Figures]) -> Figures:
        means = {name: mean_of(recent, name) for name in ("loss", "score", "place")}
        return {"learning_rate": float(schedule(step)["lr"]), **means}

    def objective(scenes: Tensor, targets: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        inputs = scenes.float().contiguous(memory_format=torch.channels_last)
        with torch.autocast(inputs.device.type, torch.bfloat16):
            maps = network(inputs)
        score, place = loss(maps.float(), targets)
        return score + place, {"score": score.detach(), "place": place.detach()}

    stream = SceneStream(faces, negatives, settings.steps * settings.batch, settings.seed)
    batches = load_batches(stream, settings.batch, run.step, workers)
    after_step = with_curves(recipe, folder, on_step)
    return train_steps(run, recipe, objective, batches, report, after_step)


def load_run(folder: Path) -> tuple[ProposalNetwork, dict[str, Any]]:
    """The averaged network of a run and the run's settings.

    Raises:
        TrainingError: there is no usable checkpoint.
    """
    state = read_checkpoint(folder)
    settings = state.get("settings", {})
    if settings.get("stage", STAGE) != STAGE:
        raise TrainingError(f"{folder}: a run of another kind, not of the proposal network")
    network = ProposalNetwork()
    network.load_state_dict(averaged_weights(state))
    return network.eval(), settings


def sample_scenes(
    faces: Sequence[LabelledFace], negatives: Sequence[NegativePhoto], count: int = CALIBRATION
) -> Gray:
    """Scenes (count, 128, 128) uint8 to set the ranges of 8-bit integers by."""
    stream = SceneStream(faces, negatives, count, seed=1)
    return np.concatenate([stream[index][0] for index in range(count)])


def export_run(run: Path, files: DataFiles, path: Path, int8: bool) -> None:
    """Writes the network of a run as an ONNX file.

    Args:
        run: its folder.
        files: the run's data, to set the ranges of 8-bit integers by.
        path: of the file.
        int8: whether convolutions run in 8-bit integers.

    Raises:
        TrainingError: there is no usable checkpoint, or `int8` has no face to set ranges by.
        DatasetError: the data cannot be used.
        WriteError: the file cannot be written.
    """
    network, settings = load_run(run)
    scenes = None
    if int8:
        validation = settings.get("validation", ProposalSettings.validation)
        faces = files.faces(validation)[0].training
        if not faces:
            raise TrainingError("--data has none of the faces that the run was trained on")
        scenes = sample_scenes(faces, files.backgrounds())
    export(network, path, scenes)


class _Exported(nn.Module):
    """The proposal network with uint8 pictures as input and probabilities as output.

    Its stem runs over blocks of 4x4 pixels, which become 16 channels. ONNX Runtime's 8-bit
    convolutions are slow on a single channel, and the output of float ones has to be rearranged for
    the 8-bit ones that follow.
    """

    def __init__(self, network: ProposalNetwork) -> None:
        super().__init__()
        first, second = (_without_norm(layer) for layer in network.stem)
        self.first, self.second = blockwise(first, 4), blockwise(second, 2)
        # A module, not a function: ONNX Runtime folds the exported one into the convolution.
        self.pad = nn.ConstantPad2d((1, 0, 1, 0), 0.0)
        self.network = network

    def forward(self, pictures: Tensor) -> Tensor:
        count, _, height, width = pictures.shape
        rows = pictures.reshape(count, height // 4, 4, width // 4, 4)
        blocks = rows.transpose(2, 3).reshape(count, height // 4, width // 4, 16)
        x = blocks.permute(0, 3, 1, 2).float() / 64 - 2
        for convolution in (self.first, self.second):
            x = functional.relu(convolution(self.pad(x)))
        maps = self.network.head(self.network.body(x))
        return torch.cat([maps[:, :1].sigmoid(), maps[:, 1:]], dim=1)


def _without_norm(layer: nn.Module) -> nn.Conv2d:
    """The convolution of a `_layer`, with the batch normalization folded into its weights."""
    convolution, norm = layer.get_submodule("0.0"), layer.get_submodule("0.1")
    assert isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
    return fuse_conv_bn_eval(convolution, norm)


def blockwise(convolution: nn.Conv2d, side: int) -> nn.Conv2d:
    """A 3x3 convolution of stride 2 and padding 1, as a 2x2 convolution over blocks of pixels.

    Args:
        convolution: from c channels to d.
        side: of the input's blocks; even.

    Returns:
        Convolution from blocks (n, side * side * c, h + 1, w + 1), padded by one block above and to
        the left, to blocks of half the side (n, side * side * d / 4, h, w). The channels of a block
        go by row, column, channel.

    Worked example, `side` 2, one channel: each 2x2 block of pixels becomes 4 channels, and each of
    the convolution's outputs is a block of its own. The kernel of output (0, 0) is centered on
    pixel (0, 0) of its block, so its upper row and its left column lie in the blocks before:

        pixels, blocks divided by lines      kernel weights under them

            p p | p p                            . . | . .
            p p | p p                            . a | b c
            ---------                            ---------
            p p | p p                            . d | e f
            p p | p p                            . g | h i

    As a kernel of 2x2 blocks with 4 channels (row 0: pixels 00, 01; row 1: pixels 10, 11) it is

        upper left block   (0, 0, 0, a)      upper block   (0, 0, b, c)
        left block         (0, d, 0, g)      own block     (e, f, h, i)

    In general output row r of a block reads pixel row 2 r + i - 1 with kernel row i. Counted from
    the top of the block above, that is row 2 r + i - 1 + side: `divmod` by `side` gives the block
    (0 above, 1 own) and the row in it. Columns go likewise.
    """
    weight = convolution.weight.detach()
    outputs, inputs = weight.shape[:2]
    half = side // 2
    # Output row, column and channel; input row, column and channel; row and column of the block.
    spread = weight.new_zeros(half, half, outputs, side, side, inputs, 2, 2)
    for row, column, i, j in itertools.product(range(half), range(half), range(3), range(3)):
        block_row, y = divmod(2 * row + i - 1 + side, side)
        block_column, x = divmod(2 * column + j - 1 + side, side)
        spread[row, column, :, y, x, :, block_row, block_column] = weight[:, :, i, j]
    result = nn.Conv2d(side * side * inputs, half * half * outputs, 2)
    assert convolution.bias is not None
    result.weight = nn.Parameter(spread.reshape(result.weight.shape))
    result.bias = nn.Parameter(convolution.bias.detach().repeat(half * half))
    return result


def export(network: ProposalNetwork, path: Path, scenes: Gray | None = None) -> None:
    """Writes the network as an ONNX file.

    Input `crops` (n, 1, h, w) uint8, output `maps` (n, 6, h / 8, w / 8) float32 with the score as a
    probability.

    Args:
        network: trained.
        path: of the file.
        scenes: (n, h, w) uint8, to quantize for; without them the convolutions stay float.

    Raises:
        WriteError: the file cannot be written.
    """
    example = torch.zeros(1, 1, SCENE, SCENE, dtype=torch.uint8)
    sizes = {0: "n", 2: "h", 3: "w"}
    model = onnx_model(
        _Exported(network).eval(), {"crops": example}, ["maps"], {"crops": sizes, "maps": sizes}
    )
    if scenes is not None:
        model = quantized(model, scenes, levels=(1 / 64, 128))
    onnx.helper.set_model_props(model, {"kpipe.network": "proposals"})
    write_file(path, model.SerializeToString())
