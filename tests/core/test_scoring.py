"""The highest AVX, found without all similarities, against all metrics."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toy_networks import Net, network

from captum_advise import LayerAdvise, Protocol
from captum_advise._core.candidates import TIE
from captum_advise._core.scoring import MapScorer


@given(st.integers(0, 200), st.booleans())
def test_attribute_selects_what_all_metrics_select(seed, reference):
    net = network(Net, seed=seed, classes=30)
    images = torch.rand(3, 3, 24, 24, generator=torch.Generator().manual_seed(seed))
    options = {"activation_range": "minmax", "min_prominence": 0}
    if reference:
        options["protocol"] = Protocol.reference()
    advise = LayerAdvise(net, net.layer)
    explanation = advise.explain(images, **options)
    assert torch.equal(advise.attribute(images, **options), explanation.attributions)


def test_similarity_is_computed_only_where_it_can_decide(monkeypatch):
    net = network(Net, classes=30)
    images = torch.rand(3, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    advise = LayerAdvise(net, net.layer)
    explanation = advise.explain(images, activation_range="minmax", min_prominence=0)
    computed = []
    original = MapScorer._fsim
    monkeypatch.setattr(
        MapScorer,
        "_fsim",
        lambda self, examples, maps: computed.append(len(maps)) or original(self, examples, maps),
    )
    advise.attribute(images, activation_range="minmax", min_prominence=0)
    needed = 0
    for candidates in explanation.candidates:
        m = [candidate.metrics for candidate in candidates]
        bounds = torch.stack([harmonic_mean(x.ssim, 1, 1 - x.mse, 1 - x.average_drop) for x in m])
        best = torch.stack([x.avx for x in m]).max()
        hits = torch.stack([x.hit for x in m])
        needed += int(((bounds >= best - TIE) | ~hits).sum())
    assert sum(computed) <= needed
    assert sum(computed) < sum(map(len, explanation.candidates))


def harmonic_mean(*parts):
    return len(parts) / sum(1 / torch.as_tensor(part) for part in parts)


@pytest.mark.parametrize("size", [1, 2, 100])
def test_batch_sizes_change_nothing(size):
    net = network(Net, classes=30)
    images = torch.rand(3, 3, 24, 24, generator=torch.Generator().manual_seed(1))
    advise = LayerAdvise(net, net.layer)
    expected = advise.attribute(images)
    torch.testing.assert_close(advise.attribute(images, internal_batch_size=size), expected)
