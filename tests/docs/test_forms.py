from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import ROOT

yaml = pytest.importorskip("yaml")
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))


@pytest.mark.parametrize("path", [form for form in FORMS if form.name != "config.yml"])
def test_an_issue_form_asks_for_what_is_needed(path: Path) -> None:
    form = yaml.safe_load(path.read_text("utf-8"))
    assert form["name"] and form["description"]
    questions = [part for part in form["body"] if part["type"] != "markdown"]
    assert len({part["id"] for part in questions}) == len(questions)
    assert all(part["attributes"]["label"] for part in questions)
    assert any(part.get("validations", {}).get("required") for part in questions)


def test_git_checks_what_make_lint_checks() -> None:
    """The same programs with the same arguments, from the environment that make sets up."""
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))["repos"]
    assert [repository["repo"] for repository in hooks] == ["local"]
    entries = [hook["entry"] for hook in hooks[0]["hooks"]]
    makefile = (ROOT / "Makefile").read_text("utf-8")
    rule = makefile[makefile.index("\nlint:") :].split("\n\n")[0]
    programs = [line.split("$(BIN)/")[1].split() for line in rule.splitlines() if "$(BIN)" in line]
    called = [program[0] for program in programs]
    assert called[0] == "ruff" and "mypy" in called
    for program in programs:
        words = " ".join(word for word in program if word != ".")
        assert any(entry.startswith(f".venv/bin/{words}") for entry in entries), words
