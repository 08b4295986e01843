from __future__ import annotations

import sys

import pytest
import torch
from captum.attr import LayerActivation, LayerGradCam, NoiseTunnel, Saliency
from captum.attr._utils.attribution import Attribution
from squares import SIZE, SPACE

from captum_advise import LayerAdvise, Protocol
from captum_advise.evaluation import (
    Context,
    MethodError,
    MethodSettings,
    ScoringSettings,
    as_method,
    by_name,
    names,
)
from captum_advise.evaluation.methods import ClassMaps, superpixels
from captum_advise.evaluation.scoring import Scorer, counted_passes

CHEAP = MethodSettings(integrated_gradients_steps=4, lime_samples=30, lime_grid=4, is_cam_samples=2)
CONTEXT = Context(SPACE, settings=CHEAP)
CLASSES = torch.tensor([2, 5])


@pytest.fixture
def inputs(squares):
    return torch.stack(squares.inputs[:2])


def called(name, network, inputs, target=CLASSES):
    torch.manual_seed(3)
    found = by_name([name])[name](network, network[3], inputs, target, CONTEXT)
    return found.maps if isinstance(found, ClassMaps) else found


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", names())
def test_every_method_gives_one_map_per_picture_and_leaves_the_model_as_it_was(
    name, network, inputs
):
    before = {key: value.clone() for key, value in network.state_dict().items()}
    maps = called(name, network, inputs)
    assert maps.shape[0] == 2
    assert maps.dim() == 4
    assert maps.isfinite().all()
    assert not maps.requires_grad
    for key, value in network.state_dict().items():
        assert torch.equal(value, before[key])
    for module in network.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert not module._backward_hooks
        assert not module._backward_pre_hooks
        assert not module.training
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not inputs.requires_grad
    # One by one gives what both together give: no method mixes pictures.
    if name not in ("random", "lime", "smooth-grad-cam++"):
        alone = torch.cat(
            [called(name, network, inputs[i : i + 1], CLASSES[i : i + 1]) for i in (0, 1)]
        )
        torch.testing.assert_close(alone, maps, atol=1e-5, rtol=1e-4)


def test_torchcam_sees_the_layer_before_an_in_place_activation(network, inputs):
    activations = LayerActivation(network, network[3]).attribute(inputs).detach()
    values = activations.clone().requires_grad_()
    score = network[4:](values * 1).gather(1, CLASSES[:, None]).sum()
    (gradients,) = torch.autograd.grad(score, values)
    layer_cam = (gradients.relu() * activations).sum(1, keepdim=True).relu()
    torch.testing.assert_close(called("layer-cam", network, inputs), layer_cam)
    share = (gradients * activations).sum((2, 3)) / activations.sum((2, 3))
    xgrad = (share[..., None, None] * activations).sum(1, keepdim=True).relu()
    torch.testing.assert_close(called("xgrad-cam", network, inputs), xgrad, atol=1e-5, rtol=1e-3)


def test_frozen_networks_can_be_explained(network, inputs):
    expected = called("grad-cam++", network, inputs)
    network.requires_grad_(False)
    torch.testing.assert_close(called("grad-cam++", network, inputs), expected)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("advise", {}),
        ("advise-minmax", {"activation_range": "minmax"}),
        ("advise-reference", {"protocol": Protocol.reference()}),
        ("advise-faithful", {"unit_selection": "faithfulness"}),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_scores_of_advise_are_those_of_its_own_explanation(name, options, network, inputs):
    scorer = Scorer(network, network[3], by_name([name]), CONTEXT, ScoringSettings(steps=2), 0)
    (row,) = scorer.rows(0, "picture", inputs[:1], 2)
    layer_advise = LayerAdvise(network, network[3], pixel_space=SPACE)
    explanation = layer_advise.explain(inputs[:1], 2, **options)
    (maps,) = scorer.maps(0, inputs[:1], 2).values()
    torch.testing.assert_close(maps, explanation.attributions)
    assert row["class_sensitivity"] == pytest.approx(
        explanation.scores.class_sensitivity.item(), abs=1e-5
    )
    if name != "advise-reference":  # which chooses by another protocol than it is scored by
        for part in ("avx", "average_drop", "ssim", "fsim", "mse", "hit"):
            assert row[part] == pytest.approx(getattr(explanation.scores, part).item(), abs=1e-5)


@pytest.mark.parametrize(
    ("name", "passes"),
    [
        ("grad-cam", 1),
        ("random", 0),
        ("gaussian", 0),
        ("grad-cam++", 1),
        ("score-cam", 1 + 1 + 8),
        ("is-cam", 1 + 1 + 8 * 2),
        ("smooth-grad-cam++", 1 + 4),
        ("lime", 30),
        # A window of 3 moves by 1, so that 24 - 3 + 1 fit.
        ("occlusion", 1 + (24 - 3 + 1) ** 2),
    ],
)
def test_forward_passes_are_counted(name, passes, network, inputs):
    with counted_passes(network) as found:
        called(name, network, inputs[:1], CLASSES[:1])
    assert found.count == passes
    assert not network._forward_pre_hooks


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("name", "scale"),  # Lime's regularised weights are all zero for small scores
    [("lime", 30), ("occlusion", 1), ("score-cam", 1), ("is-cam", 1)],
)
def test_scores_serve_the_runner_up_class_too(name, scale, network, inputs):
    one, other = CLASSES[:1], torch.tensor([4])
    with torch.no_grad():
        network[7].weight *= scale
        network[3].bias += 1  # maps of score-weighted CAMs are not all zero then
    torch.manual_seed(3)
    found = by_name([name])[name](network, network[3], inputs[:1], one, CONTEXT)
    with counted_passes(network) as passes:
        maps = found.of_class(other)
    assert passes.count <= 1  # a CAM reads the layer again
    torch.testing.assert_close(maps, called(name, network, inputs[:1], other))
    assert not torch.equal(maps, found.maps)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("compiler", [None, pytest.param("inductor", marks=pytest.mark.slow)])
