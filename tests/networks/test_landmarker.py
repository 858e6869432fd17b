from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kpipe import Faces
from kpipe.errors import ModelError
from kpipe.networks.classifier import FaceClassifier
from kpipe.networks.landmarker import BATCH, Landmarker
from kpipe.preprocessing.affine import crop_transform
from kpipe.preprocessing.boxes import landmark_box
from kpipe.preprocessing.crops import to_gray, warp


@pytest.fixture(scope="module")
def predictor() -> Landmarker:
    return Landmarker(threads=1)


def test_a_batch_gives_what_each_crop_gives_alone(predictor: Landmarker) -> None:
    side = predictor.crop_size
    crops = np.random.default_rng(0).integers(0, 256, (BATCH + 3, side, side), np.uint8)
    together = predictor(crops)
    assert together.points.shape == (BATCH + 3, 68, 2)
    for index in (0, BATCH - 1, BATCH, BATCH + 2):
        alone = predictor(crops[index : index + 1])
        assert together.points[index] == pytest.approx(alone.points[0], abs=0.05)
        assert together.sigma[index] == pytest.approx(alone.sigma[0], rel=0.05)


def test_points_of_what_is_hardly_a_face_are_left_out(
    predictor: Landmarker, portrait: np.ndarray, portrait_faces: Faces
) -> None:
    """As many as are not wanted, in whichever run, and the others are what they were."""
    side = predictor.crop_size
    crops = np.random.default_rng(0).integers(0, 256, (BATCH + 3, side, side), np.uint8)
    face = portrait_faces[0]
    matrix = crop_transform(landmark_box(face.points), 0.0, side, predictor.crop_margin)
    crops[5] = crops[BATCH] = warp(to_gray(portrait), matrix, side)
    every = predictor(crops)
    assert (every.scores >= 0.5).nonzero()[0].tolist() == [5, BATCH]
    assert np.isfinite(every.points).all() and np.isfinite(every.sigma).all()
    wanted = predictor(crops, 0.5)
    assert wanted.scores == pytest.approx(every.scores, abs=1e-4)
    for index in (5, BATCH):
        assert wanted.points[index] == pytest.approx(every.points[index], abs=0.05)
        assert wanted.sigma[index] == pytest.approx(every.sigma[index], rel=0.05)
    assert np.isnan(wanted.points).all(axis=(1, 2)).sum() == len(crops) - 2
    # Where none is a face, the most probable one may be there.
    assert np.isnan(predictor(crops[:5], 0.5).points).all(axis=(1, 2)).sum() >= 4


def test_no_crops(predictor: Landmarker) -> None:
    found = predictor(np.zeros((0, 128, 128), np.uint8))
    assert [part.shape for part in (found.points, found.sigma, found.scores)] == [
        (0, 68, 2),
        (0, 68),
        (0,),
    ]


@pytest.mark.parametrize(
    "crops",
    [np.zeros((1, 128, 128)), np.zeros((128, 128), np.uint8), np.zeros((1, 64, 64), np.uint8)],
)
def test_wrong_crops_are_refused(predictor: Landmarker, crops: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"expected uint8 \(n, 128, 128\)"):
        predictor(crops)


def test_the_sieve_takes_any_number_of_crops() -> None:
    sieve = FaceClassifier()
    crops = np.random.default_rng(0).integers(0, 256, (300, 32, 32), np.uint8)
    seen = sieve(crops)
    assert seen.shape == (300,) and seen.dtype == np.float32
    assert seen[280:] == pytest.approx(sieve(crops[280:]), abs=1e-4)
    assert sieve(crops[:0]).shape == (0,)
    with pytest.raises(ValueError, match="crops: expected uint8"):
        sieve(crops.astype(float))


def test_light_and_contrast_hardly_matter(predictor: Landmarker) -> None:
    rng = np.random.default_rng(0)
    crop = rng.integers(100, 160, (1, 128, 128), np.uint8)
    stretched = ((crop.astype(int) - 100) * 3 + 30).astype(np.uint8)
    assert predictor(crop).points == pytest.approx(predictor(stretched).points, abs=6)


def test_unusable_models(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such model file"):
        Landmarker(tmp_path / "missing.onnx")
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(ModelError, match="not a usable ONNX file"):
        Landmarker(tmp_path / "text.onnx")


def test_the_packaged_weights_have_no_denormals() -> None:
    onnx = pytest.importorskip("onnx")
    from kpipe.networks.classifier import CLASSIFIER
    from kpipe.networks.landmarker import COARSE, REFINE
    from kpipe.utils.resources import packaged

    for name in (CLASSIFIER, COARSE, REFINE):
        for tensor in onnx.load(packaged(name)).graph.initializer:
            values = onnx.numpy_helper.to_array(tensor)
            if values.dtype == np.float32:
                assert not ((values != 0) & (np.abs(values) < np.finfo(np.float32).tiny)).any()
