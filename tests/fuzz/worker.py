"""One process that reads hostile inputs, and what it must not do meanwhile: the oracle.

An input is well treated if the entry that reads it works or raises a KpipeError of one printable
line; a command may only exit with 0, 1 or 2 and print the like. Everything else is a fault: another
exception, an end of the process, too much time or memory, another program started, a file written
or left where none belongs, words of a library on standard error.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

CPU_SECONDS = float(os.environ.get("KPIPE_FUZZ_CPU", 20))
"""Processor time that one input may take. It does not depend on what else the machine does."""

WALL_SECONDS = float(os.environ.get("KPIPE_FUZZ_WALL", 600))
"""Time after which a process that does not use the processor waits for something for ever."""

MEMORY = {"pictures": 4 << 30, "videos": 4 << 30, "archives": 3 << 29}
"""Bytes by which one input of a kind may let the process grow."""

OTHER_MEMORY = 600 << 20
"""Bytes, for the kinds that `MEMORY` does not name."""

LONGEST_MESSAGE = 4000
"""Characters."""

DEPTH = ("p", "q", "r")
"""Folders between the guarded one and the one that a case works in: a path that climbs out of the
latter still ends where it is noticed."""


class Case(NamedTuple):
    """A hostile input.

    Attributes:
        kind: a key of `tests.fuzz.targets.TARGETS`.
        name: of the file.
        content: of the file.
        variant: any number; which of the ways of reading the kind is taken.
    """

    kind: str
    name: str
    content: bytes
    variant: int = 1


class Outcome(NamedTuple):
    """What came of a case.

    Attributes:
        fault: None if it was well treated, else a short name, equal for two cases of one fault.
        detail: more about it, for a person.
        read: whether the input was read without an error.
    """

    fault: str | None
    detail: str = ""
    read: bool = False


Target = Callable[[Case, Path, Path], None]
"""Reads a case from a path, and writes what it likes into a folder."""


class Fault(Exception):
    """A case is not well treated; the arguments are those of `Outcome`."""


class Worker:
    """Runs cases in a process of its own, which is started again when a case has ended it.

    Args:
        targets: other kinds of input than `TARGETS` has, and what reads them.
        cpu_seconds: processor time that one case may take.
    """

    def __init__(
        self, targets: dict[str, Target] | None = None, cpu_seconds: float = CPU_SECONDS
    ) -> None:
        self._targets, self._cpu_seconds = targets or {}, cpu_seconds
        self._context = multiprocessing.get_context("spawn")
        self._process: Any = None
        self._pipe: Any = None
        self._folder = tempfile.mkdtemp(prefix="kpipe-fuzz-")

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __call__(self, case: Case) -> Outcome:
        if self._process is None:
            self._start()
        folder = Path(tempfile.mkdtemp(dir=self._folder))
        try:
            self._pipe.send((case, str(folder)))
            return self._answer()
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _answer(self) -> Outcome:
        end, cpu = time.monotonic() + WALL_SECONDS, _cpu_seconds(self._process.pid)
        while not self._pipe.poll(0.25):
            used = _cpu_seconds(self._process.pid) - cpu
            if used > self._cpu_seconds or time.monotonic() > end:
                self._end()
                what = "time" if used > self._cpu_seconds else "waits for ever"
                return Outcome(what, f"no end after {used:.0f} s of processor time")
        try:
            outcome: Outcome = self._pipe.recv()
            return outcome
        except EOFError:
            self._process.join()
            code = self._process.exitcode
            self._end()
            return Outcome(f"the process ends ({code})", "")

    def _start(self) -> None:
        self._pipe, theirs = self._context.Pipe()
        self._process = self._context.Process(
            target=_serve, args=(theirs, self._targets), daemon=True
        )
        self._process.start()
        theirs.close()
        self._pipe.recv()

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._pipe.close()
            self._process = None


def _cpu_seconds(pid: int) -> float:
    """Processor time of a process and of its children that have ended."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, words[11:15])) / os.sysconf("SC_CLK_TCK")


# In the other process.


def _serve(pipe: Connection, others: dict[str, Target]) -> None:
    from tests.fuzz import targets

    targets.TARGETS.update(others)
    # Far above what a case may take: the machine has other work.
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    targets.warm_up()
    watch = _Watch()
    sys.addaudithook(watch)
    pipe.send("ready")
    while True:
        try:
            case, folder = pipe.recv()
        except EOFError:
            return
        pipe.send(_run(case, Path(folder), watch))


