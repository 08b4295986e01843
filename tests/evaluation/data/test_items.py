from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from captum_advise.evaluation.items import compare, read
from captum_advise.evaluation.processes import Processes
from captum_advise.evaluation.store import Image
from squares import Squares


@dataclass(frozen=True)
class Rank(Processes):
    """One of several processes, which are run one after the other."""

    said: list = field(default_factory=list)

    def gather(self, value):
        self.said.append(value)
        return self.said if len(self.said) == self.count else [value]


def stored(dataset):
    images = [Image(name, read(dataset, i).contents.image) for i, name in enumerate(dataset.names)]
    return dict.fromkeys(images, frozenset({"a"}))


def test_processes_share_the_comparison(squares):
    read_by = {}

    class Counted(Squares):
        def __getitem__(self, index):
            read_by.setdefault(index, []).append(rank)
            return super().__getitem__(index)

    earlier = stored(squares)
    changed = Counted()
    changed.inputs[3] = changed.inputs[3].flip(2)
    said = []
    for rank in range(3):
        outcome = compare(
            changed, earlier, dict.fromkeys("ab"), Rank(rank, 3, said), progress=False
        )
    assert read_by == {0: [0], 1: [1], 2: [2], 3: [0], 4: [1]}
    assert outcome.images.keys() == {0, 1, 2, 4}
    assert {image for of in outcome.images.values() for image in of.values()} < set(earlier)
    assert (outcome.changed, outcome.left_out) == (1, 0)
    assert outcome.missing(3, ["b", "a"]) == ("b", "a")
    assert outcome.missing(4, ["b", "a"]) == ("b",)


@pytest.mark.parametrize("attribute", ["names", "targets"])
def test_processes_must_see_the_same_data(attribute, squares):
    other = Squares()
    getattr(other, attribute)[1] = "other"
    said = []
    compare(squares, {}, {}, Rank(0, 2, said), progress=False)
    with pytest.raises(ValueError, match="processes do not see the same data"):
        compare(other, {}, {}, Rank(1, 2, said), progress=False)


@pytest.mark.parametrize(
    "item", [torch.zeros(2, 2), "text", (None, 1), (torch.zeros(1, 3, 2, 2), 1)]
)
def test_what_is_not_an_image_is_refused(item):
    with pytest.raises(ValueError, match=r"not a tensor \(C, H, W\)"):
        read([item], 0)


def test_values_type_shape_and_class_are_the_content():
    image = torch.arange(12.0).reshape(3, 2, 2)
    same = [image.clone(), image.permute(1, 2, 0).contiguous().permute(2, 0, 1)]
    other = [image + 1, image.double(), image.reshape(3, 1, 4), image.transpose(1, 2)]
    content = read([(image, 1)], 0).contents.image
    assert all(read([(one, 1)], 0).contents.image == content for one in same)
    others = [(one, 1) for one in other] + [(image, 2), (image, None), image]
    assert len({read([one], 0).contents.image for one in others}) == len(others) - 1
    assert content not in {read([one], 0).contents.image for one in others}
    assert read([(image, torch.tensor(1))], 0).contents.image == content
