"""A decoded Pillow picture of any mode to upright RGB, strip by strip.

A strip is some rows of the picture. Only the result is ever held whole beside the decoded picture:
Pillow's own conversions would hold up to three more copies.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

ORIENTATION = 0x0112
"""The EXIF tag that says how a picture is turned: 1 to 8."""

STRIP_PIXELS = 1 << 20
"""Pixels of a strip, about."""

SAMPLED = 1 << 20
"""Values, about, from which the range of a deep gray picture is taken."""

OUTLIERS = 0.1
"""Percent of the values at each end of the range that do not count: hot pixels, dead pixels."""

MOST_HIGHLIGHT = 32.0
"""Fractions up to here belong to a picture whose white is 1 and that has highlights beyond."""

BITS_PER_SAMPLE, PHOTOMETRIC = 258, 262
SIGNIFICANT_BITS = "significant_bits"
"""The key of a picture's `info` for the bits that are used, where the file says so."""

TAG_MARGIN = 16
"""Where the highest sample by the tags exceeds the values by this factor, the tags are not
believed: they hold the bits of the container, or one hot pixel."""

SAMPLE_RANGES = ((340, 341), (280, 281))
"""TIFF's tags for the lowest and the highest sample: SMinSampleValue and SMaxSampleValue, and
MinSampleValue and MaxSampleValue."""


def upright_rgb(picture: Image.Image) -> NDArray[np.uint8]:
    """The picture as (h, w, 3) uint8, RGB, upright by its EXIF orientation.

    Args:
        picture: loaded, of any mode. Transparent parts become white, deep gray 8 bits.
    """
    orientation = orientation_of(picture)
    width, height = picture.size
    result = np.empty((width, height, 3) if orientation >= 5 else (height, width, 3), np.uint8)
    # Strips are written where they belong: this shows the result as the picture is stored.
    stored = result.swapaxes(0, 1) if orientation >= 5 else result
    stored = stored[
        :: -1 if orientation in (3, 4, 6, 7) else 1, :: -1 if orientation in (2, 3, 7, 8) else 1
    ]
    if picture.mode.startswith("I") or picture.mode == "F":
        scale = GrayRange.of(picture)
        for top, values in strips(picture):
            stored[top : top + len(values)] = scale(values)[..., None]
        return result
    transparent = picture.has_transparency_data
    for top, part in _parts(picture):
        stored[top : top + part.height] = _rgb(part, transparent)
    return result


def orientation_of(picture: Image.Image) -> int:
    """The EXIF orientation, 1 if it has none."""
    # Damaged EXIF is common and makes Pillow raise nearly anything. It is no reason to refuse a
    # good picture.
    with suppress(Exception):
        orientation = picture.getexif().get(ORIENTATION, 1)
        if orientation in range(1, 9):
            return int(orientation)
    return 1


def strips(picture: Image.Image) -> Iterator[tuple[int, NDArray[Any]]]:
    """Strips of a loaded picture, each with its first row: (rows, w) or (rows, w, bands)."""
    for top, part in _parts(picture):
        yield top, np.asarray(part)


def _parts(picture: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    rows = max(STRIP_PIXELS // max(picture.width, 1), 1)
    for top in range(0, picture.height, rows):
        bottom = min(top + rows, picture.height)
        yield top, picture.crop((0, top, picture.width, bottom))


def _rgb(part: Image.Image, transparent: bool) -> NDArray[np.uint8]:
    if part.mode == "L" and not transparent:
        return np.asarray(part)[..., None]
    if transparent:
        rgba = part.convert("RGBA")
        white = Image.new("RGBA", part.size, "white")
        part = Image.alpha_composite(white, rgba)
    return np.asarray(part if part.mode == "RGB" else part.convert("RGB"))


class GrayRange:
    """Deep gray values to 0-255.

    Args:
        low, high: values of black and white.
        inverted: whether the low value is white.
    """

    def __init__(self, low: float, high: float, inverted: bool = False) -> None:
        self.low, self.high, self.inverted = low, high, inverted

    @classmethod
    def of(cls, picture: Image.Image) -> GrayRange:
        """The range of a picture: by its own tags, else guessed from its values.

        The guess is robust: the values at both ends of the range do not count, `OUTLIERS` of them.
        Whole numbers are taken for 8, 12 or 16 bits, or as many as the file names, whichever holds
        them; fractions for a range of 0 to 1 or of 0 to 255; what exceeds all of these ends at its
        own highest value.
        """
        tags: Any = getattr(picture, "tag_v2", {})
        inverted = tags.get(PHOTOMETRIC) == 0
        low, high = _extent(picture)
        for lowest, highest in SAMPLE_RANGES:
            black, white = _number(tags.get(lowest)) or 0.0, _number(tags.get(highest))
            if white is not None and black < white <= TAG_MARGIN * high:
                return cls(black, white, inverted)
        if picture.mode == "F":
            limits = [1.0] if high <= 1 else [high] if high <= MOST_HIGHLIGHT else [255.0]
        else:
            limits = [255.0, 65535.0] if picture.mode == "I" else [4095.0, 65535.0]
            bits = _number(tags.get(BITS_PER_SAMPLE) or picture.info.get(SIGNIFICANT_BITS))
            if bits is not None and 8 <= bits <= 16:
                limits.append(2.0**bits - 1)
        full = next((limit for limit in sorted(limits) if high <= limit), high)
        return cls(min(low, 0.0), full, inverted)

    def __call__(self, values: NDArray[Any]) -> NDArray[np.uint8]:
        """Values of any shape as uint8."""
        kept = np.clip(np.nan_to_num(values.astype(np.float32)), self.low, self.high)
        kept -= np.float32(self.low)
        kept *= np.float32(255.0 / max(self.high - self.low, 1e-30))
        gray = (kept + np.float32(0.5)).astype(np.uint8)
        return np.asarray(255 - gray if self.inverted else gray, np.uint8)


def _extent(picture: Image.Image) -> tuple[float, float]:
    """The lowest and the highest value that count."""
    step = max(picture.width * picture.height // SAMPLED, 1)
    sample = np.concatenate([values.ravel()[::step] for _, values in strips(picture)])
    sample = sample[np.isfinite(sample)]
    if not sample.size:
        return 0.0, 0.0
    low = np.percentile(sample, OUTLIERS, method="higher")
    high = np.percentile(sample, 100 - OUTLIERS, method="lower")
    return float(low), float(high)


def highest(picture: Image.Image, bands: int) -> float:
    """The highest value that counts of the first bands of a picture."""
    step = max(picture.width * picture.height // SAMPLED, 1)
    parts = [values[..., :bands].reshape(-1, bands)[::step] for _, values in strips(picture)]
    return float(np.percentile(np.concatenate(parts).ravel(), 100 - OUTLIERS, method="lower"))


def _number(value: Any) -> float | None:
    """A tag's value as a number, the first of several; None if it is none."""
    with suppress(TypeError, ValueError, ZeroDivisionError, IndexError):
        number = float(value[0] if isinstance(value, tuple) else value)
        return number if np.isfinite(number) else None
    return None
