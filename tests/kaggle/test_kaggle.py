"""Kaggle's 15 points: the scheme, the files, sets in their format, measures and submissions."""

from __future__ import annotations

import csv
import json
import tracemalloc
import zipfile
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kpipe import IBUG68, KAGGLE15, Faces, Pipeline
from kpipe.datasets import read_samples
from kpipe.errors import KaggleError
from kpipe.kaggle.charts import binned
from kpipe.kaggle.drawing import grid, worst
from kpipe.kaggle.files import (
    COLUMNS,
    SIDE,
    Labeled,
    Lookup,
    Unlabeled,
    is_test,
    kept_out,
    lookup_csv,
    read_labels,
    read_lookup,
    read_sample,
    read_test,
    read_training,
    test_csv,
    training_csv,
)
from kpipe.kaggle.metrics import measure, rmse_by_face, rmse_by_point
from kpipe.kaggle.predict import Derived, causes, only_four
from kpipe.kaggle.submission import asked_points, check, submission_csv
from kpipe.kaggle.synthetic import (
    FOUR_POINTS,
    FULL_SHARE,
    MEAN_POINTS,
    MadeSet,
    drawn,
    from_drawings,
    from_samples,
    rows_like,
    similarity,
)
from kpipe.preprocessing.affine import transform
from tests.conftest import DATA, Run

test_csv.__test__ = False  # type: ignore[attr-defined]  # a function of the package, not a test

LABELS = DATA / "kaggle" / "training_labels_only.csv"


@pytest.fixture(scope="module")
def made() -> MadeSet:
    return from_drawings(30, None, test_share=0.4, seed=3)


@pytest.fixture
def folder(made: MadeSet, tmp_path: Path) -> Path:
    made.write(tmp_path / "set")
    return tmp_path / "set"


# The scheme.


def test_the_scheme_is_whole_and_mirrors_names() -> None:
    assert len(KAGGLE15) == len(set(KAGGLE15.names)) == 15
    indices = [i for group in KAGGLE15.groups.values() for i in group]
    assert sorted(indices) == list(range(15))
    for polyline in KAGGLE15.polylines:
        assert set(polyline.indices) <= set(KAGGLE15.groups[polyline.group])
    for name, mirrored in zip(KAGGLE15.names, KAGGLE15.mirror):
        swapped = name.replace("right", "*").replace("left", "right").replace("*", "left")
        assert KAGGLE15.names[mirrored] == swapped


def test_each_point_follows_from_points_of_the_same_part_and_side() -> None:
    of = {"eye_": "eye", "eyebrow": "brow", "nose": "nose", "mouth": ("lip", "mouth")}
    for name, indices in zip(KAGGLE15.names, KAGGLE15.derivation):
        part = next(words for key, words in of.items() if key in name)
        for index in indices:
            source = IBUG68.names[index]
            assert any(w in source for w in ([part] if isinstance(part, str) else part))
            assert not ("left" in name and "right" in source)
            assert not ("right" in name and "left" in source)
    assert KAGGLE15.weights.sum(axis=1) == pytest.approx(1)
    # Mirroring the 68 and the 15 is the same thing.
    mirrored = KAGGLE15.weights[KAGGLE15.mirror]
    assert (KAGGLE15.weights[:, IBUG68.mirror] == mirrored).all()


def test_faces_take_the_other_scheme_and_keep_it(portrait_faces: Faces) -> None:
    faces = portrait_faces.to_scheme(KAGGLE15)
    assert faces.scheme is KAGGLE15 and faces[0].points.shape == (15, 2)
    nose = KAGGLE15.names.index("nose_tip")
    assert (faces[0].points[nose] == portrait_faces[0].points[30]).all()
    eye = portrait_faces[0].points[42:48].mean(axis=0)
    assert faces[0].points[0] == pytest.approx(eye, abs=1e-3)
    assert (faces[0].box == portrait_faces[0].box).all()
    again = Faces.from_dict(json.loads(json.dumps(faces.to_dict())))
    assert again.scheme == KAGGLE15
    assert again[0].points == pytest.approx(faces[0].points, abs=0.01)
    with pytest.raises(ValueError, match="ibug68 does not follow from kaggle15"):
        faces.to_scheme(IBUG68)


