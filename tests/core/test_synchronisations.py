"""How often the host waits for a GPU, counted by the operations on a CPU that would make it."""

from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from toy_networks import Net, network

from captum_advise import LayerAdvise, layer_advise, relevance
from captum_advise._core import setting_warnings, unit_choice
from captum_advise._core.scoring import MapScorer

on_host = unit_choice.on_host
# Their results, or the shapes of them, are numbers of the host.
WAITING = {"_local_scalar_dense", "nonzero", "_unique2", "unique_consecutive", "bincount", "equal"}


class Waits(TorchDispatchMode):
    """Counts waits. What comes from ``on_host`` alone is on the host, and waits for nothing."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()
        self.on_host = {}

    def copied(self, *tensors):
        self.counts["on_host"] += 1
        copies = on_host(*tensors)
        self.mark(copies)
        return copies

    def mark(self, results):
        for result in tree_leaves(results):
            if isinstance(result, torch.Tensor):
                self.on_host[id(result)] = result

    def is_on_host(self, *values):
        tensors = [leaf for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor)]
        return bool(tensors) and all(id(tensor) in self.on_host for tensor in tensors)

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        if self.is_on_host(arguments, options):
            results = function(*arguments, **(options or {}))
            self.mark(results)
            return results
        name = function.overloadpacket.__name__
        # A mask is an index of as many entries as it holds.
        by_mask = name.startswith(("index", "_index_put")) and any(
            isinstance(index, torch.Tensor) and index.dtype == torch.bool
            for index in (arguments[1] if isinstance(arguments[1], list | tuple) else ())
        )
        self.counts[name] += name in WAITING or by_mask
        return function(*arguments, **(options or {}))


@pytest.mark.parametrize(
    ("selection", "batch_size", "at_most"),
    [(None, 2, 0), (1, 2, 1), ("avx", 2, 5), ("avx", 200, 2)],
)
def test_the_host_waits_for_few_answers(monkeypatch, selection, batch_size, at_most):
    net = network(Net, classes=30)
    # Not square: a square layer of few units is asked whether it holds attention weights.
    images = torch.rand(12, 3, 24, 30, generator=torch.Generator().manual_seed(0))
    advise = LayerAdvise(net, net.layer, activation_range="minmax")
    explanation = advise.explain(images, keep_units=True)
    assert min(map(len, explanation.candidates)) > 1
    # The GPU's kernels wait for nothing, those of CPUs do.
    for module in (layer_advise, relevance):
        monkeypatch.setattr(module, "unit_densities", lambda *_: explanation.units.densities)
    monkeypatch.setattr(MapScorer, "_takes_as_long_for_one", True)
    with Waits() as waits:
        copy = torch.Tensor.tolist

        def counted(tensor):
            waits.counts["tolist"] += not waits.is_on_host(tensor)
            return copy(tensor)

        monkeypatch.setattr(torch.Tensor, "tolist", counted)
        for module in (unit_choice, setting_warnings):
            monkeypatch.setattr(module, "on_host", waits.copied)
        advise.attribute(images, unit_selection=selection, internal_batch_size=batch_size)
    assert waits.counts.total() <= at_most, waits.counts


def test_a_gpu_selects_what_a_cpu_selects(monkeypatch):
    """It runs the network on all groups where they fill one pass at most."""
    net = network(Net, classes=30)
    images = torch.rand(6, 3, 24, 30, generator=torch.Generator().manual_seed(1))
    advise = LayerAdvise(net, net.layer, activation_range="minmax")
    expected = advise.attribute(images)
    passes = []
    net.register_forward_pre_hook(lambda module, inputs: passes.append(len(inputs[0])))
    monkeypatch.setattr(MapScorer, "_takes_as_long_for_one", True)
    for batch_size in (50, 3):
        passes.clear()
        torch.testing.assert_close(
            advise.attribute(images, internal_batch_size=batch_size), expected
        )
        assert (len(passes) == 2) == (batch_size == 50), passes
