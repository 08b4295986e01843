"""Deliberately broken attributions. A named check catches each of them."""

from __future__ import annotations

import copy

import pytest
import torch
from captum.attr import LayerGradCam

from captum_advise.axioms import AXIOMS, Subject, require, violation
from captum_advise.axioms.checks import AxiomViolation


class WrongClass(LayerGradCam):
    """Explains the next class, off by one."""

    def attribute(self, inputs, target):
        classes = self.forward_func(inputs).shape[1]
        return super().attribute(inputs, (target + 1) % classes)


class PredictedClass(LayerGradCam):
    """Explains the predicted class instead of the given one."""

    def attribute(self, inputs, target):
        return super().attribute(inputs, self.forward_func(inputs).argmax(1))


class GradientOfAnotherInput(LayerGradCam):
    """Weights activations by the gradient at a black image."""

    def attribute(self, inputs, target):
        def activations_and_gradients(at):
            maps = []
            hook = self.layer.register_forward_hook(lambda _m, _i, output: maps.append(output))
            try:
                with torch.enable_grad():
                    logits = self.forward_func(at.detach().requires_grad_())
                    score = logits.gather(1, target[:, None]).sum()
                    return maps[0], torch.autograd.grad(score, maps[0])[0]
            finally:
                hook.remove()

        maps, _ = activations_and_gradients(inputs)
        _, gradient = activations_and_gradients(torch.zeros_like(inputs))
        weights = gradient.flatten(2).mean(2).view(*gradient.shape[:2], *(1,) * (maps.dim() - 2))
        return (weights * maps).sum(1, keepdim=True)


class NextExample(LayerGradCam):
    """Rolls the batch: each example gets its neighbour's map."""

    def attribute(self, inputs, target):
        return super().attribute(inputs, target).roll(1, 0)


class UnitOrder(LayerGradCam):
    """Favours units that come first."""

    def attribute(self, inputs, target):
        units = super().attribute(inputs, target, attr_dim_summation=False)
        weights = 1 / torch.arange(1, units.shape[1] + 1, dtype=units.dtype)
        return (units * weights.view(-1, *(1,) * (units.dim() - 2))).sum(1, keepdim=True)


class BatchLeakage(LayerGradCam):
    """Scales by the largest attribution of the batch."""

    def attribute(self, inputs, target):
        maps = super().attribute(inputs, target)
        largest = maps.abs().max()
        return maps / largest if largest > 0 else maps


class Noise(LayerGradCam):
    """Explains one noisy copy of the inputs."""

    def attribute(self, inputs, target):
        return super().attribute(inputs + 0.1 * torch.randn_like(inputs), target)


class HooksLeftBehind(LayerGradCam):
    """Never removes its hook."""

    def attribute(self, inputs, target):
        self.layer.register_forward_hook(lambda _m, _i, _o: None)
        return super().attribute(inputs, target)


class SwitchesToEval(LayerGradCam):
    """Switches the user's model to eval mode."""

    def attribute(self, inputs, target):
        self.forward_func.eval()
        return super().attribute(inputs, target)


class LeavesGradients(LayerGradCam):
    """Runs a backward pass of the whole model, into .grad."""

    def attribute(self, inputs, target):
        with torch.enable_grad():
            self.forward_func(inputs).gather(1, target[:, None]).sum().backward()
        return super().attribute(inputs, target)


class ReadsGradients(LayerGradCam):
    """Uses gradients that an earlier backward pass has left in .grad."""

    def attribute(self, inputs, target):
        maps = super().attribute(inputs, target)
        return maps if inputs.grad is None else maps * inputs.grad.mean()


class NeedsGradMode(LayerGradCam):
    """Attributes nothing if the caller switched gradients off."""

    def attribute(self, inputs, target):
        maps = super().attribute(inputs, target)
        return maps if torch.is_grad_enabled() else torch.zeros_like(maps)


class TrainsDifferently(LayerGradCam):
    """Drops values in training mode."""

    def attribute(self, inputs, target):
        maps = super().attribute(inputs, target)
        return torch.nn.functional.dropout(maps, 0.5, self.forward_func.training)


class CountsParameters(LayerGradCam):
    """Depends on the number of parameters, not only on what the model computes."""

    def attribute(self, inputs, target):
        parameters = sum(parameter.numel() for parameter in self.forward_func.parameters())
        return super().attribute(inputs, target) / parameters


class Floor(LayerGradCam):
    """Adds a constant to every attribution."""

    def attribute(self, inputs, target):
        return super().attribute(inputs, target) + 1e-3


class Rectified(LayerGradCam):
    """Returns positive evidence only, although attributions are signed."""

    def attribute(self, inputs, target):
        return super().attribute(inputs, target, relu_attributions=True)


class WithoutScale(LayerGradCam):
    """Weights gradients by whether a unit is active, not by its activation."""

    def attribute(self, inputs, target):
        maps = []
        hook = self.layer.register_forward_hook(lambda _m, _i, output: maps.append(output.detach()))
        units = super().attribute(inputs, target, attr_dim_summation=False)
        hook.remove()
        return torch.where(maps[0] == 0, units, units / maps[0]).sum(1, keepdim=True)


