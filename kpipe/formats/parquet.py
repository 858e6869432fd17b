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
from kpipe.formats.records import (
    FRAME_PARTS,
    MAX_POINTS,
    Record,
    checked_record,
    face_record,
    photo_record,
    results_file,
)
from kpipe.structures.faces import Openness, Pose
from kpipe.utils.files import display_name
from kpipe.utils.limits import DOCUMENT, FACES

GROUP = 2000
"""Photographs in a row group that is written: the most that are in memory at once."""

BATCH = 100
"""Photographs that are read at a time."""

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
        # Of a photograph that is incomplete.
        ("warning", pa.string()),
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
                _check_size(table.metadata, display_name(file))
                for batch in table.iter_batches(batch_size=BATCH):
                    DOCUMENT.check(batch.nbytes, f"{display_name(file)}, {BATCH} photographs")
                    for row in batch.to_pylist():
                        yield checked_record(_record(row), display_name(file))
        except FormatError:
            raise
        except (OSError, pa.ArrowException) as error:
            reason = " ".join(str(error).split())
            raise FormatError(
                f"{display_name(file)}: not a readable Parquet file ({reason})"
            ) from None
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise FormatError(
                f"{display_name(file)}: not the columns of kpipe's Parquet ({str(error)[:200]})"
            ) from None


def _check_size(metadata: Any, where: str) -> None:
    """Compares the numbers in a file, which may be packed a millionfold, with the limits.

    Raises:
        FormatError: a photograph has more than any has, or a group of photographs is too large.
    """
    for index in range(metadata.num_row_groups):
        group = metadata.row_group(index)
        DOCUMENT.check(group.total_byte_size, f"{where}, group {index + 1}")
        columns = (group.column(column) for column in range(group.num_columns))
        values = max((column.num_values for column in columns), default=0)
        FACES.check(values // max(2 * MAX_POINTS * group.num_rows, 1), where)


def _record(row: dict[str, Any]) -> Record:
    name = row["image"]
    if row.get("image_bytes") is not None:
        name = row["image_bytes"].decode("utf-8", "surrogateescape")
    faces = [face_record(**face) for face in row["faces"] or []]
    moment = {part: row.get(part) for part in FRAME_PARTS}
    sizes = row["width"], row["height"]
    scheme, warning = row["scheme"], row.get("warning")
    return photo_record(name, *sizes, faces, row["error"], scheme, **moment, warning=warning)


def _row(record: Record) -> dict[str, Any]:
    """A record as a row of `SCHEMA`. Bytes that are not UTF-8 are escaped in its text."""
    name = record["image"].encode("utf-8", "surrogateescape")
    row = {column: record.get(column) for column in SCHEMA.names}
    text = name.decode("utf-8", "backslashreplace")
    row["image"] = text
    row["image_bytes"] = name if text != record["image"] else None
    for column in ("error", "warning"):
        if (reason := row[column]) is not None:
            row[column] = reason.encode("utf-8", "backslashreplace").decode()
    return row


def write(path: Path, records: Iterable[Record], *, replace: bool = True) -> dict[str, int]:
    """Writes one file. Nothing is dropped: the dict is empty.

    Raises:
        FormatError: a value does not fit its column, or the file exists and may not be replaced.
        WriteError: the file cannot be written.
    """
    records = iter(records)
    try:
        with (
            results_file(path, "wb", replace=replace) as stream,
            pq.ParquetWriter(stream, SCHEMA, compression="zstd") as table,
        ):
            while rows := [_row(record) for record in itertools.islice(records, GROUP)]:
                table.write_table(pa.Table.from_pylist(rows, SCHEMA))
    except (pa.ArrowException, OverflowError) as error:  # an integer of more than 64 bits
        reason = " ".join(str(error).split())
        raise FormatError(f"{display_name(path)}: cannot be written ({reason})") from None
    return {}
