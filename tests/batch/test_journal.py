"""The journal of a job, on real databases."""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from kpipe.batch.journal import CHUNK, Journal
from kpipe.batch.types import InputPhoto, PhotoResult, ResultKey, Totals
from kpipe.errors import BatchError

OPTIONS: dict[str, object] = {"kpipe": "0.2.0", "--min-score": 0.7, "--min-face": None}
KEY = ResultKey(OPTIONS, None, None)

FORM_0_1 = """
CREATE TABLE options (id INTEGER PRIMARY KEY, content TEXT UNIQUE NOT NULL);
CREATE TABLE results (
    name BLOB PRIMARY KEY, options INTEGER NOT NULL REFERENCES options, drawn TEXT, cropped TEXT,
    size INTEGER, mtime INTEGER, digest BLOB, faces INTEGER NOT NULL, error TEXT,
    again INTEGER NOT NULL, record BLOB NOT NULL
);
"""
"""The tables of kpipe 0.1."""


def photo(name: str, size: int = 5) -> InputPhoto:
    return InputPhoto(name, f"in/{name}", None, size, 1)


def record(name: str, faces: int = 1) -> str:
    return json.dumps({"image": name, "faces": [{}] * faces})


def results(journal: Journal, faces: int = 1, **values: object) -> list[PhotoResult]:
    """A result of each pending photograph."""
    return [
        PhotoResult(
            p.id, p.photo.name, record(p.photo.name, faces), faces, size=p.photo.size, mtime=1
        )._replace(**values)
        for p in journal.pending()
    ]


def ignore(*_: object) -> None:
    pass


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """A journal with results of a.jpg (one face, drawn and cropped) and b.jpg (two)."""
    path = tmp_path / "journal.sqlite"
    with closing(Journal(path, KEY._replace(drawn="points", cropped="square 224"))) as journal:
        journal.add_found([photo("a.jpg"), photo("b.jpg")])
        first, second = results(journal)
        second = second._replace(record=record("b.jpg", 2), faces=2)
        journal.add([first, second], ignore)
    return path


def test_a_result_is_valid_as_long_as_photograph_and_options_are_the_same(path: Path) -> None:
    with closing(Journal(path, KEY)) as journal:
        assert journal.add_found([photo("a.jpg"), photo("b.jpg", 6), photo("a.jpg")]) == 1
        journal.mark_valid()
        assert journal.outdated() == (0, [])
        assert [p.photo for p in journal.pending()] == [photo("b.jpg", 6)]
        assert journal.totals() == Totals(2, 1, 1, 0, 0)
        assert list(journal.records()) == [record("a.jpg")]
    with closing(Journal(path, KEY)) as journal:
        journal.add_found([photo("a.jpg")])
        journal.mark_valid(content=True)
        assert len(list(journal.pending())) == 1


def test_other_options_and_missing_pictures_make_results_outdated(path: Path) -> None:
    other = ResultKey({**OPTIONS, "--min-score": 0.5}, "boxes", None)
    with closing(Journal(path, other)) as journal:
        journal.add_found([photo("a.jpg"), photo("b.jpg"), photo("new.jpg")])
        journal.mark_valid()
        assert journal.outdated() == (
            2,
            ["--min-score: 0.7, now 0.5", "annotated pictures: points, now boxes"],
        )
        assert len(list(journal.pending())) == 3


def test_errors_are_kept_unless_they_may_be_gone_or_are_to_be_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    with closing(Journal(path, KEY)) as journal:
        journal.add_found([photo("bad.jpg"), photo("locked.jpg")])
        bad, locked = results(journal, 0, error="damaged")
        journal.add([bad, locked._replace(retry=True)], ignore)
    for retry, expected in ((False, ["locked.jpg"]), (True, ["bad.jpg", "locked.jpg"])):
        with closing(Journal(path, KEY)) as journal:
            journal.add_found([photo("bad.jpg"), photo("locked.jpg")])
            journal.mark_valid(retry=retry)
            assert [p.photo.name for p in journal.pending()] == expected


def test_a_failed_batch_of_results_leaves_nothing(path: Path) -> None:
    def fail(*_: object) -> None:
        raise OSError("no room")

    with closing(Journal(path, KEY)) as journal:
        journal.add_found([photo("new.jpg"), photo("z.jpg"), photo("a.jpg")])
        new = [r for r in results(journal) if r.name != "z.jpg"]
        new.sort(key=lambda r: r.name, reverse=True)
        with pytest.raises(OSError, match="no room"):
            journal.add(new, fail)
        assert journal.totals().done == 0
        assert len(list(journal.pending())) == 3


