"""The content of a picture file to a decoded Pillow picture: closed formats, bounded memory."""

from __future__ import annotations

import ctypes
import functools
import io
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError, _imaging

from kpipe.errors import ImageError
from kpipe.media.formats import HEIF_BRANDS, PICTURE_FORMATS, UNREAD
from kpipe.media.limits import PIXEL_SETTING, check_memory, setting
from kpipe.media.pixels import SIGNIFICANT_BITS, STRIP_PIXELS, highest, strips

STORED_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2, "I;16N": 2}
"""Bytes of a pixel as Pillow keeps it, by mode; 4 in all other modes."""

DECODER_BYTES = {"JPEG": 6, "MPO": 6, "WEBP": 12, "AVIF": 12, "HEIF": 12, "JPEG2000": 16, "TIFF": 4}
"""Bytes of a pixel that the decoder of a format needs besides, at most: the coefficients of a
progressive JPEG, the canvases of WebP, the 32-bit samples of JPEG 2000."""

DEEP_BYTES = 8
"""Bytes of a pixel of 16 bits a color and alpha, which `_scale_twelve_bits` decodes."""

RESULT_BYTES = 3
"""Bytes of a pixel of the result, RGB."""

LEAST_SHARE = 0.5
"""Share of a picture that must be decoded: a picture with less of it is an error."""

MISSING: dict[str, Any] = {
    "L": 128,
    "RGB": (128, 128, 128),
    "RGBA": (128, 128, 128, 255),
    "P": 255,
    "CMYK": (127,) * 4,
}
"""What stands for pixels that are missing, by mode: mid gray, as JPEG's decoder has it."""

TWELVE_BITS = 4095
"""The highest value of 12 bits, which many cameras and microscopes put into 16."""

END_MISSING = "its end is missing, but no pixel is"

OUT_OF_MEMORY = "needs more memory than there is, or than --memory gives a worker of a batch job"


JPEG_END = b"\xff\xd9"


# What Pillow logs of a damaged file would go to standard error where no one has asked for logs.
logging.getLogger("PIL").addHandler(logging.NullHandler())


class Decoded(NamedTuple):
    """A decoded picture.

    Attributes:
        picture: loaded, not yet upright.
        warning: one line on what is missing, or None.
    """

    picture: Image.Image
    warning: str | None


def decode(content: bytes, name: str) -> Decoded:
    """Decodes a picture; of one that is cut short, what is there.

    Args:
        content: of the file.
        name: what errors call it.

    Raises:
        ImageError: the format is not read, the picture is too large, or less than half of it can be
            decoded.
    """
    if not content:
        raise ImageError(f"{name}: empty")
    try:
        picture = _open(content, name)
        deep = _is_deep_color(picture)
        reason = _load(picture)
        if reason is not None:
            # Not held beside the one below.
            del picture
            rescued = _rescue(content, name)
            if rescued is None:
                raise ImageError(f"{name}: damaged or incomplete picture ({reason})")
            return rescued
        if picture.format == "PNG":
            picture.info[SIGNIFICANT_BITS] = _significant_bits(content)
        if deep:
            _scale_twelve_bits(picture, content)
        return Decoded(picture, None)
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError(f"{name}: {_unread(content)}") from None
    except Image.DecompressionBombError:
        raise ImageError(
            f"{name}: larger than the limit of {_megapixels():.0f} megapixels; {PIXEL_SETTING} "
            "raises it"
        ) from None
    except MemoryError:
        raise ImageError(f"{name}: {OUT_OF_MEMORY}") from None
    except Exception as error:  # a header that its plugin stumbles on, see `_load`
        rescued = _rescue(content, name)
        if rescued is not None:
            return rescued
        raise ImageError(f"{name}: damaged or incomplete picture ({_words(error)})") from None


def _load(picture: Image.Image) -> str | None:
    """Decodes a picture; why that failed, or None."""
    try:
        picture.load()
    except (MemoryError, Image.DecompressionBombError):
        raise
    # Pillow's decoders raise whatever a damaged file makes them stumble on: OSError, SyntaxError,
    # ValueError, struct.error, zlib.error, IndexError …
    except Exception as error:
        return _words(error)
    return None


