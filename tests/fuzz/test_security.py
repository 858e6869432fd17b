"""SECURITY.md says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.conftest import ROOT

DOCUMENT = ROOT / "SECURITY.md"


def _variables(text: str) -> set[str]:
    return set(re.findall(r"\bKPIPE_[A-Z_]+", text))


def _in_code() -> set[str]:
    files = Path(ROOT, "kpipe").rglob("*.py")
    return set().union(*(_variables(path.read_text()) for path in files))


def test_every_limit_of_the_code_is_documented() -> None:
    assert _in_code() <= _variables(DOCUMENT.read_text())


@pytest.mark.skipif(not _in_code(), reason="no limit is set by a variable yet")
def test_every_documented_limit_is_in_the_code() -> None:
    assert _variables(DOCUMENT.read_text()) <= _in_code()


def test_the_defaults_of_record_limits_are_those_that_are_documented() -> None:
    limits = pytest.importorskip("kpipe.utils.limits")
    rows = {}
    for line in DOCUMENT.read_text().splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) == 5 and _variables(cells[3]):
            rows[cells[3].strip("`")] = cells[2]
    units = {"MiB": 1 << 20, "GiB": 1 << 30}
    found = [value for value in vars(limits).values() if isinstance(value, limits.Limit)]
    assert found
    for limit in found:
        number, _, unit = rows[limit.variable].partition(" ")
        assert int(number.replace(",", "")) * units.get(unit, 1) == limit.default