def test_annotate_writes_the_15_points(kpipe: Run, small_photo: Path, tmp_path: Path) -> None:
    scheme = ("--scheme", "kaggle15")
    done = kpipe("annotate", "photo.jpg", *scheme, "--csv", "a.csv", "--json", "-", "--pts", "p")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["scheme"] == "kaggle15" and len(record["faces"][0]["points"]) == 15
    row = next(csv.DictReader((tmp_path / "a.csv").open()))
    x, y = record["faces"][0]["points"][KAGGLE15.names.index("mouth_left_corner")]
    assert [float(row[f"mouth_left_corner_{axis}"]) for axis in "xy"] == [x, y]
    assert "n_points: 15" in (tmp_path / "p" / "photo.pts").read_text()
    assert Image.open(tmp_path / "photo_annotated.jpg").size == (256, 256)
    done = kpipe("annotate", "photo.jpg", "--scheme", "kaggle16", "-f")
    assert done.returncode == 2 and b"choose ibug68 or kaggle15" in done.stderr


# The files.


def test_files_come_back_as_they_were_written(made: MadeSet, folder: Path) -> None:
    data = read_training(folder / "training.csv")
    assert (data.pictures == made.training.pictures).all()
    np.testing.assert_allclose(data.points, made.training.points, atol=1e-5)
    np.testing.assert_array_equal(read_labels(folder / "training.csv"), data.points)
    test = read_test(folder / "test.csv")
    assert test.ids == made.test.ids and (test.pictures == made.test.pictures).all()
    assert read_lookup(folder / "IdLookupTable.csv") == made.lookup
    assert read_sample(folder / "SampleSubmission.csv") == made.lookup.rows
    assert is_test(folder / "test.csv") and not is_test(folder / "training.csv")


def test_a_mark_at_the_start_other_line_ends_and_another_order_of_columns(folder: Path) -> None:
    before = read_training(folder / "training.csv")
    rows = list(csv.reader((folder / "training.csv").open()))
    turned = "\r\n".join(",".join(row[::-1]) for row in rows) + "\r\n\r\n"
    (folder / "turned.csv").write_bytes(b"\xef\xbb\xbf" + turned.encode())
    after = read_training(folder / "turned.csv")
    assert (after.pictures == before.pictures).all()
    np.testing.assert_array_equal(after.points, before.points)


