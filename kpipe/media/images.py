"""Pictures from files and into files: many formats in, upright RGB out, and clear errors."""

from __future__ import annotations

import contextlib
import io
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, JpegImagePlugin, UnidentifiedImageError

from kpipe.errors import ImageError
from kpipe.utils.files import display_name

QUALITY = 95
"""JPEG and WebP quality where the photograph itself sets none."""


HEIF_BRANDS = (b"ftypheic", b"ftypheix", b"ftyphevc", b"ftypheim", b"ftypmif1", b"ftypmsf1")


ORIENTATION = 0x0112


TIFF_STRUCTURE = (
    254,
    256,
    257,
    258,
    259,
    262,
    266,
    273,
    277,
    278,
    279,
    284,
    317,
    320,
    322,
    323,
    324,
    325,
    338,
    339,
    340,
    341,
    347,
    *range(529, 533),
)
"""Tags that say how a TIFF file stores its pixels: they would be wrong in another file."""


LONGEST_EXIF = 65_000
"""Bytes: more does not fit into a JPEG file and is left out."""


@dataclass(frozen=True)
class Photo:
    """A picture and what belongs to it besides its pixels.

    Attributes:
        image: (h, w, 3) uint8, RGB, upright.
        exif: EXIF data with the orientation already applied and so removed; empty if none.
        icc: the ICC profile of the pixels as they are here, or None.
        jpeg: quantisation tables and subsampling of a JPEG file, as Pillow's `save` takes them.
    """

    image: NDArray[np.uint8]
    exif: bytes
    icc: bytes | None
    jpeg: dict[str, Any]


Source = str | os.PathLike[str] | bytes
"""A file's path, or its content."""


def read_image(source: Source) -> NDArray[np.uint8]:
    """The picture as (h, w, 3) uint8, RGB, upright by its EXIF orientation.

    Reads what Pillow reads (JPEG, PNG, WebP, TIFF, BMP, the first frame of a GIF, AVIF and more),
    of any depth and colour space; transparent pictures are put on white; HEIC where `pillow-heif`
    is installed.

    Args:
        source: a path, or the bytes of a file.

    Raises:
        ImageError: there is no such file, it is no picture, damaged, or too large to be safe
            (Pillow's limit of 179 megapixels).
    """
    return read_photo(source).image


def read_photo(source: Source, name: str = "the picture") -> Photo:
    """As `read_image`, with what has to be kept when the picture is written again.

    Args:
        source: a path, or the bytes of a file.
        name: what errors call a picture that comes as bytes.
    """
    if isinstance(source, bytes):
        return _decode(source, name)
    return _decode(_content(Path(source)), display_name(source))


def _content(path: Path) -> bytes:
    name = display_name(path)
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise ImageError(f"{name}: a folder, not a picture")
        if not stat.S_ISREG(mode):
            raise ImageError(f"{name}: a pipe or device, not a file; use - to read standard input")
        return path.read_bytes()
    except ImageError:
        raise
    except FileNotFoundError:
        raise ImageError(f"{name}: no such file") from None
    except PermissionError:
        raise ImageError(f"{name}: no permission to read it") from None
    except (OSError, ValueError) as error:
        raise ImageError(f"{name}: {getattr(error, 'strerror', None) or error}") from None


def _decode(content: bytes, name: str) -> Photo:
    if not content:
        raise ImageError(f"{name}: empty")
    try:
        with _open(content, name) as picture:
            return _photo(picture)
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError(f"{name}: not a picture in a format known here") from None
    except Image.DecompressionBombError:
        megapixels = 2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6
        raise ImageError(f"{name}: larger than the limit of {megapixels:.0f} megapixels") from None
    except MemoryError:
        raise ImageError(f"{name}: too large for this machine's memory") from None
    # Pillow's decoders raise whatever a damaged file makes them stumble on: OSError, SyntaxError,
    # ValueError, struct.error, zlib.error, IndexError …
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(f"{name}: damaged or incomplete picture ({reason})") from None


def _open(content: bytes, name: str) -> Image.Image:
    if content[4:12] in HEIF_BRANDS:
        try:
            from pillow_heif import register_heif_opener
        except ImportError:
            raise ImageError(
                f"{name}: HEIC needs one more package: pip install pillow-heif"
            ) from None
        register_heif_opener()
    return Image.open(io.BytesIO(content))


