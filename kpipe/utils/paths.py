"""Paths of results: the only place where a name from a record becomes part of a path.

Names of photographs use `/` between folders on every system, and are input: they may be hostile.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from kpipe.errors import FormatError
from kpipe.utils.files import display_name

MAX_PART = 255
"""Bytes in one part of a path: the limit of common file systems."""

MAX_PARTS = 100
"""Folders inside each other, and the file. Functions that make or scan folders call themselves."""

RESERVED = re.compile(r'[<>:"\\|?*\x00-\x1f]|[. ]$')
"""What Windows does not allow in one part of a path, or reads as more than a character."""

DEVICES = re.compile(r"(?i)(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9\xb9\xb2\xb3])\s*(\..*)?")
"""Names that are devices on Windows, whatever their ending."""


def inside(name: str, windows: bool = os.name == "nt") -> str:
    """A photograph's name as a relative path that cannot leave the folder it is joined to.

    `/` separates folders; empty parts and `.` are left out, `..` becomes `__`. Of more than
    `MAX_PARTS` parts, those before the last become one. All other characters
    stay what they are on POSIX systems, a backslash too. On Windows, characters that its file names
    cannot hold, a dot or blank at the end, and the first letter of a device's name become `%` and
    two hexadecimal digits, so that a drive or a backslash is part of an ordinary name.

    Args:
        name: of a photograph or video, in a record.
        windows: whether the path is for Windows.
    """
    parts = [part for part in name.replace("://", "/").split("/") if part not in ("", ".")]
    if len(parts) > MAX_PARTS:
        rest = "/".join(parts[MAX_PARTS - 2 : -1])
        parts = [*parts[: MAX_PARTS - 2], _mark(rest.encode("utf-8", "surrogatepass")), parts[-1]]
    return "/".join("__" if part == ".." else _allowed(part, windows) for part in parts)


def _allowed(part: str, windows: bool) -> str:
    part = part.replace("\0", "%00")
    if not windows:
        return part
    part = RESERVED.sub(lambda match: f"%{ord(match[0]):02X}", part)
    return f"%{ord(part[0]):02X}{part[1:]}" if DEVICES.fullmatch(part) else part


def is_file(path: Path) -> bool:
    """Whether there is a file of this name, which may be longer than the disk allows."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def result_path(folder: Path, name: str, suffix: str) -> Path:
    """The path of one file of results.

    Args:
        folder: of the results.
        name: relative, from `inside`. A part longer than `MAX_PART` bytes is cut; the first digits
            of its SHA-256 keep it apart from others.
        suffix: what the file's name ends in, such as `.pts`.

    Raises:
        FormatError: the name is empty, or a link in the folder leads out of it.
    """
    parts = inside(name).split("/")
    if not parts[-1]:
        raise FormatError(f"{display_name(name) or 'a photograph'}: no name for a file")
    parts = [*(_cut(part, "") for part in parts[:-1]), _cut(parts[-1], suffix)]
    path = folder.joinpath(*parts)
    if not Path(os.path.realpath(path.parent)).is_relative_to(os.path.realpath(folder)):
        raise FormatError(
            f"{display_name(path)}: a link leads out of {display_name(folder)}; remove it or "
            "choose another folder"
        )
    return path


def _cut(part: str, suffix: str) -> str:
    content = os.fsencode(part)
    room = MAX_PART - len(os.fsencode(suffix))
    if len(content) > room:
        mark = _mark(content)
        # A character that is cut in two is left out: some file systems take whole ones alone.
        part = content[: room - len(mark)].decode("utf-8", "ignore") + mark
    return part + suffix


def _mark(content: bytes) -> str:
    """A short text in place of a long one."""
    return f"~{hashlib.sha256(content).hexdigest()[:16]}"
