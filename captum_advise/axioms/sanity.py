"""Sanity checks for saliency maps: does a map depend on what the network has learnt?

Source: Adebayo, Gilmer, Muelly, Goodfellow, Hardt and Kim, "Sanity Checks for Saliency Maps",
NeurIPS 2018, https://arxiv.org/abs/1810.03292. The module has their parameter randomisation
(cascading and independent) and their label randomisation. The feature similarity FSIM, which
compares phase congruency and gradient magnitude, replaces their correlation of HOG features.

The model is left unchanged: every step works on a copy.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from captum_advise.metrics import fsim, ssim
from captum_advise.pixels import upsample_maps

MapMethod = Callable[[nn.Module, nn.Module, Tensor, Tensor], Tensor]
"""``(model, layer, inputs, target) -> maps (N, 1, h, w)``, for example a :class:`Subject`."""

Mode = Literal["cascading", "independent"]

_SHORTEST_SIDE = 32
_BATCH = 50
# Without it, a network that was built after torch.manual_seed(0) would be drawn again.
_SEED_OFFSET = 0x5EED0000


@dataclass(frozen=True)
class MapSimilarity:
    """Result of :func:`map_similarity`, for absolute and for signed maps.

    All are (N,), and 1 for equal maps.

    Attributes:
        spearman_absolute: Rank correlation of absolute maps, at the maps' own resolution.
        spearman_signed: Rank correlation of signed maps, at the maps' own resolution.
        ssim_absolute: Structural similarity of absolute maps, at the size of the image.
        ssim_signed: Structural similarity of signed maps, at the size of the image.
        fsim_absolute: Feature similarity of absolute maps, at the size of the image.
        fsim_signed: Feature similarity of signed maps, at the size of the image.

    Example::

        >>> maps = torch.randn(2, 1, 7, 7)
        >>> map_similarity(maps, maps, (64, 64)).spearman_absolute
        tensor([1.0000, 1.0000], dtype=torch.float64)
    """

    spearman_absolute: Tensor
    spearman_signed: Tensor
    ssim_absolute: Tensor
    ssim_signed: Tensor
    fsim_absolute: Tensor
    fsim_signed: Tensor

    def to_dict(self) -> dict[str, float]:
        """Means over the examples, under the names of the attributes."""
        return {f.name: float(getattr(self, f.name).mean()) for f in fields(self)}


def map_similarity(maps: Tensor, others: Tensor, size: tuple[int, int]) -> MapSimilarity:
    """Compare maps as Adebayo et al. do, with FSIM in place of HOG.

    Args:
        maps: (N, 1, h, w), signed.
        others: Like ``maps``.
        size: Size of the images. For SSIM and FSIM, maps are scaled by their largest magnitude
            and enlarged to this size, but to at least 32 pixels per side, which FSIM's filters
            need.

    Returns:
        :class:`MapSimilarity`. The rank correlation with a constant map is 0; that of two
        constant maps is 1.

    Raises:
        ValueError: The maps differ in shape, or have more than one channel.

    Example::

        >>> maps = torch.randn(1, 1, 7, 7)
        >>> round(map_similarity(maps, -maps, (224, 224)).to_dict()["spearman_signed"], 6)
        -1.0
    """
    if maps.shape != others.shape or maps.dim() != 4 or maps.shape[1] != 1:
        raise ValueError(
            "Maps to compare must be (N, 1, h, w) of one shape, got "
            f"{tuple(maps.shape)} and {tuple(others.shape)}."
        )
    enlarged = tuple(max(side, _SHORTEST_SIDE) for side in size)
    pair = [_scaled(values.detach().double()) for values in (maps, others)]
    absolute = [upsample_maps(values.abs(), enlarged) for values in pair]
    signed = [upsample_maps((values + 1) / 2, enlarged) for values in pair]
    return MapSimilarity(
        spearman_absolute=_spearman(pair[0].abs(), pair[1].abs()),
        spearman_signed=_spearman(pair[0], pair[1]),
        ssim_absolute=ssim(absolute[0], absolute[1]),
        ssim_signed=ssim(signed[0], signed[1]),
        fsim_absolute=fsim(absolute[0], absolute[1]),
        fsim_signed=fsim(signed[0], signed[1]),
    )


def edge_detector(_model: nn.Module, _layer: nn.Module, inputs: Tensor, _target: Tensor) -> Tensor:
    """Magnitude of the Sobel gradient of the grey image.

    It looks like an explanation but does not use the network, so it fails the checks by design.

    Args:
        _model: Not used.
        _layer: Not used.
        inputs: (N, C, H, W).
        _target: Not used.

    Returns:
        (N, 1, H, W)

    Example::

        >>> edge_detector(net, net.conv4, images, torch.tensor([3, 3])).shape
        torch.Size([2, 1, 32, 32])
    """
    grey = nn.functional.pad(inputs.detach().mean(1, keepdim=True), (1, 1, 1, 1), mode="reflect")
    across = grey.new_tensor([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    kernels = torch.stack([across, across.T])[:, None]
    edges: Tensor = nn.functional.conv2d(grey, kernels).square().sum(1, keepdim=True).sqrt()
    return edges


@dataclass(frozen=True)
class ParameterRandomization:
    """Result of :func:`randomize_parameters`.

    Attributes:
        mode: ``"cascading"`` or ``"independent"``.
        steps: The randomised blocks, from the top to the bottom of the network.
        original: Per method, the map (N, 1, h, w) of the original network.
        maps: Per method, the map after each step.
        similarity: Per method, the similarity to the original map after each step.

    Example::

        >>> result = randomize_parameters(
        ...     {"edges": edge_detector}, net, "conv4", images, torch.tensor([3, 3])
        ... )
        >>> result.steps, result.original["edges"].shape
        (('head', 'conv4'), torch.Size([2, 1, 32, 32]))
    """

    mode: Mode
    steps: tuple[str, ...]
    original: dict[str, Tensor]
    maps: dict[str, tuple[Tensor, ...]]
    similarity: dict[str, tuple[MapSimilarity, ...]]


def randomize_parameters(
    methods: Mapping[str, MapMethod],
    model: nn.Module,
    layer: str,
    inputs: Tensor,
    target: Tensor,
    *,
    mode: Mode = "cascading",
    seed: int = 0,
    progress: Callable[[Iterable[str]], Iterable[str]] = iter,
) -> ParameterRandomization:
    """Replace a network's parameters by random ones, block by block, and compare the maps.

    Args:
        methods: By name. All methods explain the same random networks.
        model: In eval mode. It is copied and left unchanged.
        layer: Dotted name of the layer that is explained.
        inputs: (N, 1 or 3, H, W).
        target: (N,) classes, the same at every step.
        mode: ``"cascading"``: each step randomises a block in addition to all blocks above it.
            ``"independent"``: each step randomises one block only.
        seed: Seed of the random parameters. A block gets the same parameters in both modes. The
            global random state is not changed.
        progress: Wraps the steps, for example in tqdm.

    Raises:
        ValueError: The model has no such layer or no parameters, or ``mode`` is unknown.

    Example::

        >>> from captum_advise.axioms import Subject
        >>> methods = {"Grad-CAM": Subject("Grad-CAM", LayerGradCam), "edges": edge_detector}
        >>> result = randomize_parameters(methods, net, "conv4", images, torch.tensor([3, 3]))
        >>> for step, similarity in zip(result.steps, result.similarity["edges"]):
        ...     print(step, round(similarity.to_dict()["spearman_absolute"], 6))
        head 1.0
        conv4 1.0
    """
    if layer not in dict(model.named_modules()):
        raise ValueError(f"The model has no layer {layer!r}.")
    if mode not in ("cascading", "independent"):
        raise ValueError(f'mode must be "cascading" or "independent", got {mode!r}.')
    blocks = parameter_blocks(model, inputs)

    def maps(network: nn.Module) -> dict[str, Tensor]:
        explained = network.get_submodule(layer)
        return {
            name: method(network, explained, inputs, target).detach().cpu()
            for name, method in methods.items()
        }

    original = maps(copy.deepcopy(model))
    randomized: dict[str, list[Tensor]] = {name: [] for name in methods}
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
        for method, values in maps(network).items():
            randomized[method].append(values)
    size = (inputs.shape[-2], inputs.shape[-1])
    return ParameterRandomization(
        mode=mode,
        steps=tuple(blocks),
        original=original,
        maps={name: tuple(values) for name, values in randomized.items()},
        similarity={
            name: tuple(map_similarity(original[name], value, size) for value in values)
            for name, values in randomized.items()
        },
    )


@torch.no_grad()
def parameter_blocks(model: nn.Module, inputs: Tensor) -> dict[str, tuple[str, ...]]:
    """Modules with parameters of their own, by block, from the top to the bottom of a network.

    The top runs last in a forward pass. A block is a child of the model. If the child is a
    ``Sequential`` or ``ModuleList``, its children are blocks instead.

    Returns:
        Block name to module names.

    Raises:
        ValueError: The model has no parameters.
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
    blocks: dict[str, tuple[str, ...]] = {}
    for name in reversed(order):
        head, _, rest = name.partition(".")
        child = getattr(model, head) if head else model
        is_container = isinstance(child, nn.Sequential | nn.ModuleList) and rest
        block = f"{head}.{rest.partition('.')[0]}" if is_container else head or type(model).__name__
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


