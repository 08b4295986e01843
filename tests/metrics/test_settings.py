"""What metrics do not depend on, and what they refuse or warn of, whatever the metric."""

from __future__ import annotations

import ast
import warnings
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from messages import one_sentence
from torch import nn
from toy_networks import images, network

from captum_advise import metrics, pixels, targets

INPUTS = images()
TARGET = torch.tensor([0, 1, 2])
MAPS = torch.rand(3, 1, 24, 24, generator=torch.Generator().manual_seed(0))
INTS = (9 * MAPS).long()
OTHERS = MAPS.flip(3)
REGIONS = torch.zeros(3, 1, 24, 24, dtype=torch.bool)
REGIONS[..., 3:17, 2:15] = True
PROBABILITIES = network()(INPUTS).softmax(1).detach()

OF_MODELS = {
    "insertion_auc": metrics.insertion_auc,
    "deletion_auc": metrics.deletion_auc,
    "mu_fidelity": metrics.mu_fidelity,
    "road": lambda *arguments, **options: metrics.road(*arguments, **options).value,
}
OF_MAPS = {
    "class_sensitivity": lambda maps: metrics.class_sensitivity(maps, OTHERS),
    "class_sensitivity of the runner-up": lambda maps: metrics.class_sensitivity(OTHERS, maps),
    "arcc": lambda maps: metrics.arcc(maps, OTHERS, OTHERS.new_ones(3)),
    "adcc": lambda maps: metrics.adcc(maps, OTHERS, OTHERS.new_zeros(3)),
    "sparseness": metrics.sparseness,
    "pointing_game": lambda maps: metrics.pointing_game(maps, REGIONS),
    "energy_pointing_game": lambda maps: metrics.energy_pointing_game(maps, REGIONS),
    "top_pixels": lambda maps: metrics.top_pixels(maps, REGIONS),
}


def of_model(metric):
    return lambda model: metric(model, INPUTS, MAPS, TARGET)


def of_maps(metric, maps):
    return lambda _model: metric(maps)


CALLS = {
    **{name: of_model(metric) for name, metric in OF_MODELS.items()},
    **{name: of_maps(metric, MAPS) for name, metric in OF_MAPS.items()},
    **{
        f"{name} of ints": of_maps(OF_MAPS[name], INTS)
        for name in ("sparseness", "pointing_game", "energy_pointing_game", "top_pixels")
    },
    "ssim": lambda _model: metrics.ssim(INPUTS, 0.5 * INPUTS),
    "fsim": lambda _model: metrics.fsim(INPUTS, 0.5 * INPUTS),
    "visual_explainability": lambda _model: (
        metrics.visual_explainability(
            INPUTS, 0.5 * INPUTS, PROBABILITIES, PROBABILITIES, TARGET, PROBABILITIES[:, 0]
        ).avx
    ),
}


@contextmanager
def default_dtype(dtype):
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


DEFAULTS = {"dtype": lambda: default_dtype(torch.float64), "device": lambda: torch.device("meta")}


@pytest.mark.parametrize("default", DEFAULTS)
@pytest.mark.parametrize("name", CALLS)
def test_defaults_of_torch_do_not_matter(name, default):
    model = network()
    torch.default_generator.manual_seed(0)
    expected = CALLS[name](model)
    metrics.fsim(INPUTS[..., :5, :7], INPUTS[..., :5, :7])  # filters are kept from call to call
    torch.default_generator.manual_seed(0)
    with DEFAULTS[default]():
        value = CALLS[name](model)
    assert value.dtype == expected.dtype
    assert value.device == expected.device
    assert torch.equal(value, expected)


@pytest.mark.parametrize("default", DEFAULTS)
def test_defaults_of_torch_do_not_matter_to_filters(default):
    with DEFAULTS[default]():
        value = metrics.fsim(INPUTS[..., :19, :22], 0.5 * INPUTS[..., :19, :22])
    metrics.fsim.__globals__["_filters"].cache_clear()
    assert torch.equal(value, metrics.fsim(INPUTS[..., :19, :22], 0.5 * INPUTS[..., :19, :22]))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("name", OF_MAPS)
def test_maps_that_are_not_finite_have_no_value(name, bad):
    for maps in (torch.full_like(MAPS, bad), MAPS.where(MAPS.min() < MAPS, bad)):
        with pytest.raises(ValueError, match="maps hold values that are not finite") as raised:
            OF_MAPS[name](maps)
        one_sentence(raised)


@pytest.mark.parametrize("name", OF_MODELS)
def test_an_empty_batch_has_no_values(name):
    value = OF_MODELS[name](network(), INPUTS[:0], MAPS[:0], TARGET[:0])
    assert len(value) == 0
    assert value.is_floating_point()


@pytest.mark.parametrize("name", ["pointing_game", "energy_pointing_game", "top_pixels"])
def test_masks_are_maps_too(name):
    masks = MAPS > 0.7
    assert torch.equal(OF_MAPS[name](masks), OF_MAPS[name](masks.float()))


class InPlace(nn.Module):
    """A model that changes its inputs."""

    def __init__(self):
        super().__init__()
        self.network = network()

    def forward(self, inputs):
        inputs = inputs.detach()  # also where they require a gradient
        return self.network(inputs.mul_(0.5).add_(0.25))


