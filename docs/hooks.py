"""What MkDocs does for the site beside reading docs/: pages that are made when it is built.

The command line's page comes from the program's own help. The model card, the notes of what was
tried, the contributor's guide and the changelog are files of the repository; here they become
pages, with their links turned to where the site has things.
"""

from __future__ import annotations

import html
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from typer.main import get_command

ROOT = Path(__file__).parent.parent

PAGES = {
    "models/CARD.md": "model-card.md",
    "models/TRIED.md": "tried.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
"""Files of the repository that are pages of the site."""

LINK = re.compile(r"(\]\()([^)\s]+)(\))")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that are made."""
    pages = {page: moved((ROOT / file).read_text("utf-8"), file) for file, page in PAGES.items()}
    for page, text in {**pages, "cli.md": command_line()}.items():
        files.append(File.generated(config, page, content=text))
    return files


def moved(text: str, file: str) -> str:
    """The text of a file as a page of the site: links go to the site, or are plain text.

    Args:
        text: Markdown.
        file: where it lies in the repository.
    """

    def target(match: re.Match[str]) -> str:
        link = urlsplit(match[2])
        if link.scheme or not link.path:
            return match[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(file), link.path))
        if path not in PAGES and not path.startswith("docs/"):
            return match[0]
        page = PAGES.get(path, path.removeprefix("docs/"))
        return f"{match[1]}{link._replace(path=page).geturl()}{match[3]}"

    return LINK.sub(target, text)


def command_line() -> str:
    """The page of all commands, as their --help has them."""
    from kpipe.cli import app

    parts = [
        "# Command line",
        "This page is made from the program's own `--help` when the site is built.",
        "Results go to standard output or files, messages to standard error. The exit code is 0 "
        "when all is done, 1 when an input could not be used (the others are done all the same), "
        "2 for wrong usage, and 130 after Ctrl-C.",
    ]
    _, *each = commands(get_command(app), "kpipe")
    parts += [section(*command) for command in each]
    return "\n\n".join(parts) + "\n"


def commands(command: Any, name: str, parent: Any = None) -> Iterator[tuple[str, Any, Any]]:
    """A command and those below it: full name, command and context of each."""
    own = name.rpartition(" ")[2]
    context = command.make_context(own, [], parent=parent, resilient_parsing=True)
    yield name, command, context
    for each in getattr(command, "commands", {}).values():
        yield from commands(each, f"{name} {each.name}", context)


def section(name: str, command: Any, context: Any) -> str:
    """Heading, usage, explanation, and a table of the arguments and options."""
    usage = " ".join(command.collect_usage_pieces(context))
    parts = [f"{'#' * len(name.split())} {name}", f"```text\n{name} {usage}\n```"]
    parts += [escaped(paragraph) for paragraph in (command.help or "").strip().split("\n\n")]
    if not getattr(command, "commands", None):
        records = [parameter.get_help_record(context) for parameter in command.get_params(context)]
        rows = [f"| `{what}` | {escaped(text)} |" for what, text in filter(None, records)]
        parts.append("\n".join(["| argument, option | meaning |", "| --- | --- |", *rows]))
    return "\n\n".join(parts)


def escaped(text: str) -> str:
    """Plain text as Markdown that shows it unchanged."""
    return re.sub(r"([\\`*_\[\]{}#|])", r"\\\1", html.escape(" ".join(text.split()), quote=False))
