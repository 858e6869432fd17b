from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kpipe import Faces, Pipeline
from kpipe.datasets import DatasetError, held_out, read_samples
from kpipe.evaluation.landmarks import evaluate, nearest
from kpipe.evaluation.metrics import LandmarkErrors, box_size, groups, pupil_distance
from kpipe.evaluation.perturbation import Perturbation
from kpipe.preprocessing.boxes import landmark_box
from tests.conftest import DATA, Run


def errors(nme: list[float], sigma: float = 2.0) -> LandmarkErrors:
    """Faces 100 pixels from eye to eye whose points are all off by so many pixels."""
    truth = np.zeros((len(nme), 68, 2))
    truth[:, 36:42] = (100, 100)
    truth[:, 42:48] = (200, 100)
    truth[:, 8] = (150, 200)
    points = truth + np.array(nme)[:, None, None] * (0.6, 0.8)
    covered = np.full((len(nme), 68), sigma)
    level = np.linspace(50, 200, len(nme))
    return LandmarkErrors("test", truth, points, covered, (0.8, 1.9), np.arange(len(nme)), level)


def test_figures() -> None:
    result = errors([2, 4, 9, np.nan])
    assert result.nme() == pytest.approx(5)
    assert result.nme(pupil_distance) == pytest.approx(5)
    assert result.nme(box_size) == pytest.approx(5 / 2)
    assert result.median == pytest.approx(4)
    assert result.not_found == 25
    assert (result.failures(8), result.failures(10)) == (50, 25)
    assert result.area_under_curve(8) == pytest.approx((0.75 + 0.5) / 4)
    assert result.group([0, 1]) == pytest.approx(5)
    assert errors([1], sigma=2).covered == (100, 100)
    assert errors([1], sigma=1).covered == (0, 100)
    assert errors([1], sigma=0.5).covered == (0, 0)


def test_nothing_found() -> None:
    result = errors([np.nan, np.nan])
    assert np.isnan(result.nme()) and np.isnan(result.median)
    assert result.not_found == result.failures() == 100


def test_labels_that_are_our_own_points_give_no_error(labeled: Path, pipeline: Pipeline) -> None:
    end_to_end, jittered, exact = evaluate(read_samples(labeled), pipeline, jitters=2)
    assert end_to_end.nme() < 0.1 and end_to_end.not_found == 0
    assert exact.nme() < 1.5
    assert exact.nme() != jittered.nme() < 1.5
    assert len(jittered) == 2 * len(exact)


def test_labels_shifted_by_a_known_amount(labeled: Path, pipeline: Pipeline) -> None:
    import dataclasses

    shifted = []
    for sample in read_samples(labeled):
        ocular = np.linalg.norm(sample.points[36] - sample.points[45])
        moved = (sample.points + (0.03 * ocular, 0.04 * ocular)).astype(np.float32)
        shifted.append(dataclasses.replace(sample, points=moved))
    assert evaluate(shifted, pipeline)[0].nme() == pytest.approx(5, abs=0.1)


def test_a_face_elsewhere_is_not_the_labeled_one(portrait_faces: Faces) -> None:
    points = portrait_faces[0].points
    assert nearest(portrait_faces, points) is not None
    assert nearest(portrait_faces, points + 0.6 * portrait_faces[0].size) is None


@pytest.mark.slow
def test_the_command(kpipe: Run, labeled: Path, tmp_path: Path) -> None:
    done = kpipe("evaluate", labeled, "--jitters", "1", "--per-point", "--report", "page")
    assert done.returncode == 0, done.stderr
    text = done.stdout.decode()
    assert "NME, % of the inter-ocular distance" in text and "end to end" in text
    assert "30 nose_tip" in text
    page = (tmp_path / "page" / "index.html").read_text()
    shown = re.findall(r'src="([^"]+)"', page)
    assert len(shown) == 5, "five faces in all: none is shown twice"
    assert all(Image.open(tmp_path / "page" / name).size == (420, 420) for name in shown)