@dataclass(frozen=True)
class LabelRandomization:
    """Result of :func:`randomize_labels`.

    Attributes:
        accuracy: Training accuracy of the network trained on true labels.
        shuffled_accuracy: Training accuracy of the network trained on shuffled labels.
        similarity: Per method, the similarity (N,) of the two networks' maps.
        control: Per method, the similarity (N,) of the maps of two networks trained on true
            labels from different initial parameters.

    Example::

        >>> result = randomize_labels({"edges": edge_detector}, n_train=50, n_explained=4)
        >>> round(result.similarity["edges"].to_dict()["spearman_absolute"], 6)
        1.0
    """

    accuracy: float
    shuffled_accuracy: float
    similarity: dict[str, MapSimilarity]
    control: dict[str, MapSimilarity]


def randomize_labels(
    methods: Mapping[str, MapMethod], *, seed: int = 0, n_train: int = 500, n_explained: int = 32
) -> LabelRandomization:
    """Train a small network on digits with true and with shuffled labels, and compare the maps.

    The images are the 8 x 8 digits of ``sklearn.datasets.load_digits``. The networks have two
    convolutions and two linear layers, and are trained until they memorise the training images.
    The maps explain the true class of training images at the second convolution's ReLU.

    Args:
        methods: By name.
        seed: Seed of the shuffle, the initial parameters and the order of the images.
        n_train: Number of training images, a multiple of 50, at most 1750.
        n_explained: Number of training images on which maps are compared.

    Raises:
        ValueError: ``n_train`` is another number.

    Example::

        >>> from captum_advise.axioms import Subject
        >>> methods = {"Grad-CAM": Subject("Grad-CAM", LayerGradCam)}
        >>> result = randomize_labels(methods, n_train=50, n_explained=4)
        >>> result.accuracy, result.shuffled_accuracy
        (1.0, 1.0)
        >>> result.similarity["Grad-CAM"].spearman_absolute.shape
        torch.Size([4])
    """
    from sklearn.datasets import load_digits

    digits, labels = load_digits(return_X_y=True)
    most = len(labels) // _BATCH * _BATCH
    if n_train not in range(_BATCH, most + 1, _BATCH):
        raise ValueError(f"n_train must be a multiple of {_BATCH} up to {most}, got {n_train}.")
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(labels), generator=generator)[:n_train]
    inputs = torch.from_numpy(digits).float()[chosen].view(-1, 1, 8, 8) / 16
    true = torch.from_numpy(labels).long()[chosen]
    shuffled = true[torch.randperm(n_train, generator=generator)]
    network, accuracy = _trained(inputs, true, 3 * seed)
    control, _ = _trained(inputs, true, 3 * seed + 1)
    shuffled_network, shuffled_accuracy = _trained(inputs, shuffled, 3 * seed + 2)
    explained, target = inputs[:n_explained], true[:n_explained]
    maps = [
        {name: method(trained, trained[3], explained, target) for name, method in methods.items()}
        for trained in (network, control, shuffled_network)
    ]
    size = (8, 8)
    return LabelRandomization(
        accuracy=accuracy,
        shuffled_accuracy=shuffled_accuracy,
        similarity={name: map_similarity(maps[0][name], maps[2][name], size) for name in methods},
        control={name: map_similarity(maps[0][name], maps[1][name], size) for name in methods},
    )


