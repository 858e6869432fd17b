"""Names of version 0.1 that have moved: they work in 0.2, with a DeprecationWarning.

Delete this module, and what calls it, in 0.3.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

NAMES = {
    "FaceSieve": "FaceClassifier",
    "LandmarkPredictor": "Landmarker",
    "Pyramid": "ImagePyramid",
    "RawPoints": "UnfilteredPoints",
    "SteadyPoints": "KalmanPoints",
    "agreement": "fused_score",
    "face_box": "landmark_box",
    "intersection_over_union": "iou",
    "outer_box": "head_box",
    "shown": "display_name",
    "Alteration": "Perturbation",
    "Errors": "LandmarkErrors",
}
"""Old names and new ones, of whatever module."""

MODULES: dict[str, tuple[str, ...]] = {
    "kpipe.boxes": ("formats.boxes", "structures.detections", "errors"),
    "kpipe.bench": ("evaluation.timing",),
    "kpipe.detection_evaluation": ("evaluation.detection",),
    "kpipe.detector": (
        *("structures.detections", "detectors.haar", "detectors.face_size", "errors"),
    ),
    "kpipe.faces": ("structures.faces",),
    "kpipe.motion": ("tracking.motion",),
    "kpipe.plot": ("rendering.timeline",),
    "kpipe.predictor": (
        *("networks.landmarker", "networks.classifier", "networks.session", "errors"),
    ),
    "kpipe.preprocessor": ("preprocessing.boxes", "preprocessing.affine", "preprocessing.crops"),
    "kpipe.proposals": ("detectors.proposals",),
    "kpipe.renderer": ("rendering.draw", "structures.style"),
    "kpipe.report": ("evaluation.report",),
    "kpipe.resources": ("utils.resources",),
    "kpipe.schemes": ("structures.schemes",),
    "kpipe.smoothing": ("tracking.filters",),
    "kpipe.tracker": ("tracking.tracker",),
    "kpipe.window": ("rendering.window", "errors"),
    "kpipe.yunet": ("detectors.yunet",),
}
"""Old modules, and the new ones that have what was in them."""


def warn(old: str, new: str) -> None:
    """Says, at the line that used it, what an old name is called now."""
    # Past this function, the module's __getattr__ and, for `from … import`, the import system,
    # which Python itself leaves out of the count.
    warnings.warn(f"{old} is now {new}", DeprecationWarning, stacklevel=3)


class _Finder:
    """Finds the old modules, once the import system has found nothing under their names."""

    def find_spec(
        self, name: str, _path: Sequence[str] | None = None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(name, self) if name in MODULES else None  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _OldModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing: names are fetched when they are used."""


class _OldModule(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if not name.startswith("__"):
            new = NAMES.get(name, name)
            for home in MODULES[self.__name__]:
                module = importlib.import_module(f"kpipe.{home}")
                if hasattr(module, new):
                    warn(f"{self.__name__}.{name}", f"kpipe.{home}.{new}")
                    return getattr(module, new)
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")


PIPELINE = {
    "predictor": "landmarker",
    "first": "coarse",
    "sieve": "classifier",
    "glance": "classify",
    "first_look": "coarse_landmarks",
    "second_look": "refine",
    "locate": "landmarks",
}
"""Old attributes and methods of `Pipeline`."""


def pipeline_attribute(pipeline: Any, name: str) -> Any:
    """An attribute of a pipeline by its old name.

    Raises:
        AttributeError: there never was one of that name.
    """
    if name not in PIPELINE:
        raise AttributeError(f"'Pipeline' object has no attribute {name!r}")
    new = PIPELINE[name]
    warn(f"Pipeline.{name}", f"Pipeline.{new}")
    if name != "second_look":
        return getattr(pipeline, new)
    # It took the landmarks of the stage before, where `refine` takes their points.
    return lambda gray, first, least=0.0: pipeline.refine(gray, first.points, least)


def install() -> None:
    """Lets the old modules be imported. At the end of the search, so that it costs nothing."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())
