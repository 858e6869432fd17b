"""What is done already: a database in the folder of results, the only truth about a job.

A photograph's record is in it or not, nothing in between, however the job ended. The files that
users read are made from it.
"""

from __future__ import annotations

import json
import os
import sqlite3
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from kpipe.batch.sources import InputPhoto
from kpipe.errors import BatchError
from kpipe.utils.files import display_name

TABLES = """
CREATE TABLE IF NOT EXISTS options (id INTEGER PRIMARY KEY, content TEXT UNIQUE NOT NULL);
CREATE TABLE IF NOT EXISTS results (
    name BLOB PRIMARY KEY,      -- as the file system has it: need not be valid text
    options INTEGER NOT NULL REFERENCES options,
    drawn TEXT,                 -- what is drawn on the annotated picture, if there is one
    cropped TEXT,               -- which crops were written, if any
    size INTEGER, mtime INTEGER, digest BLOB,  -- of the photograph as it was read
    faces INTEGER NOT NULL,
    error TEXT,
    again INTEGER NOT NULL,     -- whether the error may be gone next time
    record BLOB NOT NULL        -- the line of JSON, compressed
);
"""

FOUND = """
CREATE TEMP TABLE found (
    id INTEGER PRIMARY KEY, name BLOB UNIQUE NOT NULL, place BLOB NOT NULL, member TEXT,
    size INTEGER NOT NULL, mtime INTEGER NOT NULL, done INTEGER NOT NULL DEFAULT 0
)
"""
"""What this run found. Temporary, so on disk outside the journal, and gone with the run."""

CHUNK = 500


class Pending(NamedTuple):
    """A photograph that has to be done.

    Attributes:
        id: of its row among those found.
        digest: of its content when it was last done with these options, or None.
    """

    id: int
    photo: InputPhoto
    digest: bytes | None


class Done(NamedTuple):
    """What came of a photograph.

    Attributes:
        id: of its row among those found.
        name: of the photograph.
        record: its line of JSON.
        faces: how many.
        error: why it failed, or None.
        again: whether it may succeed in a later run, unchanged.
        size, mtime, digest: of the photograph as it was read; None where it could not be.
        same: it has not changed since its record was made, which stays; `record` is empty.
    """

    id: int
    name: str
    record: str
    faces: int = 0
    error: str | None = None
    again: bool = False
    size: int | None = None
    mtime: int | None = None
    digest: bytes | None = None
    same: bool = False


class Wanted(NamedTuple):
    """What a result must have been made with to count.

    Attributes:
        options: all that the record depends on.
        drawn: parts that are drawn on an annotated picture; None if none is wanted.
        cropped: kind and size of the crops; None if none are wanted.
    """

    options: dict[str, object]
    drawn: str | None
    cropped: str | None


class Totals(NamedTuple):
    """Counts over all photographs found."""

    photographs: int
    done: int
    faces: int
    faceless: int
    errors: int