class _Watch:
    """An audit hook that notes programs that are started and files that are written elsewhere."""

    EVENTS = ("subprocess.Popen", "os.posix_spawn", "os.exec", "os.fork", "os.system")

    def __init__(self) -> None:
        self.allowed: tuple[str, ...] | None = None
        self.seen: list[str] = []

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.allowed is None:
            return
        if event in self.EVENTS:
            self.seen.append(f"another program ({event})")
        elif event == "open" and isinstance(arguments[0], (str, bytes)):
            if (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                self._written(event, arguments[0])
        elif event in ("os.mkdir", "os.remove", "os.rmdir", "os.link", "os.symlink"):
            self._written(event, arguments[0])
        elif event == "os.rename":
            self._written(event, arguments[1])

    def _written(self, event: str, path: str | bytes) -> None:
        if isinstance(path, int) or (event == "os.mkdir" and os.path.isdir(path)):
            return
        text = os.fsdecode(path)
        # A folder that is opened for a file without a name, or the folder of the file.
        folder = text if os.path.isdir(text) else os.path.dirname(text)
        real = os.path.join(os.path.realpath(folder), "")
        if self.allowed is not None and not real.startswith(self.allowed):
            self.seen.append(f"a file is written elsewhere ({event})\n{os.fsdecode(path)!a}")


def _run(case: Case, top: Path, watch: _Watch) -> Outcome:
    from tests.fuzz import targets

    work = top.joinpath(*DEPTH)
    inputs, results, scratch = (work / name for name in ("in", "out", "tmp"))
    for folder in (inputs, results, scratch):
        folder.mkdir(parents=True)
    for folder in (top, work):
        (folder / "guard.txt").write_text("not yours")
    source = targets.place(case, inputs)
    before = _listing(top, results)
    tempfile.tempdir = str(scratch)
    os.chdir(work)
    allowed = (os.path.join(os.path.realpath(results), ""), str(scratch) + "/", "/dev/")
    watch.seen.clear()
    base = _reset_peak()
    read = False
    try:
        with _captured(top / "stdout", top / "stderr") as streams:
            watch.allowed = allowed
            try:
                read = _attempt(case, source, results)
            finally:
                # Whatever the entry has started has its end here.
                watch.allowed = None
        _check_streams(*streams, command=targets.is_command(case))
        if watch.seen:
            raise Fault(*watch.seen[0].split("\n"))
        left = [
            str(p)
            for p in results.rglob("*")
            if p.is_file() and (p.name.startswith((".kpipe-", "tmp")) or p.parent.name == "tmp")
        ]
        if left or any(scratch.iterdir()):
            raise Fault("a temporary file is left", ", ".join(left))
        changed = {entry[0] for entry in {*_listing(top, results)} ^ {*before}}
        if changed:
            raise Fault("a file outside the folder", ascii(sorted(changed)))
        grown = _peak() - base
        if grown > MEMORY.get(case.kind, OTHER_MEMORY):
            raise Fault("memory", f"{grown >> 20} MiB")
    except Fault as fault:
        return Outcome(*map(str, fault.args[:2]))
    finally:
        watch.allowed = None
        tempfile.tempdir = None
        os.chdir("/")
    return Outcome(None, read=read)


def _attempt(case: Case, source: Path, results: Path) -> bool:
    from kpipe.errors import KpipeError
    from tests.fuzz import targets

    try:
        targets.read(case, source, results)
    except KpipeError as error:
        _check_line(str(error), f"the message of {_signature(error)}")
        return False
    except Fault:
        raise
    except BaseException as error:
        raise Fault(_signature(error), _lines(error)) from None
    return True


def _signature(error: BaseException) -> str:
    """The error's type, and the function of kpipe in which it came."""
    frames = traceback.extract_tb(error.__traceback__)
    inner = [f for f in frames if "/kpipe/" in f.filename and "/tests/" not in f.filename]
    place = f" in {Path(inner[-1].filename).stem}.{inner[-1].name}" if inner else ""
    return f"{type(error).__name__}{place}"


def _lines(error: BaseException) -> str:
    lines = traceback.format_exception(type(error), error, error.__traceback__)
    return "".join(lines[-4:]).encode("ascii", "backslashreplace").decode()[-1500:]


def _check_line(text: str, what: str) -> None:
    if not text.strip():
        raise Fault(f"{what} is empty")
    if not text.isprintable():
        raise Fault(f"{what} has control characters", ascii(text)[:300])
    if len(text) > LONGEST_MESSAGE:
        raise Fault(f"{what} is very long", text[:300])


def _check_streams(out: bytes, err: bytes, *, command: bool) -> None:
    text = err.decode("utf-8", "surrogateescape")
    if not command and text:
        raise Fault("words of a library on standard error", ascii(text)[:300])
    if "Traceback" in text:
        raise Fault("a traceback is printed", ascii(text)[-800:])
    for line in [*text.split("\n"), *out.decode("utf-8", "surrogateescape").split("\n")]:
        if line:
            _check_line(line, "a printed line")


@contextlib.contextmanager
def _captured(out: Path, err: Path) -> Iterator[list[bytes]]:
    """What the process writes to standard output and error meanwhile, libraries included."""
    streams: list[bytes] = []
    saved = [os.dup(number) for number in (1, 2)]
    for number, path in ((1, out), (2, err)):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.dup2(descriptor, number)
        os.close(descriptor)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as the command line does
            yield streams
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        for number, descriptor in zip((1, 2), saved):
            os.dup2(descriptor, number)
            os.close(descriptor)
        streams += [path.read_bytes() for path in (out, err)]
        for path in (out, err):
            path.unlink()


def _listing(top: Path, but: Path) -> list[tuple[str, int, bytes]]:
    """The files of a folder, without those of one of its folders."""
    files = (p for p in top.rglob("*") if but not in (p, *p.parents) and p.name != "tmp")
    return sorted(
        (str(p), p.lstat().st_mode, p.read_bytes() if p.is_file() else b"") for p in files
    )


def _reset_peak() -> int:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> int:
    """The most memory that the process had at once since the last reset, bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    return 0
