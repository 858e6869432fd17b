"""Kaggle's files as they come: CSV, or inside `training.zip`, `test.zip` or the whole download.

Rows are read one at a time and their pixels kept as bytes, so that 7,049 of them take 65 MB and not
the file's 250. What is wrong is said with the number of its row, counted from 1 below the header.

Archives may be hostile: rows, their number, the size and ratio of a packed file and archives inside
each other are limited.
"""

from __future__ import annotations

import csv
import io
import lzma
import math
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from kpipe.datasets import held_out
from kpipe.errors import FormatError, KaggleError
from kpipe.structures.schemes import KAGGLE15
from kpipe.utils.files import display_name
from kpipe.utils.limits import Limit, RowLines

SIDE = 96
"""Of the pictures, pixels."""


COLUMNS = tuple(f"{name}_{axis}" for name in KAGGLE15.names for axis in "xy")
"""The 30 label columns in the file's order: x and y of the first point, of the second …"""


BEYOND = 96.0
"""Distance of a label from the picture [px] above which it counts as an error of the file."""


UNPACKED = Limit("KPIPE_MAX_KAGGLE_BYTES", 2 * 2**30, "bytes in a packed file")
"""Kaggle's `training.csv` has 250 MB."""

ROWS = Limit("KPIPE_MAX_KAGGLE_ROWS", 1_000_000, "rows")
"""Kaggle's longest file, `IdLookupTable.csv`, has 27,124."""

RATIO = Limit("KPIPE_MAX_KAGGLE_RATIO", 200, "times the size of the archive when it is unpacked")
"""Of files above `SMALL`. Kaggle's files are packed to a quarter."""

SMALL = 64 * 2**20
"""Bytes that a packed file may have whatever its ratio."""

NESTED = 3
"""Zip files inside each other: the whole download holds `training.zip`."""

LARGEST = 2**62
"""The highest `ImageId` or `RowId`: it fits in 64 bits."""


DAMAGED = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
    *(EOFError, RuntimeError, NotImplementedError, ValueError, OverflowError),
)
"""What Python's reader of zip files raises at those that are damaged, locked or of another kind."""


@dataclass(frozen=True)
class Labeled:
    """The pictures of a `training.csv` and their labels.

    Attributes:
        pictures: (n, 96, 96) uint8, gray.
        points: (n, 15, 2) float32, pixels, x and y; NaN where there is no label.
    """

    pictures: NDArray[np.uint8]
    points: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.pictures)

    def take(self, chosen: NDArray[np.intp] | NDArray[np.bool_]) -> Labeled:
        return Labeled(self.pictures[chosen], self.points[chosen])


@dataclass(frozen=True)
class Unlabeled:
    """The pictures of a `test.csv`.

    Attributes:
        ids: (n,) `ImageId` of each.
        pictures: (n, 96, 96) uint8, gray.
    """

    ids: tuple[int, ...]
    pictures: NDArray[np.uint8]


@dataclass(frozen=True)
class Lookup:
    """The coordinates that a submission has to name, in the order of `IdLookupTable.csv`.

    Attributes:
        rows: `RowId` of each.
        images: `ImageId` of each.
        columns: index of each in `COLUMNS`.
    """

    rows: tuple[int, ...]
    images: tuple[int, ...]
    columns: tuple[int, ...]


Progress = Callable[[int], None]
"""Called with the number of rows read so far."""


def read_training(path: Path, on_row: Progress | None = None) -> Labeled:
    """Reads `training.csv`.

    Raises:
        KaggleError: it cannot be read, or a row of it is not as it should be.
    """
    pixels, labels = bytearray(), []

    def read(row: dict[str, str]) -> None:
        labels.append([_label(name, row[name]) for name in COLUMNS])
        pixels.extend(_pixels(row["Image"]))

    _read(path, "training.csv", (*COLUMNS, "Image"), read, on_row)
    points = np.array(labels, np.float32).reshape(-1, len(KAGGLE15), 2)
    if np.isnan(points).all():
        raise KaggleError(f"{display_name(path)}: not one label in it")
    return Labeled(_pictures(pixels), points)


def read_labels(path: Path) -> NDArray[np.float32]:
    """The labels (n, 15, 2) of a `training.csv`, whether or not it has the `Image` column."""
    labels: list[list[float]] = []
    _read(
        path,
        "training.csv",
        COLUMNS,
        lambda row: labels.append([_label(name, row[name]) for name in COLUMNS]),
        optional=("Image",),
    )
    return np.array(labels, np.float32).reshape(-1, len(KAGGLE15), 2)


def read_test(path: Path, on_row: Progress | None = None) -> Unlabeled:
    """Reads `test.csv`.

    Raises:
        KaggleError: it cannot be read, or a row of it is not as it should be.
    """
    pixels = bytearray()
    ids: dict[int, None] = {}

    def read(row: dict[str, str]) -> None:
        number = _whole("ImageId", row["ImageId"])
        if number in ids:
            raise KaggleError(f"ImageId {number} for the second time")
        pixels.extend(_pixels(row["Image"]))
        ids[number] = None

    _read(path, "test.csv", ("ImageId", "Image"), read, on_row)
    return Unlabeled(tuple(ids), _pictures(pixels))


