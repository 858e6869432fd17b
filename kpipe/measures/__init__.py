"""Measures taken from the landmarks: pose, openness, aligned chips."""

from kpipe.measures.alignment import aligned_chip
from kpipe.measures.expression import openness
from kpipe.measures.pose import head_angles, head_pose, mean_face

__all__ = ["aligned_chip", "head_angles", "head_pose", "mean_face", "openness"]
