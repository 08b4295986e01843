"""ADVISE by hand: straight from its definition, without Captum and for one image at a time."""

from dataclasses import dataclass

import torch

from captum_advise import unit_relevance
from captum_advise.metrics import VisualExplainability, class_sensitivity
from captum_advise.metrics import visual_explainability as avx_of
from captum_advise.pixels import masked_images, normalize_maps, upsample_maps


@dataclass(frozen=True)
class Contributions:
    """Of the units of ``toy_networks.Net`` for one image: to the target and to the runner-up."""

    confidences: torch.Tensor
    relevance: torch.Tensor
    to_target: torch.Tensor
    to_runner_up: torch.Tensor

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
        return cls(confidences, unit_relevance(activations), to_target, to_runner_up)


def group_weights(relevance):
    """Relevance to weights (1, C) of the units that have it."""
    return {q: (relevance == q).float() for q in relevance.unique().tolist()}


def candidates(net, image, target, contributions, groups):
    """Relevance to map and metrics, of the groups whose map has evidence."""
    result = {}
    for relevance, weights in groups.items():
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
        result[relevance] = signed, metrics
    return result


def mask_of(signed, image):
    return upsample_maps(normalize_maps(signed.relu()), tuple(image.shape[-2:]))