def test_the_compiled_model_gives_the_same_scores(compiler, network, inputs, monkeypatch):
    if compiler is None:
        monkeypatch.setattr(torch, "compile", lambda model, **_: model)
    arguments = (network, network[3], by_name(["advise", "grad-cam"]), CONTEXT)
    arguments += (ScoringSettings(steps=4), 0)
    plain, compiled = (Scorer(*arguments, compiled=flag) for flag in (False, True))
    expected, found = (run.rows(0, "picture", inputs[:1], 2) for run in (plain, compiled))
    for row, other in zip(expected, found, strict=True):
        for column in row.keys() - {"file", "method", "seconds"}:
            assert other[column] == pytest.approx(row[column], abs=1e-5), column


def test_captum_attributions_and_callables_are_methods(network, inputs):
    expected = LayerGradCam(network, network[3]).attribute(inputs, CLASSES)
    for method in (LayerGradCam, LayerGradCam(network, network[3])):
        found = as_method(method)(network, network[3], inputs, CLASSES, CONTEXT)
        torch.testing.assert_close(found, expected)
    noisy: Attribution = NoiseTunnel(Saliency(network))
    for method in (Saliency, noisy):
        found = as_method(method)(
            network, network[3], inputs.clone().requires_grad_(), CLASSES, CONTEXT
        )
        assert found.shape == inputs.shape
    assert as_method(called) is called
    with pytest.raises(TypeError, match="A method is a Captum attribution"):
        as_method("grad-cam")


def test_channels_are_summed_and_floors_do_not_depend_on_the_class(network, inputs):
    methods = {
        "summed": lambda *_: torch.stack([inputs[0], -inputs[0] / 2]).mean(0)[None],
        **by_name(["random", "gaussian"]),
    }
    scorer = Scorer(network, network[3], methods, CONTEXT, ScoringSettings(steps=2), 7)
    maps = scorer.maps(0, inputs[:1], None)
    torch.testing.assert_close(maps["summed"], inputs[:1].sum(1, keepdim=True) / 4)
    for row in scorer.rows(0, "picture", inputs[:1], None):
        assert row["class_sensitivity"] == pytest.approx(1, abs=1e-5)
    again = Scorer(network, network[3], methods, CONTEXT, ScoringSettings(), 8)
    assert torch.equal(maps["gaussian"], again.maps(0, inputs[:1], None)["gaussian"])
    assert not torch.equal(maps["random"], again.maps(0, inputs[:1], None)["random"])
    assert not torch.equal(maps["random"], scorer.maps(1, inputs[:1], None)["random"])
    centre = maps["gaussian"][0, 0]
    assert centre.argmax() in (SIZE // 2 * SIZE + SIZE // 2, (SIZE // 2 - 1) * (SIZE + 1))
    torch.testing.assert_close(centre, centre.flip(0, 1))


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        (lambda *_: torch.zeros(3), r"the method broken gave \(3,\) instead of maps"),
        (lambda *_: torch.full((1, 1, 2, 2), torch.nan), "the method broken gave a map with inf"),
        (lambda *_: 1 / 0, "the method broken failed: division by zero"),
    ],
)
def test_what_is_no_map_is_an_error_that_names_the_method(broken, sentence, network, inputs):
    scorer = Scorer(network, network[3], {"broken": broken}, CONTEXT, ScoringSettings(), 0)
    with pytest.raises(MethodError, match=sentence):
        scorer.rows(0, "picture", inputs[:1], None)


def test_superpixels_are_equal_rectangles():
    found = superpixels(torch.zeros(1, 3, 24, 32), 8)[0, 0]
    assert found.shape == (24, 32)
    assert found.unique().tolist() == list(range(64))
    assert (torch.bincount(found.flatten()) == 12).all()
    assert superpixels(torch.zeros(1, 3, 5, 3), 8).unique().tolist() == list(range(15))


def test_names_are_checked(monkeypatch):
    assert list(by_name(["random", "advise"])) == ["random", "advise"]
    with pytest.raises(ValueError, match=r"no method 'grad_cam' \(did you mean grad-cam"):
        by_name(["grad_cam"])
    with pytest.raises(ValueError, match="The method random is named twice"):
        by_name(["random", "random"])
    with pytest.raises(ValueError, match="at least one method"):
        by_name([])
    monkeypatch.setitem(sys.modules, "torchcam", None)
    with pytest.raises(ModuleNotFoundError, match=r"captum-advise\[peers\]"):
        by_name(["advise", "layer-cam"])
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ModuleNotFoundError, match=r"captum-advise\[evaluation\]"):
        by_name(["lime"])


def test_settings_are_checked():
    with pytest.raises(ValueError, match="lime_samples must be at least 1, got 0"):
        MethodSettings(lime_samples=0)
    with pytest.raises(ValueError, match="steps must be at least 1"):
        ScoringSettings(steps=0)
    with pytest.raises(ValueError, match="not accuracy"):
        ScoringSettings(on_request=frozenset({"accuracy"}))
