"""What the points are: names, groups, the lines between them and their mirror image.

Left and right are the subject's, so the right eye is on the left of an ordinary photograph.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Polyline:
    """A line through some points of a scheme.

    Attributes:
        group: the face part that it draws, a key of `Scheme.groups`.
        indices: the points, in drawing order, 0-based.
        closed: whether the last point joins the first.
    """

    group: str
    indices: tuple[int, ...]
    closed: bool = False

    def segments(self) -> Iterator[tuple[int, int]]:
        """The pairs of neighboring points."""
        yield from zip(self.indices, self.indices[1:])
        if self.closed:
            yield self.indices[-1], self.indices[0]


@dataclass(frozen=True)
class Scheme:
    """A set of named points on a face.

    Attributes:
        name: as written in the JSON, for instance `ibug68`.
        names: one for each point, in order.
        groups: the face parts, each with the indices of its points.
        polylines: how the points are joined in a picture.
        mirror_pairs: the points that change places when the picture is mirrored.
        ocular: the two points whose distance normalizes the error (NME): the outer eye corners.
        derivation: of a scheme that follows from `IBUG68`: the points of it that each point is the
            mean of.
    """

    name: str
    names: tuple[str, ...]
    groups: dict[str, tuple[int, ...]]
    polylines: tuple[Polyline, ...]
    mirror_pairs: tuple[tuple[int, int], ...]
    ocular: tuple[int, int]
    derivation: tuple[tuple[int, ...], ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    @property
    def mirror(self) -> NDArray[np.intp]:
        """(n,) permutation p: point i of the mirrored picture is point p[i] of the original."""
        order = np.arange(len(self.names))
        for a, b in self.mirror_pairs:
            order[a], order[b] = b, a
        return order

    @property
    def weights(self) -> NDArray[np.float32]:
        """(n, 68) share of each point of `IBUG68` in each point of this scheme; rows sum to 1.

        Raises:
            ValueError: the scheme does not follow from `IBUG68`.
        """
        if not self.derivation:
            raise ValueError(f"{self.name} does not follow from {IBUG68.name}")
        shares = np.zeros((len(self), len(IBUG68)), np.float32)
        for row, indices in zip(shares, self.derivation):
            row[list(indices)] = 1 / len(indices)
        return shares


def _span(first: int, last: int) -> tuple[int, ...]:
    return tuple(range(first, last + 1))


def _ibug68_names() -> tuple[str, ...]:
    jaw = [f"jaw_right_{k}" for k in range(8, 0, -1)] + ["chin"]
    jaw += [f"jaw_left_{k}" for k in range(1, 9)]
    brow = ("outer", "outer_middle", "middle", "inner_middle", "inner")
    brows = [f"right_brow_{part}" for part in brow] + [f"left_brow_{part}" for part in brow[::-1]]
    nose = ["nose_bridge_1", "nose_bridge_2", "nose_bridge_3", "nose_tip"]
    nose += ["nostril_right_outer", "nostril_right_inner", "nose_base"]
    nose += ["nostril_left_inner", "nostril_left_outer"]
    right_eye = ("outer", "upper_outer", "upper_inner", "inner", "lower_inner", "lower_outer")
    left_eye = ("inner", "upper_inner", "upper_outer", "outer", "lower_outer", "lower_inner")
    eyes = [f"right_eye_{part}" for part in right_eye] + [f"left_eye_{part}" for part in left_eye]
    outer_lip = (
        ["mouth_right", "upper_lip_right_outer", "upper_lip_right_peak", "upper_lip_top"]
        + ["upper_lip_left_peak", "upper_lip_left_outer", "mouth_left", "lower_lip_left_outer"]
        + ["lower_lip_left", "lower_lip_bottom", "lower_lip_right", "lower_lip_right_outer"]
    )
    inner_lip = [
        "mouth_right_inner",
        "upper_lip_right_inner",
        "upper_lip_inner",
        "upper_lip_left_inner",
    ] + ["mouth_left_inner", "lower_lip_left_inner", "lower_lip_inner", "lower_lip_right_inner"]
    return tuple(jaw + brows + nose + eyes + outer_lip + inner_lip)


_PAIRS = (
    [(i, 16 - i) for i in range(8)]
    + [(17 + i, 26 - i) for i in range(5)]
    + [(31, 35), (32, 34)]
    + [(36, 45), (37, 44), (38, 43), (39, 42), (40, 47), (41, 46)]
    + [(48, 54), (49, 53), (50, 52), (59, 55), (58, 56)]
    + [(60, 64), (61, 63), (67, 65)]
)

IBUG68 = Scheme(
    name="ibug68",
    names=_ibug68_names(),
    groups={
        "jaw": _span(0, 16),
        "right_brow": _span(17, 21),
        "left_brow": _span(22, 26),
        "nose": _span(27, 35),
        "right_eye": _span(36, 41),
        "left_eye": _span(42, 47),
        "lips": _span(48, 67),
    },
    polylines=(
        Polyline("jaw", _span(0, 16)),
        Polyline("right_brow", _span(17, 21)),
        Polyline("left_brow", _span(22, 26)),
        Polyline("nose", _span(27, 30)),
        Polyline("nose", _span(31, 35)),
        Polyline("right_eye", _span(36, 41), closed=True),
        Polyline("left_eye", _span(42, 47), closed=True),
        Polyline("lips", _span(48, 59), closed=True),
        Polyline("lips", _span(60, 67), closed=True),
    ),
    mirror_pairs=tuple(_PAIRS),
    ocular=(36, 45),
)
"""The 68 points of the iBUG group's 300-W challenge (Sagonas et al., ICCV Workshops 2013)."""