class NeedsGradients(LayerGradCam):
    """Fails if the caller switched gradients off."""

    def attribute(self, inputs, target):
        if not torch.is_grad_enabled():
            raise RuntimeError("a tensor does not require a gradient")
        return super().attribute(inputs, target)


class NeedsModules(LayerGradCam):
    """Has rules for modules, and none for functions."""

    def attribute(self, inputs, target):
        if any(type(module).__name__ == "_Function" for module in self.forward_func.modules()):
            raise TypeError("there is no rule for _Function")
        return super().attribute(inputs, target)


class NeedsBatches(LayerGradCam):
    """Fails for a batch of one example."""

    def attribute(self, inputs, target):
        if len(inputs) == 1:
            raise IndexError("too few examples")
        return super().attribute(inputs, target)


class NotANumber(LayerGradCam):
    """Divides by the largest activation of the first unit, which can be zero."""

    def attribute(self, inputs, target):
        units = super().attribute(inputs, target, attr_dim_summation=False)
        return units.sum(1, keepdim=True) / units[:, 0].ne(0).any()


CAUGHT_BY = {
    WrongClass: "dummy_class",
    PredictedClass: "dummy_class",
    GradientOfAnotherInput: "locality",
    NextExample: "batch_invariance",
    UnitOrder: "permuted_units",
    BatchLeakage: "batch_invariance",
    Noise: "determinism",
    HooksLeftBehind: "model_unchanged",
    SwitchesToEval: "model_unchanged",
    LeavesGradients: "model_unchanged",
    ReadsGradients: "caller_invariance",
    NeedsGradMode: "caller_invariance",
    NeedsGradients: "caller_invariance",
    NeedsModules: "functional_form",
    NeedsBatches: "batch_invariance",
    NotANumber: "sensitivity_pooled",
    TrainsDifferently: "caller_invariance",
    CountsParameters: "inserted_identity",
    Floor: "dummy_class",
    Rectified: "linearity",
    WithoutScale: "rescaled_units",
}


@pytest.mark.parametrize("mutant", CAUGHT_BY, ids=lambda mutant: mutant.__name__)
def test_mutant_is_caught(mutant):
    name = CAUGHT_BY[mutant]
    # Grad-CAM itself fulfils this axiom, so only the mutation can break it.
    require(AXIOMS[name], Subject("Grad-CAM", LayerGradCam), effort=0.25)
    error = violation(AXIOMS[name], Subject(mutant.__name__, mutant))
    assert isinstance(error, AxiomViolation)
    assert mutant.__name__ in str(error)
    assert "Case(spec=NetworkSpec(seed=" in str(error)


def test_the_case_in_the_message_fails_again():
    from captum_advise.axioms import Case, NetworkSpec

    method = Subject("UnitOrder", UnitOrder)
    with pytest.raises(AxiomViolation) as caught:
        require(AXIOMS["permuted_units"], method)
    text = str(caught.value).partition("Case: ")[2]
    case = eval(text, {"Case": Case, "NetworkSpec": NetworkSpec})
    with pytest.raises(AxiomViolation, match="permuted_units"):
        AXIOMS["permuted_units"].run(method, case)


def test_a_method_that_returns_something_else():
    class Lists(LayerGradCam):
        def attribute(self, inputs, target):
            return [super().attribute(inputs, target)]

    with pytest.raises(TypeError, match="one tensor"):
        require(AXIOMS["determinism"], Subject("Lists", Lists), effort=0.1)

    class Squeezed(LayerGradCam):
        def attribute(self, inputs, target):
            return super().attribute(inputs, target).squeeze(1)

    with pytest.raises(TypeError, match=r"must return one tensor .N, 1 or units"):
        require(AXIOMS["split_head"], Subject("Squeezed", Squeezed), effort=0.1)


def test_a_method_that_passes_its_arguments_on_gets_the_target():
    class PassesOn(LayerGradCam):
        def attribute(self, inputs, **arguments):
            return super().attribute(inputs, **arguments)

    # Without its target, Grad-CAM refuses a network of several classes.
    require(AXIOMS["dummy_class"], Subject("PassesOn", PassesOn), effort=0.25)


def test_buffers_that_are_not_saved_are_compared():
    from captum_advise.axioms.checks import model_unchanged

    class Counts(LayerGradCam):
        def attribute(self, inputs, target):
            self.forward_func.calls += 1
            return super().attribute(inputs, target)

    model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 4), torch.nn.Flatten()).double()
    model.register_buffer("calls", torch.zeros(1), persistent=False)
    inputs = torch.rand(1, 1, 4, 4, dtype=torch.float64)
    with pytest.raises(AxiomViolation, match="Counts changed the value of calls"):
        model_unchanged(Subject("Counts", Counts), model, model[0], inputs, torch.tensor([0]))


def test_checks_take_any_model():
    from captum_advise.axioms.checks import batch_invariance

    model = torch.nn.Sequential(
        torch.nn.Conv2d(1, 2, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(8, 2)
    ).double()
    inputs = torch.rand(3, 1, 4, 4, dtype=torch.float64)
    before = copy.deepcopy(model.state_dict())
    batch_invariance(
        Subject("Grad-CAM", LayerGradCam), model, model[1], inputs, torch.tensor([0, 1, 1])
    )
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
