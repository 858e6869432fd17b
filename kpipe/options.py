"""Everything that decides how faces are found and followed, as plain data that builds it.

The command line, batch jobs and tests all build their pipelines and trackers here. Options pickle,
so they travel to other processes, which build their own.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from kpipe import __version__
from kpipe.errors import ModelError
from kpipe.structures.defaults import DETECT_EVERY, MIN_SCORE, TILTS
from kpipe.utils.files import display_name
from kpipe.utils.resources import packaged

if TYPE_CHECKING:
    from kpipe.pipeline import Pipeline
    from kpipe.tracking.tracker import Tracker


@dataclass(frozen=True)
class PipelineOptions:
    """How faces are found in a picture.

    Attributes:
        detector: `proposals`, `haar`, or a YuNet file that ends in .onnx.
        cascades: folder of cascade files to use instead of OpenCV's own; means `haar`.
        model: ONNX file of another landmark network than the packaged one.
        min_score: minimum face confidence, 0 to 1.
        min_face: side of the smallest face that is looked for (its landmark box): pixels; or below
            1 a share of the picture's longer side, of a panorama's twice the shorter one. None for
            the detector's default.
        tilt: `any`, or `upright` to leave out heads that lean by more than 45 degrees.
        threads: of the networks; 0 for all cores.

    Raises:
        ValueError: a value is out of range, or a name is unknown.
    """

    detector: str = "proposals"
    cascades: str | None = None
    model: str | None = None
    min_score: float = MIN_SCORE
    min_face: float | None = None
    tilt: str = "any"
    threads: int = 0

    def __post_init__(self) -> None:
        for name in ("cascades", "model"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, str(value))
        if self.tilt not in TILTS:
            raise ValueError(f"tilt: choose {' or '.join(TILTS)}, not {self.tilt!r}")
        if not 0 <= self.min_score <= 1:
            raise ValueError(f"min_score: a probability from 0 to 1, not {self.min_score}")
        if self.min_face is not None and not self.min_face > 0:
            raise ValueError(f"min_face: above 0, not {self.min_face}")

    def build(self) -> Pipeline:
        """A pipeline with its networks loaded.

        Raises:
            ModelError, CascadeError: a file cannot be used.
            ValueError: no detector has that name.
        """
        # Imported here: whoever only passes options on, as the parent of a batch job, loads neither
        # OpenCV nor ONNX Runtime.
        from kpipe.detectors.registry import make_detector
        from kpipe.networks.landmarker import Landmarker
        from kpipe.pipeline import Pipeline

        detector = make_detector(
            self.detector,
            min_face=self.min_face,
            tilt=self.tilt,
            cascades=None if self.cascades is None else Path(self.cascades),
            threads=self.threads,
        )
        return Pipeline(
            detector,
            Landmarker(self.model, self.threads),
            min_score=self.min_score,
            max_roll=TILTS[self.tilt],
            threads=self.threads,
        )

    def fingerprint(self) -> dict[str, object]:
        """All that the faces of a picture depend on: versions, contents of files, settings.

        Raises:
            ModelError: a file cannot be read.
        """
        models = sorted(packaged("models").glob("*.onnx"))
        models += [Path(self.model)] if self.model is not None else []
        models += [Path(self.detector)] if self.detector.endswith(".onnx") else []
        cascades = "OpenCV's"
        if self.cascades is not None:
            cascades = _digest(sorted(Path(self.cascades).glob("*.xml")))
        return {
            "kpipe": __version__,
            "model": _digest(models),
            "--detector": self.detector,
            "cascades": cascades,
            "--min-score": self.min_score,
            "--min-face": self.min_face,
            "--tilt": self.tilt,
        }


@dataclass(frozen=True)
class TrackerOptions:
    """How faces are followed through a video.

    Attributes:
        pipeline: how they are found.
        raw: whether points stay as the network predicts them, frame by frame, unfiltered.
        detect_every: seconds from one detection to the next.
    """

    pipeline: PipelineOptions = field(default_factory=PipelineOptions)
    raw: bool = False
    detect_every: float = DETECT_EVERY

    def build(self) -> Tracker:
        """A tracker for one video.

        Raises:
            ModelError, CascadeError: a file cannot be used.
        """
        from kpipe.tracking.filters import KalmanPoints, UnfilteredPoints
        from kpipe.tracking.tracker import Tracker

        return Tracker(
            self.pipeline.build(),
            smoothing=UnfilteredPoints if self.raw else KalmanPoints,
            detect_every=self.detect_every,
        )

    def fingerprint(self) -> dict[str, object]:
        """All that the tracked faces depend on: see `PipelineOptions.fingerprint`."""
        own = {name: value for name, value in asdict(self).items() if name != "pipeline"}
        return {**self.pipeline.fingerprint(), **own}


def _digest(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        try:
            digest.update(file.name.encode("utf-8", "surrogateescape") + file.read_bytes())
        except OSError as error:
            raise ModelError(f"{display_name(file)}: {error.strerror or error}") from None
    return digest.hexdigest()[:16]