KAGGLE15 = Scheme(
    name="kaggle15",
    names=(
        "left_eye_center",
        "right_eye_center",
        "left_eye_inner_corner",
        "left_eye_outer_corner",
        "right_eye_inner_corner",
        "right_eye_outer_corner",
        "left_eyebrow_inner_end",
        "left_eyebrow_outer_end",
        "right_eyebrow_inner_end",
        "right_eyebrow_outer_end",
        "nose_tip",
        "mouth_left_corner",
        "mouth_right_corner",
        "mouth_center_top_lip",
        "mouth_center_bottom_lip",
    ),
    groups={
        "right_brow": (8, 9),
        "left_brow": (6, 7),
        "nose": (10,),
        "right_eye": (1, 4, 5),
        "left_eye": (0, 2, 3),
        "lips": (11, 12, 13, 14),
    },
    polylines=(
        Polyline("right_brow", (9, 8)),
        Polyline("left_brow", (6, 7)),
        Polyline("right_eye", (5, 1, 4)),
        Polyline("left_eye", (2, 0, 3)),
        Polyline("lips", (12, 13, 11, 14), closed=True),
    ),
    mirror_pairs=((0, 1), (2, 4), (3, 5), (6, 8), (7, 9), (11, 12)),
    ocular=(5, 3),
    derivation=(
        _span(42, 47),  # left_eye_center: the middle of the lids' six points
        _span(36, 41),  # right_eye_center
        (42,),  # left_eye_inner_corner
        (45,),  # left_eye_outer_corner
        (39,),  # right_eye_inner_corner
        (36,),  # right_eye_outer_corner
        (22,),  # left_eyebrow_inner_end
        (26,),  # left_eyebrow_outer_end
        (21,),  # right_eyebrow_inner_end
        (17,),  # right_eyebrow_outer_end
        (30,),  # nose_tip
        (54,),  # mouth_left_corner
        (48,),  # mouth_right_corner
        (51,),  # mouth_center_top_lip: the outer edge of the upper lip
        (57,),  # mouth_center_bottom_lip: the outer edge of the lower lip
    ),
)
"""The 15 points of Kaggle's Facial Keypoints Detection (2013), in the order of its columns.

Its rows that label all 15 are what the derivation follows: `benchmarks/kaggle.py definitions` lays
the mean 300-W face on theirs. The other rows label the eyes' centers, a point under the nose and
the middle of the mouth, these two under the names of `nose_tip` and `mouth_center_bottom_lip`:
`kpipe.kaggle.predict.OF_FOUR`.
"""

SCHEMES = {scheme.name: scheme for scheme in (IBUG68, KAGGLE15)}
