"""The highest AVX, found without all similarities, against all metrics."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toy_networks import Net, network

from captum_advise import AVXProtocol, LayerAdvise
from captum_advise._core.scoring import MapScorer
from captum_advise._core.unit_choice import TIE


@given(st.integers(0, 200), st.booleans())
def test_attribute_selects_what_all_metrics_select(seed, reference):
    net = network(Net, seed=seed, classes=30)
    images = torch.rand(3, 3, 24, 24, generator=torch.Generator().manual_seed(seed))
    options = {"activation_range": "minmax", "min_prominence": 0}
    if reference:
        options["protocol"] = AVXProtocol.reference()
    advise = LayerAdvise(net, net.layer, **options)
    explanation = advise.explain(images)
    assert torch.equal(advise.attribute(images), explanation.attributions)


def test_the_network_runs_only_where_it_can_decide(monkeypatch):
    net = network(Net, classes=30)
    images = torch.rand(3, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    advise = LayerAdvise(net, net.layer, activation_range="minmax", min_prominence=0)
    explanation = advise.explain(images)
    calls = {"_fsim": 0, "_compare": 0}

    def counted(name):
        original = getattr(MapScorer, name)

        def call(self, examples, *arguments):
            calls[name] += len(examples)
            return original(self, examples, *arguments)

        monkeypatch.setattr(MapScorer, name, call)

    for name in calls:
        counted(name)
    advise.attribute(images)
    fsim = runs = 0
    for candidates in explanation.candidates:
        m = [candidate.metrics for candidate in candidates]
        quick = torch.stack([harmonic_mean(x.ssim, 1, 1 - x.mse, 1) for x in m])
        whole = torch.stack([harmonic_mean(x.ssim, x.fsim, 1 - x.mse, 1) for x in m])
        first = torch.arange(len(m)) == quick.argmax()
        enough = m[int(quick.argmax())].avx - TIE
        fsim += int((first | (quick >= enough)).sum())
        runs += int((first | (whole >= enough)).sum())
    assert calls == {"_fsim": fsim, "_compare": runs}
    assert runs < sum(map(len, explanation.candidates))


def harmonic_mean(*parts):
    return len(parts) / sum(1 / torch.as_tensor(part) for part in parts)


@pytest.mark.parametrize("size", [1, 2, 100])
def test_batch_sizes_change_nothing(size):
    net = network(Net, classes=30)
    images = torch.rand(3, 3, 24, 24, generator=torch.Generator().manual_seed(1))
    advise = LayerAdvise(net, net.layer)
    expected = advise.attribute(images)
    torch.testing.assert_close(advise.attribute(images, internal_batch_size=size), expected)
