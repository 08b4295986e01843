from __future__ import annotations

import numpy as np
import pytest
import torch
from squares import Squares

from captum_advise.evaluation.data.items import Items


@pytest.mark.parametrize(
    "item", [torch.zeros(2, 2), "text", (None, 1), (torch.zeros(1, 3, 2, 2), 1)]
)
def test_what_is_not_an_image_is_refused(item):
    with pytest.raises(ValueError, match=r"not a tensor \(C, H, W\)"):
        Items([item])[0]


def content(item, dtype=None):
    return Items([item], dtype)[0].fingerprint


def test_values_type_shape_class_and_region_are_the_content():
    image = torch.arange(12.0).reshape(3, 2, 2)
    same = [image.clone(), image.permute(1, 2, 0).contiguous().permute(2, 0, 1)]
    other = [image + 1, image.double(), image.reshape(3, 1, 4), image.transpose(1, 2)]
    known = content((image, 1))
    assert all(content((one, 1)) == known for one in same)
    others = [(one, 1) for one in other] + [(image, 2), (image, None), image]
    assert len({content(one) for one in others}) == len(others) - 1
    assert known not in {content(one) for one in others}
    assert content((image, torch.tensor(1))) == known
    # As the network gets it.
    assert content((image.double(), 1), torch.float32) == known
    assert content((image.clone().requires_grad_(), 1)) == known

    class WithRegion(list):
        has_regions = True

    region = torch.tensor([[True, False], [False, False]])
    of_regions = [
        Items(WithRegion([(image, 1, one)]))[0].fingerprint for one in (region, region.T.flip(0))
    ]
    assert len({known, *of_regions}) == 3


@pytest.mark.parametrize(
    ("label", "target"),
    [
        (None, None),
        (3, 3),
        (np.int64(3), 3),
        (torch.tensor(3), 3),
        (torch.tensor([3]), 3),
        (torch.eye(5)[3], 3),
        (np.eye(5, dtype=int)[3], 3),
        ([0, 0, 0, 1, 0], 3),
    ],
)
def test_forms_of_a_class(label, target):
    assert Items([(torch.zeros(3, 2, 2), label)])[0].target == target


@pytest.mark.parametrize("label", [torch.tensor([0.5, 0.5]), [0, 1, 1], torch.zeros(3)])
def test_vectors_that_are_not_one_hot_are_refused(label):
    with pytest.raises(ValueError, match="that is not one-hot: give the index of the class"):
        Items([(torch.zeros(3, 2, 2), label)])[0]


@pytest.mark.parametrize("label", ["cat", 0.7, float("nan"), torch.tensor(2.5), {"class": 3}])
def test_classes_that_are_no_index_are_refused(label):
    with pytest.raises(ValueError, match="give the index of the class"):
        Items([(torch.zeros(3, 2, 2), label)])[0]


@pytest.mark.parametrize(
    ("inputs", "found"),
    [
        (np.zeros((3, 2, 2)), "a ndarray"),
        ("image.png", "a str"),
        (torch.zeros(1, 3, 2, 2), r"of shape \(1, 3, 2, 2\)"),
    ],
)
def test_inputs_that_are_no_example_are_named(inputs, found):
    with pytest.raises(ValueError, match=rf"{found}.*image_dataset reads images"):
        Items([(inputs, 0)])[0]


def test_a_sum_of_data_sets_is_one():
    more = Squares(2)
    more.names = ["a", "b"]
    unnamed = torch.utils.data.TensorDataset(torch.zeros(3, 3, 2, 2), torch.arange(3))
    items = Items(Squares(3) + more + unnamed)
    assert len(items) == 8
    assert items.names == ("square 0", "square 1", "square 2", "a", "b", "5", "6", "7")
    assert torch.equal(items[4].inputs[0], more.inputs[1])
    assert (items[4].name, items[6].target) == ("b", 1)