@pytest.mark.parametrize("name", OF_MODELS)
def test_a_model_may_change_its_inputs_in_place(name):
    model, whole = InPlace(), network()

    def value(forward_func):
        torch.manual_seed(0)
        inputs = INPUTS.clone()
        found = OF_MODELS[name](forward_func, inputs, MAPS, TARGET)
        assert torch.equal(inputs, INPUTS)
        return found

    expected = value(lambda inputs: whole(inputs * 0.5 + 0.25))
    assert (expected != 0).any()
    assert torch.equal(value(model), expected)


class Dropping(nn.Module):
    def __init__(self):
        super().__init__()
        self.network, self.dropout = network(), nn.Dropout(0.5)

    def forward(self, inputs):
        return self.dropout(self.network(inputs))


@pytest.mark.parametrize("wrap", [lambda model: model, lambda model: lambda x: model(x)])
@pytest.mark.parametrize("name", OF_MODELS)
def test_training_mode_is_named_once_at_the_users_line(name, wrap):
    model = Dropping().train()
    with pytest.warns(UserWarning, match=r"training mode.*Dropout.*model.eval\(\)") as caught:
        OF_MODELS[name](wrap(model), INPUTS, MAPS, TARGET, internal_batch_size=4)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        OF_MODELS[name](wrap(model.eval()), INPUTS, MAPS, TARGET, internal_batch_size=4)


# --- the default confidence


def ends_in_softmax():
    return nn.Sequential(network(), nn.Softmax(1))


@pytest.mark.parametrize("name", OF_MODELS)
def test_probabilities_under_the_default_confidence_are_named_at_the_users_line(name):
    with pytest.warns(UserWarning, match=r"pass confidence=torch.nn.Identity\(\)") as caught:
        OF_MODELS[name](ends_in_softmax(), INPUTS, MAPS, TARGET, internal_batch_size=4)
    assert len(caught) == 1
    assert caught[0].filename == __file__


@pytest.mark.parametrize("name", OF_MODELS)
def test_probabilities_as_they_are_give_what_logits_give(name):
    def value(model, **options):
        torch.manual_seed(0)
        return OF_MODELS[name](model, INPUTS, MAPS, TARGET, **options)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        logits = value(network())
        probabilities = value(ends_in_softmax(), confidence=nn.Identity())
        said = value(ends_in_softmax(), confidence=lambda outputs: outputs.softmax(1))
    torch.testing.assert_close(probabilities, logits)
    assert not torch.allclose(said, logits)


WRAPPED = {
    "sigmoid": targets.Output(network(), confidence=torch.sigmoid),
    "identity": targets.Output(ends_in_softmax(), confidence=nn.Identity()),
    "segmentation": targets.Segmentation(nn.Conv2d(3, 4, 1), confidence=nn.Sigmoid()),
    "embedding": targets.Embedding(network(), torch.eye(7)),
}


@pytest.mark.parametrize("name", OF_MODELS)
@pytest.mark.parametrize("wrapped", WRAPPED.values(), ids=WRAPPED)
def test_a_wrapper_brings_its_confidence(name, wrapped):
    def value(forward_func, **options):
        torch.manual_seed(0)
        return OF_MODELS[name](forward_func, INPUTS, MAPS, TARGET, **options)

    def probabilities(inputs):
        return wrapped.confidence(wrapped(inputs))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        own = value(wrapped)
    assert torch.equal(own, value(wrapped, confidence=wrapped.confidence))
    assert torch.equal(own, value(probabilities, confidence=nn.Identity()))


def test_a_part_of_a_model_that_is_called_confidence_is_not_taken_for_one():
    model = network()
    expected = metrics.deletion_auc(model, INPUTS, MAPS, TARGET)
    model.confidence = nn.Linear(7, 7)
    assert torch.equal(metrics.deletion_auc(model, INPUTS, MAPS, TARGET), expected)


# --- the interface


def test_helpers_are_no_part_of_the_interface():
    assert not {"blurred", "target_confidence"} & set(dir(metrics))
    assert not {"to_pixels", "from_pixels", "value_range"} & set(pixels.__all__)


def test_metrics_know_no_networks_and_no_units():
    allowed = ("captum_advise._utils", "captum_advise.metrics", "captum_advise.pixels")
    for path in Path(metrics.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("captum_advise"):
                assert node.module.startswith(allowed), f"{path.name} imports {node.module}"


@pytest.mark.parametrize("name", OF_MODELS)
@pytest.mark.parametrize("output", [lambda x: {"logits": x}, lambda x: (x, x), torch.argmax])
def test_what_is_not_class_scores_is_refused(name, output):
    model = network()
    with pytest.raises(TypeError, match=r"forward_func (returned a|must return real)") as raised:
        OF_MODELS[name](lambda x: output(model(x)), INPUTS, MAPS, TARGET)
    one_sentence(raised)


@pytest.mark.parametrize("name", OF_MODELS)
def test_arrays_are_refused(name):
    with pytest.raises(TypeError, match="must be a real tensor, got ndarray"):
        OF_MODELS[name](network(), INPUTS.numpy(), MAPS.numpy(), TARGET)