def test_out_of_zip_files(folder: Path) -> None:
    for name in ("training", "test"):
        with zipfile.ZipFile(folder / f"{name}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(folder / f"{name}.csv", f"{name}.csv")
            archive.writestr(f"__MACOSX/._{name}.csv", "no CSV")
    with zipfile.ZipFile(folder / "all.zip", "w") as archive:
        for name in ("training.zip", "test.zip", "IdLookupTable.csv", "SampleSubmission.csv"):
            archive.write(folder / name, name)
    plain = read_training(folder / "training.csv")
    for name in ("training.zip", "all.zip"):
        assert (read_training(folder / name).pictures == plain.pictures).all()
    ids = read_test(folder / "test.csv").ids
    assert read_test(folder / "test.zip").ids == read_test(folder / "all.zip").ids == ids
    assert read_lookup(folder / "all.zip") == read_lookup(folder / "IdLookupTable.csv")
    assert is_test(folder / "test.zip")
    with pytest.raises(KaggleError, match=r"test\.zip: the header has 2 columns"):
        read_training(folder / "test.zip")
    with pytest.raises(KaggleError, match=r"all\.zip: no IdLookupTable\.csv in it"):
        with zipfile.ZipFile(folder / "all.zip", "w") as archive:
            archive.writestr("readme.txt", "")
        read_lookup(folder / "all.zip")
    content = bytearray((folder / "training.zip").read_bytes())
    content[2000:2100] = bytes(100)
    (folder / "training.zip").write_bytes(content)
    with pytest.raises(KaggleError, match="unusable zip file"):
        read_training(folder / "training.zip")


def test_memory_is_that_of_the_pixels(folder: Path) -> None:
    header, *rows = (folder / "training.csv").read_text().splitlines()
    with (folder / "long.csv").open("w") as file:
        file.write(header + "\n")
        for index in range(80):
            file.write(rows[index % len(rows)] + "\n")
    tracemalloc.start()
    data = read_training(folder / "long.csv")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(data) == 80
    assert peak < 1.3 * data.pictures.nbytes + 1e6 < (folder / "long.csv").stat().st_size


Change = Callable[[list[list[str]]], None]


def cell(row: int, column: str, text: str) -> Change:
    def change(rows: list[list[str]]) -> None:
        rows[row][rows[0].index(column)] = text

    return change


def pixel(row: int, number: int, text: str) -> Change:
    def change(rows: list[list[str]]) -> None:
        words = rows[row][-1].split()
        words[number - 1] = text
        rows[row][-1] = " ".join(words)

    return change


def without(column: int) -> Change:
    def change(rows: list[list[str]]) -> None:
        for row in rows:
            del row[column]

    return change


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("training.csv", without(20), "30 columns, training.csv 31: no column nose_tip_x"),
        ("training.csv", without(-1), "no column Image"),
        ("training.csv", cell(0, "Image", "image"), "a column 'image' that training.csv does not"),
        ("training.csv", lambda rows: rows[2].pop(0), "row 2: 30 columns, 31 expected"),
        ("training.csv", cell(3, "Image", "1 " * 9215), "row 3: 9215 pixels, 9216 expected"),
        ("training.csv", cell(3, "Image", ""), "row 3: 0 pixels, 9216 expected"),
        ("training.csv", pixel(4, 7, "256"), "row 4: pixel 7 is 256, outside 0-255"),
        ("training.csv", pixel(4, 9216, "-1"), "row 4: pixel 9216 is -1, outside 0-255"),
        ("training.csv", pixel(1, 1, "x"), "row 1: pixel 1 is 'x', not a whole number"),
        ("training.csv", pixel(1, 1, "7.5"), "row 1: pixel 1 is '7.5', not a whole number"),
        ("training.csv", cell(5, "nose_tip_x", "abc"), "row 5: nose_tip_x is 'abc', not a number"),
        ("training.csv", cell(5, "nose_tip_x", "inf"), "row 5: nose_tip_x is inf, far outside"),
        ("training.csv", cell(5, "nose_tip_x", "1e9"), "row 5: nose_tip_x is 1e9, far outside"),
        ("training.csv", lambda rows: rows.clear(), "empty, the header of training.csv expected"),
        ("training.csv", lambda rows: rows.__delitem__(slice(1, None)), "no row below its header"),
        ("test.csv", cell(2, "ImageId", "1"), "row 2: ImageId 1 for the second time"),
        ("test.csv", cell(2, "ImageId", "two"), "row 2: ImageId is 'two', not a whole number"),
        ("test.csv", pixel(2, 5, "300"), "row 2: pixel 5 is 300, outside 0-255"),
        ("IdLookupTable.csv", cell(3, "FeatureName", "ear_x"), "row 3: no keypoint is named 'ear"),
        ("IdLookupTable.csv", cell(3, "RowId", "1"), "row 3: RowId 1 for the second time"),
        ("IdLookupTable.csv", cell(3, "ImageId", ""), "row 3: ImageId is '', not a whole number"),
        ("SampleSubmission.csv", cell(3, "RowId", "x"), "row 3: RowId is 'x', not a whole number"),
    ],
)
def test_what_is_wrong_is_said_with_its_row(
    folder: Path, name: str, change: Change, message: str
) -> None:
    rows = list(csv.reader((folder / name).open()))
    change(rows)
    (folder / name).write_text("".join(",".join(row) + "\n" for row in rows))
    read = {
        "training.csv": read_training,
        "test.csv": read_test,
        "IdLookupTable.csv": read_lookup,
        "SampleSubmission.csv": read_sample,
    }[name]
    with pytest.raises(KaggleError) as caught:
        read(folder / name)
    assert message in str(caught.value) and str(caught.value).startswith(str(folder / name))
    assert "\n" not in str(caught.value)


