import numpy as np

from kpipe import IBUG68


def test_every_point_has_one_name_and_one_group() -> None:
    assert len(IBUG68) == len(set(IBUG68.names)) == 68
    indices = [i for group in IBUG68.groups.values() for i in group]
    assert sorted(indices) == list(range(68))


def test_polylines_stay_in_their_group_and_reach_every_point() -> None:
    drawn = set()
    for polyline in IBUG68.polylines:
        assert set(polyline.indices) <= set(IBUG68.groups[polyline.group])
        drawn |= {i for segment in polyline.segments() for i in segment}
    assert drawn == set(range(68))


def test_mirroring_twice_changes_nothing_and_swaps_the_sides_names() -> None:
    mirror = IBUG68.mirror
    assert (mirror[mirror] == np.arange(68)).all()
    for i, name in enumerate(IBUG68.names):
        swapped = name.replace("right", "*").replace("left", "right").replace("*", "left")
        assert IBUG68.names[mirror[i]] == swapped
