"""Names in a results folder."""

from __future__ import annotations

from kpipe.batch.layout import annotated_name, crop_name


def test_pictures_keep_the_tree_and_a_format_that_can_be_written() -> None:
    assert annotated_name("a/b.png") == "annotated/a/b.png"
    assert annotated_name("a/b.psd") == "annotated/a/b.psd_annotated.jpg"
    assert crop_name("a/b.png", 0) == "crops/a/b.png_1.jpg"


def test_no_name_leads_out_of_the_folder() -> None:
    assert annotated_name("../../x.jpg") == "annotated/__/__/x.jpg"
    assert crop_name("/abs/x.jpg", 1) == "crops/abs/x.jpg_2.jpg"
    assert annotated_name("s3://bucket/x.jpg") == "annotated/s3/bucket/x.jpg"
