"""Every face in a photograph, and 68 named points on each.

>>> from kpipe import Pipeline, read_image
>>> pipeline = Pipeline()
>>> for face in pipeline(read_image("group_photo.jpg")):
...     print(face.box, face.points[30])
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from kpipe import _deprecated

if TYPE_CHECKING:
    from kpipe.apps.annotate import annotate
    from kpipe.apps.video import process_video
    from kpipe.detectors.haar import HaarDetector
    from kpipe.detectors.proposals import ProposalDetector
    from kpipe.detectors.yunet import YuNetDetector
    from kpipe.errors import CascadeError, ImageError, KpipeError, ModelError
    from kpipe.media.images import read_image
    from kpipe.networks.classifier import FaceClassifier
    from kpipe.networks.landmarker import Landmarker
    from kpipe.options import PipelineOptions, TrackerOptions
    from kpipe.pipeline import Pipeline
    from kpipe.rendering.draw import render
    from kpipe.structures.detections import Detections, Detector
    from kpipe.structures.faces import Face, Faces, Pose
    from kpipe.structures.landmarks import Landmarks
    from kpipe.structures.schemes import IBUG68, KAGGLE15, Scheme
    from kpipe.structures.style import Style
    from kpipe.tracking.tracker import Tracker

__version__ = "0.2.0"

__all__ = [
    "IBUG68",
    "KAGGLE15",
    "CascadeError",
    "Detections",
    "Detector",
    "Face",
    "FaceClassifier",
    "Faces",
    "HaarDetector",
    "ImageError",
    "KpipeError",
    "Landmarker",
    "Landmarks",
    "ModelError",
    "Pipeline",
    "PipelineOptions",
    "Pose",
    "ProposalDetector",
    "Scheme",
    "Style",
    "Tracker",
    "TrackerOptions",
    "YuNetDetector",
    "annotate",
    "process_video",
    "read_image",
    "render",
]

_HOME = {
    "CascadeError": "errors",
    "ImageError": "errors",
    "KpipeError": "errors",
    "ModelError": "errors",
    "Detections": "structures.detections",
    "Detector": "structures.detections",
    "Face": "structures.faces",
    "Faces": "structures.faces",
    "Pose": "structures.faces",
    "Landmarks": "structures.landmarks",
    "IBUG68": "structures.schemes",
    "KAGGLE15": "structures.schemes",
    "Scheme": "structures.schemes",
    "read_image": "media.images",
    "FaceClassifier": "networks.classifier",
    "Landmarker": "networks.landmarker",
    "HaarDetector": "detectors.haar",
    "ProposalDetector": "detectors.proposals",
    "YuNetDetector": "detectors.yunet",
    "Pipeline": "pipeline",
    "PipelineOptions": "options",
    "TrackerOptions": "options",
    "Tracker": "tracking.tracker",
    "Style": "structures.style",
    "render": "rendering.draw",
    "annotate": "apps.annotate",
    "process_video": "apps.video",
}

_deprecated.install()


def __getattr__(name: str) -> Any:
    # Names are fetched when first used: `import kpipe` stays fast and needs no OpenCV.
    if name in _HOME:
        return getattr(import_module(f"kpipe.{_HOME[name]}"), name)
    new = _deprecated.NAMES.get(name)
    if new in _HOME:
        _deprecated.warn(f"kpipe.{name}", f"kpipe.{new}")
        return getattr(import_module(f"kpipe.{_HOME[new]}"), new)
    raise AttributeError(f"module 'kpipe' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
