"""`kpipe annotate`, run as a user runs it: as a program."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kpipe.detectors.haar import opencv_data
from kpipe.formats.pts import read_pts
from tests.conftest import GROUP, PATIENCE, ROOT, Run


def lines(stream: bytes) -> list[str]:
    return stream.decode().splitlines()


def test_the_main_job(kpipe: Run, tmp_path: Path) -> None:
    shutil.copy(GROUP, tmp_path / "group.jpg")
    done = kpipe("annotate", "group.jpg", "--json", "faces.json")
    assert done.returncode == 0, done.stderr
    assert done.stdout == b""
    assert b"written: group_annotated.jpg" in done.stderr
    record = json.loads((tmp_path / "faces.json").read_text())
    assert record["image"] == "group.jpg"
    assert len(record["faces"]) == 6
    drawn = np.asarray(Image.open(tmp_path / "group_annotated.jpg")).astype(int)
    plain = np.asarray(Image.open(tmp_path / "group.jpg")).astype(int)
    changed = np.abs(drawn - plain).max(axis=2) > 40
    assert drawn.shape == plain.shape
    for face in record["faces"]:
        x0, y0, x1, y1 = (int(v) for v in face["box"])
        assert changed[y0:y1, x0:x1].mean() > 0.02
        changed[y0 - 25 : y1 + 25, x0 - 25 : x1 + 25] = False
    assert changed.mean() < 1e-3


def test_all_kinds_of_output(kpipe: Run, small_photo: Path, tmp_path: Path) -> None:
    done = kpipe(
        "annotate", "photo.jpg", "--csv", "-", "--pts", "points", "--crops", "crops/deep",
        "--draw", "boxes,lines,points,numbers,index", "-o", "out.png",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(io.StringIO(done.stdout.decode())))
    assert [row["image"] for row in rows] == ["photo.jpg"]
    points = read_pts(tmp_path / "points" / "photo.pts")
    assert points[30][0] == pytest.approx(float(rows[0]["nose_tip_x"]), abs=0.01)
    assert Image.open(tmp_path / "crops" / "deep" / "photo.jpg").size == (224, 224)
    assert Image.open(tmp_path / "out.png").format == "PNG"


def test_several_faces_get_numbered_files(kpipe: Run, tmp_path: Path) -> None:
    done = kpipe("annotate", GROUP, "--no-picture", "--pts", "p", "--crops", "c", "--quiet")
    assert done.returncode == 0 and done.stderr == b""
    names = [f"group_photo_{k}" for k in range(1, 7)]
    assert sorted(p.stem for p in (tmp_path / "p").iterdir()) == names
    assert sorted(p.stem for p in (tmp_path / "c").iterdir()) == names


@pytest.mark.slow
def test_through_pipes(kpipe: Run, small_photo: Path, tmp_path: Path) -> None:
    content = small_photo.read_bytes()
    picture = kpipe("annotate", "-", input=content)
    assert picture.returncode == 0
    assert Image.open(io.BytesIO(picture.stdout)).size == (256, 256)
    data = kpipe("annotate", "-", "--json", "-", input=content)
    record = json.loads(data.stdout)
    assert record["image"] == "-" and len(record["faces"]) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["photo.jpg"]
    both = kpipe("annotate", "-", "--json", "-", "-o", "-", input=content)
    assert both.returncode == 2 and both.stdout == b""
    nothing = kpipe("annotate", "-", input=b"")
    assert (nothing.returncode, lines(nothing.stderr)) == (1, ["kpipe: standard input: empty"])


@pytest.mark.slow
def test_inputs_and_results_are_safe(kpipe: Run, small_photo: Path, tmp_path: Path) -> None:
    before = small_photo.read_bytes()
    for force in ((), ("--force",)):
        done = kpipe("annotate", "photo.jpg", "-o", "./photo.jpg", *force)
        assert done.returncode == 1 and b"is an input photograph" in done.stderr
        (tmp_path / "link.jpg").unlink(missing_ok=True)
        (tmp_path / "link.jpg").symlink_to("photo.jpg")
        done = kpipe("annotate", "photo.jpg", "-o", "link.jpg", *force)
        assert done.returncode == 1 and b"is an input photograph" in done.stderr
    assert small_photo.read_bytes() == before

    (tmp_path / "photo_annotated.jpg").write_bytes(b"precious")
    done = kpipe("annotate", "photo.jpg")
    assert done.returncode == 1
    assert lines(done.stderr) == ["kpipe: photo_annotated.jpg: exists; --force replaces it"]
    assert (tmp_path / "photo_annotated.jpg").read_bytes() == b"precious"
    assert kpipe("annotate", "photo.jpg", "--force").returncode == 0
    assert Image.open(tmp_path / "photo_annotated.jpg").size == (256, 256)
    done = kpipe("annotate", "photo.jpg", "-f", "--json", "photo.jpg")
    assert done.returncode != 0 and small_photo.read_bytes() == before


def test_two_photos_of_one_name(kpipe: Run, small_photo: Path, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    shutil.copy(small_photo, tmp_path / "b" / "photo.jpg")
    done = kpipe("annotate", "photo.jpg", "b/photo.jpg", "-o", "out", "--force")
    assert done.returncode == 1
    assert b"would be the result of two photographs" in done.stderr
    assert (tmp_path / "out" / "photo_annotated.jpg").exists()


def test_no_face_is_no_error_but_is_said(kpipe: Run, tmp_path: Path) -> None:
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    done = kpipe("annotate", "dot.png", "--json", "-")
    assert done.returncode == 0
    assert json.loads(done.stdout)["faces"] == []
    assert "dot.png: no face found" in lines(done.stderr)


@pytest.mark.slow
def test_bad_photos_do_not_stop_the_good_ones(
    kpipe: Run, small_photo: Path, tmp_path: Path
) -> None:
    (tmp_path / "text.jpg").write_text("hello")
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "cut.jpg").write_bytes(small_photo.read_bytes()[:5000])
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "fifo.jpg")
    Image.new("1", (20_000, 20_000)).save(tmp_path / "bomb.png")
    bad = ["text.jpg", "empty.jpg", "cut.jpg", "folder.jpg", "fifo.jpg", "bomb.png", "missing.jpg"]
    done = kpipe("annotate", *bad, "photo.jpg", "-q", "--json", "all.jsonl")
    assert done.returncode == 1
    errors = lines(done.stderr)
    assert [line.split(": ")[1] for line in errors] == bad
    assert not any("Traceback" in line for line in errors)
    records = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text().splitlines()]
    assert [r["image"] for r in records] == [*bad, "photo.jpg"]
    assert all("error" in r and r["faces"] == [] for r in records[:-1])
    assert len(records[-1]["faces"]) == 1
    assert (tmp_path / "photo_annotated.jpg").exists()


@pytest.mark.slow
def test_what_is_there_of_a_cut_photograph_is_done_and_the_exit_code_says_so(
    kpipe: Run, small_photo: Path, tmp_path: Path
) -> None:
    content = small_photo.read_bytes()
    (tmp_path / "short.jpg").write_bytes(content[:-1])
    (tmp_path / "cut.jpg").write_bytes(content[: len(content) * 9 // 10])
    done = kpipe("annotate", "short.jpg", "cut.jpg", "-q", "--json", "-")
    assert done.returncode == 1
    first, second = (json.loads(line) for line in lines(done.stdout))
    assert first["warning"] == "its end is missing, but no pixel is"
    assert second["warning"].startswith("cut short or damaged: ")
    assert len(first["faces"]) == len(second["faces"]) == 1
    assert lines(done.stderr) == [
        f"kpipe: {record['image']}: {record['warning']}" for record in (first, second)
    ]
    assert (tmp_path / "cut_annotated.jpg").exists()
    done = kpipe("annotate", "-", "--json", "-", "-q", input=content[:-1])
    assert done.returncode == 1
    assert lines(done.stderr) == ["kpipe: standard input: its end is missing, but no pixel is"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [b"with space.jpg", b"new\nline.jpg", b"-dash.jpg", b"caf\xe9.jpg", b"[bold]x[/].jpg"]
)
def test_odd_file_names(kpipe: Run, small_photo: Path, tmp_path: Path, name: bytes) -> None:
    try:
        os.rename(small_photo, os.path.join(os.fsencode(tmp_path), name))
    except OSError:
        pytest.skip("this file system has no such names")
    done = kpipe("annotate", "--json", "-", "--csv", "faces.csv", "--", name)
    assert done.returncode == 0, done.stderr
    assert name in (tmp_path / "faces.csv").read_bytes()
    again = kpipe("annotate", "--csv", "-", "--no-picture", "--", name)
    assert again.returncode == 0 and name in again.stdout, again.stderr
    assert os.fsencode(json.loads(done.stdout)["image"]) == name
    stem = name.removesuffix(b".jpg")
    assert stem + b"_annotated.jpg" in os.listdir(os.fsencode(tmp_path))
    assert kpipe("annotate", "--", b"no such " + name).returncode == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission(kpipe: Run, small_photo: Path) -> None:
    small_photo.chmod(0)
    done = kpipe("annotate", "photo.jpg")
    assert (done.returncode, lines(done.stderr)) == (
        1, ["kpipe: photo.jpg: no permission to read it"]
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--draw", "moustache"), "cannot draw 'moustache'"),
        (("--tilt", "sideways"), "choose any or upright"),
        (("--scheme", "dlib5"), "choose ibug68 or kaggle15"),
        (("--detector", "hog"), "choose proposals, haar or a YuNet .onnx file"),
        (("--min-score", "2"), "--min-score"),
        (("--model", "missing.onnx"), "missing.onnx: no such model file"),
        (("--cascades", "."), "haarcascade_frontalface_alt2.xml: No such file"),
        (("-o", "x.jpg", "photo.jpg"), "several photographs need a folder"),
        (("-o", "no/suffix"), "no picture format is named no/suffix"),
    ],
)
def test_wrong_usage(
    kpipe: Run, small_photo: Path, arguments: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    (tmp_path / "x.jpg").touch()
    done = kpipe("annotate", "photo.jpg", *arguments)
    assert done.returncode == 2
    assert message in done.stderr.decode()
    assert b"Traceback" not in done.stderr


def test_a_reader_that_leaves(small_photo: Path) -> None:
    command = [sys.executable, "-m", "kpipe", "annotate", "photo.jpg", "--json", "-", "-q"]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        command, cwd=small_photo.parent, stdout=writer, stderr=subprocess.PIPE, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("option", ["--json", "--csv", "-o"])
def test_a_full_disk(small_photo: Path, option: str) -> None:
    command = [sys.executable, "-m", "kpipe", "annotate", "photo.jpg", option, "-", "-q"]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            command, cwd=small_photo.parent, stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert done.returncode == 1
    message = lines(done.stderr)
    assert len(message) == 1 and "No space left on device" in message[0]


def test_hard_links_to_inputs_are_inputs(kpipe: Run, small_photo: Path, tmp_path: Path) -> None:
    before = small_photo.read_bytes()
    os.link(small_photo, tmp_path / "hard.json")
    done = kpipe("annotate", "photo.jpg", "--no-picture", "--json", "hard.json", "--force")
    assert done.returncode != 0 and b"is an input photograph" in done.stderr
    assert small_photo.read_bytes() == before


@pytest.mark.slow
def test_a_file_in_the_way_costs_nothing_else(
    kpipe: Run, small_photo: Path, tmp_path: Path
) -> None:
    (tmp_path / "old.csv").write_text("precious")
    done = kpipe("annotate", "photo.jpg", "--json", "new.json", "--csv", "old.csv")
    assert done.returncode != 0
    assert not (tmp_path / "new.json").exists()
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "photo.pts").write_text("precious")
    done = kpipe("annotate", "photo.jpg", "--json", "new.json", "--pts", "p")
    assert done.returncode == 1 and b"p/photo.pts: exists" in done.stderr
    assert len(json.loads((tmp_path / "new.json").read_text())["faces"]) == 1
    assert (tmp_path / "photo_annotated.jpg").exists()
    assert (tmp_path / "p" / "photo.pts").read_text() == "precious"


def test_data_come_whatever_becomes_of_the_picture(
    kpipe: Run, small_photo: Path, tmp_path: Path
) -> None:
    (tmp_path / "photo_annotated.jpg").write_bytes(b"precious")
    done = kpipe("annotate", "photo.jpg", "--json", "-", "-q")
    assert done.returncode == 1
    assert lines(done.stderr) == ["kpipe: photo_annotated.jpg: exists; --force replaces it"]
    assert len(json.loads(done.stdout)["faces"]) == 1
    assert (tmp_path / "photo_annotated.jpg").read_bytes() == b"precious"


@pytest.mark.slow
def test_annotate_and_batch_cut_the_same_crops(kpipe: Run, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    shutil.copy(GROUP, tmp_path / "photos" / "group.jpg")
    done = kpipe(
        "annotate", "photos/group.jpg", "--no-picture", "--crops", "annotated", "--json", "-"
    )
    assert done.returncode == 0, done.stderr
    batch = ("batch", "photos", "-o", "out", "--crops", "square", "--crop-size", "224")
    done = kpipe(*batch, "--workers", "1")
    assert done.returncode == 0, done.stderr
    clean = sorted((tmp_path / "out" / "crops").rglob("*.jpg"))
    drawn = sorted((tmp_path / "annotated").iterdir())
    assert len(clean) == len(drawn) == 6
    for one, other in zip(clean, drawn):
        left, right = (np.asarray(Image.open(p).convert("L")).astype(float) for p in (one, other))
        assert left.shape == right.shape == (224, 224)
        # The points that are drawn on one of them cover a small part.
        bare = np.abs(left - right) < 25
        assert bare.mean() > 0.9
        assert np.corrcoef(left[bare], right[bare])[0, 1] > 0.98


def test_a_table_in_a_pipe_has_one_line_a_photograph(kpipe: Run, tmp_path: Path) -> None:
    name = f"{'a_long_name_' * 8}.jpg"
    shutil.copy(GROUP, tmp_path / name)
    done = kpipe("annotate", name, "--no-picture")
    header, row = lines(done.stderr)
    assert header.split("  ")[0] == "photograph"
    assert name in row and " 6 " in row


def test_control_c(small_photo: Path) -> None:
    photos = ["photo.jpg"] * 500
    command = [sys.executable, "-m", "kpipe", "annotate", "--no-picture", "--json", "-", *photos]
    with subprocess.Popen(
        command,
        cwd=small_photo.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,  # what is read here is not missing below
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        first = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert lines(err) == ["kpipe: stopped"]
    done = lines(first + out)
    assert 0 < len(done) < 500 and all(json.loads(line) for line in done)


def test_heavy_packages_are_not_loaded(small_photo: Path) -> None:
    script = (
        "import sys; from kpipe.cli import main\n"
        "sys.argv = ['kpipe', 'annotate', 'photo.jpg', '-q']\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print([m for m in ('torch', 'matplotlib', 'av', 'ray', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=small_photo.parent, capture_output=True, check=False
    )
    assert done.stdout == b"[]\n", done.stderr
    light = "import sys, kpipe; print([m for m in ('cv2', 'onnxruntime') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", light], capture_output=True, check=True)
    assert done.stdout == b"[]\n"


def test_cascades_from_a_folder(kpipe: Run, small_photo: Path, tmp_path: Path) -> None:
    shutil.copytree(opencv_data(), tmp_path / "cascades")
    done = kpipe("annotate", "photo.jpg", "--cascades", "cascades", "--json", "-")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["faces"]) == 1


def test_help_and_version(kpipe: Run) -> None:
    import kpipe as package

    for option in ("--version", "-V"):
        assert kpipe(option).stdout.decode() == f"kpipe {package.__version__}\n"
    overview = kpipe("--help").stdout.decode()
    assert "annotate" in overview and "evaluate" in overview
    for option in ("--json", "--csv", "--pts", "--crops", "--force", "--draw", "--tilt"):
        assert option in kpipe("annotate", "--help").stdout.decode()


def test_without_libgl_it_says_what_to_do(small_photo: Path, tmp_path: Path) -> None:
    fake = tmp_path / "fake"
    fake.mkdir()
    (fake / "cv2.py").write_text("raise ImportError('libGL.so.1: cannot open shared object file')")
    done = subprocess.run(
        [sys.executable, "-m", "kpipe", "annotate", "photo.jpg"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{fake}{os.pathsep}{ROOT}"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 2
    message = lines(done.stderr)
    assert len(message) == 1
    assert "libGL.so.1" in message[0] and "opencv-python-headless" in message[0]
