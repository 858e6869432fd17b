"""The command line: one module a command, each thin: parse, call, report.

Results go to standard output, progress and messages to standard error. Exit codes: 0 done, 1 some
input could not be used or some result not be written, 2 wrong usage, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import io
import os
import signal
import sys
import warnings
from typing import Annotated, Any

import typer

from kpipe import __version__
from kpipe.cli import annotate, batch, bench, convert, evaluate, export, kaggle, live, train, video
from kpipe.errors import KpipeError

UsageError: Any = typer.BadParameter.__bases__[0]
"""Of the command line library, which typer does not name."""

app = typer.Typer(
    name="kpipe",
    help="Find every face in a photograph, and 68 named points on each.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("annotate")(annotate.annotate)
app.command("video")(video.video)
app.command("live")(live.live)
app.command("batch")(batch.batch)
app.command("convert")(convert.convert)
app.command("evaluate")(evaluate.evaluate)
app.command("bench")(bench.bench)
app.command("train")(train.train)
app.command("export")(export.export)
app.add_typer(kaggle.app, name="kaggle")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"kpipe {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", "-V", callback=_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    pass


class _Stopped(BaseException):
    """Ctrl-C."""


def _stop(*_: object) -> None:
    raise _Stopped


def main() -> None:
    """The program `kpipe`."""
    # Pillow warns of large or odd pictures; those that cannot be used get an error line anyway.
    warnings.simplefilter("ignore")
    # The command line library turns KeyboardInterrupt into exit code 1; this passes through it.
    signal.signal(signal.SIGINT, _stop)
    try:
        # Exit codes of `typer.Exit` are returned, wrong usage is raised.
        sys.exit(app(standalone_mode=False))
    except _Stopped:
        sys.exit(_say("stopped", 130))
    except UsageError as error:
        sys.exit(_usage(error))
    except typer.Abort:
        sys.exit(_say("stopped", 1))
    except BrokenPipeError:
        # The reader of standard output has closed it: there is no one to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        # Standard output is full or closed.
        sys.exit(_say(f"cannot write the results: {error.strerror or error}", 1))
    except ImportError as error:
        sys.exit(_say(str(error), 2))
    except KpipeError as error:
        sys.exit(_say(str(error), 2))


def _usage(error: Any) -> int:
    """Prints what typer says of wrong usage, which repeats arguments as they were given."""
    from kpipe.utils.files import display_name

    text = io.StringIO()
    error.show(file=text)
    head, mark, message = text.getvalue().rstrip("\n").partition("\nError: ")
    lines = [*head.split("\n"), *([f"Error: {message}"] if mark else [])]
    print(*map(display_name, lines), sep="\n", file=sys.stderr)
    return int(error.exit_code)


def _say(message: str, code: int) -> int:
    from kpipe.utils.files import display_name

    print(f"kpipe: {display_name(message)}", file=sys.stderr)
    return code
