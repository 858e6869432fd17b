"""Photographs at addresses - `s3://`, `gs://`, `https://`, whatever fsspec reads."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from kpipe.errors import ReadError, SourceError, reason_of


def is_address(text: str) -> bool:
    """Whether this is `s3://…`, `https://…` and the like, not a path."""
    scheme, separator, _ = text.partition("://")
    return bool(separator) and scheme.replace("+", "").isalnum()


def list_files(address: str) -> Iterator[tuple[str, str, int, int]]:
    """The files below an address.

    Yields:
        Path inside the address (empty if the address is itself a file), address, size (bytes, -1
        if unknown) and time of the last change (nanoseconds, 0 if unknown).

    Raises:
        SourceError: fsspec or the package for this kind of address is not installed.
        OSError: the storage cannot be listed.
    """
    system, path = _system(address)
    try:
        if system.isfile(path):
            yield "", address, *_size_and_time(system.info(path))
            return
        # Folder by folder: one listing of everything would hold all names in memory.
        for folder, _, files in system.walk(path, detail=True):
            for details in files.values():
                full = details["name"]
                inside = full[len(path) :].lstrip("/") if full.startswith(path) else full
                place = system.unstrip_protocol(full) if folder else full
                yield inside, place, *_size_and_time(details)
    except OSError:
        raise
    except Exception as error:  # each kind of storage raises its own
        raise OSError(reason_of(error)) from None


def download(address: str, largest: int) -> bytes:
    """The bytes at an address; of a file that is too large one byte more than it may have.

    Args:
        address: of a file.
        largest: bytes that it may have.

    Raises:
        ReadError: the storage does not deliver them.
    """
    try:
        system, path = _system(address)
        content: bytes = system.cat_file(path, end=largest + 1)
    except FileNotFoundError:
        raise ReadError("no such file") from None
    except Exception as error:  # each kind of storage raises its own
        raise ReadError(reason_of(error)) from None
    return content


def _system(address: str) -> tuple[Any, str]:
    try:
        from fsspec.core import url_to_fs

        system, path = url_to_fs(address)
    except ImportError as error:
        raise SourceError(
            f"{address}: needs one more package ({error}); pip install 'kpipe[ray]' has fsspec, "
            "s3fs and gcsfs are for s3:// and gs://"
        ) from None
    except ValueError as error:
        raise SourceError(f"{address}: {error}") from None
    return system, path


def _size_and_time(details: dict[str, Any]) -> tuple[int, int]:
    size = details.get("size")
    changed = details.get("LastModified") or details.get("mtime") or details.get("updated")
    if isinstance(changed, str):
        try:
            changed = datetime.fromisoformat(changed.replace("Z", "+00:00"))
        except ValueError:
            changed = 0
    if isinstance(changed, datetime):
        changed = changed.timestamp()
    return (-1 if size is None else int(size)), int(float(changed or 0) * 10**9)
