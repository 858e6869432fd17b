"""`kpipe batch`, run as a user runs it: on real folders, stopped by real signals."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kpipe import __version__, read_image
from kpipe.formats.pts import read_pts
from tests.conftest import PATIENCE, PORTRAIT, Run, wait_for

FAST = ("--min-face", "0.3", "--tilt", "upright")
"""The example's face is large: what is tested here does not depend on looking for small ones."""


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A tree of twelve small photographs, half of them without a face."""
    folder = tmp_path / "photos"
    with Image.open(PORTRAIT) as picture:
        face = picture.crop((60, 0, 400, 340)).resize((160, 160))
    plain = Image.new("RGB", (160, 160), (90, 120, 60))
    for number in range(12):
        path = folder / "abc"[number % 3] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        (plain if number % 2 else face.rotate(number)).save(path, quality=92)
    return folder


def add_large(folder: Path, count: int) -> None:
    """Adds photographs that are slow to read, so that a test can act while the job runs."""
    first = folder / "more0.jpg"
    with Image.open(folder / "a/0.jpg") as picture:
        picture.resize((1600, 1600)).save(first, quality=95)
    for number in range(1, count):
        os.link(first, folder / f"more{number}.jpg")


Batch = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture
def batch(kpipe: Run) -> Batch:
    """Runs `kpipe batch` quickly."""

    def run(*arguments: object, **options: object) -> subprocess.CompletedProcess[bytes]:
        return kpipe("batch", *arguments, *FAST, **options)

    return run


def records(out: Path) -> dict[str, dict[str, object]]:
    """The records of a folder of results, each photograph once."""
    lines = [json.loads(line) for line in (out / "faces.jsonl").read_text().splitlines()]
    found = {line["image"]: line for line in lines}
    assert len(found) == len(lines), "a photograph has two lines"
    return found


def sorted_lines(out: Path) -> list[str]:
    return sorted((out / "faces.jsonl").read_text().splitlines())


def summary(out: Path) -> dict[str, object]:
    content: dict[str, object] = json.loads((out / "summary.json").read_text())
    return content


def talk(done: subprocess.CompletedProcess[bytes]) -> str:
    """What a run printed on standard error, which must be no traceback."""
    text = done.stderr.decode()
    assert "Traceback" not in text
    return text


def start(folder: Path, *arguments: object) -> subprocess.Popen[bytes]:
    """A job in a process group of its own, as a terminal starts it."""
    command = [sys.executable, "-m", "kpipe", "batch", *map(str, arguments), *FAST]
    return subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )


def workers_of(parent: int) -> list[int]:
    """The worker processes of a job."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                status = (entry / "stat").read_text()
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if int(status.rpartition(")")[2].split()[1]) == parent and b"spawn_main" in command:
                found.append(int(entry.name))
    return found


linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def test_the_main_job(batch: Batch, photos: Path, tmp_path: Path) -> None:
    done = batch("photos", "-o", "out", "--render", "--crops", "aligned", "--sheet")
    out = tmp_path / "out"
    assert done.returncode == 0, done.stderr
    assert done.stdout == b""
    assert "12 photographs, 6 faces, 6 photographs without a face" in talk(done)
    found = records(out)
    names = {str(p.relative_to(photos)) for p in photos.rglob("*.jpg")}
    assert set(found) == names
    for name, record in found.items():
        number = int(Path(name).stem)
        assert (record["width"], record["height"]) == (160, 160)
        assert len(record["faces"]) == 1 - number % 2
    drawn = {str(p.relative_to(out / "annotated")) for p in (out / "annotated").rglob("*.*")}
    assert drawn == names
    changed = np.abs(
        read_image(out / "annotated/a/0.jpg").astype(int) - read_image(photos / "a/0.jpg")
    )
    assert (changed.max(axis=2) > 40).mean() > 0.01
    crops = sorted(str(p.relative_to(out / "crops")) for p in (out / "crops").rglob("*.jpg"))
    assert crops == sorted(f"{name}_1.jpg" for name in names if int(Path(name).stem) % 2 == 0)
    assert Image.open(out / "crops" / crops[0]).size == (224, 224)
    assert (out / "errors.csv").read_text() == "image,reason\n"
    counts = summary(out)
    names = ("photographs", "faces", "without_face", "errors", "done_by_this_run")
    assert [counts[name] for name in names] == [12, 6, 6, 0, 12]
    assert counts["complete"] is True
    sheet = read_image(out / "sheet.jpg")
    assert sheet.shape[1] > 6 * 192 and sheet.std() > 20


