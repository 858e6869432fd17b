"""Limits on the memory that pictures and frames of videos take, checked before they are decoded."""

from __future__ import annotations

import os
from contextlib import suppress

from kpipe.errors import ImageError, VideoError

MEMORY_SETTING, DEFAULT_MEMORY = "KPIPE_MAX_MEMORY_GB", 4.0
"""The environment variable with the most memory that reading a picture or the frames of a video may
take, and its default [GB]. The largest pictures that Pillow accepts need less in every format."""

PIXEL_SETTING = "KPIPE_MAX_MEGAPIXELS"
"""The environment variable with the most megapixels of a picture. Without it Pillow's limit holds,
179."""

GB = 2**30

FRAME_BYTES = 64
"""Memory of a video for each pixel of a frame [bytes], about: frames that the decoder keeps, that
wait decoded, and that wait to be encoded. Videos of 8192 x 4320 take 2 GB."""


def setting(name: str, default: float) -> float:
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
        ImageError: `KPIPE_MAX_MEMORY_GB` is no number.
    """
    limit = setting(MEMORY_SETTING, DEFAULT_MEMORY) * GB
    with suppress(ImportError, AttributeError, OSError):
        import resource

        # Workers of a batch job have a limit of their own, which --memory sets.
        own, _ = resource.getrlimit(resource.RLIMIT_DATA)
        if own != resource.RLIM_INFINITY:
            limit = min(limit, own) if MEMORY_SETTING in os.environ else own
    return limit


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
            f"{name}: {size / GB:.1f} GB, the limit is {limit / GB:.1f} GB; {MEMORY_SETTING} "
            "raises it"
        )


def check_memory(needed: float, width: int, height: int, name: str) -> None:
    """Refuses a picture that needs too much memory.

    Args:
        needed: to read it [bytes].
        width, height: of the picture [px].
        name: what errors call it.

    Raises:
        ImageError: it needs more than the limit.
    """
    if needed > (limit := memory_limit()):
        raise ImageError(
            f"{name}: {width} x {height} pixels need about {needed / GB:.1f} GB of memory, the "
            f"limit is {limit / GB:.1f} GB; {MEMORY_SETTING} raises it, and --memory that of a "
            "batch job"
        )


def check_frame(width: int, height: int, name: str) -> None:
    """Refuses a video whose frames need too much memory.

    Args:
        width, height: of a frame [px].
        name: what errors call the video.

    Raises:
        VideoError: they need more than the limit.
    """
    needed, limit = width * height * FRAME_BYTES, setting(MEMORY_SETTING, DEFAULT_MEMORY) * GB
    if needed > limit:
        raise VideoError(
            f"{name}: frames of {width} x {height} pixels need about {needed / GB:.1f} GB of "
            f"memory, the limit is {limit / GB:.1f} GB; {MEMORY_SETTING} raises it"
        )
