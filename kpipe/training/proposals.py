"""The proposal network: what it is, the scenes it learns from, and its training.

    python -m kpipe.training.proposals DATA... --negatives FOLDER -o RUN

DATA as for `kpipe train`. Goes on from the last checkpoint in RUN, and writes
RUN/proposals.onnx at the end.

Fully convolutional, one class, sizes of one octave: a face of any roll whose box has a side of
`OCTAVE` pixels lights up the cell of its centre, which also says where exactly, how large and how
turned it is. Larger faces are found on reduced copies of the picture. (Region proposals: Ren et
al., NeurIPS 2015; points instead of anchors: Tian et al., FCOS, ICCV 2019.)
"""

from __future__ import annotations

import argparse
import io
import itertools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset

from kpipe.detectors.proposals import NOMINAL_SIDE, OCTAVE, STRIDE
from kpipe.preprocessing.affine import transform
from kpipe.preprocessing.boxes import landmark_box
from kpipe.preprocessing.crops import warp
from kpipe.training.augment import degrade_scene
from kpipe.training.crops import LabelledFace, NegativePhoto
from kpipe.training.landmarks import load_empty, load_faces, one_thread
from kpipe.training.network import conv
from kpipe.training.quantize import quantized
from kpipe.utils.files import write_file
from kpipe.utils.opencv import cv2

Gray = NDArray[np.uint8]
Rng = np.random.Generator

SCENE = 128
"""Side of a training scene, pixels."""

CHANNELS = (12, 24, 32)
"""Of the convolutions at strides 2, 4 and 8."""

DEPTH = 4
"""Convolutions at stride 8 behind the first."""


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


@dataclass(frozen=True)
class Placed:
    """A face in a scene: its centre and side, pixels, its roll, degrees."""

    x: float
    y: float
    side: float
    roll: float