def read_lookup(path: Path) -> Lookup:
    """Reads `IdLookupTable.csv`.

    Raises:
        KaggleError: it cannot be read, or a row of it is not as it should be.
    """
    index = {name: number for number, name in enumerate(COLUMNS)}
    rows: dict[int, tuple[int, int]] = {}

    def read(row: dict[str, str]) -> None:
        number, image = _whole("RowId", row["RowId"]), _whole("ImageId", row["ImageId"])
        if number in rows:
            raise KaggleError(f"RowId {number} for the second time")
        if row["FeatureName"] not in index:
            raise KaggleError(f"no keypoint is named {row['FeatureName'][:40]!r}")
        rows[number] = image, index[row["FeatureName"]]

    wanted = ("RowId", "ImageId", "FeatureName")
    _read(path, "IdLookupTable.csv", wanted, read, optional=("Location",))
    images, columns = zip(*rows.values())
    return Lookup(tuple(rows), images, columns)


def read_sample(path: Path) -> tuple[int, ...]:
    """The `RowId`s of `SampleSubmission.csv`, in its order.

    Raises:
        KaggleError: it cannot be read, or a row of it is not as it should be.
    """
    rows: dict[int, None] = {}

    def read(row: dict[str, str]) -> None:
        number = _whole("RowId", row["RowId"])
        if number in rows:
            raise KaggleError(f"RowId {number} for the second time")
        rows[number] = None

    _read(path, "SampleSubmission.csv", ("RowId", "Location"), read)
    return tuple(rows)


def is_test(path: Path) -> bool:
    """Whether a file looks like a `test.csv` (or zip file of it) rather than a `training.csv`."""
    with ExitStack() as stack:
        try:
            file = stack.enter_context(_opened(path, "training.csv", stack))
            return b"ImageId" in file.read(64)
        except (KaggleError, OSError, *DAMAGED):
            return False  # whoever reads it as a training.csv says what is wrong with it


def kept_out(pictures: NDArray[np.uint8], share: float) -> NDArray[np.bool_]:
    """(n,) which pictures are for validation: the same in every run, and equal ones together."""
    return np.array([held_out(picture.tobytes().hex(), share) for picture in pictures], bool)


def training_csv(data: Labeled) -> str:
    """The text of a `training.csv`."""
    lines = [",".join((*COLUMNS, "Image"))]
    for picture, points in zip(data.pictures, data.points):
        labels = ("" if math.isnan(value) else f"{value:.6f}" for value in points.ravel())
        lines.append(",".join((*labels, _text(picture))))
    return "\n".join(lines) + "\n"


def test_csv(data: Unlabeled) -> str:
    """The text of a `test.csv`."""
    rows = (f"{number},{_text(picture)}" for number, picture in zip(data.ids, data.pictures))
    return "\n".join(("ImageId,Image", *rows)) + "\n"


def lookup_csv(lookup: Lookup) -> str:
    """The text of an `IdLookupTable.csv`."""
    rows = (
        f"{row},{image},{COLUMNS[column]},"
        for row, image, column in zip(lookup.rows, lookup.images, lookup.columns)
    )
    return "\n".join(("RowId,ImageId,FeatureName,Location", *rows)) + "\n"


def _text(picture: NDArray[np.uint8]) -> str:
    return " ".join(map(str, picture.ravel().tolist()))


def _pictures(pixels: bytearray) -> NDArray[np.uint8]:
    return np.frombuffer(pixels, np.uint8).reshape(-1, SIDE, SIDE)


# A cell as text to its value. Errors say what is wrong; the row is added by who reads the rows.


def _pixels(text: str) -> bytes:
    words = text.split()
    if len(words) != SIDE * SIDE:
        raise KaggleError(f"{len(words)} pixels, {SIDE * SIDE} expected")
    try:
        return bytes(map(int, words))
    except ValueError:
        raise KaggleError(_wrong_pixel(words)) from None


def _wrong_pixel(words: list[str]) -> str:
    for number, word in enumerate(words, 1):
        try:
            inside = 0 <= int(word) <= 255
        except ValueError:
            return f"pixel {number} is {word[:20]!r}, not a whole number"
        if not inside:
            return f"pixel {number} is {word[:20]}, outside 0-255"
    raise AssertionError("every pixel is right")


def _label(name: str, text: str) -> float:
    if not text:
        return math.nan
    try:
        value = float(text)
    except ValueError:
        raise KaggleError(f"{name} is {text[:20]!r}, not a number") from None
    if math.isnan(value):
        return value
    if not -BEYOND <= value <= SIDE + BEYOND:
        raise KaggleError(f"{name} is {text[:20]}, far outside the picture")
    return value