def test_what_is_no_table(tmp_path: Path) -> None:
    (tmp_path / "picture.csv").write_bytes(bytes(range(128, 256)) * 40)
    (tmp_path / "fake.zip").write_bytes(b"PK\x03\x04 but no more")
    (tmp_path / "nothing.csv").write_text(",".join((*COLUMNS, "Image")) + "\n" + "," * 30 + "\n")
    for name, message in (
        ("picture.csv", "not text"),
        ("fake.zip", "unusable zip file"),
        ("missing.csv", "no such file"),
        (".", "not a file"),
        ("nothing.csv", "row 1: 0 pixels"),
    ):
        with pytest.raises(KaggleError, match=message):
            read_training(tmp_path / name)
    data = Labeled(np.zeros((2, SIDE, SIDE), np.uint8), np.full((2, 15, 2), np.nan, np.float32))
    (tmp_path / "bare.csv").write_text(training_csv(data))
    with pytest.raises(KaggleError, match="not one label"):
        read_training(tmp_path / "bare.csv")


# Sets in Kaggle's format.


def test_similarity_undoes_any_other() -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 96, (15, 2))
    matrix = np.array([[1.2, -0.5, 7], [0.5, 1.2, -3]])
    moved = transform(matrix, points)
    assert similarity(points, moved) == pytest.approx(matrix, abs=1e-4)


def test_rows_without_labels_to_follow_are_as_the_figures_say() -> None:
    rows = [row for row, _ in zip(rows_like(None), range(2000))]
    targets = np.stack([row.target for row in rows])
    assert targets.mean(axis=0) == pytest.approx(MEAN_POINTS, abs=0.5)
    full = np.array([row.labeled.all() for row in rows])
    assert full.mean() == pytest.approx(FULL_SHARE, abs=0.04)
    there = next(row.labeled for row in rows if not row.labeled.all())
    assert np.flatnonzero(there.all(axis=1)).tolist() == sorted(FOUR_POINTS)


def test_rows_follow_the_labels_that_are_given() -> None:
    whole = np.tile(MEAN_POINTS.astype(np.float32) + 3, (2, 1, 1))
    whole[1, 4:] = np.nan
    rows = [row for row, _ in zip(rows_like(whole), range(40))]
    assert all((row.target == whole[0]).all() for row in rows)
    assert {int(row.labeled.sum()) for row in rows} == {8, 30}
    with pytest.raises(KaggleError, match="no row has all"):
        next(rows_like(whole[1:]))


@pytest.mark.skipif(not LABELS.exists(), reason="needs Kaggle's labels")
def test_the_figures_are_those_of_the_real_labels() -> None:
    labels = read_labels(LABELS)
    there = ~np.isnan(labels).any(axis=2)
    assert len(labels) == 7049
    assert labels[there.all(axis=1)].mean(axis=0) == pytest.approx(MEAN_POINTS, abs=0.06)
    assert there.all(axis=1).mean() == pytest.approx(FULL_SHARE, abs=0.01)


def test_drawn_faces_lie_where_they_are_asked_to_and_differ() -> None:
    pictures = [drawn(MEAN_POINTS, seed) for seed in range(4)]
    again = drawn(MEAN_POINTS, 0)
    assert (again.pixels == pictures[0].pixels).all()
    for a, b in pairwise(pictures):
        assert np.abs(a.pixels.astype(int) - b.pixels).mean() > 5
    for picture in pictures:
        assert np.abs(picture.points - MEAN_POINTS).mean() < 3
        # The iris is darker than the skin above the nose.
        eye, skin = picture.points[0], picture.points[[0, 1]].mean(axis=0) + (0, 4)
        (ex, ey), (sx, sy) = np.round(eye).astype(int), np.round(skin).astype(int)
        dark = picture.pixels[ey - 1 : ey + 2, ex - 1 : ex + 2].mean()
        assert dark < picture.pixels[sy - 1 : sy + 2, sx - 1 : sx + 2].mean()


