"""ADVISE by hand: straight from its definition, without Captum and for one image at a time."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import lsq_linear

from captum_advise import unit_relevance
from captum_advise._core.fitted_weights import hidden_cells
from captum_advise.metrics import VisualExplainability, blurred, class_sensitivity
from captum_advise.metrics import visual_explainability as avx_of
from captum_advise.pixels import masked_images, normalize_maps, upsample_maps


@dataclass(frozen=True)
class Contributions:
    """Of the units of ``toy_networks.Net`` for one image: to the target and to the runner-up."""

    confidences: torch.Tensor
    relevance: torch.Tensor
    to_target: torch.Tensor
    to_runner_up: torch.Tensor
    positive_gradient: torch.Tensor

    @classmethod
    def of(cls, net, image, target):
        activations = net.features(image).detach().requires_grad_()
        logits = net.head(activations.relu().mean((2, 3)) * 5)
        confidences = logits.detach().softmax(1)
        runner_up = int(confidences.scatter(1, torch.tensor([[target]]), -1).argmax(1))
        gradients = [
            torch.autograd.grad(logits[0, c], activations, retain_graph=True)[0].mean((2, 3))
            for c in (target, runner_up)
        ]
        to_target, to_runner_up = (g[..., None, None] * activations.detach() for g in gradients)
        return cls(
            confidences, unit_relevance(activations), to_target, to_runner_up, gradients[0] > 0
        )


def group_weights(relevance):
    """Relevance to weights (1, C) of the units that have it."""
    return {q: (relevance == q).float() for q in relevance.unique().tolist()}


def candidates(net, image, target, contributions, weightings):
    """Name to map and metrics, of the weightings whose map has evidence."""
    result = {}
    for name, weights in weightings.items():
        weights = weights[..., None, None]
        signed = (contributions.to_target * weights).sum(1, keepdim=True)
        rival = (contributions.to_runner_up * weights).sum(1, keepdim=True).relu()
        if signed.max() <= 0:
            continue
        masked = masked_images(image, mask_of(signed, image), torch.zeros(()))
        metrics: VisualExplainability = avx_of(
            image,
            masked,
            contributions.confidences,
            net(masked).detach().softmax(1),
            torch.tensor([target]),
            class_sensitivity(signed.relu(), rival),
        )
        result[name] = signed, metrics
    return result


def mask_of(signed, image):
    return upsample_maps(normalize_maps(signed.relu()), tuple(image.shape[-2:]))


def faithful_weights(net, image, target, contributions):
    """Name to weights (1, C) that "faithfulness" compares, fitted by another solver."""
    relevance, units = contributions.relevance, contributions.to_target
    hidden = hidden_cells(*units.shape[-2:]).numpy()
    before = confidence_in(net, image, target)
    after = np.array(
        [confidence_in(net, hide(image, cells, i), target) for i, cells in enumerate(hidden)]
    )
    by_relevance = [(relevance == q)[0] for q in relevance.unique().tolist()]
    positive = contributions.positive_gradient[0]
    by_sign = [group & sign for group in by_relevance for sign in (positive, ~positive)]
    fits = {
        "by sign, logarithm": (by_sign, np.log(before) - np.log(after)),
        "by sign": (by_sign, before - after),
        "by relevance": (by_relevance, before - after),
    }
    weightings = {"all": torch.ones_like(relevance, dtype=torch.float32)}
    for part in (1, 0.5, 0.25):
        for name, (groups, losses) in fits.items():
            weights = fit(groups, units, losses.copy(), hidden)
            fitted = sum(w * group.float() for w, group in zip(weights, groups, strict=True))
            weightings[name, part] = 1 - part + part * fitted[None].float()
    return weightings


def confidence_in(net, image, target):
    return net(image).softmax(1)[0, target].item()


def hide(image, cells, index):
    """Blur the cells at even indices, blacken them at odd ones; a cell is 2 x 2 pixels."""
    pixels = torch.from_numpy(np.kron(cells, np.ones((2, 2)))) > 0
    return torch.where(pixels, blurred(image) if index % 2 == 0 else torch.zeros_like(image), image)


def fit(groups, units, losses, hidden):
    """One weight per group: least squares with a ridge towards one, size effects removed."""
    maps = np.stack([units[0, group].sum(0).numpy() for group in groups])
    sizes = hidden.mean((1, 2))
    mass = np.array([[one[cells].sum() for one in maps] for cells in hidden])
    for kind in (slice(0, None, 2), slice(1, None, 2)):
        for column in mass.T:
            column[kind] = without_cubic(column[kind], sizes[kind])
        rest = without_cubic(losses[kind], sizes[kind])
        losses[kind] = rest / np.linalg.norm(rest)
    grad_cam = mass.sum(1)
    scale = grad_cam @ losses / (grad_cam @ grad_cam)
    if scale <= 0:
        return np.ones(len(groups))
    ridge = np.sqrt(0.01 * (grad_cam @ grad_cam) / len(groups)) * np.eye(len(groups))
    return lsq_linear(
        np.concatenate([mass, ridge]),
        np.concatenate([losses / scale, ridge.sum(1)]),
        (0, np.inf),
        tol=1e-14,
    ).x


def without_cubic(values, sizes):
    return values - np.polyval(np.polyfit(sizes, values, 3), sizes)
