"""Names in a results folder."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from kpipe.batch.layout import (
    OWN,
    STATE,
    OwnResults,
    annotated_name,
    crop_name,
    result_path,
    temporary_file,
)
from kpipe.errors import BatchError, WriteError


def test_pictures_keep_the_tree_and_a_format_that_can_be_written() -> None:
    assert annotated_name("a/b.png") == "annotated/a/b.png"
    assert annotated_name("a/b.psd") == "annotated/a/b.psd_annotated.jpg"
    assert crop_name("a/b.png", 0) == "crops/a/b.png_1.jpg"


def test_no_name_leads_out_of_the_folder() -> None:
    assert annotated_name("../../x.jpg") == "annotated/__/__/x.jpg"
    assert crop_name("/abs/x.jpg", 1) == "crops/abs/x.jpg_2.jpg"
    assert annotated_name("s3://bucket/x.jpg") == "annotated/s3/bucket/x.jpg"


def test_a_result_is_never_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "real").mkdir()
    (tmp_path / "out").symlink_to("real")  # the folder that the user named may be one
    out = tmp_path / "out"
    assert result_path(out, "annotated/a/b.jpg") == out / "annotated/a/b.jpg"
    (out / "annotated").mkdir()
    for link, target in (
        ("crops", tmp_path / "mine"),
        ("annotated/a", out),
        ("pts", tmp_path / "real"),
    ):
        (out / link).symlink_to(target)
        with pytest.raises(WriteError, match="a folder in its path is a link"):
            result_path(out, f"{link}/b.jpg")
    for name in ("../a.jpg", "/etc/a.jpg", "annotated/../../a.jpg", "", "annotated/", "a\0b"):
        with pytest.raises(WriteError, match="not the name of a result"):
            result_path(out, name)


def owned(folder: Path) -> OwnResults:
    own = OwnResults(folder)
    own.load()
    return own


def fresh(folder: Path, content: str) -> Path:
    path = temporary_file(folder)
    path.write_text(content)
    return path


def test_only_what_the_job_has_made_is_replaced(tmp_path: Path) -> None:
    own = owned(tmp_path)
    own.place(fresh(tmp_path, "first"), "faces.json")
    own.claim("annotated").mkdir()
    own.claim("faces.jsonl").write_text("grows")
    for name in ("sheet.jpg", "faces.parquet", "summary.json"):
        (tmp_path / name).write_text("precious")
    (tmp_path / "crops").symlink_to("nowhere")
    (tmp_path / "pts").mkdir()
    for _ in range(2):
        own = owned(tmp_path)  # as another run does
        own.place(fresh(tmp_path, "second"), "faces.json")
        own.claim("annotated")
        own.claim("faces.jsonl").write_text("grows and grows")
        for name in ("sheet.jpg", "faces.parquet", "summary.json", "crops", "pts"):
            for act in (own.check, own.claim, lambda n, own=own: own.place(fresh(tmp_path, ""), n)):
                with pytest.raises(BatchError, match=f"{name}: exists and is no result of kpipe"):
                    act(name)
        assert (tmp_path / "faces.json").read_text() == "second"
    # What users have put in the place of a result is theirs.
    (tmp_path / "faces.json").write_text("something of my own")
    with pytest.raises(BatchError, match=r"faces\.json: has changed since kpipe batch wrote it"):
        owned(tmp_path).check("faces.json")
    (tmp_path / "faces.json").unlink()
    own = owned(tmp_path)
    (tmp_path / "faces.json").write_text("precious")
    with pytest.raises(BatchError, match="is no result"):
        own.check("faces.json")


def test_a_file_takes_the_place_of_a_folder_and_back(tmp_path: Path) -> None:
    own = owned(tmp_path)
    own.place(fresh(tmp_path, "one"), "faces.parquet")
    folder = temporary_file(tmp_path)
    folder.mkdir()
    (folder / "part").write_text("of a folder")
    own.place(folder, "faces.parquet")
    assert (tmp_path / "faces.parquet/part").read_text() == "of a folder"
    owned(tmp_path).place(fresh(tmp_path, "three"), "faces.parquet")
    assert (tmp_path / "faces.parquet").read_text() == "three"


def test_a_folder_of_an_earlier_version_is_ours(tmp_path: Path) -> None:
    (tmp_path / STATE).mkdir()
    (tmp_path / "faces.json").write_text("of an earlier run")
    own = owned(tmp_path)
    assert own.check("faces.json") and own.check("sheet.jpg")
    (tmp_path / "sheet.jpg").write_text("precious")
    with pytest.raises(BatchError, match="is no result"):
        owned(tmp_path).check("sheet.jpg")


@pytest.mark.parametrize("content", ["", "[]", "{", '{"sheet.jpg": 5}', "[" * 10**5, "\x00\xff"])
def test_a_damaged_list_of_results_is_one_error(tmp_path: Path, content: str) -> None:
    (tmp_path / STATE).mkdir()
    (tmp_path / "sheet.jpg").write_text("perhaps precious")
    (tmp_path / OWN).write_text(content)
    if content == "[]":  # names nothing
        content = json.dumps(sorted(os.listdir(tmp_path)))
        (tmp_path / OWN).write_text(content)
    with pytest.raises(BatchError, match=r"results\.json: damaged; remove it if"):
        owned(tmp_path)
    assert (tmp_path / OWN).read_text() == content


@pytest.mark.parametrize("name", [STATE, f"{STATE}/tmp", f"{STATE}/journal.sqlite"])
def test_the_state_of_a_job_is_no_link(tmp_path: Path, name: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "mine").mkdir()
    (tmp_path / "out" / name).parent.mkdir(exist_ok=True)
    (tmp_path / "out" / name).symlink_to(tmp_path / "mine")
    with pytest.raises(BatchError, match=f"{name}: a link"):
        OwnResults(tmp_path / "out")
