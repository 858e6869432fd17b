"""The journal: a database in the results folder that holds every result of a job.

However a job ends, a photograph's record is in the journal or it is not. The files that users read
are made from the journal.
"""

from __future__ import annotations

import json
import os
import sqlite3
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from kpipe.batch.types import InputPhoto, Pending, PhotoResult, ResultKey, Totals
from kpipe.errors import BatchError
from kpipe.utils.files import display_name

TABLES = """
CREATE TABLE IF NOT EXISTS options (id INTEGER PRIMARY KEY, content TEXT UNIQUE NOT NULL);
CREATE TABLE IF NOT EXISTS results (
    name BLOB PRIMARY KEY,      -- the file system's bytes, which need not be valid text
    options INTEGER NOT NULL REFERENCES options,
    drawn TEXT,                 -- parts drawn on the annotated picture, if there is one
    cropped TEXT,               -- kind and size of the crops, if there are any
    size INTEGER, mtime INTEGER, digest BLOB,  -- of the photograph as it was read
    faces INTEGER NOT NULL,
    error TEXT,
    again INTEGER NOT NULL,     -- whether the next run tries again after this error
    record BLOB NOT NULL        -- the line of JSON, compressed
);
"""
"""The tables on disk. Folders begun with kpipe 0.1 have the same ones."""

COLUMNS = {
    "options": {"id", "content"},
    "results": {
        *("name", "options", "drawn", "cropped", "size", "mtime", "digest"),
        *("faces", "error", "again", "record"),
    },
}
"""The columns of the tables, to recognize a journal of another form."""

FOUND = """
CREATE TEMP TABLE found (
    id INTEGER PRIMARY KEY, name BLOB UNIQUE NOT NULL, place BLOB NOT NULL, member BLOB,
    size INTEGER NOT NULL, mtime INTEGER NOT NULL, offset INTEGER, done INTEGER NOT NULL DEFAULT 0
)
"""
"""The photographs that this run found. Temporary tables lie on disk outside the journal."""

VALID = (
    "options = :options AND (:drawn IS NULL OR drawn IS :drawn OR error IS NOT NULL) "
    "AND (:cropped IS NULL OR cropped IS :cropped OR error IS NOT NULL)"
)
"""The condition on a result to have been made with the options and pictures of this run."""

DAMAGED = "damaged; remove it to begin anew"

SHAPE = """
    typeof(name) = 'blob' AND typeof(options) = 'integer' AND typeof(record) = 'blob'
    AND typeof(faces) = 'integer' AND faces BETWEEN 0 AND 1000000
    AND typeof(drawn) IN ('text', 'null') AND typeof(cropped) IN ('text', 'null')
    AND typeof(size) IN ('integer', 'null') AND typeof(mtime) IN ('integer', 'null')
    AND typeof(digest) IN ('blob', 'null') AND typeof(error) IN ('text', 'null')
    AND again IN (0, 1) AND instr(name, x'00') = 0
"""
"""The condition on a result to be one that this module can have written."""

LARGEST_RECORD = 64 << 20
"""Bytes of a line of JSON. One with 4,000 faces has 14 MB."""

CHUNK = 500
"""Pending photographs read at a time."""