def test_a_set_asks_for_what_the_test_rows_label(made: MadeSet) -> None:
    assert len(made.training) == 18 and len(made.truth) == len(made.test.ids) == 12
    assert not np.isnan(made.truth.points).any()
    missing = np.isnan(made.training.points)
    assert 0 < missing.mean() < 1
    assert made.lookup.rows == tuple(range(1, len(made.lookup.rows) + 1))
    counts = np.bincount(made.lookup.images)[1:]
    assert set(counts) <= {8, 30} and len(counts) == 12


def test_a_set_of_labeled_photographs(labeled: Path, pipeline: Pipeline) -> None:
    samples = read_samples(labeled)
    made = from_samples(samples, None, test_share=0.5, seed=1)
    assert len(made.training) + len(made.truth) == len(samples)
    # The labels are what the network saw in the large photographs: it sees the same in the crops.
    found = Derived(pipeline)(made.truth.pictures)
    assert measure(found, made.truth.points).rmse < 1.5
    with pytest.raises(KaggleError, match="no face is left for the training set"):
        from_samples(samples, None, test_share=0.9999)


# Measures and pictures.


def test_measures_count_labels_alone() -> None:
    labels = np.full((2, 15, 2), np.nan, np.float32)
    labels[0] = MEAN_POINTS
    labels[1, 10] = (40, 50)
    found = np.tile(MEAN_POINTS.astype(np.float32), (2, 1, 1))
    found[0, :, 0] += 3
    found[1, 10] = (40, 46)
    result = measure(found, labels)
    assert result.rmse == pytest.approx(np.sqrt((15 * 9 + 16) / 32))
    assert result.mae == pytest.approx((15 * 3 + 4) / 32)
    assert rmse_by_face(found, labels) == pytest.approx([3 / np.sqrt(2), 4 / np.sqrt(2)])
    by_point = rmse_by_point(found, labels)
    assert by_point[0] == pytest.approx(3 / np.sqrt(2))
    assert by_point[10] == pytest.approx(np.sqrt((9 + 16) / 4))
    assert np.isnan(rmse_by_face(found, np.full_like(labels, np.nan))).all()


def test_accuracy_is_whether_the_largest_coordinate_is_the_same() -> None:
    labels = np.tile(MEAN_POINTS.astype(np.float32), (4, 1, 1))
    found = labels * 0.5  # far off, and yet
    assert measure(found, labels).accuracy == 1
    found[0, 0, 0] = 90
    assert measure(found, labels).accuracy == 0.75
    assert measure(found, labels).rmse > 20


def test_the_grid_shows_labels_blue_and_predictions_red() -> None:
    pictures = np.full((3, SIDE, SIDE), 128, np.uint8)
    truth = np.full((3, 15, 2), np.nan, np.float32)
    truth[0, 0] = (10, 20)
    found = np.full((3, 15, 2), 70, np.float32)
    sheet = grid(pictures, truth, found, ["a", "b", "c"], columns=2)
    zoom = sheet.shape[1] // (2 * SIDE)
    r, _, b = sheet[20 * zoom + 1, 10 * zoom + 1].astype(int)
    assert b > r + 100
    r, _, b = sheet[70 * zoom + 1, 70 * zoom + 1].astype(int)
    assert r > b + 100
    second = sheet[: SIDE * zoom, SIDE * zoom :].astype(int)
    assert not (second[..., 2] > second[..., 0] + 50).any()  # no label, nothing blue


def test_the_worst_come_first_and_the_unlabeled_not_at_all() -> None:
    assert worst(np.array([1, np.nan, 3, 2]), 16).tolist() == [2, 3, 0]
    assert worst(np.array([1, np.nan, 3, 2]), 1).tolist() == [2]


def test_groups_of_equally_many() -> None:
    middles, means = binned(np.arange(12.0), np.r_[np.zeros(6), np.full(5, 2.0), np.nan])
    assert (np.diff(middles) > 0).all()
    assert means[0] == 0 and means[-1] == 2
    assert [len(part) for part in binned(np.zeros(0), np.zeros(0))] == [0, 0]


