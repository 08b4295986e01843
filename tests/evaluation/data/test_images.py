from __future__ import annotations

import shutil

import pytest

from captum_advise.evaluation import image_dataset


@pytest.mark.parametrize(
    ("limit", "indices"), [(1, [0]), (2, [0, 1]), (3, [0, 1, 2]), (99, [0, 1, 2])]
)
def test_a_limit_spreads_over_the_data(limit, indices, photos, three_classes):
    names = image_dataset(photos, three_classes).names
    limited = image_dataset(photos, three_classes, limit=limit)
    assert limited.names == tuple(names[i] for i in indices)


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one_is_refused(limit, photos, three_classes):
    with pytest.raises(ValueError, match="limit must be at least 1"):
        image_dataset(photos, three_classes, limit=limit)


def test_a_fingerprint_is_of_the_file_and_the_class(photos, three_classes):
    table = photos / "table.csv"
    shutil.copy(photos / "coffee.png", photos / "copy.png")
    table.write_text("coffee.png,0\ncopy.png,0\ncoffee.png,\nchelsea.png,0\n")
    with pytest.warns(UserWarning, match="more than one class"):
        dataset = image_dataset(table, three_classes)
    coffee, copy, unlabelled, chelsea = (dataset.fingerprint(i) for i in range(4))
    assert coffee == copy
    assert len({coffee, unlabelled, chelsea}) == 3
    assert len(coffee) == 16
    assert int(coffee, 16) >= 0