class Journal:
    """The results in a folder, from all runs of its job.

    One process at a time can open it.

    Args:
        path: of the database; created if it does not exist.
        key: what a result must have been made with to be valid.

    Raises:
        BatchError: the database cannot be read or written, is of another form, or another job has
            it open.
    """

    def __init__(self, path: Path, key: ResultKey) -> None:
        self._path = path
        self._key = key
        with self._errors():
            # Each commit waits for the disk: transactions are explicit, several a second at most.
            self._base = sqlite3.connect(path, timeout=1, isolation_level=None)
        try:
            with self._errors():
                self._base.execute("PRAGMA locking_mode = EXCLUSIVE")
                self._base.execute("PRAGMA temp.cache_size = -32000")
                self._base.execute("BEGIN EXCLUSIVE")
                for statement in TABLES.split(";"):
                    self._base.execute(statement)
                self._check_form()
                self._drop_misshapen()
                self._repair()
                self._options_id = self._intern(json.dumps(key.options, sort_keys=True))
                self._base.execute("COMMIT")
                self._base.execute(FOUND)
        except BaseException:
            self._base.close()
            raise

    def _check_form(self) -> None:
        for table, columns in COLUMNS.items():
            rows = self._base.execute(f"PRAGMA table_info({table})")
            if {row[1] for row in rows} != columns or self._has_programs():
                raise self._error(
                    "a journal of another version of kpipe; remove it to start over, or choose "
                    "another folder for the results"
                )

    def _has_programs(self) -> bool:
        """Whether the database has triggers or views, which could do anything."""
        rows = self._base.execute("SELECT 1 FROM sqlite_master WHERE type IN ('trigger', 'view')")
        return rows.fetchone() is not None

    def _drop_misshapen(self) -> None:
        """Deletes results with values that this class never writes: a disk can lose bits."""
        self._base.execute(f"DELETE FROM results WHERE NOT ifnull({SHAPE}, 0)")
        self._base.execute("DELETE FROM options WHERE typeof(content) != 'text'")

    def _repair(self) -> None:
        """Makes the index of names anew if it does not fit the table: it would hide results."""
        for attempt in ("", "REINDEX"):
            self._base.execute(attempt)
            if self._base.execute("PRAGMA integrity_check(1)").fetchone() == ("ok",):
                return
        raise self._error(DAMAGED)

    def _intern(self, content: str) -> int:
        """The id of an options row, which is added if there is none."""
        self._base.execute("INSERT OR IGNORE INTO options (content) VALUES (?)", (content,))
        row = self._base.execute("SELECT id FROM options WHERE content = ?", (content,)).fetchone()
        if row is None:  # the index has the row, the table has lost it
            raise self._error(DAMAGED)
        return int(row[0])

    def close(self) -> None:
        self._base.close()

    def add_found(self, photos: Iterable[InputPhoto]) -> int:
        """Stores the photographs of this run. Returns how many had the name of an earlier one."""
        repeated = 0
        rows = (
            (
                os.fsencode(p.name),
                os.fsencode(p.place),
                None if p.member is None else os.fsencode(p.member),
                _storable(p.size),
                _storable(p.mtime),
                _storable(p.offset),
            )
            for p in photos
        )
        with self._errors():
            self._base.execute("BEGIN")
            for row in rows:
                added = self._base.execute(
                    "INSERT OR IGNORE INTO found (name, place, member, size, mtime, offset) "
                    "VALUES (?, ?, ?, ?, ?, ?)",
                    row,
                )
                repeated += 1 - added.rowcount
            self._base.execute("COMMIT")
        return repeated

    def mark_valid(self, content: bool = False, retry: bool = False) -> None:
        """Marks the photographs with a valid result as done.

        Args:
            content: no result is valid before the content has been compared. Errors stay valid,
                because a photograph that could not be read has no content to compare.
            retry: errors are not valid.
        """
        with self._errors():
            self._base.execute(
                f"""UPDATE found SET done = 1 WHERE EXISTS (
                    SELECT 1 FROM results WHERE results.name = found.name AND {VALID}
                    AND results.size = found.size AND results.mtime = found.mtime
                    AND NOT (error IS NOT NULL AND (again OR :retry))
                    AND NOT (error IS NULL AND :content))""",
                {**self._parameters, "retry": retry, "content": content},
            )

    def drop_damaged(self) -> int:
        """Deletes the results whose record cannot be read; their photographs are done again.

        Returns:
            Their number.
        """
        damaged = []
        with self._errors():
            rows = self._base.execute(
                "SELECT found.id, found.name, faces, record FROM found JOIN results USING (name)"
            )
            for id_, name, faces, content in rows:
                try:
                    record = json.loads(_decompressed(content))
                    whole = record["image"] == os.fsdecode(name)
                    whole = whole and [type(face) for face in record["faces"]] == [dict] * faces
                except (zlib.error, ValueError, TypeError, KeyError, RecursionError):
                    whole = False
                if not whole:
                    damaged.append((id_, name))
            self._base.execute("BEGIN")
            for id_, name in damaged:
                self._base.execute("UPDATE found SET done = 0 WHERE id = ?", (id_,))
                self._base.execute("DELETE FROM results WHERE name = ?", (name,))
            self._base.execute("COMMIT")
        return len(damaged)

    def outdated(self) -> tuple[int, list[str]]:
        """How many photographs have a result made with other options, and which options differ.

        Each option is one string, `name: before, now after`.
        """
        with self._errors():
            row = self._base.execute(
                f"""SELECT count(*), max(results.rowid) FROM results JOIN found USING (name)
                WHERE NOT ({VALID})""",
                self._parameters,
            ).fetchone()
            if not row[0]:
                return 0, []
            found = self._base.execute(
                "SELECT content, drawn, cropped FROM results JOIN options ON options.id = options "
                "WHERE results.rowid = ?",
                row[1:],
            ).fetchone()
        content, drawn, cropped = found or ("", None, None)
        try:
            before = {**json.loads(content)}
        except (ValueError, TypeError, RecursionError):
            return row[0], ["the options of an earlier run, which cannot be read"]
        after = {**self._key.options}
        if self._key.drawn is not None:
            before["annotated pictures"], after["annotated pictures"] = drawn, self._key.drawn
        if self._key.cropped is not None:
            before["crops"], after["crops"] = cropped, self._key.cropped
        return row[0], [
            f"{name}: {_or_none(before.get(name))}, now {_or_none(after.get(name))}"
            for name in sorted({*before, *after})
            if before.get(name) != after.get(name)
        ]

    def pending(self, archive: str | None = None) -> Iterator[Pending]:
        """The photographs without a valid result, by name.

        Args:
            archive: whose members without a place in it are meant; None for all other photographs.
        """
        where = "(member IS NULL OR offset IS NOT NULL)"
        if archive is not None:
            where = f"NOT {where} AND place = :archive"
        last: bytes = b""
        while True:
            # In chunks, so that results can be written meanwhile and memory stays small.
            with self._errors():
                rows = self._base.execute(
                    f"""SELECT found.id, found.name, place, member, found.size, found.mtime, offset,
                        CASE WHEN {VALID} AND error IS NULL THEN digest END
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
        """Those of `pending` in one archive, by their name in it."""
        return {str(p.photo.member): p for p in self.pending(archive)}

    def archives(self) -> list[str]:
        """The archives for `pending`."""
        with self._errors():
            rows = self._base.execute(
                "SELECT DISTINCT place FROM found WHERE NOT done AND member IS NOT NULL "
                "AND offset IS NULL"
            ).fetchall()
        return [os.fsdecode(place) for (place,) in rows]

    def add(
        self, results: Iterable[PhotoResult], replaced: Callable[[PhotoResult, bool, int], None]
    ) -> None:
        """Stores results: all of them or, if that fails, none.

        Args:
            results: in any order.
            replaced: called with each result that replaces an older one, whether that one has an
                annotated picture, and its number of crops.
        """
        with self._errors():
            self._base.execute("BEGIN")
            try:
                for result in results:
                    self._add(result, replaced)
                self._base.execute("COMMIT")
            except BaseException:
                if self._base.in_transaction:
                    self._base.execute("ROLLBACK")
                raise

    def _add(self, result: PhotoResult, replaced: Callable[[PhotoResult, bool, int], None]) -> None:
        name = os.fsencode(result.name)
        self._base.execute("UPDATE found SET done = 1 WHERE id = ?", (result.id,))
        if result.unchanged:
            self._base.execute(
                "UPDATE results SET size = ?, mtime = ? WHERE name = ?",
                (_storable(result.size), _storable(result.mtime), name),
            )
            return
        old = self._base.execute(
            "SELECT drawn, cropped, faces FROM results WHERE name = ?", (name,)
        ).fetchone()
        if old is not None:
            drawn, cropped, faces = old
            replaced(result, bool(drawn), faces if cropped else 0)
        self._base.execute(
            "INSERT OR REPLACE INTO results (name, options, drawn, cropped, size, mtime, digest, "
            "faces, error, again, record) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                name, self._options_id, self._key.drawn, self._key.cropped,
                _storable(result.size), _storable(result.mtime), result.digest, result.faces,
                result.error, result.retry, zlib.compress(result.record.encode(), 1),
            ),
        )  # fmt: skip

    def records(self) -> Iterator[str]:
        """The line of JSON of each photograph of this run that is done, by name."""
        with self._errors():
            rows = self._base.execute(
                "SELECT record FROM found JOIN results USING (name) WHERE done ORDER BY found.name"
            )
            for (record,) in rows:
                yield _decompressed(record)

    def drop_gone(self) -> list[tuple[str, int]]:
        """Deletes the results with pictures whose photographs this run has not found.

        Returns:
            Their names and numbers of faces.
        """
        gone = "(drawn IS NOT NULL OR cropped IS NOT NULL) AND name NOT IN (SELECT name FROM found)"
        with self._errors():
            rows = self._base.execute(f"SELECT name, faces FROM results WHERE {gone}").fetchall()
            self._base.execute(f"DELETE FROM results WHERE {gone}")
        return [(os.fsdecode(name), faces) for name, faces in rows]

    def record(self, name: str) -> str:
        """The line of JSON of one photograph with a result."""
        with self._errors():
            row = self._base.execute(
                "SELECT record FROM results WHERE name = ?", (os.fsencode(name),)
            ).fetchone()
            return _decompressed(None if row is None else row[0])

    def sample(self, count: int) -> list[tuple[InputPhoto, str]]:
        """At most `count` photographs with faces, spread evenly over all names, with records."""
        with self._errors():
            ids = self._base.execute(
                "SELECT found.id FROM found JOIN results USING (name) "
                "WHERE done AND faces > 0 ORDER BY found.name"
            )
            total = self._base.execute(
                "SELECT count(*) FROM found JOIN results USING (name) WHERE done AND faces > 0"
            ).fetchone()[0]
            step = max(total / count, 1)
            places = {round(k * step) for k in range(count)}
            chosen = [id_ for place, (id_,) in enumerate(ids) if place in places]
            rows = [
                self._base.execute(
                    "SELECT name, place, member, found.size, found.mtime, offset, record "
                    "FROM found JOIN results USING (name) WHERE found.id = ?",
                    (id_,),
                ).fetchone()
                for id_ in chosen
            ]
            return [(_photo(*photo), _decompressed(record)) for *photo, record in rows]

    def totals(self) -> Totals:
        """Counts over the photographs of this run."""
        with self._errors():
            row = self._base.execute(
                "SELECT count(*), total(done), total(done * faces), "
                "total(done AND faces = 0 AND error IS NULL), total(done AND error IS NOT NULL) "
                "FROM found LEFT JOIN results USING (name)"
            ).fetchone()
        return Totals(*(int(value or 0) for value in row))

    @property
    def _parameters(self) -> dict[str, object]:
        """The values in `VALID`."""
        return {
            "options": self._options_id,
            "drawn": self._key.drawn,
            "cropped": self._key.cropped,
        }

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (zlib.error, UnicodeDecodeError):
            raise self._error(DAMAGED) from None
        except sqlite3.Error as error:
            reason = str(error)
            if "locked" in reason:
                reason = "another job is writing to this folder; wait for it or choose another"
            elif "full" in reason or "disk I/O" in reason:
                reason = f"cannot be written ({reason}); make room and run the same command again"
            elif "readonly" in reason or "unable to open" in reason:
                reason = f"cannot be written ({reason})"
            else:  # malformed pages, text that is none, a schema of nonsense …
                reason = DAMAGED
            raise self._error(reason) from None

    def _error(self, reason: str) -> BatchError:
        return BatchError(f"{display_name(self._path)}: {reason}")


def _photo(
    name: bytes, place: bytes, member: bytes | None, size: int, mtime: int, offset: int | None
) -> InputPhoto:
    inside = None if member is None else os.fsdecode(member)
    return InputPhoto(os.fsdecode(name), os.fsdecode(place), inside, size, mtime, offset)


def _decompressed(content: object) -> str:
    """The text of a record.

    Raises:
        zlib.error, UnicodeDecodeError: it is damaged.
    """
    if not isinstance(content, bytes):
        raise zlib.error("no record")
    decoder = zlib.decompressobj()
    text = decoder.decompress(content, LARGEST_RECORD)
    if not decoder.eof:
        raise zlib.error("cut, or too large")
    return text.decode()


def _storable(number: int | None) -> int | None:
    """The nearest whole number that SQLite can hold: the time of a file may be any."""
    return None if number is None else max(min(number, 2**63 - 1), -(2**63))


def _or_none(value: object) -> str:
    return "none" if value is None else str(value)
