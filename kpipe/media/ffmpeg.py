"""What video files have in common, through PyAV (FFmpeg's libraries): the extra `video`."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import av.error
from av.container import InputContainer

from kpipe.errors import VideoError
from kpipe.media.formats import FILE_OPTIONS
from kpipe.utils.files import display_name

CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
"""Endings of the files that can be written, and FFmpeg's names of their formats."""


AHEAD = 8
"""Frames that are decoded before they are asked for, at most."""


AHEAD_BYTES = 256 << 20
"""Memory that these frames take, at most, unless a single one takes more [bytes]."""


URL_PATIENCE = 30.0
"""Seconds that an address may take to open, or to send more."""


ODD_TITLES: dict[str, Any] = (
    {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
)
"""PyAV before 19 must be told to read a file whose title is not in UTF-8; 19 always does."""


def open_input(path: str) -> InputContainer:
    """A file, or a URL, opened to be read.

    Raises:
        VideoError: it cannot be opened; the message says why.
    """
    name = display_name(path)
    if "://" not in path:
        try:
            mode = Path(path).stat().st_mode
            if stat.S_ISDIR(mode):
                raise VideoError(f"{name}: a folder, not a video")
            if not stat.S_ISREG(mode):
                raise VideoError(f"{name}: a pipe or device, not a file")
            with Path(path).open("rb") as file:
                if not file.read(1):
                    raise VideoError(f"{name}: empty")
        except (OSError, ValueError) as error:
            if isinstance(error, VideoError):
                raise
            raise VideoError(f"{name}: {reason_of(error)}") from None
    try:
        if "://" in path:
            container: InputContainer = av.open(path, timeout=URL_PATIENCE, **ODD_TITLES)
        else:
            # As a whole path: FFmpeg takes what stands before a colon for a protocol.
            container = av.open(str(Path(path).absolute()), options=FILE_OPTIONS, **ODD_TITLES)
        return container
    # FFmpeg calls a format that it must not read an invalid argument.
    except (av.error.InvalidDataError, av.error.ArgumentError):
        raise VideoError(
            f"{name}: not a video in a format that is read, or cut off before its index"
        ) from None
    except MemoryError:
        raise VideoError(f"{name}: needs more memory than there is") from None
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise VideoError(f"{name}: cannot be opened ({reason_of(error)})") from None


def frames_ahead(width: int, height: int) -> int:
    """How many frames may wait decoded.

    Args:
        width, height: of a frame [px].
    """
    return max(min(AHEAD, AHEAD_BYTES // max(width * height * 3, 1)), 1)


def reason_of(error: BaseException) -> str:
    """Why something failed, without the file's name."""
    return str(getattr(error, "strerror", None) or error or type(error).__name__)
