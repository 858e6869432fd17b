"""Pictures from files and into files: many formats in, upright RGB out, and clear errors."""

from __future__ import annotations

import io
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin

from kpipe.errors import ImageError, reason_of
from kpipe.media.decoding import END_MISSING, OUT_OF_MEMORY, decode
from kpipe.media.limits import check_size
from kpipe.media.pixels import ORIENTATION, upright_rgb
from kpipe.utils.files import display_name

QUALITY = 95
"""JPEG and WebP quality where the photograph itself sets none."""


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
        jpeg: quantization tables and subsampling of a JPEG file, as Pillow's `save` takes them.
        warning: one line on what is missing of a picture that is cut short, or None.
    """

    image: NDArray[np.uint8]
    exif: bytes
    icc: bytes | None
    jpeg: dict[str, Any]
    warning: str | None = None


Source = str | os.PathLike[str] | bytes
"""A file's path, or its content."""


def read_image(source: Source) -> NDArray[np.uint8]:
    """The picture as (h, w, 3) uint8, RGB, upright by its EXIF orientation.

    Reads the formats of `kpipe.media.formats` (JPEG, PNG, WebP, TIFF, BMP, the first frame
    of a GIF, AVIF and more), of any depth and color space; transparent pictures are put on white;
    HEIC where `pillow-heif` is installed.

    Args:
        source: a path, or the bytes of a file.

    Raises:
        ImageError: there is no such file, its format is not read, pixels are missing (`read_photo`
            reads what is there), or it is too large: more than 179 megapixels or 4 GB of memory
            (`KPIPE_MAX_MEGAPIXELS` and `KPIPE_MAX_MEMORY_GB` raise that).
    """
    photo = read_photo(source)
    if photo.warning is not None and photo.warning != END_MISSING:
        name = "the picture" if isinstance(source, bytes) else display_name(source)
        raise ImageError(f"{name}: {photo.warning} (read_photo returns that)")
    return photo.image


def read_photo(source: Source, name: str = "the picture") -> Photo:
    """As `read_image`, with what has to be kept when the picture is written again.

    A picture that is cut short is read as far as it goes, if half of it is there; its `warning`
    says so.

    Args:
        source: a path, or the bytes of a file.
        name: what errors call a picture that comes as bytes.
    """
    if isinstance(source, bytes):
        return _photo(source, name)
    return _photo(_content(Path(source)), display_name(source))


def _content(path: Path) -> bytes:
    name = display_name(path)
    try:
        status = path.stat()
        mode = status.st_mode
        if stat.S_ISDIR(mode):
            raise ImageError(f"{name}: a folder, not a picture")
        if not stat.S_ISREG(mode):
            raise ImageError(f"{name}: a pipe or device, not a file; use - to read standard input")
        check_size(status.st_size, name)
        return path.read_bytes()
    except ImageError:
        raise
    except MemoryError:
        raise ImageError(f"{name}: {OUT_OF_MEMORY}") from None
    except FileNotFoundError:
        raise ImageError(f"{name}: no such file") from None
    except PermissionError:
        raise ImageError(f"{name}: no permission to read it") from None
    except (OSError, ValueError) as error:
        raise ImageError(f"{name}: {getattr(error, 'strerror', None) or error}") from None


def _photo(content: bytes, name: str) -> Photo:
    picture, warning = decode(content, name)
    with picture:
        jpeg: dict[str, Any] = {}
        if isinstance(picture, JpegImagePlugin.JpegImageFile) and picture.mode in ("RGB", "L"):
            jpeg = {"qtables": dict(picture.quantization)}
            subsampling = JpegImagePlugin.get_sampling(picture)
            if subsampling >= 0:
                jpeg["subsampling"] = subsampling
        # A profile describes pixels of its own color space: after conversion from another it is
        # wrong.
        icc = picture.info.get("icc_profile") if picture.mode in ("RGB", "RGBA", "P") else None
        try:
            return Photo(upright_rgb(picture), _exif(picture), icc, jpeg, warning)
        except MemoryError:
            raise ImageError(f"{name}: {OUT_OF_MEMORY}") from None
        except Exception as error:  # such as a palette that is too short
            raise ImageError(f"{name}: damaged picture ({reason_of(error)})") from None


def _exif(picture: Image.Image) -> bytes:
    # Damaged EXIF is common and makes Pillow raise nearly anything. It is no reason to refuse a
    # good picture.
    try:
        exif = picture.getexif()
        for tag in (ORIENTATION, *TIFF_STRUCTURE):
            exif.pop(tag, None)
        content = exif.tobytes() if len(exif) else b""
    except Exception:
        return b""
    return content if len(content) <= LONGEST_EXIF else b""


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
