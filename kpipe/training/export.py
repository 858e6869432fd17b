"""From the run of a landmark network or the face classifier to an ONNX file."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn

from kpipe.datasets import read_samples
from kpipe.errors import TrainingError
from kpipe.networks.stages import STAGES, Stage
from kpipe.preprocessing.affine import transform
from kpipe.preprocessing.crops import warp
from kpipe.structures.schemes import IBUG68
from kpipe.training.augment import degrade
from kpipe.training.data import LabeledFace, load_faces
from kpipe.training.landmarks import load_run, mean_network
from kpipe.training.network import STRIDE, LandmarkNetwork, cell_centers
from kpipe.training.quantize import quantized
from kpipe.training.tracing import onnx_model
from kpipe.utils.files import write_file

DRAWS = 8
"""Random framings of each face for the calibration."""

RESAMPLES = 200
"""Times the faces are drawn anew to see how much the calibration depends on them."""

BATCH = 64


@dataclass(frozen=True)
class Calibration:
    """Corrections of sigma and of points, measured on faces that were held out from training.

    The labels of a set may all lie a little to one side of the points in the pictures. Mirroring
    turns this offset round, so a network that learns from mirrored faces may miss it
    (`kpipe.training.crops.mirrored`). Along y, which is not mirrored, it does not.

    Attributes:
        factor: sigma over the sigma that the network predicts.
        bound50, bound90: a point's error is below this many sigma in 50 and 90 % of cases.
        offset: mean distance along x from the predicted points to their labels, crop pixels.
        faces: number of faces it was measured on; 0 for values that suit most networks.
    """

    factor: float = 1.0
    bound50: float = 0.85
    bound90: float = 1.9
    offset: float = 0.0
    faces: int = 0


@torch.no_grad()
def calibrate(network: LandmarkNetwork, stage: Stage, faces: Sequence[LabeledFace]) -> Calibration:
    """Calibration on held-out faces, framed and degraded in several ways, as photographs are."""
    if not faces:
        return Calibration()
    rng = np.random.default_rng(0)
    errors, sigmas = [], []
    for draw in range(DRAWS):
        matrices = [stage.random_transform(face.points, face.roll, rng) for face in faces]
        crops = [warp(face.gray, matrix, stage.crop_size) for face, matrix in zip(faces, matrices)]
        points = [transform(matrix, face.points) for face, matrix in zip(faces, matrices)]
        if draw % 2:
            # What hides a part of one face is taken from the next.
            crops = [degrade(crop, crops[k - 1], rng) for k, crop in enumerate(crops)]
        for start in range(0, len(faces), BATCH):
            part = slice(start, start + BATCH)
            prediction, _ = network(torch.from_numpy(np.stack(crops[part])[:, None]).float())
            errors.append(np.stack(points[part]) - prediction.points.numpy())
            sigmas.append(prediction.log_sigma.exp().numpy())
    error, sigma = np.concatenate(errors), np.concatenate(sigmas)
    offset = _certain_mean(error[..., 0].reshape(DRAWS, len(faces), -1).mean(axis=(0, 2)))
    distance = np.linalg.norm(error - (offset, 0), axis=2).reshape(DRAWS, len(faces), -1)
    factor, bound50, bound90 = _cautious(distance, sigma.reshape(distance.shape))
    return Calibration(factor, bound50 / factor, bound90 / factor, offset, len(faces))


def _cautious(distance: NDArray[np.floating], sigma: NDArray[np.floating]) -> tuple[float, ...]:
    """Mean and 50 and 90 % quantiles of the distance over sigma, (draws, faces, points) each.

    From few faces they are uncertain, and a sigma that is too small misleads more than one that is
    too large: each is set a standard error above what it is for these faces (bootstrap over faces:
    Efron, 1979).
    """

    def measures(chosen: NDArray[np.intp]) -> NDArray[np.float64]:
        d, s = distance[:, chosen], sigma[:, chosen]
        return np.array([d.mean() / s.mean(), *np.quantile(d / s, (0.5, 0.9))])

    rng = np.random.default_rng(0)
    count = distance.shape[1]
    anew = [measures(rng.integers(count, size=(count,))) for _ in range(RESAMPLES)]
    spread = np.std(anew, axis=0)
    return tuple(float(value) for value in measures(np.arange(count)) + spread)


def _certain_mean(values: NDArray[np.floating]) -> float:
    """The mean, if it is more than twice its standard error, or else 0."""
    if len(values) < 2:
        return 0.0
    mean, error = float(values.mean()), float(values.std(ddof=1) / len(values) ** 0.5)
    return mean if abs(mean) > 2 * error else 0.0


def sample_crops(stage: Stage, faces: Sequence[LabeledFace], count: int = 256) -> NDArray[np.uint8]:
    """Crops (count, side, side) as the network meets them, every second one degraded."""
    rng = np.random.default_rng(0)
    crops: list[NDArray[np.uint8]] = []
    for index in range(count):
        face = faces[int(rng.integers(len(faces)))]
        matrix = stage.random_transform(face.points, face.roll, rng)
        crop = warp(face.gray, matrix, stage.crop_size)
        crops.append(degrade(crop, crops[-1], rng) if index % 2 else crop)
    return np.stack(crops)


def export_runs(
    runs: Sequence[Path], data: Sequence[Path], path: Path, int8: bool
) -> Calibration | None:
    """Writes the network of a run, or the mean network of several, as an ONNX file.

    Args:
        runs: their folders.
        data: labeled faces. Sigma is calibrated on those of the first label set that no run was
            trained on; the ranges of 8-bit integers are set on the others.
        path: of the file.
        int8: whether convolutions run in 8-bit integers.

    Returns:
        The calibration; None for the face classifier, which has no landmarks.

    Raises:
        TrainingError: the runs cannot be read or do not go together, or `int8` has no face to set
            ranges by.
        DatasetError: the data cannot be used.
        WriteError: the file cannot be written.
    """
    loaded = [load_run(run) for run in runs]
    settings = [each for _, each in loaded]
    if any(other["stage"] != settings[0]["stage"] for other in settings):
        raise TrainingError("these are runs of different stages: export each by itself")
    stage = STAGES[settings[0]["stage"]]
    network = mean_network([network for network, _ in loaded])
    source = network.sources[0]
    samples = [s for part in data for s in read_samples(part) if s.source == source]
    # The part that every run held out: the same groups are in it whatever its size.
    split = load_faces(samples, min(each["validation"] for each in settings))
    if int8 and not split.training:
        raise TrainingError(f"--data has none of the faces ({source}) that the run was trained on")
    calibration = calibrate(network, stage, split.validation) if stage.points else None
    crops = sample_crops(stage, split.training) if int8 else None
    export(network, stage, path, calibration or Calibration(), {"kpipe.run": f"{settings}"}, crops)
    return calibration


class _Exported(nn.Module):
    """The network as `LandmarkNetwork.landmarks` computes it, for crops of one size and with as
    few operations as possible: at 1 ms a face each of them counts.
    """

    def __init__(self, network: LandmarkNetwork, side: int, calibration: Calibration) -> None:
        super().__init__()
        self.network = network
        self.cells = (side // STRIDE) ** 2
        # What is added to all cells of a heatmap does not change its distribution.
        kernel = network.heatmaps[network.sources[0]].get_parameter("weight")
        self.heatmaps = kernel[:, :, 0, 0].detach()
        # The mean of the centers, each moved, is the mean moved.
        moved = torch.tensor([calibration.offset, 0.0])
        self.centers = cell_centers(side // STRIDE, side // STRIDE) + moved
        self.factor = calibration.factor

    def forward(self, crops: Tensor, least: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        levels = self.network.levels(crops.float())
        face = self.network.face_logit(levels[-1]).sigmoid()
        # The most probable one always: ONNX Runtime does not multiply empty matrices.
        likely = (face >= torch.minimum(least, face.max())).nonzero().squeeze(1)
        features = self.network.merged([level[likely] for level in levels])
        flat = features.reshape(-1, features.shape[1], self.cells)
        weights = (self.heatmaps @ flat).softmax(dim=2)
        gathered = (flat @ weights.transpose(1, 2)).transpose(1, 2)
        sigma = self.network.log_sigma(gathered).exp() * self.factor
        return weights @ self.centers, sigma, face


class _FaceScore(nn.Module):
    """The part of the network that scores crops as faces."""

    def __init__(self, network: LandmarkNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, crops: Tensor) -> Tensor:
        deepest = self.network.levels(crops.float())[-1]
        return self.network.face_logit(deepest).sigmoid()


def export(
    network: LandmarkNetwork,
    stage: Stage,
    path: Path,
    calibration: Calibration,
    notes: dict[str, str],
    crops: NDArray[np.uint8] | None = None,
) -> None:
    """Writes an ONNX file.

    Inputs `crops` (n, 1, side, side) uint8 and `least`, a probability; outputs `face` (n,),
    probabilities, and of the m crops that are at least as probable `points` (m, 68, 2) and `sigma`
    (m, 68), crop pixels. The face classifier has `crops` and `face` alone. The metadata hold the
    size and margin of crops and the bounds of sigma.

    Args:
        network: trained.
        stage: what its crops show.
        path: of the file.
        calibration: of points and sigma.
        notes: further metadata.
        crops: (n, side, side) uint8, to quantize for: convolutions then run in 8-bit integers.
            Without them all stays float.

    Raises:
        WriteError: the file cannot be written.
    """
    # torch's exporter folds batch normalization into the very weights of the module it is given.
    network = copy.deepcopy(network).cpu().eval()
    module: nn.Module = _FaceScore(network)
    crop = torch.zeros(1, 1, stage.crop_size, stage.crop_size, dtype=torch.uint8)
    inputs: dict[str, Tensor] = {"crops": crop}
    axes = {"crops": {0: "n"}, "face": {0: "n"}}
    if stage.points:
        module = _Exported(network, stage.crop_size, calibration)
        inputs["least"] = torch.zeros(())
        axes = {"points": {0: "m"}, "sigma": {0: "m"}, **axes}
    outputs = [name for name in axes if name not in inputs]
    model = onnx_model(module, inputs, outputs, axes)
    _flush_denormals(model)
    metadata = {
        "kpipe.scheme": IBUG68.name,
        "kpipe.crop_size": str(stage.crop_size),
        "kpipe.crop_margin": str(stage.crop_margin),
        **notes,
    }
    if stage.points:
        metadata["kpipe.sigma_bound50"] = f"{calibration.bound50:.4f}"
        metadata["kpipe.sigma_bound90"] = f"{calibration.bound90:.4f}"
    if crops is not None:
        model = quantized(model, crops)
    onnx.helper.set_model_props(model, metadata)
    write_file(path, model.SerializeToString())


def _flush_denormals(model: onnx.ModelProto) -> None:
    """Denormal weights to zero: they change nothing but slow some processors down many times."""
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32:
            tiny = np.abs(values) < np.finfo(np.float32).tiny
            if (tiny & (values != 0)).any():
                flushed = np.where(tiny, np.float32(0), values)
                tensor.CopyFrom(numpy_helper.from_array(flushed, tensor.name))