def _photo(picture: Image.Image) -> Photo:
    jpeg: dict[str, Any] = {}
    if isinstance(picture, JpegImagePlugin.JpegImageFile) and picture.mode in ("RGB", "L"):
        jpeg = {"qtables": dict(picture.quantization)}
        subsampling = JpegImagePlugin.get_sampling(picture)
        if subsampling >= 0:
            jpeg["subsampling"] = subsampling
    mode, icc = picture.mode, picture.info.get("icc_profile")
    picture.load()
    _turn_upright(picture)
    # A profile describes pixels of its own colour space: after conversion from another it is wrong.
    keeps_profile = mode in ("RGB", "RGBA", "P")
    return Photo(
        image=_rgb(picture),
        exif=_exif(picture),
        icc=icc if keeps_profile else None,
        jpeg=jpeg,
    )


# Damaged EXIF is common and makes Pillow raise nearly anything. It is no reason to
# refuse a good picture.


def _turn_upright(picture: Image.Image) -> None:
    with contextlib.suppress(Exception):
        ImageOps.exif_transpose(picture, in_place=True)


def _exif(picture: Image.Image) -> bytes:
    try:
        exif = picture.getexif()
        for tag in (ORIENTATION, *TIFF_STRUCTURE):
            exif.pop(tag, None)
        content = exif.tobytes() if len(exif) else b""
    except Exception:
        return b""
    return content if len(content) <= LONGEST_EXIF else b""


def _rgb(picture: Image.Image) -> NDArray[np.uint8]:
    if picture.mode == "RGB":
        return np.array(picture)
    if picture.mode.startswith("I") or picture.mode == "F":
        return np.repeat(_eight_bit(np.array(picture))[..., None], 3, axis=2)
    if picture.has_transparency_data:
        rgba = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        return np.array(Image.alpha_composite(white, rgba).convert("RGB"))
    return np.array(picture.convert("RGB"))


def _eight_bit(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Gray values of any depth as 0-255.

    Whole numbers are taken for 8, 12 or 16 bits, whichever holds them (two bytes a pixel for 12 or
    16), fractions for a range of 0 to 1; what exceeds all of these is scaled by its maximum.
    """
    whole = np.issubdtype(values.dtype, np.integer)
    limits = (1.0, 255.0) if not whole else (4095.0, 65535.0)
    if whole and values.dtype.itemsize > 2:
        limits = (255.0, 65535.0)
    values = np.nan_to_num(np.asarray(values, np.float64), posinf=0.0, neginf=0.0)
    top = float(values.max(initial=0.0))
    full = next((limit for limit in limits if top <= limit), top)
    return np.clip(values * (255.0 / full) + 0.5, 0, 255).astype(np.uint8)


NOT_WRITTEN = ("HEIF", "ICO", "ICNS")
"""Formats that Pillow writes only once another package is loaded, or in other sizes."""


def _format_of(suffix: str) -> str | None:
    """Pillow's name of a format it writes; rarer plugins are loaded only when asked for."""
    Image.preinit()
    if suffix not in Image.EXTENSION:
        Image.init()
    format_ = Image.EXTENSION.get(suffix)
    return format_ if format_ in Image.SAVE and format_ not in NOT_WRITTEN else None


def can_write(suffix: str) -> bool:
    """Whether pictures can be written to files whose names end so."""
    return _format_of(suffix.lower()) is not None


def encode(image: NDArray[np.uint8], suffix: str, like: Photo | None = None) -> bytes:
    """The bytes of a picture file.

    Args:
        image: (h, w, 3) uint8, RGB.
        suffix: decides the format, such as `.jpg`.
        like: where EXIF, ICC profile and JPEG quality come from.

    Raises:
        ImageError: no format has that suffix.
    """
    format_ = _format_of(suffix.lower())
    if format_ is None:
        raise ImageError(
            f"cannot write pictures named {suffix or 'without an ending'}; try .jpg or .png"
        )
    options: dict[str, Any] = {}
    if like is not None and like.exif:
        options["exif"] = like.exif
    if like is not None and like.icc:
        options["icc_profile"] = like.icc
    if format_ == "JPEG":
        options |= (like.jpeg if like is not None else {}) or {"quality": QUALITY, "subsampling": 0}
    elif format_ == "WEBP":
        options["quality"] = QUALITY
    buffer = io.BytesIO()
    try:
        Image.fromarray(image).save(buffer, format_, **options)
    except Exception as error:  # each encoder has its own way to refuse
        raise ImageError(f"cannot write this picture as {format_}: {error}") from None
    return buffer.getvalue()
