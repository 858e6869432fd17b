"""Faces through the frames of a video."""
