"""HDR and wide-gamut video frames to standard range: BT.2020 with PQ, HLG or gamma to BT.709.

Transfer functions and the system gamma of HLG are those of ITU-R BT.2100. The brightness of white
is that of BT.2408 (203 cd/m2), the roll-off of highlights that of BT.2390 (its EETF).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from kpipe.utils.opencv import cv2

PQ, HLG = 16, 18
"""FFmpeg's codes of the transfer functions of SMPTE ST 2084 and ARIB STD-B67."""

BT2020 = 9
"""FFmpeg's code of the primaries of BT.2020."""

WHITE, PEAK = 203.0, 1000.0
"""Luminance of diffuse white, and the highest that is shown apart from others [cd/m2]."""

GAMMA = 2.4
"""Exponent of a standard display, by BT.1886."""

LEVELS = 4096
"""Entries of the tables of signal and luminance: HDR video has 10 or 12 bits."""

WEIGHTS = np.array([[0.2627, 0.6780, 0.0593]], np.float32)
"""Red, green and blue in the luminance of BT.2020."""

TO_BT709 = np.array(
    [
        [1.6605, -0.5876, -0.0728],
        [-0.1246, 1.1329, -0.0083],
        [-0.0182, -0.1006, 1.1187],
    ],
    np.float32,
)
"""Linear light of BT.2020's primaries to BT.709's."""


def needs_tone_map(transfer: int, primaries: int) -> bool:
    """Whether frames with these codes look wrong where BT.709 is assumed."""
    return transfer in (PQ, HLG) or primaries == BT2020


class ToneMap:
    """Frames of one transfer function and one set of primaries to BT.709.

    Args:
        transfer, primaries: FFmpeg's codes.
    """

    def __init__(self, transfer: int, primaries: int) -> None:
        signal = np.linspace(0, 1, LEVELS)
        to_light = {PQ: _light_of_pq, HLG: _light_of_hlg}.get(transfer, _light_of_gamma)
        self._light = to_light(signal).astype(np.float32)
        # By the square root of the luminance, so that dark values have entries enough.
        self._most = float(self._light[-1])
        luminance = np.linspace(0, 1, LEVELS) ** 2 * self._most
        self._gain = _gain(transfer, luminance).astype(np.float32)
        self._to_bt709 = TO_BT709 if primaries == BT2020 else None
        self._encoded = np.round(np.linspace(0, 1, 1 << 16) ** (1 / GAMMA) * 255).astype(np.uint8)

    def __call__(self, image: NDArray[np.uint16]) -> NDArray[np.uint8]:
        """A frame (h, w, 3) uint16, RGB signal over the whole range, as (h, w, 3) uint8."""
        light = self._light[image >> 4]
        luminance = cv2.transform(light, WEIGHTS)
        scaled = np.sqrt(luminance.reshape(image.shape[:2]) / self._most) * (LEVELS - 1)
        light *= self._gain[np.minimum(scaled, LEVELS - 1).astype(np.uint16)][..., None]
        if self._to_bt709 is not None:
            light = cv2.transform(light, self._to_bt709)
        return np.asarray(self._encoded[(np.clip(light, 0, 1) * 65535).astype(np.uint16)])


def _light_of_pq(signal: NDArray[np.float64]) -> NDArray[np.float64]:
    """Displayed light, 1 for white."""
    m1, m2 = 2610 / 16384, 2523 / 4096 * 128
    c1, c2, c3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
    root = signal ** (1 / m2)
    return np.asarray((np.maximum(root - c1, 0) / (c2 - c3 * root)) ** (1 / m1) * 10_000 / WHITE)


def _pq_of_light(light: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """The inverse of `_light_of_pq`."""
    m1, m2 = 2610 / 16384, 2523 / 4096 * 128
    c1, c2, c3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
    power = (np.asarray(light) * WHITE / 10_000) ** m1
    return np.asarray(((c1 + c2 * power) / (1 + c3 * power)) ** m2)


def _light_of_hlg(signal: NDArray[np.float64]) -> NDArray[np.float64]:
    """Light of the scene, 0 to 1."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)


def _light_of_gamma(signal: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(signal**GAMMA)


def _gain(transfer: int, luminance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Factors from light as the tables have it to light that a standard display shows.

    Args:
        transfer: FFmpeg's code.
        luminance: in the unit of the light.
    """
    if transfer not in (PQ, HLG):
        return np.ones_like(luminance)
    safe = np.maximum(luminance, 1e-9)
    # A display of 1000 cd/m2 shows HLG with a system gamma of 1.2.
    shown: Callable[[NDArray[np.float64]], NDArray[np.float64]] = (
        (lambda light: light**1.2 * PEAK / WHITE) if transfer == HLG else (lambda light: light)
    )
    return np.asarray(_rolled_off(shown(safe)) / safe)


def _rolled_off(luminance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Luminance up to the peak, 1 for white, squeezed into 0 to 1: linear, then a spline."""
    top = _pq_of_light(PEAK / WHITE)
    most = _pq_of_light(1.0) / top
    knee = 1.5 * most - 0.5
    level = np.minimum(_pq_of_light(luminance) / top, 1)
    t = (level - knee) / (1 - knee)
    spline = (
        (2 * t**3 - 3 * t**2 + 1) * knee
        + (t**3 - 2 * t**2 + t) * (1 - knee)
        + (-2 * t**3 + 3 * t**2) * most
    )
    return _light_of_pq(np.where(level < knee, level, spline) * top)
