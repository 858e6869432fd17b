"""Every face in a photograph, and 68 named points on each.

>>> from kpipe import Pipeline, read_image
>>> pipeline = Pipeline()
>>> for face in pipeline(read_image("group_photo.jpg")):
...     print(face.box, face.points[30])
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kpipe.detector import CascadeError, Detections, Detector, HaarDetector
    from kpipe.faces import Face, Faces, Pose
    from kpipe.media.images import ImageError, read_image
    from kpipe.pipeline import Pipeline
    from kpipe.predictor import FaceSieve, LandmarkPredictor, ModelError
    from kpipe.proposals import ProposalDetector
    from kpipe.renderer import Style, render
    from kpipe.schemes import IBUG68, KAGGLE15, Scheme
    from kpipe.tracker import Tracker
    from kpipe.yunet import YuNetDetector

__version__ = "0.1.0"

__all__ = [
    "IBUG68",
    "KAGGLE15",
    "CascadeError",
    "Detections",
    "Detector",
    "Face",
    "FaceSieve",
    "Faces",
    "HaarDetector",
    "ImageError",
    "LandmarkPredictor",
    "ModelError",
    "Pipeline",
    "Pose",
    "ProposalDetector",
    "Scheme",
    "Style",
    "Tracker",
    "YuNetDetector",
    "read_image",
    "render",
]

_HOME = {
    "CascadeError": "detector",
    "ModelError": "predictor",
    "Detections": "detector",
    "Detector": "detector",
    "HaarDetector": "detector",
    "Face": "faces",
    "Faces": "faces",
    "Pose": "faces",
    "ImageError": "media.images",
    "read_image": "media.images",
    "Pipeline": "pipeline",
    "FaceSieve": "predictor",
    "LandmarkPredictor": "predictor",
    "ProposalDetector": "proposals",
    "YuNetDetector": "yunet",
    "Style": "renderer",
    "Tracker": "tracker",
    "render": "renderer",
    "IBUG68": "schemes",
    "KAGGLE15": "schemes",
    "Scheme": "schemes",
}


def __getattr__(name: str) -> Any:
    # Names are fetched when first used: `import kpipe` stays fast and needs no OpenCV.
    if name not in _HOME:
        raise AttributeError(f"module 'kpipe' has no attribute {name!r}")
    return getattr(import_module(f"kpipe.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
