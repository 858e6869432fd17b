"""Parquet, one row a photograph with its faces nested in it: a file, or a folder of files."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError:
    raise ImportError("Parquet needs one more package: pip install 'kpipe[batch]'") from None

from kpipe.errors import FormatError
from kpipe.formats.records import FRAME_PARTS, Record, checked_record, face_record, photo_record
from kpipe.structures.faces import Openness, Pose
from kpipe.utils.files import atomic_file, display_name

GROUP = 2000
"""Photographs in a row group: the most that are in memory at once."""

NUMBERS = pa.list_(pa.float64())

FACE = pa.struct(
    [
        ("box", NUMBERS),
        ("score", pa.float64()),
        ("points", pa.list_(NUMBERS)),
        ("sigma", NUMBERS),
        ("pose", pa.struct([(angle, pa.float64()) for angle in Pose._fields])),
        ("track", pa.int64()),
        ("openness", pa.struct([(part, pa.float64()) for part in Openness._fields])),
        ("blink", pa.bool_()),
    ]
)

SCHEMA = pa.schema(
    [
        ("image", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("scheme", pa.string()),
        ("faces", pa.list_(FACE)),
        ("error", pa.string()),
        # The bytes of a name that is not UTF-8; else null.
        ("image_bytes", pa.binary()),
        # Only of a video's frame; time in seconds.
        ("frame", pa.int64()),
        ("time", pa.float64()),
    ]
)


def read(path: Path) -> Iterator[Record]:
    """The records of a file, or of the files of a folder in the order of their names.

    Raises:
        FormatError: a file cannot be read, or its columns are not those of `SCHEMA`.
    """
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not files:
        raise FormatError(f"{display_name(path)}: no Parquet files in it")
    for file in files:
        try:
            with pq.ParquetFile(file) as table:
                for batch in table.iter_batches(batch_size=GROUP):
                    for row in batch.to_pylist():
                        yield checked_record(_record(row), display_name(file))
        except FormatError:
            raise
        except (OSError, pa.ArrowException) as error:
            reason = " ".join(str(error).split())
            raise FormatError(
                f"{display_name(file)}: not a readable Parquet file ({reason})"
            ) from None
        except (KeyError, TypeError, ValueError) as error:
            raise FormatError(
                f"{display_name(file)}: not the columns of kpipe's Parquet ({error})"
            ) from None


def _record(row: dict[str, Any]) -> Record:
    name = row["image"]
    if row.get("image_bytes") is not None:
        name = row["image_bytes"].decode("utf-8", "surrogateescape")
    faces = [face_record(**face) for face in row["faces"] or []]
    moment = {part: row.get(part) for part in FRAME_PARTS}
    sizes = row["width"], row["height"]
    return photo_record(name, *sizes, faces, row["error"], row["scheme"], **moment)


def _row(record: Record) -> dict[str, Any]:
    """A record as a row of `SCHEMA`. Bytes that are not UTF-8 are escaped in its text."""
    name = record["image"].encode("utf-8", "surrogateescape")
    row = {column: record.get(column) for column in SCHEMA.names}
    text = name.decode("utf-8", "backslashreplace")
    row["image"] = text
    row["image_bytes"] = name if text != record["image"] else None
    if row["error"] is not None:
        row["error"] = row["error"].encode("utf-8", "backslashreplace").decode()
    return row


def write(path: Path, records: Iterable[Record]) -> dict[str, int]:
    """Writes one file. Nothing is dropped: the dict is empty.

    Raises:
        FormatError: a value does not fit its column.
        WriteError: the file cannot be written.
    """
    records = iter(records)
    try:
        with (
            atomic_file(path, "wb") as stream,
            pq.ParquetWriter(stream, SCHEMA, compression="zstd") as table,
        ):
            while rows := [_row(record) for record in itertools.islice(records, GROUP)]:
                table.write_table(pa.Table.from_pylist(rows, SCHEMA))
    except (pa.ArrowException, OverflowError) as error:  # an integer of more than 64 bits
        reason = " ".join(str(error).split())
        raise FormatError(f"{display_name(path)}: cannot be written ({reason})") from None
    return {}
