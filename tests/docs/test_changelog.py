from __future__ import annotations

import re

import pytest

import kpipe
from kpipe import _deprecated
from tests.conftest import ROOT

TEXT = (ROOT / "CHANGELOG.md").read_text("utf-8")
VERSIONS = re.findall(r"^## \[(.+?)\] - (unreleased|\d{4}-\d\d-\d\d)$", TEXT, re.MULTILINE)


def test_the_newest_version_is_that_of_the_package() -> None:
    assert VERSIONS[0][0] == kpipe.__version__
    assert re.findall(r"^## \[(.+?)\]", TEXT, re.MULTILINE) == [version for version, _ in VERSIONS]


def test_only_the_newest_version_may_have_no_date() -> None:
    assert all(date != "unreleased" for _, date in VERSIONS[1:])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        *_deprecated.NAMES.items(),
        *_deprecated.PIPELINE.items(),
        *((old, f"kpipe.{new[0]}") for old, new in _deprecated.MODULES.items()),
    ],
)
def test_a_name_that_is_deprecated_is_listed_beside_its_new_one(old: str, new: str) -> None:
    rows = [row.split("|")[1:3] for row in TEXT.splitlines() if row.startswith("| `")]
    assert any(names(before, old) and names(after, new) for before, after in rows), f"{old}: {new}"


def names(cell: str, name: str) -> bool:
    """Whether a name stands in a cell, be it as a module, an argument or a method."""
    return re.search(rf"`{re.escape(name)}[`=(]", cell) is not None
