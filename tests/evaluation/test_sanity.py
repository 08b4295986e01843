"""The sanity checks on networks and maps for which the result is known."""

from __future__ import annotations

import copy
from collections import OrderedDict

import pytest
import torch
from captum.attr import LayerGradCam
from scipy import stats
from torch import nn

from captum_advise.evaluation import Context, get_methods, randomize_parameters
from captum_advise.evaluation.sanity import parameter_blocks, rank_correlation, reset_parameters
from captum_advise.targets import Output, Segmentation

METHODS = {"Grad-CAM": LayerGradCam, "edges": get_methods(["edge-detector"])["edge-detector"]}


class Scale(nn.Module):
    """A module without reset_parameters."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.full((4, 1, 1), 2.0))

    def forward(self, maps):
        return maps * self.factor


@pytest.fixture
def network():
    return nn.Sequential(
        OrderedDict(
            # Not registered in the order of the forward pass.
            head=nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)),
            stem=nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()),
            scale=Scale(),
        )
    ).eval()


@pytest.fixture
def model(network):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.head, self.stem, self.scale = network.head, network.stem, network.scale

        def forward(self, inputs):
            return self.head(self.scale(self.stem(inputs)))

    return Model().eval()


@pytest.fixture
def inputs():
    return torch.rand(2, 3, 12, 12)


def test_blocks_go_from_the_top_of_the_network_to_the_bottom(model, inputs):
    assert parameter_blocks(model, inputs) == {
        "head.2": ("head.2",),
        "scale": ("scale",),
        "stem.1": ("stem.1",),
        "stem.0": ("stem.0",),
    }


@pytest.mark.parametrize(
    ("wrap", "prefix"),
    [
        (Output, "model."),
        (torch.compile, "_orig_mod."),
        (lambda model: Output(nn.DataParallel(model)), "model.module."),
    ],
)
def test_a_wrapper_is_no_block(wrap, prefix, model, inputs):
    assert parameter_blocks(wrap(model), inputs) == {
        block: (f"{prefix}{block}",) for block in ("head.2", "scale", "stem.1", "stem.0")
    }


def test_a_model_that_is_segmented_has_its_blocks():
    model = nn.Sequential(OrderedDict(stem=nn.Conv2d(3, 4, 3), head=nn.Conv2d(4, 2, 1)))
    found = parameter_blocks(Segmentation(model), torch.rand(1, 3, 8, 8))
    assert found == {"head": ("model.head",), "stem": ("model.stem",)}


@pytest.mark.parametrize("mode", ["cascading", "independent"])
def test_steps_randomise_their_blocks_and_leave_the_model_unchanged(model, inputs, mode):
    before = copy.deepcopy(model.state_dict())
    randomised = []

    def spy(network, layer, inputs, target, context):
        assert network is not model
        assert layer is network.stem[2]
        same = {
            name.rpartition(".")[0]
            for name, value in network.named_parameters()
            if torch.equal(value, before[name])
        }
        randomised.append({"head.2", "scale", "stem.1", "stem.0"} - same)
        return LayerGradCam(network, layer).attribute(inputs, target)

    state = torch.random.get_rng_state()
    result = randomize_parameters(
        {"spy": spy}, model, "stem.2", inputs, torch.tensor([0, 1]), mode=mode
    )
    assert torch.equal(torch.random.get_rng_state(), state)
    steps = ["head.2", "scale", "stem.1", "stem.0"]
    assert list(result.steps) == steps
    # Resetting an untrained batch norm (stem.1) does not change its parameters.
    if mode == "cascading":
        expected = [set(steps[: i + 1]) for i in range(4)]
    else:
        expected = [{step} for step in steps]
    assert [blocks | {"stem.1"} for blocks in randomised] == [
        {"stem.1"},
        *(blocks | {"stem.1"} for blocks in expected),
    ]
    assert len(result.maps["spy"]) == 4
    assert result.absolute_correlation["spy"].shape == (4, 2)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_methods_explain_the_layers_of_the_random_network(model, inputs):
    seen = []

    def spy(network, layer, inputs, target, context):
        seen.append((layer is network.stem[2], context.layers == (network.stem[0], layer)))
        return inputs

    spy.layers = "convolutions"
    randomize_parameters({"spy": spy}, model, "stem.2", inputs, torch.tensor([0, 1]))
    assert seen == [(True, True)] * 5


def test_methods_that_draw_samples_draw_the_same_ones(model, inputs):
    methods = get_methods(["random", "rise"], {"rise_masks": 10})
    state = torch.random.get_rng_state()
    result = randomize_parameters(methods, model, "stem.2", inputs, torch.tensor([0, 1]))
    assert torch.equal(torch.random.get_rng_state(), state)
    for maps in result.maps["random"]:
        assert torch.equal(maps, result.original["random"])
    assert not torch.equal(result.maps["rise"][-1], result.original["rise"])


def test_methods_with_a_model_of_their_own_are_refused(model, inputs):
    bound = {"mine": LayerGradCam(model, model.stem)}
    with pytest.raises(TypeError, match="object of LayerGradCam is bound to a model"):
        randomize_parameters(bound, model, "stem.2", inputs, torch.tensor([0, 1]))


def test_both_modes_share_the_first_step_and_seeds_differ(model, inputs):
    target = torch.tensor([0, 1])
    runs = [
        randomize_parameters(METHODS, model, "stem.2", inputs, target, mode=mode, seed=seed)
        for mode, seed in (("cascading", 0), ("independent", 0), ("cascading", 0), ("cascading", 1))
    ]
    firsts = [run.maps["Grad-CAM"][0] for run in runs]
    assert torch.equal(firsts[0], firsts[1])
    assert torch.equal(firsts[0], firsts[2])
    assert not torch.equal(firsts[0], firsts[3])


def test_the_edge_detector_fails(model, inputs):
    result = randomize_parameters(METHODS, model, "stem.2", inputs, torch.tensor([0, 1]))
    for correlation in (result.absolute_correlation, result.signed_correlation):
        torch.testing.assert_close(correlation["edges"], torch.ones(4, 2, dtype=torch.float64))
    assert float(result.signed_correlation["Grad-CAM"][-1].mean()) < 0.9


def test_edges_of_a_step():
    image = torch.zeros(1, 3, 5, 6)
    image[..., 3:] = 1
    edges = METHODS["edges"](nn.Identity(), nn.Identity(), image, torch.zeros(1), Context())
    # The Sobel filter sums a weight of 4 on each side of the step.
    assert edges[0, 0, 2].tolist() == [0, 0, 4, 4, 0, 0]


def test_rank_correlation_is_scipys():
    maps, others = torch.randn(2, 3, 1, 7, 7, dtype=torch.float64)
    for row, found in enumerate(rank_correlation(maps, others).tolist()):
        expected = stats.spearmanr(maps[row].flatten(), others[row].flatten()).statistic
        assert found == pytest.approx(expected)


def test_rank_correlation_of_equal_opposite_scaled_and_constant_maps():
    maps = torch.randn(1, 1, 7, 7, requires_grad=True)
    zero = torch.zeros_like(maps)
    for other, expected in ((4 * maps, 1), (-maps, -1), (zero, 0)):
        assert float(rank_correlation(maps, other)) == pytest.approx(expected)
    assert float(rank_correlation(zero, zero + 1)) == 1


def test_reset_without_reset_parameters_keeps_mean_and_deviation():
    module = nn.Module()
    module.weight = nn.Parameter(5 + 2 * torch.randn(20000))
    before = module.weight.detach().clone()
    reset_parameters(module)
    after = module.weight.detach()
    assert torch.corrcoef(torch.stack([before, after]))[0, 1].abs() < 0.05
    assert float(after.mean()) == pytest.approx(5, abs=0.1)
    assert float(after.std()) == pytest.approx(2, abs=0.1)


def test_bad_input(model, inputs):
    target = torch.tensor([0, 1])
    with pytest.raises(ValueError, match="no layer 'conv9'"):
        randomize_parameters(METHODS, model, "conv9", inputs, target)
    with pytest.raises(ValueError, match="mode must be"):
        randomize_parameters(METHODS, model, "stem", inputs, target, mode="both")
    with pytest.raises(ValueError, match="no parameters"):
        randomize_parameters(METHODS, nn.Sequential(nn.ReLU()), "0", inputs, target)