def test_a_replaced_result_reports_the_pictures_of_the_older_one(path: Path) -> None:
    with closing(Journal(path, KEY)) as journal:
        journal.add_found([photo("b.jpg", 9)])
        replaced = []
        journal.add(results(journal), lambda *values: replaced.append(values[1:]))
        assert replaced == [(True, 2)]


def test_an_unchanged_photograph_keeps_its_record_and_gets_its_new_time(path: Path) -> None:
    with closing(Journal(path, KEY)) as journal:
        journal.add_found([photo("b.jpg", 9)])
        journal.add(results(journal, record="", unchanged=True), ignore)
        assert journal.record("b.jpg") == record("b.jpg", 2)
    with closing(Journal(path, KEY)) as journal:
        journal.add_found([photo("b.jpg", 9)])
        journal.mark_valid()
        assert journal.totals().done == 1


def test_results_may_be_added_while_pending_ones_are_read(tmp_path: Path) -> None:
    names = [f"{number:06d}.jpg" for number in range(2 * CHUNK + 10)]
    with closing(Journal(tmp_path / "journal.sqlite", KEY)) as journal:
        journal.add_found(map(photo, names))
        seen = []
        for pending in journal.pending():
            seen.append(pending.photo.name)
            journal.add([PhotoResult(pending.id, pending.photo.name, "{}")], ignore)
        assert seen == names
        assert journal.totals() == Totals(len(names), len(names), 0, len(names), 0)


def test_what_is_gone_is_dropped_with_the_names_of_its_pictures(path: Path) -> None:
    with closing(Journal(path, KEY)) as journal:
        journal.add_found([photo("a.jpg")])
        assert journal.drop_gone() == [("b.jpg", 2)]
        assert journal.drop_gone() == []


def test_a_sample_is_spread_over_all_photographs_with_faces(tmp_path: Path) -> None:
    with closing(Journal(tmp_path / "journal.sqlite", KEY)) as journal:
        journal.add_found(photo(f"{number:02d}.jpg") for number in range(20))
        odd_have_one = [r._replace(faces=int(r.name[:2]) % 2) for r in results(journal)]
        journal.add(odd_have_one, ignore)
        assert [p.name for p, _ in journal.sample(5)] == [
            f"{number:02d}.jpg" for number in (1, 5, 9, 13, 17)
        ]
        assert len(journal.sample(64)) == 10


