from __future__ import annotations

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
