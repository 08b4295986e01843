"""The pairs compute the same function, and their layers correspond."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from captum_advise.axioms.networks import NetworkSpec, SmallNetwork
from captum_advise.axioms.rewrites import REWRITES
from captum_advise.axioms.strategies import cases, network_specs


def outputs_and_maps(model, layer, inputs):
    maps = []
    hook = layer.register_forward_hook(lambda _module, _inputs, output: maps.append(output))
    with torch.no_grad():
        outputs = model(inputs)
    hook.remove()
    (layer_maps,) = maps
    return outputs, layer_maps


@pytest.mark.parametrize("rewrite", REWRITES)
def test_pairs_compute_the_same(rewrite):
    make = REWRITES[rewrite]

    @settings(max_examples=40)
    @given(network_specs(**make.needs), st.integers(0, 2**31 - 1), st.integers(0, 1000))
    def agrees(spec, rewrite_seed, seed):
        original, (rewritten, unit_map) = SmallNetwork(spec), make(spec, rewrite_seed)
        inputs = spec.inputs(3, seed)
        outputs, maps = outputs_and_maps(original, original.layer, inputs)
        others, other_maps = outputs_and_maps(rewritten, rewritten.layer, inputs)
        exact = {"rtol": 0, "atol": 0} if make.is_bitwise else {}
        torch.testing.assert_close(others, outputs, **exact)
        assert len(unit_map) == other_maps.shape[1]
        assert {unit for unit in unit_map if unit is not None} == set(range(spec.units))
        for position, unit in enumerate(unit_map):
            if unit is None:
                continue
            ratio = other_maps[:, position].abs().max() / maps[:, unit].abs().max()
            if rewrite == "rescaled_units":
                assert torch.isnan(ratio) or torch.log2(ratio) == torch.log2(ratio).round()
            factor = ratio if rewrite == "rescaled_units" and ratio > 0 else 1.0
            torch.testing.assert_close(other_maps[:, position], maps[:, unit] * factor, **exact)

    agrees()


@settings(max_examples=200)
@given(cases())
def test_cases_fit_their_network(case):
    network = SmallNetwork(case.spec)
    inputs = case.inputs
    assert inputs.shape[0] == len(case.targets)
    assert inputs.min() >= 0
    assert inputs.max() < 1
    outputs, maps = outputs_and_maps(network, network.layer, inputs)
    assert outputs.dtype == torch.float64
    assert outputs.shape == (len(case.targets), case.spec.classes)
    assert max(case.targets) < case.spec.classes
    assert maps.shape[1:] == (case.spec.units, *(case.spec.map_size,) * case.spec.spatial_dims)
    assert max(maps.shape[2:]) <= 10
    assert not network.training


def test_equal_specs_build_equal_networks_and_draw_nothing_global():
    before = torch.random.get_rng_state()
    first, second = (SmallNetwork(NetworkSpec(seed=3, batch_norm=True)) for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(
        torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items()
    )
    other = SmallNetwork(NetworkSpec(seed=4, batch_norm=True))
    assert not torch.equal(first.convolution.weight, other.convolution.weight)


@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
def test_strategies_reach_every_kind(spatial_dims):
    seen = set()

    @settings(max_examples=400)
    @given(network_specs(spatial_dims=(spatial_dims,)))
    def collect(spec):
        assert spec.spatial_dims == spatial_dims
        seen.update(
            [spec.activation, spec.pooling, spec.head, spec.layer, spec.stride, spec.batch_norm]
        )

    collect()
    assert seen >= {
        *("relu", "leaky_relu", "tanh", "gelu", "softplus", "none", "max", "average"),
        *("pooled", "flat", "hidden", "convolution", "norm", "activation", 1, 2, True, False),
    }
