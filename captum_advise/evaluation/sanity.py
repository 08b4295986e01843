"""Sanity checks for saliency maps: does a map depend on what the network has learnt?

Source: Adebayo, Gilmer, Muelly, Goodfellow, Hardt and Kim, "Sanity Checks for Saliency Maps",
NeurIPS 2018, https://arxiv.org/abs/1810.03292. The module has their parameter randomisation,
cascading and independent, with their rank correlation of absolute and of signed maps.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from captum_advise._utils.errors import reason
from captum_advise.evaluation.methods.interface import ClassMaps, Context
from captum_advise.evaluation.methods.layers import find_layers
from captum_advise.evaluation.methods.registry import MethodLike, as_method
from captum_advise.evaluation.randomness import seeded
from captum_advise.evaluation.run.keys import layer_name
from captum_advise.layouts import ReshapeTransform
from captum_advise.targets._wrapper import Wrapper
from captum_advise.zoo.recognition import unwrapped

Mode = Literal["cascading", "independent"]

# Without it, a network that was built after torch.manual_seed(0) would be drawn again.
_SEED_OFFSET = 0x5EED0000


@dataclass(frozen=True)
class ParameterRandomization:
    """Result of :func:`randomize_parameters`.

    Attributes:
        steps: The randomised blocks, from the top to the bottom of the network.
        original: Per method, the map (N, 1, h, w) of the original network.
        maps: Per method, the map after each step.
        absolute_correlation: Per method, the rank correlation of absolute maps with the original
            ones, float64 (steps, N). It is 1 for maps of the same order.
        signed_correlation: Likewise of signed maps.

    Example::

        >>> from captum_advise.evaluation import get_methods
        >>> methods = get_methods(["edge-detector"])
        >>> result = randomize_parameters(methods, net, "conv4", images, torch.tensor([3, 3]))
        >>> result.steps, result.original["edge-detector"].shape
        (('head', 'conv4'), torch.Size([2, 1, 32, 32]))
    """

    steps: tuple[str, ...]
    original: dict[str, Tensor]
    maps: dict[str, tuple[Tensor, ...]]
    absolute_correlation: dict[str, Tensor]
    signed_correlation: dict[str, Tensor]


def randomize_parameters(
    methods: Mapping[str, MethodLike],
    model: nn.Module,
    layer: str,
    inputs: Tensor,
    target: Tensor,
    *,
    mode: Mode = "cascading",
    seed: int = 0,
    context: Context = Context(),  # noqa: B008 - frozen
    reshape_transform: ReshapeTransform | None = None,
    progress: Callable[[Iterable[str]], Iterable[str]] = iter,
) -> ParameterRandomization:
    """Replace a network's parameters by random ones, block by block, and compare the maps.

    Args:
        methods: By name, as in :func:`captum_advise.evaluation.evaluate`. All methods explain the
            same random networks.
        model: In eval mode. It is copied and left unchanged.
        layer: Dotted name of the layer that is explained.
        inputs: (N, 1 or 3, H, W).
        target: (N,) classes, the same at every step.
        mode: ``"cascading"``: each step randomises a block in addition to all blocks above it.
            ``"independent"``: each step randomises one block only.
        seed: Seed of the random parameters. A block gets the same parameters in both modes. The
            global random state is not changed.
        context: What the methods are given besides.
        reshape_transform: How to rearrange what the layer returns as (N, C, H, W). None: found by
            its shape, where it is channels last or tokens.
        progress: Wraps the steps, for example in tqdm.

    Returns:
        :class:`ParameterRandomization` with the maps of every step.

    Raises:
        TypeError: A method is neither a known class nor a callable.
        ValueError: The model has no such layer or no parameters, a method cannot explain the layer,
            or ``mode`` is unknown.

    Example::

        >>> from captum_advise.evaluation import get_methods
        >>> methods = get_methods(["grad-cam", "edge-detector"])
        >>> result = randomize_parameters(methods, net, "conv4", images, torch.tensor([3, 3]))
        >>> for step, correlation in zip(result.steps, result.signed_correlation["edge-detector"]):
        ...     print(step, correlation.round(decimals=6).tolist())
        head [1.0, 1.0]
        conv4 [1.0, 1.0]
    """
    if layer not in dict(model.named_modules()):
        raise ValueError(f"The model has no layer {layer!r}.")
    if mode not in ("cascading", "independent"):
        raise ValueError(f'mode must be "cascading" or "independent", got {mode!r}.')
    blocks = parameter_blocks(model, inputs)
    explainers = {
        name: _explainer(name, method, model, layer, inputs, target, context, reshape_transform)
        for name, method in methods.items()
    }

    def maps(network: nn.Module) -> dict[str, Tensor]:
        return {name: explain(network).cpu() for name, explain in explainers.items()}

    original = maps(copy.deepcopy(model))
    randomized: list[dict[str, Tensor]] = []
    network = copy.deepcopy(model)
    for step, block in enumerate(progress(list(blocks))):
        if mode == "independent":
            network = copy.deepcopy(model)
        network.cpu()  # one seed gives the same parameters on every device
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(_SEED_OFFSET + seed * 1_000_003 + step)
            for name in blocks[block]:
                reset_parameters(network.get_submodule(name))
        network.to(inputs.device)
        randomized.append(maps(network))

    def correlations(prepare: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        return {
            name: torch.stack(
                [rank_correlation(prepare(own), prepare(step[name])) for step in randomized]
            )
            for name, own in original.items()
        }

    return ParameterRandomization(
        steps=tuple(blocks),
        original=original,
        maps={name: tuple(step[name] for step in randomized) for name in methods},
        absolute_correlation=correlations(torch.abs),
        signed_correlation=correlations(torch.positive),
    )


@torch.no_grad()
def parameter_blocks(model: nn.Module, inputs: Tensor) -> dict[str, tuple[str, ...]]:
    """Modules with parameters of their own, by block, from the top to the bottom of a network.

    The top runs last in a forward pass. A block is a child of the model, or of the model in a
    wrapper. If the child is a ``Sequential`` or ``ModuleList``, its children are blocks instead.
    """
    called: list[str] = []
    network = copy.deepcopy(model)
    owners = [
        name
        for name, part in network.named_modules()
        if next(part.parameters(False), None) is not None
    ]
    if not owners:
        raise ValueError("The model has no parameters to randomise.")
    for name in owners:
        network.get_submodule(name).register_forward_hook(
            lambda _module, _inputs, _output, name=name: called.append(name)
        )
    network(inputs[:1])
    # Modules that are used without being called follow in the order of their registration.
    order = [*dict.fromkeys(called), *(name for name in owners if name not in called)]
    inner = unwrapped(model)
    if isinstance(inner, Wrapper) and isinstance(inner.model, nn.Module):
        inner = unwrapped(inner.model)
    prefix = layer_name(model, inner)
    if not all(name.startswith(prefix) for name in owners):  # the wrapper has parameters, too
        inner, prefix = model, ""
    blocks: dict[str, tuple[str, ...]] = {}
    for name in reversed(order):
        head, _, rest = name.removeprefix(prefix).lstrip(".").partition(".")
        child = getattr(inner, head) if head else inner
        is_container = isinstance(child, nn.Sequential | nn.ModuleList) and rest
        block = f"{head}.{rest.partition('.')[0]}" if is_container else head or type(inner).__name__
        blocks[block] = (*blocks.get(block, ()), name)
    return blocks


@torch.no_grad()
def reset_parameters(module: nn.Module) -> None:
    """Draw a module's own parameters again, from the global random generator.

    The module's ``reset_parameters`` draws them as at construction, and resets running statistics.
    If it has no such method, they are normal, with the mean and the standard deviation of each
    parameter tensor. If all values of the tensor are equal, the deviation is their magnitude.
    """
    reset = getattr(module, "reset_parameters", None)
    if callable(reset):
        reset()
        return
    for parameter in module.parameters(recurse=False):
        spread = parameter.std(correction=0)
        spread = torch.where(spread > 0, spread, parameter.abs().mean())
        parameter.copy_(parameter.mean() + spread * torch.randn_like(parameter))


def rank_correlation(maps: Tensor, others: Tensor) -> Tensor:
    """Spearman's rank correlation of maps (N, ...) with others of their shape, float64 (N,).

    It is 0 with a constant map, and 1 of two constant maps.
    """
    from scipy import stats

    correlations = []
    pairs = (values.detach().double().flatten(1).numpy() for values in (maps, others))
    for first, second in zip(*pairs, strict=True):
        constant = [bool(np.ptp(values) == 0) for values in (first, second)]
        if any(constant):
            correlations.append(float(all(constant)))
        else:
            correlations.append(float(stats.spearmanr(first, second).statistic))
    return torch.tensor(correlations, dtype=torch.float64)


def _explainer(
    title: str,
    given: MethodLike,
    model: nn.Module,
    layer: str,
    inputs: Tensor,
    target: Tensor,
    context: Context,
    reshape_transform: ReshapeTransform | None,
) -> Callable[[nn.Module], Tensor]:
    """From networks with the layers of a model to the maps of a method."""
    method = as_method(given)
    choice = getattr(method, "layers", "layer")
    names = {module: name for name, module in model.named_modules()}
    try:
        found = find_layers(model, model.get_submodule(layer), choice, inputs, reshape_transform)
    except ValueError as error:
        raise ValueError(f"The method {title} cannot be run: {reason(error)}.") from error

    def explain(network: nn.Module) -> Tensor:
        layers = tuple(network.get_submodule(names[module]) for module in found.modules)
        last = layers[-1] if layers else network.get_submodule(layer)
        seen = replace(context, layers=layers, reshape_transforms=found.reshape_transforms)
        # Methods that draw samples draw the same ones for every network.
        with warnings.catch_warnings(), seeded(_SEED_OFFSET):
            warnings.simplefilter("ignore")
            # A copy, because Captum leaves gradient flags on the inputs.
            result = method(network, last, inputs.clone(), target, seen)
        maps = result.maps if isinstance(result, ClassMaps) else result
        return maps.detach().sum(1, keepdim=True)

    return explain