class SceneStream(Dataset[tuple[Gray, NDArray[np.float32]]]):
    """Random scenes, addressed by their number: photographs without faces, and faces put in them.

    Args:
        faces: labelled faces in pictures that show their surroundings too.
        empty: photographs without faces.
        length: how many scenes the run will ask for.
        seed: of the run.
    """

    def __init__(
        self, faces: Sequence[LabelledFace], empty: Sequence[NegativePhoto], length: int, seed: int
    ) -> None:
        self.faces = faces
        self.empty = empty
        self.length = length
        self.seed = seed

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Gray, NDArray[np.float32]]:
        """A scene (1, 128, 128) and its targets (8, 16, 16).

        The first six channels of the targets are those of the network, the score as 0 or 1; then
        whether the score counts in the cell, and whether the rest does.
        """
        rng = np.random.default_rng((self.seed, index))
        scene = self._background(rng)
        targets = np.zeros((8, SCENE // STRIDE, SCENE // STRIDE), np.float32)
        targets[6] = 1
        placed: list[Placed] = []
        for _ in range(int(rng.choice(3, p=(0.3, 0.4, 0.3)))):
            face = self.faces[int(rng.integers(len(self.faces)))]
            place = _put(scene, targets, placed, face, rng)
            if place is not None:
                placed.append(place)
        for place in placed:
            _mark(targets, place)
        return degrade_scene(scene, rng)[None], targets

    def _background(self, rng: Rng) -> Gray:
        if not self.empty:
            return np.full((SCENE, SCENE), int(rng.uniform(0, 256)), np.uint8)
        gray = self.empty[int(rng.integers(len(self.empty)))].gray
        height, width = gray.shape
        zoom = np.exp(rng.uniform(np.log(0.2), np.log(1.2)))
        zoom = max(zoom, SCENE / min(height, width) * 0.8)
        turn = rng.normal(0, 8) if rng.random() < 0.7 else rng.uniform(-180, 180)
        # Mostly inside the photograph, but its edge is to be seen too.
        reach = np.minimum(0.45 * SCENE / zoom, np.array([width, height]) / 2)
        centre = rng.uniform(reach, (width, height) - reach)
        matrix = _similarity(zoom, turn, centre, (SCENE / 2, SCENE / 2), rng.random() < 0.5)
        return warp(gray, matrix, SCENE)


def _similarity(
    scale: float,
    turn: float,
    source: Sequence[float] | NDArray[np.floating],
    target: Sequence[float],
    mirrored: bool,
) -> NDArray[np.float64]:
    """The 2x3 matrix that scales, turns (degrees, clockwise) and moves one point to another."""
    angle = np.deg2rad(turn)
    linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    if mirrored:
        linear = linear @ np.diag([-1.0, 1.0])
    return np.column_stack([linear, np.asarray(target) - linear @ np.asarray(source)])


def _put(
    scene: Gray, targets: NDArray[np.float32], placed: list[Placed], face: LabelledFace, rng: Rng
) -> Placed | None:
    """Puts a face with its surroundings into the scene, unless it would hide another."""
    box = landmark_box(face.points, face.roll)
    low, high = OCTAVE
    if rng.random() < 0.12:
        side = np.exp(rng.uniform(np.log(high * 1.4), np.log(110)))
    else:
        side = np.exp(rng.uniform(np.log(low * 0.8), np.log(high * 1.3)))
    turn = rng.normal(0, 15) if rng.random() < 0.5 else rng.uniform(-180, 180)
    x, y = rng.uniform(0, SCENE, 2)
    mirrored = bool(rng.random() < 0.5)
    matrix = _similarity(side / (box[2] - box[0]), turn, (box[:2] + box[2:]) / 2, (x, y), mirrored)
    roll = turn + (-face.roll if mirrored else face.roll)
    height, width = face.gray.shape
    corners = transform(matrix, np.array([[0, 0], [width, 0], [width, height], [0, height]]))
    mask = np.zeros((SCENE, SCENE), np.uint8)
    cv2.fillPoly(mask, [np.round(corners).astype(np.int32)], 1)
    if rng.random() < 0.4:
        # Not always the whole photograph: its straight edges must not tell.
        keep = np.zeros_like(mask)
        reach = side * rng.uniform(0.75, 1.3)
        cv2.circle(keep, (int(x), int(y)), int(reach), 1, -1)
        mask &= keep
    rows, columns = np.mgrid[0:SCENE, 0:SCENE]
    for other in placed:
        near = np.hypot(columns - other.x, rows - other.y) < 0.7 * other.side
        if mask[near].any():
            return None
    scene[mask > 0] = warp(face.gray, matrix, SCENE)[mask > 0]
    # Further from its face the photograph may show other people, whom nobody has labelled.
    cells = mask[STRIDE // 2 :: STRIDE, STRIDE // 2 :: STRIDE] > 0
    far = _distances(x, y) > 1.2 * side
    targets[6][cells & far] = 0
    return Placed(x, y, side, roll)


def _cell_centres() -> NDArray[np.float64]:
    return np.asarray(np.arange(SCENE // STRIDE) * STRIDE + (STRIDE - 1) / 2, np.float64)


def _distances(x: float, y: float) -> NDArray[np.float64]:
    """(rows, columns) of the cells' centres from a point, pixels."""
    centres = _cell_centres()
    return np.asarray(np.hypot(centres[None] - x, centres[:, None] - y), np.float64)


def _mark(targets: NDArray[np.float32], place: Placed) -> None:
    low, high = OCTAVE
    near = _distances(place.x, place.y)
    targets[6][near < 0.6 * place.side] = 0
    if place.side > high * 1.4:
        targets[6][(near > 0.3 * place.side) & (near < 0.6 * place.side)] = 1
        return
    if not low * 0.9 <= place.side <= high * 1.1:
        return
    centres = _cell_centres()
    x, y = (centres[None] - place.x) / STRIDE, (centres[:, None] - place.y) / STRIDE
    reach = max(0.5, 0.2 * place.side / STRIDE)
    hit = (np.abs(x) <= reach) & (np.abs(y) <= reach)
    angle = np.deg2rad(place.roll)
    values = (1, 0, 0, np.log(place.side / NOMINAL_SIDE), np.cos(angle), np.sin(angle), 1, 1)
    for channel, value in zip(targets, values):
        channel[hit] = value
    targets[1][hit] = np.broadcast_to(-x, hit.shape)[hit]
    targets[2][hit] = np.broadcast_to(-y, hit.shape)[hit]


def loss(maps: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Focal loss of the scores (Lin et al., ICCV 2017) and L1 of the rest, both a face's cell."""
    score, counts, inside = targets[:, 0], targets[:, 6], targets[:, 7]
    cells = inside.sum().clamp(min=1)
    probability = maps[:, 0].sigmoid()
    entropy = functional.binary_cross_entropy_with_logits(maps[:, 0], score, reduction="none")
    wrong = torch.where(score > 0, 1 - probability, probability)
    scores = (entropy * wrong.square() * counts).sum() / cells
    weights = torch.tensor([0.5, 0.5, 1.0, 1.0, 1.0], device=maps.device)[:, None, None]
    offsets = (maps[:, 1:] - targets[:, 1:6]).abs() * weights * inside[:, None]
    return scores, offsets.sum() / cells


def train(
    faces: Sequence[LabelledFace],
    empty: Sequence[NegativePhoto],
    folder: Path,
    *,
    steps: int = 20_000,
    batch: int = 64,
    learning_rate: float = 4e-3,
    ema_decay: float = 0.998,
    seed: int = 0,
    workers: int = 2,
) -> ProposalNetwork:
    """Trains, or goes on where the checkpoint in `folder` stands; the averaged network."""
    torch.manual_seed(seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = ProposalNetwork().to(device)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=1e-4)
    cosine = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, learning_rate, steps, pct_start=0.05, anneal_strategy="cos"
    )
    average = get_ema_multi_avg_fn(ema_decay)  # type: ignore[no-untyped-call]
    averaged = AveragedModel(network, multi_avg_fn=average, use_buffers=True)
    parts: dict[str, Any] = {
        "network": network,
        "optimiser": optimiser,
        "cosine": cosine,
        "averaged": averaged,
    }
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / "checkpoint.pt"
    done = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        done = state["step"]
        for name, part in parts.items():
            part.load_state_dict(state[name])
    stream = SceneStream(faces, empty, steps * batch, seed)
    loader = DataLoader(
        stream,
        batch_size=batch,
        sampler=range(done * batch, len(stream)),
        num_workers=workers,
        prefetch_factor=8 if workers else None,
        worker_init_fn=one_thread,
        multiprocessing_context="forkserver" if workers else None,
    )
    network.train()
    recent: list[tuple[float, float]] = []
    for step, (pictures, targets) in enumerate(loader, done + 1):
        inputs = pictures.to(device).float().contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16):
            maps = network(inputs)
        scores, offsets = loss(maps.float(), targets.to(device))
        optimiser.zero_grad(set_to_none=True)
        (scores + offsets).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
        cosine.step()
        averaged.update_parameters(network)
        recent.append((scores.item(), offsets.item()))
        if step % 500 == 0 or step == steps:
            score, place = np.mean(recent, axis=0)
            print(f"step {step}: score {score:.4f}, place {place:.4f}", flush=True)
            recent.clear()
            state = {name: part.state_dict() for name, part in parts.items()}
            torch.save({**state, "step": step}, checkpoint.with_suffix(".tmp"))
            checkpoint.with_suffix(".tmp").replace(checkpoint)
    result = averaged.module
    assert isinstance(result, ProposalNetwork)
    return result.eval()


class _Exported(nn.Module):
    """The same, from bytes to probabilities, faster.

    The stem is computed over blocks of 4x4 pixels, which become 16 channels: convolutions of ONNX
    Runtime in 8-bit integers are slow on a single channel, and in float what comes of them has to
    be rearranged for those that follow.
    """

    def __init__(self, network: ProposalNetwork) -> None:
        super().__init__()
        first, second = (_without_norm(layer) for layer in network.stem)
        self.first, self.second = blockwise(first, 4), blockwise(second, 2)
        # A module, not a function: the exported one can be taken into the convolution.
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
    """The convolution of a `_layer`, its batch normalisation in its weights."""
    convolution, norm = layer.get_submodule("0.0"), layer.get_submodule("0.1")
    assert isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
    return fuse_conv_bn_eval(convolution, norm)


def blockwise(convolution: nn.Conv2d, side: int) -> nn.Conv2d:
    """A 3x3 convolution of stride 2, padded by 1, as one of 2x2 over blocks of pixels.

    Args:
        convolution: of c channels to d.
        side: of the blocks.

    Returns:
        Of blocks (n, side * side * c, h, w), padded by one above and to the left, to blocks of half
        the side (n, side * side * d / 4, h, w). Within a block channels go by row, column, channel.
    """
    weight = convolution.weight.detach()
    outputs, inputs = weight.shape[:2]
    half = side // 2
    spread = weight.new_zeros(half, half, outputs, side, side, inputs, 2, 2)
    for row, column, i, j in itertools.product(range(half), range(half), range(3), range(3)):
        (above, y), (left, x) = (
            divmod(2 * at + k - 1 + side, side) for at, k in ((row, i), (column, j))
        )
        spread[row, column, :, y, x, :, above, left] = weight[:, :, i, j]
    result = nn.Conv2d(side * side * inputs, half * half * outputs, 2)
    assert convolution.bias is not None
    result.weight = nn.Parameter(spread.reshape(result.weight.shape))
    result.bias = nn.Parameter(convolution.bias.detach().repeat(half * half))
    return result


def export(network: ProposalNetwork, path: Path, scenes: Gray | None = None) -> None:
    """Writes the ONNX file: input `crops` (n, 1, h, w) uint8, output `maps` (n, 6, h / 8, w / 8),
    the score as a probability.

    Args:
        network: trained.
        path: of the file.
        scenes: (n, h, w) uint8, to quantise for; without them it stays float.
    """
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _Exported(network).eval(),
            (torch.zeros(1, 1, SCENE, SCENE, dtype=torch.uint8),),
            buffer,  # type: ignore[arg-type]
            dynamo=False,
            input_names=["crops"],
            output_names=["maps"],
            dynamic_axes={"crops": {0: "n", 2: "h", 3: "w"}, "maps": {0: "n", 2: "h", 3: "w"}},
            opset_version=17,
        )
    model = onnx.load_from_string(buffer.getvalue())
    if scenes is not None:
        model = quantized(model, scenes, levels=(1 / 64, 128))
    onnx.helper.set_model_props(model, {"kpipe.network": "proposals"})
    write_file(path, model.SerializeToString())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--negatives", type=Path, required=True)
    parser.add_argument("--exclude", type=Path, action="append", default=[])
    parser.add_argument("--output", "-o", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--validation", type=float, default=0.05)
    arguments = parser.parse_args()

    from kpipe.datasets import read_samples
    from kpipe.training.duplicates import without_duplicates

    split = load_faces(
        (s for part in arguments.data for s in read_samples(part)), arguments.validation
    )
    others = load_faces((s for part in arguments.exclude for s in read_samples(part)), 0.0)
    faces = without_duplicates(split.training, others.training)
    empty, _ = load_empty(arguments.negatives, None)
    print(f"{len(faces)} faces, {len(empty)} photographs without")
    network = train(faces, empty, arguments.output, steps=arguments.steps)
    stream = SceneStream(faces, empty, 400, seed=1)
    scenes = np.concatenate([stream[index][0] for index in range(len(stream))])
    export(network, arguments.output / "proposals_float.onnx")
    export(network, arguments.output / "proposals.onnx", scenes)


if __name__ == "__main__":
    main()