def test_causes_tell_an_open_mouth(pipeline: Pipeline, made: MadeSet) -> None:
    ours = Derived(pipeline)
    shut, wide = ours.landmarks(made.test.pictures[0]), ours.landmarks(made.test.pictures[0])
    wide.points[0, 66] += (0, 10)
    opening = causes([shut, wide])["opening of the mouth over its width"]
    assert opening[1] > opening[0] + 0.1


def test_rows_of_four_labels_mean_other_places(pipeline: Pipeline, made: MadeSet) -> None:
    labeled = np.ones((3, 15), bool)
    labeled[1] = labeled[2] = False
    labeled[1, list(FOUR_POINTS)] = True
    four = only_four(labeled)
    assert four.tolist() == [False, True, False]
    ours = Derived(pipeline)
    landmarks = [ours.landmarks(picture) for picture in made.test.pictures[:3]]
    plain, apart = ours.points_of(landmarks), ours.points_of(landmarks, four)
    changed = np.argwhere((plain != apart).any(axis=2)).tolist()
    nose, lip = (KAGGLE15.names.index(n) for n in ("nose_tip", "mouth_center_bottom_lip"))
    assert changed == [[1, nose], [1, lip]]
    assert apart[1, nose, 1] > plain[1, nose, 1] + 2  # under the nose
    assert apart[1, lip, 1] < plain[1, lip, 1] - 1  # up from the lip to the middle of the mouth
    asked = asked_points(Lookup((1, 2, 3), (8, 8, 9), (0, 1, 29)), (9, 8))
    assert np.argwhere(asked).tolist() == [[0, 14], [1, 0]]


# Submissions.


def test_a_submission_has_the_samples_order_and_stays_in_the_picture() -> None:
    lookup = Lookup(rows=(1, 2, 3), images=(7, 7, 5), columns=(0, 29, 3))
    points = np.zeros((2, 15, 2), np.float32)
    points[0].ravel()[[0, 29]] = (-4, 120)  # of ImageId 7
    points[1].ravel()[3] = 33.25  # of ImageId 5
    order = check(lookup, (7, 5), sample=(3, 1, 2))
    text = submission_csv(points, (7, 5), lookup, order)
    rows = list(csv.reader(text.splitlines()))
    assert rows[0] == ["RowId", "Location"]
    assert [(int(row), float(value)) for row, value in rows[1:]] == [(3, 33.25), (1, 0), (2, 96)]
    assert check(lookup, (7, 5), None) == (1, 2, 3)


def test_files_that_do_not_belong_together() -> None:
    lookup = Lookup(rows=(1, 2, 3), images=(7, 7, 5), columns=(0, 29, 3))
    with pytest.raises(KaggleError, match=r"row 3 \(RowId 3\): ImageId 5 is not in the test set"):
        check(lookup, (7,), None)
    with pytest.raises(KaggleError, match="row 2: RowId 9 is not in the lookup table"):
        check(lookup, (7, 5), (1, 9))
    with pytest.raises(KaggleError, match="2 rows of the lookup table are not in it, such as RowI"):
        check(lookup, (7, 5), (1,))


def test_the_same_pictures_are_kept_out_every_time(made: MadeSet) -> None:
    pictures = np.concatenate([made.training.pictures, made.training.pictures])
    out = kept_out(pictures, 0.4)
    half = len(out) // 2
    assert (out[:half] == out[half:]).all() and 0 < out.sum() < len(out)


# The program.