class Journal:
    """The results of a folder, whoever made them and when.

    Only one process at a time can have it open.

    Args:
        path: of the database; made if it is not there.
        wanted: what results must have been made with.

    Raises:
        BatchError: it cannot be read or written, or another job has it open.
    """

    def __init__(self, path: Path, wanted: Wanted) -> None:
        self._path = path
        self._wanted = wanted
        with self._errors():
            # Commits are ours, a second apart: each waits for the disk.
            self._base = sqlite3.connect(path, timeout=1, isolation_level=None)
            self._base.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._base.execute("PRAGMA temp.cache_size = -32000")
            self._base.execute("BEGIN EXCLUSIVE")
            for statement in TABLES.split(";"):
                self._base.execute(statement)
            content = json.dumps(wanted.options, sort_keys=True)
            self._base.execute("INSERT OR IGNORE INTO options (content) VALUES (?)", (content,))
            row = self._base.execute("SELECT id FROM options WHERE content = ?", (content,))
            (self._options,) = row.fetchone()
            self._base.execute("COMMIT")
            self._base.execute(FOUND)

    def close(self) -> None:
        self._base.close()

    def look(self, photos: Iterable[InputPhoto]) -> int:
        """Takes in what is there to be done. Returns how many names came more than once."""
        twice = 0
        rows = (
            (
                os.fsencode(p.name),
                os.fsencode(p.place),
                None if p.member is None else os.fsencode(p.member),
                _storable(p.size),
                _storable(p.mtime),
            )
            for p in photos
        )
        with self._errors():
            self._base.execute("BEGIN")
            for row in rows:
                added = self._base.execute(
                    "INSERT OR IGNORE INTO found (name, place, member, size, mtime) "
                    "VALUES (?, ?, ?, ?, ?)",
                    row,
                )
                twice += 1 - added.rowcount
            self._base.execute("COMMIT")
        return twice

    def keep(self, content: bool = False, retry: bool = False) -> None:
        """Marks the photographs whose result is still good.

        Args:
            content: none is good before its content has been compared, but for errors, of which
                often there is none to compare.
            retry: errors do not count as results.
        """
        with self._errors():
            self._base.execute(
                f"""UPDATE found SET done = 1 WHERE EXISTS (
                    SELECT 1 FROM results WHERE results.name = found.name AND {self._good}
                    AND results.size = found.size AND results.mtime = found.mtime
                    AND NOT (error IS NOT NULL AND (again OR :retry))
                    AND NOT (error IS NULL AND :content))""",
                {**self._parameters, "retry": retry, "content": content},
            )

    def differences(self) -> tuple[int, list[str]]:
        """How many results of what was found are outdated by other options, and which options.

        Each option as `name: before, now after`.
        """
        with self._errors():
            row = self._base.execute(
                f"""SELECT count(*), max(results.rowid) FROM results JOIN found USING (name)
                WHERE NOT ({self._good})""",
                self._parameters,
            ).fetchone()
            if not row[0]:
                return 0, []
            content, drawn, cropped = self._base.execute(
                "SELECT content, drawn, cropped FROM results JOIN options ON options.id = options "
                "WHERE results.rowid = ?",
                row[1:],
            ).fetchone()
        before = {**json.loads(content)}
        after = {**self._wanted.options}
        if self._wanted.drawn is not None:
            before["annotated pictures"], after["annotated pictures"] = drawn, self._wanted.drawn
        if self._wanted.cropped is not None:
            before["crops"], after["crops"] = cropped, self._wanted.cropped
        return row[0], [
            f"{name}: {_said(before.get(name))}, now {_said(after.get(name))}"
            for name in sorted({*before, *after})
            if before.get(name) != after.get(name)
        ]

    def pending(self, archive: str | None = None) -> Iterator[Pending]:
        """What is still to be done, by name: the files, or what lies in one archive."""
        where = "member IS NULL" if archive is None else "place = :archive"
        last: bytes = b""
        while True:
            # By pieces, so that rows can be written meanwhile and memory stays small.
            with self._errors():
                rows = self._base.execute(
                    f"""SELECT found.id, found.name, place, member, found.size, found.mtime,
                        CASE WHEN {self._good} AND error IS NULL THEN digest END
                    FROM found LEFT JOIN results USING (name)
                    WHERE NOT done AND {where} AND found.name > :last
                    ORDER BY found.name LIMIT {CHUNK}""",
                    {
                        **self._parameters,
                        "last": last,
                        "archive": None if archive is None else os.fsencode(archive),
                    },
                ).fetchall()
            if not rows:
                return
            for id_, *photo, digest in rows:
                yield Pending(id_, _photo(*photo), digest)
            last = rows[-1][1]

    def pending_members(self, archive: str) -> dict[str, Pending]:
        """What is still to be done in one archive, by its name there."""
        return {str(p.photo.member): p for p in self.pending(archive)}

    def archives(self) -> list[str]:
        """The archives with something to be done in them."""
        with self._errors():
            rows = self._base.execute(
                "SELECT DISTINCT place FROM found WHERE NOT done AND member IS NOT NULL"
            ).fetchall()
        return [os.fsdecode(place) for (place,) in rows]

    def add(self, results: Iterable[Done], replaced: Callable[[Done, str, int], None]) -> None:
        """Takes in results: all of them or, if that fails, none.

        Args:
            results: in any order.
            replaced: told of each result that takes an older one's place, what that one had drawn
                and cropped ("" or both, with a comma) and its number of faces.
        """
        with self._errors():
            self._base.execute("BEGIN")
            try:
                for done in results:
                    self._add(done, replaced)
                self._base.execute("COMMIT")
            except BaseException:
                if self._base.in_transaction:
                    self._base.execute("ROLLBACK")
                raise

    def _add(self, done: Done, replaced: Callable[[Done, str, int], None]) -> None:
        name = os.fsencode(done.name)
        self._base.execute("UPDATE found SET done = 1 WHERE id = ?", (done.id,))
        if done.same:
            self._base.execute(
                "UPDATE results SET size = ?, mtime = ? WHERE name = ?",
                (_storable(done.size), _storable(done.mtime), name),
            )
            return
        old = self._base.execute(
            "SELECT drawn, cropped, faces FROM results WHERE name = ?", (name,)
        ).fetchone()
        if old is not None and (old[0] or old[1]):
            parts = ",".join(part for part, had in zip(("drawn", "cropped"), old) if had)
            replaced(done, parts, old[2])
        self._base.execute(
            "INSERT OR REPLACE INTO results (name, options, drawn, cropped, size, mtime, digest, "
            "faces, error, again, record) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                name, self._options, self._wanted.drawn, self._wanted.cropped,
                _storable(done.size), _storable(done.mtime), done.digest, done.faces, done.error,
                done.again,
                zlib.compress(done.record.encode(), 1),
            ),
        )  # fmt: skip

    def records(self) -> Iterator[str]:
        """The line of JSON of each photograph found and done, by name."""
        with self._errors():
            rows = self._base.execute(
                "SELECT record FROM found JOIN results USING (name) WHERE done ORDER BY found.name"
            )
            for (record,) in rows:
                yield zlib.decompress(record).decode()

    def drop_gone(self) -> list[tuple[str, int]]:
        """Forgets the results, with pictures, of photographs that were not found.

        Returns:
            Their names and numbers of faces.
        """
        gone = "(drawn IS NOT NULL OR cropped IS NOT NULL) AND name NOT IN (SELECT name FROM found)"
        with self._errors():
            rows = self._base.execute(f"SELECT name, faces FROM results WHERE {gone}").fetchall()
            self._base.execute(f"DELETE FROM results WHERE {gone}")
        return [(os.fsdecode(name), faces) for name, faces in rows]

    def record(self, name: str) -> str:
        """The line of JSON of one photograph that is done."""
        with self._errors():
            row = self._base.execute(
                "SELECT record FROM results WHERE name = ?", (os.fsencode(name),)
            ).fetchone()
        return zlib.decompress(row[0]).decode()

    def sample(self, count: int) -> list[tuple[InputPhoto, str]]:
        """Some photographs with faces, spread evenly over all names, and their records."""
        with self._errors():
            ids = self._base.execute(
                "SELECT found.id FROM found JOIN results USING (name) "
                "WHERE done AND faces > 0 ORDER BY found.name"
            )
            total = self._base.execute(
                "SELECT count(*) FROM found JOIN results USING (name) WHERE done AND faces > 0"
            ).fetchone()[0]
            step = max(total / count, 1)
            wanted = {round(k * step) for k in range(count)}
            chosen = [id_ for place, (id_,) in enumerate(ids) if place in wanted]
            rows = [
                self._base.execute(
                    "SELECT name, place, member, found.size, found.mtime, record "
                    "FROM found JOIN results USING (name) WHERE found.id = ?",
                    (id_,),
                ).fetchone()
                for id_ in chosen
            ]
        return [(_photo(*photo), zlib.decompress(record).decode()) for *photo, record in rows]

    def totals(self) -> Totals:
        with self._errors():
            row = self._base.execute(
                "SELECT count(*), total(done), total(done * faces), "
                "total(done AND faces = 0 AND error IS NULL), total(done AND error IS NOT NULL) "
                "FROM found LEFT JOIN results USING (name)"
            ).fetchone()
        return Totals(*(int(value or 0) for value in row))

    @property
    def _good(self) -> str:
        return (
            "options = :options AND (:drawn IS NULL OR drawn IS :drawn OR error IS NOT NULL) "
            "AND (:cropped IS NULL OR cropped IS :cropped OR error IS NOT NULL)"
        )

    @property
    def _parameters(self) -> dict[str, object]:
        return {
            "options": self._options,
            "drawn": self._wanted.drawn,
            "cropped": self._wanted.cropped,
        }

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            name, reason = display_name(self._path), str(error)
            if "locked" in reason:
                reason = "another job is writing to this folder; wait for it or choose another"
            elif "not a database" in reason or "malformed" in reason:
                reason = "damaged; remove it to begin anew"
            elif "full" in reason or "disk I/O" in reason:
                reason = f"cannot be written ({reason}); make room and run the same command again"
            elif "readonly" in reason or "unable to open" in reason:
                reason = f"cannot be written ({reason})"
            raise BatchError(f"{name}: {reason}") from None


def _photo(name: bytes, place: bytes, member: bytes | None, size: int, mtime: int) -> InputPhoto:
    inside = None if member is None else os.fsdecode(member)
    return InputPhoto(os.fsdecode(name), os.fsdecode(place), inside, size, mtime)


def _storable(number: int | None) -> int | None:
    """A whole number that SQLite can hold: files may be dated to any year."""
    return None if number is None else max(min(number, 2**63 - 1), -(2**63))


def _said(value: object) -> str:
    return "none" if value is None else str(value)
