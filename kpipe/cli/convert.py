"""`kpipe convert`: results from one format to another."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from kpipe.errors import FormatError, KpipeError, reason_of

NAMES = "jsonl|csv|parquet|coco|dlib|pts"
"""The formats of `kpipe.formats.FORMATS`, which is slow to import for a line of help."""


def convert(
    source: Annotated[
        Path, typer.Argument(metavar="FROM", help="A file of results, or a folder of .pts files.")
    ],
    target: Annotated[
        Path,
        typer.Argument(
            metavar="TO",
            help="Its ending says the format: .jsonl, .csv, .parquet, .json (COCO keypoints), "
            ".xml (dlib), or a folder for .pts.",
        ),
    ],
    from_: Annotated[
        str | None,
        typer.Option("--from", metavar=NAMES, help="Format of FROM, if its ending does not say."),
    ] = None,
    to: Annotated[
        str | None, typer.Option(metavar=NAMES, help="Format of TO, if its ending does not say.")
    ] = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            "-f",
            help="Replace what exists; in a folder, the .pts files that are written.",
        ),
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Errors alone.")] = False,
) -> None:
    """Convert results between formats, and say what the new one cannot hold."""
    from kpipe.cli.console import error, say
    from kpipe.cli.extras import require
    from kpipe.formats import FORMATS, Record, format_of, load_format
    from kpipe.utils.files import display_name

    for value, option in ((from_, "--from"), (to, "--to")):
        if value is not None and value not in FORMATS:
            raise typer.BadParameter(f"choose from {', '.join(FORMATS)}", param_hint=option)
    count = faces = 0

    def counted(record: Record) -> Record:
        nonlocal count, faces
        count += 1
        faces += len(record["faces"])
        return record

    try:
        names = from_ or format_of(source), to or format_of(target, new=True)
        if "parquet" in names:
            require("batch", "pyarrow")
        _check_paths(source, target, to_folder=names[1] == "pts", force=force)
        reader, writer = (load_format(name) for name in names)
        lost = writer.write(target, map(counted, reader.read(source)), replace=force)
    except KpipeError as problem:
        error(str(problem))
        raise typer.Exit(1) from None
    except OSError as problem:  # a name that is too long, a folder that must not be read
        error(f"{display_name(problem.filename or source)}: {reason_of(problem)}")
        raise typer.Exit(1) from None
    if not quiet:
        for what, number in lost.items():
            say(f"dropped, {names[1]} cannot hold it: {number} {what}")
        say(f"written: {display_name(target)} ({count} photographs, {faces} faces)")


def _check_paths(source: Path, target: Path, *, to_folder: bool, force: bool) -> None:
    """Whether the source is there and the target may be written.

    Raises:
        FormatError: if not.
    """
    from kpipe.utils.files import display_name

    if not source.exists():
        raise FormatError(f"{display_name(source)}: no such file or folder")
    read, written = (Path(os.path.realpath(path)) for path in (source, target))
    # Files of a folder are read one after another, while others are written.
    among = source.is_dir() and read in written.parents and os.path.lexists(target)
    if read == written or among or (to_folder and written in read.parents and source.is_dir()):
        raise FormatError(f"{display_name(target)}: is what is read; name another file")
    if target.is_file() and to_folder:
        raise FormatError(f"{display_name(target)}: is a file; .pts files need a folder")
    if target.is_dir() and not to_folder:
        raise FormatError(f"{display_name(target)}: is a folder; name a file in it")
    filled = any(target.iterdir()) if target.is_dir() else os.path.lexists(target)
    if filled and not force:
        raise FormatError(f"{display_name(target)}: exists; --force replaces it")