def old_journal(path: Path, options: dict[str, object]) -> None:
    with closing(sqlite3.connect(path)) as base:
        base.executescript(FORM_0_1)
        base.execute("INSERT INTO options VALUES (1, ?)", (json.dumps(options, sort_keys=True),))
        packed = zlib.compress(record("a.jpg").encode(), 1)
        row = (b"a.jpg", 1, None, None, 5, 1, b"digest", 1, None, 0, packed)
        base.execute("INSERT INTO results VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        base.commit()


def test_a_journal_of_version_0_1_goes_on_where_options_are_the_same(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    old_journal(path, OPTIONS)
    with closing(Journal(path, KEY)) as journal:
        journal.add_found([photo("a.jpg"), photo("b.jpg")])
        journal.mark_valid()
        assert journal.outdated() == (0, [])
        assert list(journal.records()) == [record("a.jpg")]


def test_a_journal_of_another_version_says_what_is_different(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    old_journal(path, {**OPTIONS, "kpipe": "0.1.0"})
    with closing(Journal(path, KEY)) as journal:
        journal.add_found([photo("a.jpg"), photo("b.jpg")])
        journal.mark_valid()
        assert journal.outdated() == (1, ["kpipe: 0.1.0, now 0.2.0"])
        # Only the content's digest, which other options make worthless, is not reused.
        assert [p.digest for p in journal.pending()] == [None, None]


@pytest.mark.parametrize(
    "form", ["CREATE TABLE results (name TEXT)", FORM_0_1.replace("again INTEGER NOT NULL,", "")]
)
def test_tables_of_another_form_are_one_error(tmp_path: Path, form: str) -> None:
    path = tmp_path / "journal.sqlite"
    with closing(sqlite3.connect(path)) as base:
        base.executescript(form)
    with pytest.raises(BatchError, match="a journal of another version of kpipe; remove it"):
        Journal(path, KEY)
    # The error leaves the database as it was, and open to others.
    with closing(sqlite3.connect(path)) as base:
        tables = [name for (name,) in base.execute("SELECT name FROM sqlite_master WHERE sql > ''")]
    assert tables in (["results"], ["options", "results"])


def test_a_damaged_record_is_one_error(path: Path) -> None:
    with closing(sqlite3.connect(path)) as base:
        base.execute("UPDATE results SET record = x'0011'")
        base.commit()
    with closing(Journal(path, KEY)) as journal:
        journal.add_found([photo("a.jpg")])
        journal.mark_valid()
        with pytest.raises(BatchError, match="damaged; remove it to begin anew"):
            list(journal.records())


@pytest.mark.parametrize(
    "change",
    [
        "record = x'0011'", "record = 'text'", "record = NULL", "record = 5", "name = 'a.jpg'",
        "faces = 'one'", "faces = -1", "faces = 9e999", "faces = 4611686018427387904",
        "options = 'x'", "size = 'x'", "digest = 'x'", "again = 7", "error = x'ff'", "faces = 2",
    ],
)  # fmt: skip
def test_a_damaged_result_is_done_again(path: Path, change: str) -> None:
    with closing(sqlite3.connect(path)) as base:
        base.execute("PRAGMA ignore_check_constraints = ON")
        base.execute("PRAGMA writable_schema = ON")
        # A disk that loses bits does not respect the columns' constraints.
        base.execute("UPDATE sqlite_master SET sql = replace(sql, ' NOT NULL', '')")
        base.commit()
    with closing(sqlite3.connect(path)) as base:
        base.execute(f"UPDATE results SET {change} WHERE name = x'612e6a7067'")
        base.commit()
    with closing(Journal(path, KEY)) as journal:
        journal.add_found([photo("a.jpg"), photo("b.jpg")])
        journal.mark_valid()
        journal.drop_damaged()
        assert journal.totals() == Totals(2, 1, 2, 0, 0)
        assert [p.photo.name for p in journal.pending()] == ["a.jpg"]
        journal.add(results(journal), ignore)
        assert list(journal.records()) == [record("a.jpg"), record("b.jpg", 2)]


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\xff\xfe", b"[", b"[" * 10**5, b"null", b"[1]", b'{"image": "b.jpg", "faces": [{}]}',
        b'{"image": "a.jpg", "faces": 1}', b'{"image": "a.jpg", "faces": ["x"]}', b"{}",
        b'{"image": "a.jpg", "faces": []}', b" " * 10**8,
    ],
    ids=lambda content: repr(content[:12]),
)  # fmt: skip
def test_a_record_that_is_none_is_done_again(path: Path, content: bytes) -> None:
    with closing(sqlite3.connect(path)) as base:
        packed = zlib.compress(content)
        base.execute("UPDATE results SET record = ? WHERE name = x'612e6a7067'", (packed,))
        base.commit()
    with closing(Journal(path, KEY)) as journal:
        journal.add_found([photo("a.jpg"), photo("b.jpg", 7)])
        journal.mark_valid()
        assert journal.drop_damaged() == 1
        assert [p.photo.name for p in journal.pending()] == ["a.jpg", "b.jpg"]


@pytest.mark.parametrize("content", ["", "nonsense", "[1]", "5", "[" * 10**5, "\ud800"])
def test_options_that_cannot_be_read_make_results_outdated(path: Path, content: str) -> None:
    with closing(sqlite3.connect(path)) as base:
        value = content.encode("utf-8", "surrogatepass")
        base.execute("UPDATE options SET content = CAST(? AS TEXT)", (value,))
        base.commit()
    try:
        with closing(Journal(path, KEY)) as journal:
            journal.add_found([photo("a.jpg")])
            journal.mark_valid()
            assert journal.outdated() == (
                1,
                ["the options of an earlier run, which cannot be read"],
            )
    except BatchError as error:
        assert content == "\ud800" and "damaged; remove it to begin anew" in str(error)


def test_a_journal_with_programs_is_of_another_form(path: Path) -> None:
    with closing(sqlite3.connect(path)) as base:
        base.execute("CREATE TRIGGER t AFTER UPDATE ON results BEGIN DELETE FROM results; END")
    with pytest.raises(BatchError, match="of another version"):
        Journal(path, KEY)


def test_one_process_at_a_time(path: Path) -> None:
    with (
        closing(Journal(path, KEY)),
        pytest.raises(BatchError, match="another job is writing to this folder"),
    ):
        Journal(path, KEY)
