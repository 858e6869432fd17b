from __future__ import annotations

import io

import pytest

from kpipe.errors import FormatError
from kpipe.kaggle import files
from kpipe.utils import limits
from kpipe.utils.limits import Limit, bounded_lines, csv_rows
from tests.conftest import ROOT

ALL = [value for module in (limits, files) for value in vars(module).values()
       if isinstance(value, Limit)]  # fmt: skip


@pytest.mark.parametrize("limit", ALL, ids=lambda limit: limit.variable)
def test_every_limit_is_documented_and_its_message_says_how_to_raise_it(
    limit: Limit, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert f"| `{limit.variable}` | {limit.default} |" in (ROOT / "docs/records.md").read_text()
    limit.check(limit.default, "f")
    with pytest.raises(FormatError, match=f"^f: more than {limit.default} ") as caught:
        limit.check(limit.default + 1, "f")
    assert f"set the environment variable {limit.variable} to a higher" in str(caught.value)
    monkeypatch.setenv(limit.variable, str(limit.default + 1))
    limit.check(limit.default + 1, "f")


@pytest.mark.parametrize("text", ["0", "-1", "1e6", "x", " 5", "٣", "9" * 30, "\x1b[31m"])
def test_a_variable_that_is_no_number_is_named(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = Limit("KPIPE_MAX_TEST", 5, "things")
    monkeypatch.setenv("KPIPE_MAX_TEST", text)
    with pytest.raises(FormatError, match=r"KPIPE_MAX_TEST: .* is not a whole number above 0") as e:
        limit.check(1, "f")
    assert str(e.value).isprintable()
    monkeypatch.setenv("KPIPE_MAX_TEST", "")
    assert limit.value == 5


def test_lines_up_to_the_limit_are_whole() -> None:
    limit = Limit("KPIPE_MAX_TEST", 5, "bytes")
    lines = list(bounded_lines(io.BytesIO(b"1234\n\n12345\n"[:11]), "f", limit))
    assert lines == [b"1234\n", b"\n", b"12345"]
    with pytest.raises(FormatError, match="f, line 2: more than 5 bytes"):
        list(bounded_lines(io.BytesIO(b"1\n12345\n"), "f", limit))


def test_rows_have_the_number_of_their_last_line(monkeypatch: pytest.MonkeyPatch) -> None:
    text = 'a,b\n"1\n2",3\n\n4,5\n'
    assert list(csv_rows(io.StringIO(text, newline=""), "f")) == [
        (1, ["a", "b"]), (3, ["1\n2", "3"]), (4, []), (5, ["4", "5"])
    ]  # fmt: skip
    monkeypatch.setenv("KPIPE_MAX_ROW_BYTES", "6")
    with pytest.raises(FormatError, match="f: more than 6 characters in one row of CSV"):
        list(csv_rows(io.StringIO(text, newline=""), "f"))