@pytest.mark.parametrize("options", [("--turn", "90"), ("--face-size", "60")])
@pytest.mark.slow
def test_the_report_shows_what_was_looked_at(
    kpipe: Run, labeled: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    done = kpipe("evaluate", labeled, "--jitters", "1", "--report", "page", *options)
    assert done.returncode == 0, done.stderr
    for path in (tmp_path / "page" / "faces").iterdir():
        red, green, blue = np.asarray(Image.open(path), int).transpose(2, 0, 1)
        found = np.argwhere((red - blue > 120) & (red - green > 120))
        # The face fills the picture but for a margin, and the points lie on it.
        assert np.abs(found.min(axis=0) + found.max(axis=0) - 420).max() < 40
        assert np.ptp(found, axis=0).max() == pytest.approx(420 / 1.5, abs=30)


def test_groups_of_faces(labeled: Path, pipeline: Pipeline) -> None:
    rows = groups(evaluate(read_samples(labeled), pipeline)[0])
    for kind in ("yaw", "lips apart", "brightness", "face's box"):
        assert sum(count for name, count, _, _ in rows if name.startswith(kind)) == 5
    assert all(nme < 0.2 and failed == 0 for _, _, nme, failed in rows)


def test_altered_photographs_keep_their_labels(labeled: Path, pipeline: Pipeline) -> None:
    samples = read_samples(labeled)
    turned = (Perturbation(turn=35), Perturbation(turn=-150))
    for perturbation in (*turned, Perturbation(face_size=60)):
        end_to_end, _, exact = evaluate(samples, pipeline, perturbation=perturbation)
        assert exact.nme() < 4
        assert end_to_end.not_found == 0
        assert end_to_end.right_roll == 100
    whole, cut = samples[0].read(), Perturbation(cut=0.4)(samples[0].read(), samples[0].points)
    edge = whole.shape[1] - cut[0].shape[1]
    assert np.array_equal(cut[0], whole[:, edge:]) and edge > 0
    hidden = cut[1][:, 0] < 0
    assert np.allclose(cut[1] + (edge, 0), samples[0].points) and 15 < hidden.sum() < 40
    gray, points = Perturbation(face_size=60)(samples[0].read(), samples[0].points)
    box = landmark_box(points)
    assert box[2] - box[0] == pytest.approx(60, abs=1)
    assert gray.shape[0] < samples[0].read().shape[0]


def test_a_face_seen_upside_down_has_the_wrong_roll() -> None:
    result = errors([2, 2])
    flipped = LandmarkErrors(**{**vars(result), "points": -result.points})
    assert result.right_roll == 100 and flipped.right_roll == 0


def broken(folder: Path, what: str) -> Path:
    """Damages one face of a labeled folder; the file that the message must name."""
    picture = sorted(folder.glob("*.jpg"))[0]
    labels = picture.with_suffix(".pts")
    text = labels.read_text()
    if what == "no labels":
        labels.unlink()
        return labels
    if what == "67 points":
        kept = text.splitlines()
        kept.pop(5)
        labels.write_text("\n".join(kept).replace("68", "67"))
    elif what == "count":
        labels.write_text(text.replace("n_points: 68", "n_points: 70"))
    elif what == "NaN":
        kept = text.splitlines()
        kept[5] = "nan 3"
        labels.write_text("\n".join(kept))
    elif what == "text":
        kept = text.splitlines()
        kept[5] = "one two"
        labels.write_text("\n".join(kept))
    elif what == "binary":
        labels.write_bytes(bytes(range(256)))
    elif what == "outside":
        Image.open(picture).crop((0, 0, 40, 40)).save(picture)
        return picture
    elif what == "unreadable":
        picture.write_bytes(b"no picture")
        return picture
    return labels


@pytest.mark.parametrize(
    "what",
    ["no labels", "67 points", "count", "NaN", "text", "binary", "outside", "unreadable"],
)
@pytest.mark.slow
def test_bad_data_is_one_line_that_names_the_file(labeled: Path, what: str, kpipe: Run) -> None:
    culprit = broken(labeled, what)
    done = kpipe("evaluate", labeled)
    assert done.returncode == 2
    message = done.stderr.decode().splitlines()
    assert len(message) == 1 and culprit.name in message[0]
    skipping = kpipe("evaluate", labeled, "--skip-bad")
    assert skipping.returncode == 0, skipping.stderr
    assert b"1 picture left out" in skipping.stderr


def test_empty_and_missing_data(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no such file or folder"):
        read_samples(tmp_path / "missing")
    with pytest.raises(DatasetError, match=r"no \.pts files and no keypoint CSV"):
        read_samples(tmp_path)


def test_the_csv_format(labeled: Path, tmp_path: Path) -> None:
    samples = read_samples(labeled)
    table = tmp_path / "training_frames_keypoints.csv"
    labeled.rename(tmp_path / "training")
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["", *(str(i) for i in range(136))])
        for sample in samples:
            writer.writerow([sample.path.name, *sample.points.round().ravel()])
    again = read_samples(table)
    assert [s.source for s in again] == ["ytf"] * len(samples)
    assert again[0].points == pytest.approx(samples[0].points, abs=0.51)
    assert again[0].read().ndim == 2
    with table.open("a") as file:
        file.write("missing.jpg," + ",".join("1" * 136) + "\n")
    with pytest.raises(DatasetError, match=f"line {len(samples) + 2}: "):
        read_samples(table)


def test_faces_of_one_group_stay_together() -> None:
    assert held_out("somebody", 0.0) is False
    assert held_out("somebody", 1.0) is True
    share = np.mean([held_out(f"person {k}", 0.2) for k in range(2000)])
    assert share == pytest.approx(0.2, abs=0.03)


@pytest.mark.skipif(not DATA.exists(), reason="the shared data is not here")
@pytest.mark.slow
def test_the_bar_on_the_development_benchmark(pipeline: Pipeline) -> None:
    end_to_end = evaluate(read_samples(DATA / "300w" / "dev"), pipeline)[0]
    assert end_to_end.nme() <= 3.5
    assert end_to_end.not_found <= 1
