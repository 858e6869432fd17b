"""The detectors by name: what `--detector` and `PipelineOptions.detector` take."""

from __future__ import annotations

from pathlib import Path

from kpipe.detectors.face_size import COARSE_MIN_FACE
from kpipe.detectors.haar import LEANING, LYING, UPRIGHT, HaarDetector
from kpipe.detectors.proposals import MIN_FACE, ProposalDetector
from kpipe.detectors.yunet import YuNetDetector
from kpipe.structures.defaults import TILTS as TILTS
from kpipe.structures.detections import Detector


def make_detector(
    name: str,
    *,
    min_face: float | None = None,
    tilt: str = "any",
    cascades: Path | None = None,
    threads: int = 0,
) -> Detector:
    """A detector.

    Args:
        name: `proposals`, `haar`, or a YuNet file that ends in .onnx.
        min_face: smallest face, see `min_face_pixels`; None for the detector's default.
        tilt: a key of `TILTS`. The cascades, which are slow, look for nothing beyond it.
        cascades: folder of cascade files to use instead of OpenCV's own; means `haar`.
        threads: of the proposal network; 0 for all cores.

    Raises:
        ValueError: no detector, or no tilt, has that name.
        ModelError, CascadeError: a file cannot be used.
    """
    if tilt not in TILTS:
        raise ValueError(f"choose {' or '.join(TILTS)} for --tilt")
    if name == "haar" or cascades is not None:
        views = UPRIGHT + LEANING + (LYING if tilt == "any" else ())
        return HaarDetector(views, min_face=min_face or COARSE_MIN_FACE, folder=cascades)
    if name == "proposals":
        return ProposalDetector(min_face=min_face or MIN_FACE, threads=threads)
    if name.endswith(".onnx"):
        return YuNetDetector(Path(name), min_face=min_face or COARSE_MIN_FACE)
    raise ValueError("choose proposals, haar or a YuNet .onnx file for --detector")