def _trained(inputs: Tensor, labels: Tensor, seed: int) -> tuple[nn.Sequential, float]:
    """A network that memorises the labels, and its training accuracy."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * 64, 64),
            nn.ReLU(),
            nn.Linear(64, 10),
        )
        optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
        accuracy = 0.0
        for _ in range(100):
            for batch in torch.randperm(len(labels)).view(-1, _BATCH):
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(network(inputs[batch]), labels[batch])
                torch.autograd.backward(loss)
                optimizer.step()
            with torch.no_grad():
                accuracy = float((network(inputs).argmax(1) == labels).double().mean())
            if accuracy == 1:
                break
    optimizer.zero_grad()
    return network.eval(), accuracy


def _scaled(maps: Tensor) -> Tensor:
    """Maps divided by their largest magnitude."""
    largest = maps.flatten(1).abs().amax(1).view(-1, 1, 1, 1)
    return maps / torch.where(largest > 0, largest, torch.ones_like(largest))


def _spearman(maps: Tensor, others: Tensor) -> Tensor:
    from scipy import stats

    correlations = []
    pairs = [values.flatten(1).cpu().numpy() for values in (maps, others)]
    for first, second in zip(pairs[0], pairs[1], strict=True):
        constant = [bool(np.ptp(values) == 0) for values in (first, second)]
        if any(constant):
            correlations.append(float(all(constant)))
        else:
            correlations.append(float(stats.spearmanr(first, second).statistic))
    return torch.tensor(correlations, dtype=torch.float64)