@pytest.mark.slow
def test_the_records_are_those_of_annotate(batch: Batch, kpipe: Run, photos: Path) -> None:
    assert batch("photos", "-o", "out", "--format", "jsonl,csv").returncode == 0
    one = kpipe("annotate", "photos/a/0.jpg", "--no-picture", "--json", "-", *FAST)
    alone = json.loads(one.stdout)
    assert {**alone, "image": "a/0.jpg"} == records(photos.parent / "out")["a/0.jpg"]
    kpipe("annotate", "photos/a/0.jpg", "--no-picture", "--csv", "a.csv", *FAST)
    with (photos.parent / "a.csv").open() as stream:
        (row,) = csv.DictReader(stream)
    with (photos.parent / "out" / "faces.csv").open() as stream:
        rows = {line["image"]: line for line in csv.DictReader(stream)}
    assert rows["a/0.jpg"] == {**row, "image": "a/0.jpg"}
    assert set(rows) == set(records(photos.parent / "out"))


@pytest.mark.slow
def test_square_crops_are_framed_as_those_of_annotate(
    batch: Batch, kpipe: Run, photos: Path, tmp_path: Path
) -> None:
    assert batch("photos/a", "-o", "out", "--crops", "square").returncode == 0
    done = kpipe("annotate", "photos/a/0.jpg", "--no-picture", "--crops", "crops", *FAST)
    assert done.returncode == 0, done.stderr
    (drawn,) = (tmp_path / "crops").iterdir()
    # `annotate` draws the landmarks, which cover few pixels; another frame changes nearly all.
    difference = np.abs(
        read_image(drawn).astype(int) - read_image(tmp_path / "out/crops/0.jpg_1.jpg")
    )
    assert np.median(difference) < 3 < difference.max()


