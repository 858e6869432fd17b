"""The smallest face that detectors look for."""

from __future__ import annotations

COARSE_MIN_FACE = 1 / 40
"""Smallest face that a slow detector looks for unless asked, as a share of the longer side."""


MIN_FACE_PIXELS = 16.0
"""Side of the smallest face that is looked for unless asked, pixels: below it there is little to
see."""