@pytest.mark.slow
def test_from_making_a_set_to_a_submission(kpipe: Run, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    done = kpipe("kaggle", "make", "--drawn", "20", "-o", "set", "--test-share", "0.5")
    assert done.returncode == 0, done.stderr
    assert b"10 faces to train on and 10 to test with" in done.stderr
    files = ("--test", "set/test.csv", "--lookup", "set/IdLookupTable.csv")
    done = kpipe("kaggle", "submit", *files, "-o", "submission.csv")
    assert done.returncode == 0, done.stderr
    assert b"checked against set/SampleSubmission.csv" in done.stderr
    rows = list(csv.DictReader((tmp_path / "submission.csv").open()))
    sample = read_sample(tmp_path / "set" / "SampleSubmission.csv")
    assert tuple(int(row["RowId"]) for row in rows) == sample
    done = kpipe("kaggle", "submit", *files, "-o", "four.csv", "--four-as-kaggle")
    assert done.returncode == 0, done.stderr
    other = list(csv.DictReader((tmp_path / "four.csv").open()))
    columns = read_lookup(tmp_path / "set" / "IdLookupTable.csv").columns
    changed = {COLUMNS[c] for c, a, b in zip(columns, rows, other) if a != b}
    assert "nose_tip_y" in changed
    assert {name[:-2] for name in changed} == {"nose_tip", "mouth_center_bottom_lip"}
    # What is submitted is near the truth that the set has.
    truth = read_training(tmp_path / "set" / "test_labels.csv").points
    lookup = read_lookup(tmp_path / "set" / "IdLookupTable.csv")
    asked = truth.reshape(len(truth), -1)[np.array(lookup.images) - 1, lookup.columns]
    errors = np.array([float(row["Location"]) for row in rows]) - asked
    assert np.sqrt(np.mean(errors**2)) < 4

    for data, picture in (("set/training.csv", "a.png"), ("set/test.csv", "b.jpg")):
        done = kpipe("kaggle", "show", data, "-o", picture, "--count", "9")
        assert done.returncode == 0, done.stderr
        assert Image.open(tmp_path / picture).width == 8 * 2 * SIDE
    done = kpipe("kaggle", "report", "set/test_labels.csv", "-o", "report")
    assert done.returncode == 0, done.stderr
    assert b"from the 68 points" in done.stdout
    names = sorted(path.name for path in (tmp_path / "report").iterdir())
    assert names == ["causes.png", "keypoints.png", "worst.png"]
    assert Image.open(tmp_path / "report" / "causes.png").width > 1000


@pytest.mark.slow
def test_bad_input_is_one_line_and_nothing_is_written(
    kpipe: Run, made: MadeSet, folder: Path, tmp_path: Path
) -> None:
    files = ("--test", "set/test.csv", "--lookup", "set/IdLookupTable.csv", "-o", "out.csv")

    def refused(*arguments: str) -> str:
        done = kpipe("kaggle", *arguments)
        message = done.stderr.decode().splitlines()
        assert done.returncode == 2 and len(message) == 1, message
        assert not (tmp_path / "out.csv").exists()
        return message[0]

    first = made.lookup.images[0]
    lookup = replace(made.lookup, images=(999, *made.lookup.images[1:]))
    (folder / "IdLookupTable.csv").write_text(lookup_csv(lookup))
    assert "row 1 (RowId 1): ImageId 999 is not in the test set" in refused("submit", *files)
    (folder / "IdLookupTable.csv").write_text(lookup_csv(made.lookup))
    assert first in made.test.ids

    few = Unlabeled(made.test.ids[:2], made.test.pictures[:2])
    cut = test_csv(few).rsplit(" ", 1)[0] + "\n"
    (folder / "test.csv").write_text(cut)
    assert "test.csv: row 2: 9215 pixels, 9216 expected" in refused("submit", *files)
    (folder / "test.csv").write_text(test_csv(made.test))
    assert "no such model file" in refused("submit", *files, "--model", "none.onnx")
    before = (folder / "test.csv").read_bytes()
    same = (*files[:-1], "set/test.csv", "--force")
    assert "is an input; name another result" in refused("submit", *same)
    assert (folder / "test.csv").read_bytes() == before
    assert "training.csv: exists; --force replaces it" in refused(
        "make", "--drawn", "9", "-o", "set"
    )
    (folder / "empty.csv").touch()
    assert "empty.csv: empty" in refused("show", "set/empty.csv", "-o", "out.png")
    (folder / "SampleSubmission.csv").write_text("RowId,Location\n1,0\n")
    assert "rows of the lookup table are not in it" in refused("submit", *files)
    done = kpipe("kaggle", "make", "-o", "x")
    assert done.returncode == 2 and b"name either --faces or --drawn" in done.stderr