def _whole(name: str, text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        raise KaggleError(f"{name} is {text[:20]!r}, not a whole number") from None
    if abs(number) > LARGEST:
        raise KaggleError(f"{name} is {text[:20]} …, beyond 64 bits")
    return number


# Files to rows.


def _read(
    path: Path,
    name: str,
    columns: tuple[str, ...],
    read: Callable[[dict[str, str]], None],
    on_row: Progress | None = None,
    optional: tuple[str, ...] = (),
) -> None:
    """Calls `read` with each row of a file; what it raises gets the file and the row's number."""
    number = used = 0
    with ExitStack() as stack:
        try:
            file = stack.enter_context(_opened(path, name, stack))
            lines = RowLines(io.TextIOWrapper(file, "utf-8-sig", newline=""), display_name(path))
            reader = csv.reader(lines)
            header = next(reader, None)
            if header is None:
                raise KaggleError(f"{display_name(path)}: empty, the header of {name} expected")
            _check_header(path, name, header, columns, optional)
            for number, cells in enumerate(reader, 1):
                lines.used = 0
                ROWS.check(number, display_name(path))
                if not cells:  # an empty line
                    continue
                where = f"{display_name(path)}: row {number}"
                if len(cells) != len(header):
                    raise KaggleError(f"{where}: {len(cells)} columns, {len(header)} expected")
                try:
                    read(dict(zip(header, cells)))
                except KaggleError as error:
                    raise KaggleError(f"{where}: {error}") from None
                used += 1
                if on_row is not None:
                    on_row(used)
        except KaggleError:
            raise
        except FormatError as error:  # of a limit
            raise KaggleError(str(error)) from None
        except csv.Error as error:
            raise KaggleError(f"{display_name(path)}: row {number + 1}: {error}") from None
        except UnicodeDecodeError:
            raise KaggleError(f"{display_name(path)}: row {number + 1}: not text") from None
        except DAMAGED as error:
            raise KaggleError(f"{display_name(path)}: unusable zip file ({error})") from None
        except MemoryError:
            raise KaggleError(
                f"{display_name(path)}: too large for this machine's memory"
            ) from None
        except OSError as error:
            raise KaggleError(f"{display_name(path)}: {error.strerror or error}") from None
    if used == 0:
        raise KaggleError(f"{display_name(path)}: no row below its header")


def _check_header(
    path: Path,
    name: str,
    header: list[str],
    columns: tuple[str, ...],
    optional: tuple[str, ...],
) -> None:
    missing = [column for column in columns if column not in header]
    foreign = [column for column in header if column not in (*columns, *optional)]
    twice = [column for column, count in Counter(header).items() if count > 1]
    what = [
        f"no column {missing[0]}" if missing else "",
        f"a column {foreign[0][:40]!r} that {name} does not have" if foreign else "",
        f"column {twice[0][:40]!r} twice" if twice else "",
    ]
    if any(what):
        raise KaggleError(
            f"{display_name(path)}: the header has {len(header)} columns, {name} {len(columns)}: "
            + ", ".join(filter(None, what))
        )


def _opened(path: Path, name: str, stack: ExitStack) -> IO[bytes]:
    """The CSV file, also out of a zip file or of a zip file in one."""
    if not path.is_file():
        raise KaggleError(
            f"{display_name(path)}: {'not a file' if path.exists() else 'no such file'}"
        )
    file: IO[bytes] = path.open("rb")
    depth = 0
    while _is_zip(file):
        depth += 1
        if depth > NESTED:
            raise KaggleError(f"{display_name(path)}: more than {NESTED} zip files in each other")
        stack.enter_context(file)
        archive = stack.enter_context(zipfile.ZipFile(file))
        member = archive.getinfo(_member(path, name, archive.namelist()))
        _check_unpacked(path, member)
        file = archive.open(member)
    return file


def _check_unpacked(path: Path, member: zipfile.ZipInfo) -> None:
    """Compares a packed file with the limits; Python reads no more of it than the size it states.

    Raises:
        KaggleError: it is too large. Unpacked by hand, it is read whatever its size.
    """
    where = f"{display_name(path)}, {display_name(member.filename[:80])}"
    try:
        UNPACKED.check(member.file_size, where)
        if member.file_size > SMALL:
            RATIO.check(member.file_size // max(member.compress_size, 1), where)
    except FormatError as error:
        raise KaggleError(str(error)) from None


def _is_zip(file: IO[bytes]) -> bool:
    # Not `zipfile.is_zipfile`: it looks at the end, and would unpack all of a CSV to get there.
    start = file.read(2)
    file.seek(0)
    return start == b"PK"


def _member(path: Path, name: str, members: list[str]) -> str:
    """What to read of a zip file: the CSV itself, the zip file of its name, or the only CSV."""
    members = [member for member in members if not member.startswith("__MACOSX")]
    for wanted in (name, f"{Path(name).stem}.zip"):
        for member in members:
            if Path(member).name.lower() == wanted.lower():
                return member
    tables = [member for member in members if member.lower().endswith(".csv")]
    if len(tables) == 1:
        return tables[0]
    raise KaggleError(f"{display_name(path)}: no {name} in it")