@pytest.mark.slow
def test_a_second_run_does_what_is_new_or_changed(
    batch: Batch, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    batch("photos", "-o", "out", "--render", "--crops", "square")
    first = sorted_lines(out)
    again = batch("photos", "-o", "out", "--render", "--crops", "square")
    assert "0 done now" in talk(again) and sorted_lines(out) == first

    shutil.copy(photos / "b/1.jpg", photos / "a/0.jpg")  # a face becomes none
    shutil.copy(photos / "a/6.jpg", photos / "new.jpg")
    (photos / "b/4.jpg").unlink()
    os.utime(photos / "a/3.jpg")  # touched, not changed
    drawn = (out / "annotated/a/3.jpg").stat().st_mtime_ns
    more = batch("photos", "-o", "out", "--render", "--crops", "square")
    assert "3 done now" in talk(more)
    found = records(out)
    assert found["a/0.jpg"]["faces"] == [] and len(found["new.jpg"]["faces"]) == 1
    assert "b/4.jpg" not in found and len(found) == 12
    assert not (out / "crops/a/0.jpg_1.jpg").exists()
    for gone in ("annotated/b/4.jpg", "crops/b/4.jpg_1.jpg"):
        assert not (out / gone).exists()
    assert (out / "annotated/a/3.jpg").stat().st_mtime_ns == drawn
    # What was not asked for is not gone.
    batch("photos/a", "-o", "out", "--render", "--crops", "square")
    batch("photos", "-o", "out", "--render", "--exclude", "c")
    assert (out / "annotated/c/2.jpg").exists()
    again = batch("photos", "-o", "out", "--render", "--crops", "square")
    assert "0 done now" in talk(again)
    shutil.copytree(photos, tmp_path / "copy")
    batch("copy", "-o", "anew")
    assert sorted_lines(tmp_path / "anew") == sorted_lines(out)


@pytest.mark.slow
def test_content_can_tell_what_has_changed(batch: Batch, photos: Path, tmp_path: Path) -> None:
    batch("photos", "-o", "out")
    path = photos / "a/0.jpg"
    times = path.stat()
    other = (photos / "b/1.jpg").read_bytes()
    path.write_bytes(other + bytes(times.st_size - len(other)))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert "0 done now" in talk(batch("photos", "-o", "out"))
    batch("photos", "-o", "out", "--check", "content")
    assert records(tmp_path / "out")["a/0.jpg"]["faces"] == []
    # What is damaged is not tried again, unless asked for.
    (photos / "bad.jpg").write_text("no picture")
    assert "bad.jpg: " in talk(batch("photos", "-o", "out", "--check", "content"))
    assert "bad.jpg: " not in talk(batch("photos", "-o", "out", "--check", "content"))
    assert "bad.jpg: " in talk(batch("photos", "-o", "out", "--check", "content", "--retry"))


@pytest.mark.slow
def test_other_options_do_all_again_and_say_why(batch: Batch, photos: Path, tmp_path: Path) -> None:
    batch("photos", "-o", "out")
    done = batch("photos", "-o", "out", "--min-score", "0.5")
    assert "doing 12 photographs again: --min-score: 0.7, now 0.5" in talk(done)
    done = batch("photos", "-o", "out", "--min-score", "0.5", "--render", "--draw", "points")
    assert "12 photographs again: annotated pictures: none, now points" in talk(done)
    assert len(list((tmp_path / "out/annotated").rglob("*.jpg"))) == 12
    # Without the pictures nothing is missing; in another format neither.
    done = batch("photos", "-o", "out", "--min-score", "0.5", "--format", "pts,coco")
    assert "again" not in talk(done) and "0 done now" in talk(done)
    assert "faces.jsonl: of an earlier run, as it was; --format jsonl brings" in talk(done)
    points = read_pts(tmp_path / "out/pts/a/0.pts")
    face = records(tmp_path / "out")["a/0.jpg"]["faces"][0]
    assert points == pytest.approx(np.array(face["points"]), abs=1e-6)
    # Another network is noticed whatever the file is called.
    (tmp_path / "network").write_text("none")
    done = batch("photos", "-o", "out", "--min-score", "0.5", "--model", "network")
    assert done.returncode == 1 and "not a usable ONNX file" in talk(done)


@pytest.mark.slow
def test_other_names_of_the_same_photographs_keep_their_pictures(
    batch: Batch, photos: Path, tmp_path: Path
) -> None:
    absolute, relative = [photos / "a", photos / "c"], [f".{photos}/a", f".{photos}/c"]
    for inputs in (absolute, relative, absolute):
        done = batch(*inputs, "-o", tmp_path / "out", "--render", cwd="/")
        assert done.returncode == 0, done.stderr
        assert len(list((tmp_path / "out/annotated").rglob("*.jpg"))) == 8


@pytest.mark.slow
def test_kill_9_at_any_moment(batch: Batch, photos: Path, tmp_path: Path) -> None:
    add_large(photos, 30)
    assert batch("photos", "-o", "whole", "--render").returncode == 0
    out = tmp_path / "out"
    lines = out / "faces.jsonl"
    counts = []
    for _ in range(3):
        before = len(lines.read_bytes().splitlines()) if lines.exists() else 0
        with start(tmp_path, "photos", "-o", "out", "--render", "--workers", 2) as job:
            wait_for(lambda b=before: lines.exists() and len(lines.read_bytes().splitlines()) > b)
            workers = workers_of(job.pid) if sys.platform == "linux" else []
            job.kill()
        counts.append(len(lines.read_bytes().splitlines()))
        # Nobody works on without the parent.
        wait_for(lambda w=workers: not any(Path(f"/proc/{pid}").exists() for pid in w))
    assert 0 < counts[0] < counts[1] < counts[2] < 42
    # A torn line, as a full disk could leave it, does no harm.
    with lines.open("ab") as stream:
        stream.write(b'{"image": "a/')
    done = batch("photos", "-o", "out", "--render")
    assert done.returncode == 0
    assert 0 < int(summary(out)["done_by_this_run"]) <= 42 - counts[2]
    assert sorted_lines(out) == sorted_lines(tmp_path / "whole")
    trees = [
        {p.relative_to(root): p.read_bytes() for p in root.rglob("*") if p.is_file()}
        for root in (out / "annotated", tmp_path / "whole/annotated")
    ]
    assert trees[0] == trees[1]
    assert list((out / ".kpipe/tmp").iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_control_c(batch: Batch, photos: Path, tmp_path: Path, number: signal.Signals) -> None:
    add_large(photos, 40)
    out = tmp_path / "out"
    with start(tmp_path, "photos", "-o", "out") as job:
        wait_for(lambda: (out / "faces.jsonl").exists() and sorted_lines(out))
        os.killpg(job.pid, number) if number == signal.SIGINT else job.send_signal(number)
        _, error = job.communicate(timeout=PATIENCE)
    assert job.returncode == 130
    kept = len(records(out))
    assert error.decode().splitlines() == [
        f"kpipe: stopped with {kept} of 52 done; the same command goes on from here"
    ]
    assert 0 < kept < 52 and summary(out)["complete"] is False
    assert f"{52 - kept} done now" in talk(batch("photos", "-o", "out"))
    assert len(records(out)) == 52


@pytest.mark.slow
@linux
def test_a_killed_worker_costs_one_photograph(photos: Path, tmp_path: Path, batch: Batch) -> None:
    add_large(photos, 40)
    out = tmp_path / "out"
    with start(tmp_path, "photos", "-o", "out", "--workers", 1) as job:
        wait_for(lambda: (out / "faces.jsonl").exists() and sorted_lines(out))
        os.kill(workers_of(job.pid)[0], signal.SIGKILL)
        _, error = job.communicate(timeout=PATIENCE)
    assert job.returncode == 1 and b"Traceback" not in error
    found = records(out)
    failed = [record for record in found.values() if "error" in record]
    assert len(found) == 52 and len(failed) == 1
    assert "its worker was ended by SIGKILL, perhaps for lack of memory" in failed[0]["error"]
    # The next run tries it again.
    assert batch("photos", "-o", "out").returncode == 0
    assert not any("error" in record for record in records(out).values())


@linux
@pytest.mark.slow
def test_a_photograph_that_takes_too_long(photos: Path, tmp_path: Path) -> None:
    add_large(photos, 40)
    out = tmp_path / "out"
    with start(tmp_path, "photos", "-o", "out", "--workers", 1, "--time-limit", 2) as job:
        wait_for(lambda: workers_of(job.pid))
        (worker,) = workers_of(job.pid)
        wait_for(lambda: (out / "faces.jsonl").exists() and sorted_lines(out))
        # Stopped in the middle of a photograph, as one that hangs the decoder.
        os.kill(worker, signal.SIGSTOP)
        _, error = job.communicate(timeout=PATIENCE)
    assert job.returncode == 1 and b"Traceback" not in error
    assert not Path(f"/proc/{worker}").exists()
    found = records(out)
    late = [r["error"] for r in found.values() if "error" in r]
    assert len(found) == 52
    assert [reason.split(": ")[1] for reason in late] == ["took longer than 2 s (--time-limit)"]


@linux
@pytest.mark.slow
def test_a_photograph_that_needs_too_much_memory(
    batch: Batch, photos: Path, tmp_path: Path
) -> None:
    Image.new("I;16", (12_000, 12_000)).save(photos / "huge.png")
    done = batch("photos", "-o", "out", "--memory", "0.7")
    assert done.returncode == 1
    found = records(tmp_path / "out")
    assert len(found) == 13
    errors = {name: record["error"] for name, record in found.items() if "error" in record}
    assert list(errors) == ["huge.png"] and "memory" in errors["huge.png"]


@pytest.mark.slow
def test_bad_photographs_do_not_stop_the_good_ones(
    batch: Batch, photos: Path, tmp_path: Path
) -> None:
    (photos / "text.jpg").write_text("hello")
    (photos / "empty.jpg").touch()
    (photos / "cut.jpg").write_bytes((photos / "a/0.jpg").read_bytes()[:3000])
    (photos / "gone.jpg").symlink_to("nowhere.jpg")
    os.mkfifo(photos / "fifo.jpg")
    Image.new("1", (20_000, 20_000)).save(photos / "bomb.png")
    (photos / "notes.md").touch()
    (photos / "._mac.jpg").touch()
    bad = {"text.jpg", "empty.jpg", "cut.jpg", "gone.jpg", "fifo.jpg", "bomb.png"}
    done = batch("photos", "-o", "out")
    assert done.returncode == 1
    assert "skipped 2 files: not an image, or excluded" in talk(done)
    found = records(tmp_path / "out")
    assert {name for name, record in found.items() if "error" in record} == bad
    assert all(found[name]["faces"] == [] for name in bad) and len(found) == 18
    with (tmp_path / "out/errors.csv").open() as stream:
        assert {row["image"]: row["reason"] for row in csv.DictReader(stream)} == {
            name: found[name]["error"] for name in bad
        }
    # What cannot be read is tried again, what is damaged is not.
    assert "2 done now" in talk(batch("photos", "-o", "out"))
    assert "6 done now" in talk(batch("photos", "-o", "out", "--retry"))


@pytest.mark.slow
def test_what_is_there_of_a_cut_photograph_is_done_and_the_exit_code_says_so(
    batch: Batch, photos: Path, tmp_path: Path
) -> None:
    (photos / "cut.jpg").write_bytes((photos / "a/0.jpg").read_bytes()[:-1])
    done = batch("photos", "-o", "out")
    warning = "its end is missing, but no pixel is"
    assert done.returncode == 1
    assert f"cut.jpg: {warning}" in talk(done)
    found = records(tmp_path / "out")
    assert found["cut.jpg"]["warning"] == warning and len(found) == 13
    assert found["cut.jpg"]["faces"] == found["a/0.jpg"]["faces"]
    with (tmp_path / "out/errors.csv").open() as stream:
        rows = [(row["image"], row["reason"]) for row in csv.DictReader(stream)]
    assert rows == [("cut.jpg", warning)]
    # The next run has nothing to do, and the photograph is as it was.
    done = batch("photos", "-o", "out")
    assert done.returncode == 1 and "0 errors; 0 done now" in talk(done)


@pytest.mark.slow
def test_names_of_all_kinds(batch: Batch, photos: Path, tmp_path: Path) -> None:
    names = [
        b"caf\xe9.jpg",
        b"new\nline.jpg",
        b"re\rturn.jpg",
        b"-dash.jpg",
        b"[bold]x[red].jpg",
        b'a,b ".jpg',
    ]
    for name in names:
        try:
            shutil.copy(os.fsencode(photos / "a/0.jpg"), os.path.join(os.fsencode(photos), name))
        except OSError:
            pytest.skip("this file system has no such names")
    arguments = ("photos", "-o", "out", "--render", "--format", "jsonl,csv,coco,pts", "--sheet")
    done = batch(*arguments)
    assert done.returncode == 0, done.stderr
    found = {os.fsencode(name) for name in records(tmp_path / "out")}
    assert set(names) < found and len(found) == 18
    assert set(names) < set(os.listdir(os.fsencode(tmp_path / "out/annotated")))
    table = (tmp_path / "out/faces.csv").read_bytes()
    assert all(name.replace(b'"', b'""') in table for name in names)
    assert "0 done now" in talk(batch(*arguments))


@pytest.mark.slow
def test_loops_and_unreadable_folders(batch: Batch, photos: Path, tmp_path: Path) -> None:
    (photos / "a/loop").symlink_to(photos)
    (photos / "again").symlink_to(photos / "b")
    (photos / "locked").mkdir()
    (photos / "locked").chmod(0)
    done = batch("photos", "-o", "out")
    if os.geteuid() != 0:
        assert done.returncode == 1 and "locked" in talk(done)
        assert "locked" in (tmp_path / "out/errors.csv").read_text()
        assert summary(tmp_path / "out")["complete"] is False
    assert len(records(tmp_path / "out")) == 12
    (photos / "locked").chmod(0o700)


@pytest.mark.slow
def test_results_inside_the_folder_are_no_photographs(
    batch: Batch, photos: Path, tmp_path: Path
) -> None:
    for out in (photos / "out", photos):
        for _ in range(2):
            done = batch(photos, "-o", out, "--render", "--crops", "square", "--sheet")
            assert done.returncode == 0 and len(records(out)) == 12
    done = batch(photos / "annotated", "-o", photos, "--render")
    assert done.returncode == 1 and "lies where the results go" in talk(done)


@pytest.mark.slow
def test_several_inputs(batch: Batch, photos: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        for path in (photos / "b").iterdir():
            archive.write(path, f"in/{path.name}")
        archive.writestr("../../evil.jpg", (photos / "a/0.jpg").read_bytes())
    with tarfile.open(tmp_path / "c.tar.gz", "w:gz") as tar:
        tar.add(photos / "c", "c")
    (tmp_path / "list.txt").write_text("photos/a/0.jpg\nphotos/a/0.jpg\nphotos/b/1.jpg\r\n")
    inputs = ("photos/a", "b.zip", "c.tar.gz", "list.txt", "photos/c/*.jpg")
    done = batch(*inputs, "-o", "out", "--render", "--sheet")
    assert done.returncode == 0, done.stderr
    # At most eight of those with faces lie in files: the second row is of the archives.
    assert read_image(tmp_path / "out/sheet.jpg").shape[0] > 2 * 192
    assert "named more than once, done once: 2" in talk(done)
    a, b, c = ([p.name for p in (photos / folder).iterdir()] for folder in "abc")
    assert set(records(tmp_path / "out")) == {
        *(f"photos/a/{n}" for n in a), *(f"b.zip/in/{n}" for n in b), "b.zip/../../evil.jpg",
        *(f"c.tar.gz/c/{n}" for n in c), "photos/b/1.jpg", *(f"photos/c/{n}" for n in c),
    }  # fmt: skip
    drawn = [p for p in (tmp_path / "out/annotated").rglob("*") if p.is_file()]
    assert len(drawn) == 4 + 4 + 1 + 4 + 1 + 4
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "b.zip", "c.tar.gz", "list.txt", "out", "photos"
    ]  # fmt: skip
    assert "0 done now" in talk(batch(*inputs, "-o", "out", "--render"))


@pytest.mark.slow
def test_lists_from_standard_input(batch: Batch, photos: Path, tmp_path: Path) -> None:
    names = [f"photos/a/{p.name}" for p in (photos / "a").iterdir()]
    for end in ("\n", "\0"):
        done = batch("-", "-o", "out", input=end.join(names).encode())
        assert done.returncode == 0, done.stderr
        assert set(records(tmp_path / "out")) == set(names)
    done = batch("-", "-o", "out", input=b"missing.jpg\n")
    assert done.returncode == 1 and "missing.jpg: no such file" in talk(done)


@pytest.mark.slow
def test_names_and_times_of_all_kinds_in_archives(
    batch: Batch, photos: Path, tmp_path: Path
) -> None:
    odd = os.fsdecode(b"bad\xff.jpg")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(photos / "a/0.jpg", odd)
        entry = tar.gettarinfo(photos / "a/6.jpg", "p/sub/late.jpg")
        entry.mtime = 10**10
        with (photos / "a/6.jpg").open("rb") as stream:
            tar.addfile(entry, stream)
        tar.add(photos / "b", "p/left/out")
    (tmp_path / "list.txt").write_bytes(b"\xef\xbb\xbfa.tar\n")
    done = batch("list.txt", "-o", "out", "--exclude", "a.tar/p/left")
    assert done.returncode == 0, done.stderr
    assert set(records(tmp_path / "out")) == {f"a.tar/{odd}", "a.tar/p/sub/late.jpg"}
    done = batch("list.txt", "-o", "out", "--exclude", "a.tar/p/left", "--sheet")
    assert done.returncode == 0 and "0 done now" in talk(done)


@pytest.mark.slow
def test_damaged_archives(batch: Batch, photos: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
        tar.add(photos, "p")
    whole = (tmp_path / "a.tar.gz").read_bytes()
    (tmp_path / "a.tar.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "b.zip").write_bytes(b"PK no zip")
    done = batch("a.tar.gz", "b.zip", "photos", "-o", "out")
    assert done.returncode == 1
    assert "a.tar.gz: not a readable archive" in talk(done)
    assert "b.zip: not a readable archive" in talk(done)
    assert talk(done).count("a.tar.gz: ") == 1
    found = records(tmp_path / "out")
    assert {name for name in found if name.startswith("photos/")} == {
        f"photos/{p.relative_to(photos).as_posix()}" for p in photos.rglob("*.jpg")
    }


@pytest.mark.slow
def test_include_and_exclude(batch: Batch, photos: Path, tmp_path: Path) -> None:
    (photos / "b" / "odd.dat").write_bytes((photos / "a/0.jpg").read_bytes())
    batch("photos", "-o", "x", "--exclude", "a", "--exclude", "c/8.jpg")
    expected = {f"b/{k}.jpg" for k in (1, 4, 7, 10)} | {f"c/{k}.jpg" for k in (2, 5, 11)}
    assert set(records(tmp_path / "x")) == expected
    batch("photos", "-o", "y", "--include", "b/*.dat", "--include", "1?.jpg")
    assert set(records(tmp_path / "y")) == {"b/odd.dat", "b/10.jpg", "c/11.jpg"}


@pytest.mark.slow
def test_links_to_themselves_and_times_to_come(batch: Batch, photos: Path, tmp_path: Path) -> None:
    (photos / "me.jpg").symlink_to("me.jpg")
    os.utime(photos / "a/0.jpg", ns=(0, 10**19))
    if (photos / "a/0.jpg").stat().st_mtime_ns < 2**63:
        pytest.skip("this file system has no such times")
    done = batch("photos", "-o", "out")
    assert done.returncode == 1
    found = records(tmp_path / "out")
    assert [name for name, record in found.items() if "error" in record] == ["me.jpg"]
    assert len(found) == 13
    assert "1 done now" in talk(batch("photos", "-o", "out"))


@pytest.mark.slow
def test_files_that_come_and_go_meanwhile(batch: Batch, photos: Path, tmp_path: Path) -> None:
    path = photos / "a/0.jpg"
    batch("photos", "-o", "out")
    # It was half written at the first run: now it is longer.
    path.write_bytes(path.read_bytes() + bytes(10))
    assert "1 done now" in talk(batch("photos", "-o", "out"))
    path.unlink()
    assert "photographs" in talk(batch("photos", "-o", "out"))
    assert "a/0.jpg" not in records(tmp_path / "out")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("missing", "-o", "out"), "missing: no such folder, photograph, list or archive"),
        (("x*y", "-o", "out"), "x*y: nothing matches this pattern"),
        (("photos", "-o", "out", "--format", "word"), "choose from jsonl, csv"),
        (("photos", "-o", "out", "--crops", "round"), "choose square or aligned"),
        (("photos", "-o", "out", "--render", "--draw", "hats"), "cannot draw 'hats'"),
        (("photos", "-o", "out", "--check", "name"), "choose time or content"),
        (("photos", "-o", "out", "--engine", "steam"), "choose local or ray"),
        (("photos",), "--output"),
    ],
)
def test_wrong_usage(
    batch: Batch, photos: Path, arguments: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    done = batch(*arguments)
    assert done.returncode == 2 and message in talk(done)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_what_stops_a_job(batch: Batch, photos: Path, tmp_path: Path) -> None:
    done = batch("photos", "-o", "out", "--model", "missing.onnx")
    assert done.returncode == 1
    assert talk(done).splitlines() == [
        f"kpipe: {tmp_path / 'missing.onnx'}: No such file or directory"
    ]
    (tmp_path / "bad.onnx").write_text("no network")
    done = batch("photos", "-o", "out", "--model", "bad.onnx")
    assert done.returncode == 1 and "not a usable ONNX file" in talk(done)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/faces.jsonl").write_text("precious")
    done = batch("photos", "-o", "mine")
    assert done.returncode == 1 and "is no result of kpipe batch" in talk(done)
    assert (tmp_path / "mine/faces.jsonl").read_text() == "precious"
    (tmp_path / "file").touch()
    done = batch("photos", "-o", "file")
    assert done.returncode == 1 and "file: cannot be written" in talk(done)


@pytest.mark.slow
def test_one_job_at_a_time(batch: Batch, photos: Path, tmp_path: Path) -> None:
    assert batch("photos", "-o", "out").returncode == 0
    journal = sqlite3.connect(tmp_path / "out/.kpipe/journal.sqlite")
    journal.execute("BEGIN EXCLUSIVE")
    done = batch("photos", "-o", "out")
    assert done.returncode == 1 and "another job is writing to this folder" in talk(done)
    journal.close()
    (tmp_path / "out/.kpipe/journal.sqlite").write_bytes(b"no journal" * 1000)
    done = batch("photos", "-o", "out")
    assert done.returncode == 1 and "damaged; remove it to begin anew" in talk(done)


def rewrite_options(out: Path, **values: str) -> None:
    """Makes a journal say that its results were made with other values of options."""
    with sqlite3.connect(out / ".kpipe/journal.sqlite") as journal:
        ((content,),) = journal.execute("SELECT content FROM options").fetchall()
        content = json.dumps({**json.loads(content), **values}, sort_keys=True)
        journal.execute("UPDATE options SET content = ?", (content,))
    journal.close()


@pytest.mark.slow
def test_a_folder_of_an_earlier_version_is_done_again_and_says_why(
    batch: Batch, photos: Path, tmp_path: Path
) -> None:
    assert batch("photos", "-o", "out").returncode == 0
    rewrite_options(tmp_path / "out", kpipe="0.1.0", model="0123456789abcdef")
    done = batch("photos", "-o", "out")
    assert done.returncode == 0
    first, *rest = talk(done).splitlines()
    assert first.startswith(f"doing 12 photographs again: kpipe: 0.1.0, now {__version__}; model: ")
    assert not any("again" in line for line in rest) and "12 done now" in rest[0]
    assert "0 done now" in talk(batch("photos", "-o", "out"))


@pytest.mark.slow
def test_a_journal_of_another_form_gives_one_line(
    batch: Batch, photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "out/.kpipe").mkdir(parents=True)
    path = tmp_path / "out/.kpipe/journal.sqlite"
    journal = sqlite3.connect(path)
    journal.execute("CREATE TABLE results (photograph TEXT, faces TEXT)")
    journal.close()
    done = batch("photos", "-o", "out")
    assert done.returncode == 1
    assert talk(done).splitlines() == [
        "kpipe: out/.kpipe/journal.sqlite: a journal of another version of kpipe; remove it to "
        "start over, or choose another folder for the results"
    ]
    path.unlink()
    assert batch("photos", "-o", "out").returncode == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "kpipe-test", str(disk)]
    try:
        done = subprocess.run(command, capture_output=True, check=False)
    except OSError:
        pytest.skip("no mount here")
    if done.returncode:
        pytest.skip("mounting is not allowed here")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("what", [(), ("--render",)], ids=["records", "pictures"])
def test_a_full_disk(
    batch: Batch, photos: Path, tmp_path: Path, small_disk: Path, what: tuple[str, ...]
) -> None:
    for copy in range(100):
        shutil.copy(photos / "a/0.jpg", photos / f"more{copy}.jpg")
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(800_000))
    done = batch("photos", "-o", small_disk / "out", *what)
    assert done.returncode == 1
    (line,) = talk(done).splitlines()
    assert "cannot be written" in line and str(small_disk) in line
    ballast.unlink()
    kept = batch("photos", "-o", small_disk / "out")
    assert kept.returncode == 0, kept.stderr
    assert len(records(small_disk / "out")) == 112


def test_a_read_only_folder(batch: Batch, photos: Path, tmp_path: Path, small_disk: Path) -> None:
    assert batch("photos", "-o", small_disk / "out").returncode == 0
    before = sorted_lines(small_disk / "out")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for out in ("out", "new"):
        done = batch("photos", "-o", small_disk / out)
        assert done.returncode == 1
        (line,) = talk(done).splitlines()
        assert "cannot be written" in line
    assert sorted_lines(small_disk / "out") == before


def test_nothing_to_do(batch: Batch, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    done = batch("none", "-o", "out", "--format", "jsonl,csv,coco,pts", "--sheet")
    assert done.returncode == 0 and "0 photographs" in talk(done)
    assert records(tmp_path / "out") == {}


def test_help(kpipe: Run) -> None:
    text = kpipe("batch", "--help").stdout.decode()
    for option in ("--format", "--render", "--crops", "--sheet", "--check", "--engine", "--retry"):
        assert option in text
