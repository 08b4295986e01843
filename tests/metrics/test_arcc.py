from __future__ import annotations

import numpy as np
import pytest
import torch
from messages import one_sentence
from toy_networks import images, network

from captum_advise.metrics import adcc, arcc, road
from captum_advise.pixels import normalize_maps

MAPS = normalize_maps(torch.rand(3, 1, 24, 24, generator=torch.Generator().manual_seed(0)))
OTHERS = normalize_maps(MAPS + 0.3 * MAPS.roll(1, 3))


def test_by_hand():
    maps = torch.tensor([[0.0, 0.0, 0.0, 1.0]]).expand(3, 4)
    others = torch.tensor([[0.0, 0.0, 0.0, 1.0], [1.0, 1.0, 1.0, 0.0], [0.0, 0.0, 1.0, 0.0]])
    faithfulness = torch.tensor([0.5, 1.0, 0.8])
    # Coherency 1, 0 and (1 - 1 / 3) / 2; complexity 1 / 4.
    expected = [3 / (1 + 4 / 3 + 2), 0.0, 3 / (3 + 4 / 3 + 1 / 0.8)]
    torch.testing.assert_close(arcc(maps, others, faithfulness), torch.tensor(expected))
    torch.testing.assert_close(adcc(maps, others, 1 - faithfulness), torch.tensor(expected))


def test_maps_that_show_everything_or_mislead_have_no_value():
    everything = torch.ones(2, 5)
    assert arcc(everything, everything, torch.ones(2)).tolist() == [0, 0]
    assert arcc(MAPS, OTHERS, torch.tensor([-0.3, 0.0, 0.5])).tolist()[:2] == [0, 0]


def test_pytorch_grad_cam_s_arcc():
    package = pytest.importorskip("pytorch_grad_cam.metrics.arcc")
    model, inputs = network(), images()
    targets = [lambda output: output.softmax(0)[1]] * 3

    class Ready:
        """A method whose map of the masked image is known."""

        def __call__(self, input_tensor, targets):
            return OTHERS[:, 0].numpy()

    made = package.ARCC(Ready())
    values = road(model, inputs, MAPS, torch.ones(3, dtype=torch.int64)).value
    made.road = lambda *_: values.numpy() / 2  # theirs imputes other noise, and halves
    expected = made(inputs, MAPS[:, 0].numpy(), targets, model)
    np.testing.assert_allclose(arcc(MAPS, OTHERS, values), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("drop", [-0.5, 1.5, 2.0])
def test_average_drops_are_shares(drop):
    with pytest.raises(ValueError, match="values of road or average_drop, which are at most 1"):
        adcc(MAPS, OTHERS, torch.tensor([0.5, 0.5, drop]))


@pytest.mark.parametrize(
    ("maps", "values", "sentence"),
    [
        (2 * MAPS, torch.ones(3), r"maps must be in \[0, 1\]: stretch them"),
        (MAPS, torch.ones(2), r"one value per map, \(3,\), got \(2,\)"),
        (MAPS, torch.full((3,), torch.nan), "not finite"),
    ],
)
def test_bad_arguments(maps, values, sentence):
    for metric in (arcc, adcc):
        with pytest.raises(ValueError, match=sentence) as error:
            metric(maps, OTHERS, values)
        one_sentence(error)
