"""The 3D mean face, from nothing but labeled pictures.

Many views of one rigid shape under scaled orthographic projection determine it (Tomasi and Kanade,
IJCV 1992): here the faces of the training set are taken for views of their mean. The metric upgrade
starts the solution, alternating least squares finish it, and mirrored copies make it symmetric.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kpipe.datasets import read_samples
from kpipe.measures.pose import scaled_orthographic
from kpipe.structures.schemes import IBUG68

ROUNDS = 300

Array = NDArray[np.float64]


def mean_face(points: Array) -> Array:
    """The mean shape (68, 3) of labeled faces (n, 68, 2).

    x to the subject's left, y down, z away from the camera; the outer eye corners 1 apart, the
    origin at the mean of the points, turned as the average head of the set is.
    """
    mirrored = points[:, IBUG68.mirror] * (-1, 1)
    views = np.concatenate([points, mirrored])
    views = views - views.mean(axis=1, keepdims=True)
    views /= np.linalg.norm(views, axis=(1, 2), keepdims=True)
    shape = _metric_factor(views)
    for _ in range(ROUNDS):
        scales, rotations = scaled_orthographic(shape, views)
        projections = scales[:, None, None] * rotations[:, :2]
        gram = np.einsum("fij,fik->jk", projections, projections)
        shape = np.linalg.solve(gram, np.einsum("fij,fni->jn", projections, views)).T
        shape -= shape.mean(axis=0)
        shape /= np.linalg.norm(shape)
    shape = _oriented(shape, views)
    shape = (shape + shape[IBUG68.mirror] * (-1, 1, 1)) / 2
    right, left = IBUG68.ocular
    return np.asarray(shape / np.linalg.norm(shape[right] - shape[left]))


def _metric_factor(views: Array) -> Array:
    """A first (68, 3) shape: the rank-3 factor whose cameras have orthogonal axes of one length."""
    left, values, right = np.linalg.svd(
        views.transpose(0, 2, 1).reshape(-1, views.shape[1]), full_matrices=False
    )
    cameras = left[:, :3] * values[:3]
    across, down = cameras[0::2], cameras[1::2]

    def products(a: Array, b: Array) -> Array:
        i, j = np.triu_indices(3)
        off_diagonal = (i != j).astype(float)
        return np.asarray(a[:, i] * b[:, j] + off_diagonal * a[:, j] * b[:, i])

    conditions = np.concatenate(
        [products(across, across) - products(down, down), products(across, down)]
    )
    solution = np.linalg.svd(conditions, full_matrices=False)[2][-1]
    metric = np.zeros((3, 3))
    metric[np.triu_indices(3)] = solution
    metric += np.triu(metric, 1).T
    values, vectors = np.linalg.eigh(metric * np.sign(np.trace(metric)))
    upgrade = vectors * np.sqrt(np.clip(values, 1e-3 * values.max(), None))
    return np.asarray(np.linalg.solve(upgrade, right[:3]).T)


def _oriented(shape: Array, views: Array) -> Array:
    """The shape turned so that the average view of it is frontal, the nose towards the camera."""
    pairs = [(i, int(j)) for i, j in enumerate(IBUG68.mirror) if i < j]
    across = np.array([shape[j] - shape[i] for i, j in pairs])
    x = np.linalg.svd(across)[2][0]
    x *= np.sign((across @ x).sum())
    z = scaled_orthographic(shape, views)[1][:, 2].mean(axis=0)
    z -= (z @ x) * x
    z /= np.linalg.norm(z)
    turned = shape @ np.stack([x, np.cross(z, x), z]).T
    tip, jaw = IBUG68.names.index("nose_tip"), IBUG68.names.index("jaw_right_8")
    # Orthographic views cannot tell a shape from its depth-reversed twin; we can.
    return np.asarray(turned * (1, 1, -np.sign(turned[tip, 2] - turned[jaw, 2])))


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the 3D mean face of a labeled data set.")
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    points = np.stack([sample.points for sample in read_samples(arguments.data)])
    np.savetxt(arguments.output, mean_face(points.astype(np.float64)), fmt="%.4f", delimiter=",")


if __name__ == "__main__":
    main()
