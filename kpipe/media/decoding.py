"""The content of a picture file to a decoded Pillow picture: closed formats, bounded memory."""

from __future__ import annotations

import ctypes
import functools
import io
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError, _imaging

from kpipe.errors import ImageError
from kpipe.media.pixels import SIGNIFICANT_BITS, strips

FORMATS = (
    "JPEG",
    "MPO",
    "PNG",
    "WEBP",
    "TIFF",
    "BMP",
    "DIB",
    "GIF",
    "AVIF",
    "HEIF",
    "JPEG2000",
    "PPM",
    "PSD",
    "ICO",
    "ICNS",
    "SGI",
    "QOI",
    "PCX",
    "TGA",
)
"""The formats that are read, by Pillow's names. Pillow knows more, some of which start another
program (PostScript starts Ghostscript) or open further files."""

UNREAD = (
    (b"%!PS", "PostScript"),
    (b"\xc5\xd0\xd3\xc6", "PostScript"),
    (b"%PDF", "PDF"),
    (b"\xd7\xcd\xc6\x9a", "WMF"),
    (b"\x01\0\0\0l\0\0\0", "EMF"),
    (b"\xd0\xcf\x11\xe0", "FlashPix"),
    (b"<svg", "SVG"),
    (b"<?xml", "XML"),
)
"""How files of other kinds begin, and their names."""

HEIF_BRANDS = (b"ftypheic", b"ftypheix", b"ftyphevc", b"ftypheim", b"ftypmif1", b"ftypmsf1")
"""Bytes 4 to 12 of the files that `pillow-heif` reads."""

MEMORY_SETTING, DEFAULT_MEMORY = "KPIPE_MEMORY", 4.0
"""The environment variable with the most memory that reading a picture may take, and its default
[GiB]. The largest pictures that Pillow accepts need less in every format."""

PIXEL_SETTING = "KPIPE_MEGAPIXELS"
"""The environment variable with the most megapixels of a picture. Without it Pillow's limit holds,
179."""

STORED_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2, "I;16N": 2}
"""Bytes of a pixel as Pillow keeps it, by mode; 4 in all other modes."""

DECODER_BYTES = {"JPEG": 6, "MPO": 6, "WEBP": 12, "AVIF": 12, "HEIF": 12, "JPEG2000": 16, "TIFF": 4}
"""Bytes of a pixel that the decoder of a format needs besides, at most: the coefficients of a
progressive JPEG, the canvases of WebP, the 32-bit samples of JPEG 2000."""

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

END_MISSING = "its end is missing, but no pixel is"

OUT_OF_MEMORY = "needs more memory than there is, or than --memory gives a worker of a batch job"


JPEG_END = b"\xff\xd9"


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
        _check_memory(picture, len(content), name)
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


def _significant_bits(content: bytes) -> int | None:
    """The bits of a gray PNG that its sBIT chunk says to be used; None if it has none."""
    place = content.find(b"sBIT", 0, max(content.find(b"IDAT"), 0))
    return content[place + 4] if place > 0 else None


def _open(content: bytes, name: str) -> Image.Image:
    formats: tuple[str, ...] = FORMATS
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
        Image.MAX_IMAGE_PIXELS = round(_setting(PIXEL_SETTING, 0.0) * 1e6 / 2)
    return Image.open(io.BytesIO(content), formats=[f for f in formats if _known(f)])


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
    if any(accepts and accepts(content[:16]) is True for accepts in _accepting()):
        return "damaged or incomplete picture (its header)"
    return "not a picture in a format that is read (JPEG, PNG, WebP, TIFF, HEIC, AVIF and others)"


def _accepting() -> list[Callable[[bytes], object] | None]:
    return [Image.OPEN[format_][1] for format_ in FORMATS if _known(format_)]


# Limits


def _megapixels() -> float:
    return 2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6


def _setting(name: str, default: float) -> float:
    """A positive number from the environment.

    Raises:
        ImageError: it is none.
    """
    text = os.environ.get(name)
    if not text:
        return default
    with suppress(ValueError):
        if 0 < (value := float(text)) < 1e9:
            return value
    raise ImageError(f"{name}={text}: not a positive number")


def memory_limit() -> float:
    """The most memory that reading a picture may take [bytes].

    Raises:
        ImageError: `KPIPE_MEMORY` is no number.
    """
    limit = _setting(MEMORY_SETTING, DEFAULT_MEMORY) * 2**30
    with suppress(ImportError, AttributeError, OSError):
        import resource

        # Workers of a batch job have a limit of their own, which --memory sets.
        own, _ = resource.getrlimit(resource.RLIMIT_DATA)
        if own != resource.RLIM_INFINITY:
            limit = min(limit, own) if MEMORY_SETTING in os.environ else own
    return limit


def needed_memory(picture: Image.Image, size: int) -> int:
    """About how much memory reading a picture takes [bytes], at most, by its header.

    Args:
        picture: opened, not loaded.
        size: of the file [bytes].
    """
    stored = STORED_BYTES.get(picture.mode, 4)
    decoder = DECODER_BYTES.get(picture.format or "", 0)
    return picture.width * picture.height * (stored + decoder + RESULT_BYTES) + 2 * size


def check_size(size: int, name: str) -> None:
    """Refuses a file that is too large to be held in memory.

    Args:
        size: of the file [bytes].
        name: what errors call it.

    Raises:
        ImageError: it is too large.
    """
    if size > (limit := memory_limit()):
        raise ImageError(
            f"{name}: {size / 2**30:.1f} GB, the limit is {limit / 2**30:.1f} GB; {MEMORY_SETTING} "
            "raises it"
        )


def _check_memory(picture: Image.Image, size: int, name: str) -> None:
    needed, limit = needed_memory(picture, size), memory_limit()
    if needed > limit:
        raise ImageError(
            f"{name}: {picture.width} x {picture.height} pixels need about {needed / 2**30:.1f} GB "
            f"of memory, the limit is {limit / 2**30:.1f} GB; {MEMORY_SETTING} raises it, and "
            "--memory that of a batch job"
        )


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
    except MemoryError:
        raise
    except Exception:  # as in `_load`
        return None
    share = _share(picture)
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
    with suppress(Exception):
        picture.load()
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
        raise ImageError(f"{name}: less than half of it is there")
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
