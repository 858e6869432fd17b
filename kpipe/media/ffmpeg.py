"""What video files have in common, through PyAV (FFmpeg's libraries): the extra `video`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av.error
from av.container import InputContainer

from kpipe.errors import VideoError
from kpipe.utils.files import display_name

CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
"""Endings of the files that can be written, and FFmpeg's names of their formats."""


AHEAD = 8
"""Frames that are decoded before they are asked for."""


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
            if Path(path).is_dir():
                raise VideoError(f"{name}: a folder, not a video")
            with Path(path).open("rb") as file:
                if not file.read(1):
                    raise VideoError(f"{name}: empty")
        except (OSError, ValueError) as error:
            if isinstance(error, VideoError):
                raise
            raise VideoError(f"{name}: {reason_of(error)}") from None
    try:
        # As a whole path: FFmpeg takes what stands before a colon for a protocol.
        place = path if "://" in path else str(Path(path).absolute())
        container: InputContainer = av.open(place, **ODD_TITLES)
        return container
    except av.error.InvalidDataError:
        raise VideoError(
            f"{name}: not a video in a format known here, or cut off before its index"
        ) from None
    except (av.error.FFmpegError, OSError) as error:
        raise VideoError(f"{name}: cannot be opened ({reason_of(error)})") from None


def reason_of(error: BaseException) -> str:
    """Why something failed, without the file's name."""
    return str(getattr(error, "strerror", None) or error or type(error).__name__)
