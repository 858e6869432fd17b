"""The site of the documentation, built as `make docs` builds it."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType

import pytest
from typer.main import get_command

from kpipe.cli import app
from tests.conftest import ROOT

DOCS = ROOT / "docs"


def script(name: str) -> ModuleType:
    """A script of docs/, as a module."""
    specification = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / f"{name}.py")
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


class Fetched(HTMLParser):
    """What a browser fetches to show a page."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        if tag in ("script", "img", "iframe", "source", "video"):
            self.addresses.append(attributes.get("src") or "")
        if tag == "link" and attributes.get("rel") != "canonical":
            self.addresses.append(attributes.get("href") or "")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for package in ("mkdocs", "material", "mkdocstrings"):
        pytest.importorskip(package)
    folder = tmp_path_factory.mktemp("docs") / "site"
    command = ["-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_no_page_fetches_anything_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        reader = Fetched()
        reader.feed(page.read_text("utf-8"))
        assert reader.addresses
        for address in reader.addresses:
            assert not re.match(r"(\w+:)?//", address), f"{page.name}: {address}"
    for sheet in site.rglob("*.css"):
        assert "url(http" not in sheet.read_text("utf-8"), sheet


def test_the_command_line_has_a_section_for_each_command(site: Path) -> None:
    text = (site / "cli.html").read_text("utf-8")
    for name, command in get_command(app).commands.items():
        for below in getattr(command, "commands", {"": None}):
            anchor = f"kpipe-{name}-{below}".rstrip("-")
            assert f'id="{anchor}"' in text
    assert "--min-score" in text and "Traceback" not in text


def test_the_api_names_what_a_program_imports(site: Path) -> None:
    import kpipe

    pages = "".join(page.read_text("utf-8") for page in (site / "api").glob("*.html"))
    for name in kpipe.__all__:
        assert re.search(rf'id="kpipe\.[\w.]*\b{name}"', pages), name


def test_the_pages_of_other_folders_keep_their_links(site: Path) -> None:
    card = (site / "model-card.html").read_text("utf-8")
    assert 'href="tried.html"' in card and 'src="precision_recall.svg"' in card
    assert 'href="architecture.html"' in (site / "contributing.html").read_text("utf-8")


@pytest.mark.parametrize("picture", ["floors.svg", "stages.svg"])
def test_a_picture_is_what_the_code_says_now(picture: str) -> None:
    floors = script("floors")
    drawn = {
        "floors.svg": lambda: floors.floors_svg(ROOT / "pyproject.toml"),
        "stages.svg": floors.stages_svg,
    }[picture]()
    assert (DOCS / picture).read_text("utf-8") == drawn, "run `python docs/floors.py`"


def test_every_package_has_its_floor() -> None:
    floors = script("floors").floors(ROOT / "pyproject.toml")
    placed = {name for floor in floors for name in floor}
    parts = {path.stem for path in (ROOT / "kpipe").iterdir() if path.suffix in ("", ".py")}
    folders = {name for name in parts if (ROOT / "kpipe" / name / "__init__.py").exists()}
    modules = {name for name in parts if (ROOT / "kpipe" / f"{name}.py").exists()}
    assert (folders | modules) - {"__init__", "__main__", "_deprecated"} <= placed