def _words(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _is_deep_color(picture: Image.Image) -> bool:
    """Whether a picture that is not loaded yet has 16 bits a color: Pillow drops the lower 8."""
    if picture.mode not in ("RGB", "RGBA"):
        return False
    tiles = getattr(picture, "tile", [])
    return any(";16" in str(tile[3]) for tile in tiles)


def _scale_twelve_bits(picture: Image.Image, content: bytes) -> None:
    """Brightens a picture that has 12 bits a color in 16, of which Pillow has kept 4.

    Args:
        picture: loaded, changed in place.
        content: of its file.
    """
    if highest(picture, len("RGB")) > TWELVE_BITS >> 8:
        return
    from kpipe.utils.opencv import cv2

    with suppress(cv2.error):
        values = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
        if values is None or values.dtype != np.uint16 or values.ndim != 3:
            return
        if values.shape[1::-1] != picture.size:
            return
        rows = max(STRIP_PIXELS // picture.width, 1)
        for top in range(0, picture.height, rows):
            part = values[top : top + rows]
            scaled = np.minimum(part, TWELVE_BITS)
            scaled = cv2.convertScaleAbs(scaled, alpha=255 / TWELVE_BITS)
            if part.shape[2] == 4:
                scaled[..., 3] = np.asarray(part[..., 3] // 256, np.uint8)
            colors = cv2.COLOR_BGR2RGB if part.shape[2] == 3 else cv2.COLOR_BGRA2RGBA
            strip = Image.fromarray(cv2.cvtColor(scaled, colors)).convert(picture.mode)
            picture.paste(strip, (0, top))


def _significant_bits(content: bytes) -> int | None:
    """The bits of a gray PNG that its sBIT chunk says to be used; None if it has none."""
    place = content.find(b"sBIT", 0, max(content.find(b"IDAT"), 0))
    return content[place + 4] if place > 0 else None


def _open(content: bytes, name: str) -> Image.Image:
    """A picture that is not decoded yet, of a format that is read and not too large."""
    formats: tuple[str, ...] = PICTURE_FORMATS
    if content[4:12] in HEIF_BRANDS:
        try:
            from pillow_heif import register_heif_opener
        except ImportError:
            raise ImageError(
                f"{name}: HEIC needs one more package: pip install pillow-heif"
            ) from None
        register_heif_opener()
        formats = ("HEIF", "AVIF")
    _silence_libtiff()
    if os.environ.get(PIXEL_SETTING):
        # Pillow refuses pictures of twice as many pixels.
        Image.MAX_IMAGE_PIXELS = round(setting(PIXEL_SETTING, 0.0) * 1e6 / 2)
    picture = Image.open(io.BytesIO(content), formats=[f for f in formats if _known(f)])
    check_memory(needed_memory(picture, len(content)), *picture.size, name)
    return picture


def _known(format_: str) -> bool:
    """Whether Pillow has a plugin for a format."""
    if format_ not in Image.OPEN:
        Image.init()
    return format_ in Image.OPEN


def _unread(content: bytes) -> str:
    """Why a file is not read that no plugin takes."""
    start = content[:64].lstrip()
    kind = next((kind for magic, kind in UNREAD if start.startswith(magic)), None)
    if kind is not None:
        return f"{kind} is not read; save the picture as JPEG or PNG"
    # Read by a plugin of those that know their files by their beginning, but for its header.
    prefix = content[:16].ljust(16, b"\0")
    if any(accepts and accepts(prefix) is True for accepts in _accepting()):
        return "damaged or incomplete picture, or stored in a way that is not read"
    return "not a picture in a format that is read (JPEG, PNG, WebP, TIFF, HEIC, AVIF and others)"


def _accepting() -> list[Callable[[bytes], object] | None]:
    return [Image.OPEN[format_][1] for format_ in PICTURE_FORMATS if _known(format_)]


# Limits


def _megapixels() -> float:
    return 2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6


def needed_memory(picture: Image.Image, size: int) -> int:
    """About how much memory reading a picture takes [bytes], at most, by its header.

    Args:
        picture: opened, not loaded.
        size: of the file [bytes].
    """
    stored = STORED_BYTES.get(picture.mode, 4)
    decoder = DECODER_BYTES.get(picture.format or "", 0)
    if _is_deep_color(picture):
        decoder = max(decoder, DEEP_BYTES)
    return picture.width * picture.height * (stored + decoder + RESULT_BYTES) + 2 * size


@functools.cache
def _silence_libtiff() -> None:
    """Keeps libtiff from writing to standard error: what it complains of becomes an error here.

    Only the handlers of the library that Pillow has loaded are taken out; where they cannot be
    reached, they stay.
    """
    with suppress(OSError, AttributeError, TypeError):
        library = ctypes.CDLL(_imaging.__file__)
        for setter in (library.TIFFSetWarningHandler, library.TIFFSetErrorHandler):
            setter.argtypes, setter.restype = [ctypes.c_void_p], ctypes.c_void_p
            setter(None)


# Pictures that are cut short


def _rescue(content: bytes, name: str) -> Decoded | None:
    """What can be decoded of a damaged picture; None if that is less than half.

    Pillow's own switch for this, `LOAD_TRUNCATED_IMAGES`, holds for all threads of a program.
    """
    try:
        picture = _rescued(content, name)
        # It decodes again where Pillow has not finished.
        share = _share(picture)
    except (MemoryError, ImageError):
        raise
    except Exception:  # as in `_load`
        return None
    if share < LEAST_SHARE:
        return None
    if share == 1:
        return Decoded(picture, END_MISSING)
    return Decoded(picture, f"cut short or damaged: {int(share * 100)} % of it could be decoded")


def _rescued(content: bytes, name: str) -> Image.Image:
    """The decodable part of a picture, gray where it is missing."""
    if content.startswith(b"\xff\xd8"):
        # With its end marked, the decoder gives all that it has, and gray for the rest.
        picture = _open(content + JPEG_END, name)
        picture.load()
        return picture
    return _padded_webp(content, name) if content.startswith(b"RIFF") else _partial(content, name)


def _partial(content: bytes, name: str) -> Image.Image:
    """The picture as its decoder left it when it failed, the rest gray."""
    picture = _open(content, name)
    assert isinstance(picture, ImageFile.ImageFile)
    picture.load_prepare()
    if picture.mode in MISSING:
        picture.im.paste(MISSING[picture.mode], (0, 0, *picture.im.size))
    _load(picture)
    # With no tile left to be decoded, Pillow takes the picture for loaded.
    picture.tile = []
    return picture


def _padded_webp(content: bytes, name: str) -> Image.Image:
    """A WebP picture whose missing bytes are zero, with gray in place of what those decode to.

    Its decoder takes whole files only. Rows are stored from the top, so the share of the bytes is
    about that of the rows.
    """
    size = int.from_bytes(content[4:8], "little") + 8
    share = len(content) / size
    if share < LEAST_SHARE:
        raise ImageError(f"{name}: incomplete picture: less than half of it is there")
    picture = _open(content.ljust(size, b"\0"), name)
    picture.load()
    width, height = picture.size
    picture.paste(MISSING[picture.mode], (0, int(height * share), width, height))
    return picture


def _share(picture: Image.Image) -> float:
    """Share of the pixels that are decoded: that are not what stands for missing ones."""
    last = picture.getpixel((picture.width - 1, picture.height - 1))
    # GIF's decoder chooses what stands for them itself.
    known = MISSING if picture.format != "GIF" else {}
    missing = np.asarray(known.get(picture.mode, last))
    count = sum(
        int(np.all(np.atleast_3d(values) == missing, axis=2).sum()) for _, values in strips(picture)
    )
    # A whole picture has a few pixels of that color too.
    if not np.array_equal(np.asarray(last), missing):
        count = 0 if count * 100 < picture.width * picture.height else count
    return 1 - count / (picture.width * picture.height)
