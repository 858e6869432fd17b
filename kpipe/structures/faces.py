"""What was found: plain, validated data."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from kpipe.structures.schemes import IBUG68, SCHEMES, Scheme
from kpipe.structures.style import Style


class Pose(NamedTuple):
    """How a head is turned, in degrees; all zero for one that looks straight into the camera.

    Attributes:
        yaw: about the vertical; positive when the subject looks to its own left.
        pitch: up and down; positive when the subject looks up.
        roll: in the plane of the picture; positive when turned clockwise as one sees it.
    """

    yaw: float
    pitch: float
    roll: float


class Openness(NamedTuple):
    """How far eyes and mouth are open: their height over their width, seen from the front.

    Attributes:
        right_eye, left_eye: about 0.3 in an ordinary look, near 0.1 when closed.
        mouth: between the lips; 0 when closed.
    """

    right_eye: float
    left_eye: float
    mouth: float


@dataclass(frozen=True, eq=False)
class Face:
    """One face. Coordinates are pixels of the upright photograph, the center of its top-left pixel
    at (0, 0).

    Attributes:
        box: (4,) float32, x0, y0, x1, y1: the square around the whole face, forehead to
            chin.
        score: probability that this is a face, 0 to 1.
        points: (n, 2) float32.
        sigma: (n,) float32: expected distance of each point from where it really is, pixels.
        pose: how the head is turned.
        track: identity in a video.
        openness: of eyes and mouth, in a video.
        blink: whether the eyes are closed, by what is usual for them in the video.
    """

    box: NDArray[np.float32]
    score: float
    points: NDArray[np.float32]
    sigma: NDArray[np.float32]
    pose: Pose | None = None
    track: int | None = None
    openness: Openness | None = None
    blink: bool | None = None

    def __post_init__(self) -> None:
        count = len(self.points)
        _check("box", self.box, (4,))
        _check("points", self.points, (count, 2))
        _check("sigma", self.sigma, (count,))

    @property
    def size(self) -> float:
        """Side of the box, pixels."""
        return float(max(self.box[2] - self.box[0], self.box[3] - self.box[1]))

    def transform(self, matrix: NDArray[np.floating]) -> Face:
        """The face in a picture that a similarity or mirroring maps this one to.

        Args:
            matrix: (2, 3) from pixels of this picture to pixels of the other. The box stays
                upright: of a turned face it is the square around the turned box.
        """
        linear, offset = np.asarray(matrix, np.float64)[:, :2], np.asarray(matrix)[:, 2]
        x0, y0, x1, y1 = self.box
        corners = np.array([[x0, y0], [x1, y0], [x0, y1], [x1, y1]]) @ linear.T + offset
        scale = np.float32(np.sqrt(abs(np.linalg.det(linear))))
        return dataclasses.replace(
            self,
            box=np.concatenate([corners.min(axis=0), corners.max(axis=0)]).astype(np.float32),
            points=(self.points @ linear.T + offset).astype(np.float32),
            sigma=self.sigma * scale,
        )

    def to_dict(self) -> dict[str, Any]:
        """As the JSON has it; pixels to two decimals."""
        face: dict[str, Any] = {
            "box": _rounded(self.box, 2),
            "score": round(float(self.score), 4),
            "points": _rounded(self.points, 2),
            "sigma": _rounded(self.sigma, 3),
        }
        if self.pose is not None:
            face["pose"] = {name: round(v, 2) for name, v in self.pose._asdict().items()}
        if self.track is not None:
            face["track"] = self.track
        if self.openness is not None:
            face["openness"] = {name: round(v, 3) for name, v in self.openness._asdict().items()}
        if self.blink is not None:
            face["blink"] = self.blink
        return face

    @classmethod
    def from_dict(cls, face: dict[str, Any]) -> Face:
        """The inverse of `to_dict`."""
        return cls(
            box=np.asarray(face["box"], np.float32),
            score=float(face["score"]),
            points=np.asarray(face["points"], np.float32),
            sigma=np.asarray(face["sigma"], np.float32),
            pose=Pose(**face["pose"]) if "pose" in face else None,
            track=face.get("track"),
            openness=Openness(**face["openness"]) if "openness" in face else None,
            blink=face.get("blink"),
        )


@dataclass(frozen=True, eq=False)
class Faces(Sequence[Face]):
    """The faces of one photograph, largest first.

    Attributes:
        faces: what was found.
        width, height: of the upright photograph, pixels.
        path: the photograph, as its user named it.
        scheme: what the points are.
        frame: number of the frame in its video, from 0.
        time: of the frame, seconds since the video began.
        warning: one line on what is missing of a photograph that is cut short, or None.
    """

    faces: tuple[Face, ...]
    width: int
    height: int
    path: str | None = None
    scheme: Scheme = IBUG68
    frame: int | None = None
    time: float | None = None
    warning: str | None = None

    @overload
    def __getitem__(self, index: int) -> Face: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Face, ...]: ...
    def __getitem__(self, index: int | slice) -> Face | tuple[Face, ...]:
        return self.faces[index]

    def __len__(self) -> int:
        return len(self.faces)

    def __iter__(self) -> Iterator[Face]:
        return iter(self.faces)

    def at(self, path: str) -> Faces:
        """The same faces under the name of their photograph."""
        return dataclasses.replace(self, path=path)

    def filter(self, min_score: float = 0.0, min_size: float = 0.0) -> Faces:
        """The faces of at least this score and size (pixels)."""
        kept = tuple(f for f in self.faces if f.score >= min_score and f.size >= min_size)
        return dataclasses.replace(self, faces=kept)

    def transform(self, matrix: NDArray[np.floating], width: int, height: int) -> Faces:
        """The faces in another picture of that size: see `Face.transform`."""
        faces = tuple(face.transform(matrix) for face in self.faces)
        return dataclasses.replace(self, faces=faces, width=width, height=height)

    def mirror(self) -> Faces:
        """The faces as a mirror shows them. Each point keeps its number, and poses stay."""
        matrix = np.array([[-1.0, 0.0, self.width - 1], [0.0, 1.0, 0.0]])
        return self.transform(matrix, self.width, self.height)

    def to_scheme(self, scheme: Scheme) -> Faces:
        """The same faces with other points, each the mean of some of the 68.

        Boxes, scores and poses stay. The errors of points that lie together are nearly the same, so
        sigma is the mean too.

        Raises:
            ValueError: these points cannot be made into those.
        """
        if scheme == self.scheme:
            return self
        if self.scheme != IBUG68:
            raise ValueError(f"{scheme.name} does not follow from {self.scheme.name}")
        weights = scheme.weights
        faces = tuple(
            dataclasses.replace(face, points=weights @ face.points, sigma=weights @ face.sigma)
            for face in self.faces
        )
        return dataclasses.replace(self, faces=faces, scheme=scheme)

    def render(self, image: NDArray[np.uint8], style: Style | None = None) -> NDArray[np.uint8]:
        """A copy of the photograph (h, w, 3) with the faces drawn on it: see `kpipe.render`."""
        # By the public name, fetched when first used: plain data does not depend on drawing.
        from kpipe import render

        return render(image, self, style)

    def to_dict(self) -> dict[str, Any]:
        """As the JSON of one photograph, or one frame, has it."""
        moment: dict[str, Any] = {}
        if self.frame is not None:
            moment["frame"] = self.frame
        if self.time is not None:
            moment["time"] = round(self.time, 4)
        remark = {} if self.warning is None else {"warning": self.warning}
        return {
            "image": self.path,
            **moment,
            "width": self.width,
            "height": self.height,
            "scheme": self.scheme.name,
            **remark,
            "faces": [face.to_dict() for face in self.faces],
        }

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Faces:
        """The inverse of `to_dict`."""
        return cls(
            faces=tuple(Face.from_dict(face) for face in record["faces"]),
            width=record["width"],
            height=record["height"],
            path=record["image"],
            frame=record.get("frame"),
            time=record.get("time"),
            warning=record.get("warning"),
            scheme=SCHEMES[record["scheme"]],
        )


def _check(name: str, values: object, shape: tuple[int, ...]) -> None:
    if not isinstance(values, np.ndarray) or values.dtype != np.float32 or values.shape != shape:
        got = f"{values.dtype} {values.shape}" if isinstance(values, np.ndarray) else repr(values)
        raise ValueError(f"{name}: expected float32 {shape}, got {got}")


def _rounded(values: NDArray[np.floating], decimals: int) -> Any:
    return np.round(values.astype(np.float64), decimals).tolist()
