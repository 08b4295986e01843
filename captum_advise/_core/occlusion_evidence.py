"""Evidence from occlusion: which regions, when hidden, cost confidence in the target.

A map is the prior mean of a Gaussian process over positions. The confidence lost in occluded
images gives the posterior mean, which corrects the map. The constants of
``GatedGradCam.attribute(n_occlusions=...)`` are here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from captum_advise._core.layer_pass import LayerPass
from captum_advise._core.masked_model import MaskedModel, maskable_inputs
from captum_advise._core.targets import Target
from captum_advise._utils.checks import check_count
from captum_advise._utils.probabilities import softmax_over_classes
from captum_advise.pixels import PixelSpace, black, normalize_maps

# Side of the noise from which masks are made: regions of about a quarter of the image's side. From
# 7 x 7, losses of unseen regions are predicted worse.
_NOISE_SIDE = 4
# How fast masks pass from shown to hidden.
_SHARPNESS = 6.0
# Side of the grid of positions on which evidence is estimated.
_GRID = 14
# Standard deviation of the kernel, as a share of the image's side.
_LENGTH_SCALE = 0.1
# Variance of what hidden regions do not explain, as a multiple of the mean variance that the
# kernel allows them to explain.
_NOISE = 1.0
# The share of the final map that depends on the evidence. Stronger corrections lose insertion from
# black.
_STRENGTH = 0.8
# Keeps logarithms finite. Losses below it do not count, so a class that is never predicted has no
# evidence and its map keeps its order.
_LEAST_CONFIDENCE = 1e-6


class Occlusions(NamedTuple):
    """S regions to hide. Each odd one is the complement of the one before."""

    hidden: Tensor  # (S, 1, H, W) in [0, 1], how much of each pixel is hidden
    is_blurred: Tensor  # bool (S,), by blurring instead of by black; alternates by pairs


def occlusions(n: int, size: tuple[int, int]) -> Occlusions:
    """Smooth random regions of half of the image each, always the same."""
    generator = torch.Generator("cpu").manual_seed(0)
    noise = torch.rand(
        *(n // 2, 1, _NOISE_SIDE, _NOISE_SIDE),
        generator=generator,
        dtype=torch.float32,
        device="cpu",
    )
    smooth = F.interpolate(noise, size, mode="bicubic", align_corners=False)
    median = smooth.flatten(1).median(1).values[:, None, None, None]
    hidden = ((smooth - median) * _SHARPNESS + 0.5).clamp(0, 1)
    pairs = torch.stack([hidden, 1 - hidden], 1).flatten(0, 1)
    return Occlusions(pairs, torch.arange(n, device="cpu") // 2 % 2 == 0)


def check_occlusions(n_occlusions: object) -> None:
    """Require 0, or an even number of at least 4."""
    check_count("n_occlusions", n_occlusions, at_least=0)
    assert isinstance(n_occlusions, int)
    if n_occlusions % 2 or n_occlusions == 2:
        raise ValueError(
            f"n_occlusions must be 0, or an even number of at least 4, got {n_occlusions}."
        )


def corrected_by_occlusion(
    maps: Tensor,
    layer_pass: LayerPass,
    target: Target,
    images: tuple[int, ...],
    *,
    n_occlusions: int,
    pixel_space: PixelSpace | None,
    confidence: Callable[[Tensor], Tensor],
    internal_batch_size: int | None,
) -> Tensor:
    """Maps, corrected by the confidence lost in occluded images.

    Raises:
        ValueError: The outputs are not class scores N x K, the inputs have not exactly one image,
            or the outputs for occluded images are not finite.
    """
    outputs = layer_pass.outputs
    is_single = outputs.dim() == 2 and outputs.shape[1] < 2
    if outputs.dim() != 2 or (is_single and confidence is softmax_over_classes):
        raise ValueError(
            f"n_occlusions needs class scores N x K, and the outputs have shape "
            f"{tuple(outputs.shape)}: use n_occlusions=0, or a wrapper of captum_advise.targets."
        )
    if len(images) != 1:
        raise ValueError(
            f"n_occlusions needs one input that holds images, and {len(images)} do: use "
            "n_occlusions=0."
        )
    if images[0] not in maskable_inputs(layer_pass):
        raise ValueError(
            "n_occlusions hides parts of the image, which the run of the layer that is explained "
            "does not see: use n_occlusions=0."
        )
    model = MaskedModel.of(
        layer_pass,
        baselines=(black(layer_pass.call.inputs[images[0]].detach(), pixel_space),),
        maskable=images,
        confidence=confidence,
        target=target,
        internal_batch_size=internal_batch_size,
    )
    regions = occlusions(n_occlusions, (maps.shape[2], maps.shape[3]))
    confidences = model.confidence_occluded(*regions)
    if not bool(confidences.isfinite().all()):
        raise ValueError(
            "The outputs for occluded images are NaN or infinite: use n_occlusions=0, or run the "
            "model in float32 or float64, and check its weights."
        )
    prior = normalize_maps(maps)
    evidence = occlusion_evidence(prior, confidences, regions)
    return prior * (1 - _STRENGTH + _STRENGTH * evidence)


def occlusion_evidence(prior: Tensor, confidences: Tensor, regions: Occlusions) -> Tensor:
    """The posterior mean of the loss of confidence per hidden position, stretched to [0, 1].

    Gaussian-process regression of the loss of log-confidence on the hidden share of each position.
    The effect of each fill is centred and scaled: only differences between regions count.
    ``prior`` (N, 1, H, W) is the mean up to a factor; ``confidences`` (N, S) are those without the
    S regions. The result is like ``prior``, and zero where hiding costs no confidence.
    """
    log_losses = -confidences.clamp(min=_LEAST_CONFIDENCE).cpu().double().log().T
    hidden = F.adaptive_avg_pool2d(regions.hidden.double(), _GRID).flatten(1) / _GRID**2
    prior_cells = F.adaptive_avg_pool2d(prior.cpu().double(), _GRID).flatten(1).T
    for of_fill in (regions.is_blurred, ~regions.is_blurred):
        hidden[of_fill] -= hidden[of_fill].mean(0)
        losses = log_losses[of_fill] - log_losses[of_fill].mean(0)
        scale = losses.square().mean(0).sqrt()
        log_losses[of_fill] = losses / scale.clamp(min=1e-12)

    covariance_of_cells = hidden @ _kernel()
    covariance = covariance_of_cells @ hidden.T
    variance = covariance.diagonal().mean().clamp(min=1e-30)  # 0 for images of one pixel
    expected = hidden @ prior_cells
    power = expected.square().sum(0)
    # A map that hidden regions contradict counts as zero.
    factor = ((expected * log_losses).sum(0) / power.clamp(min=1e-30)).clamp(min=0)
    noisy = covariance / variance + _NOISE * torch.eye(
        len(hidden), dtype=torch.float64, device="cpu"
    )
    weights = torch.cholesky_solve(
        log_losses - factor * expected, torch.linalg.cholesky(noisy), upper=False
    )
    posterior = factor * prior_cells + (covariance_of_cells / variance).T @ weights

    positive = normalize_maps(posterior.T.clamp(min=0)).view(-1, 1, _GRID, _GRID).to(prior)
    # antialias selects a = -0.5 (Keys 1981), as everywhere in this package.
    larger = F.interpolate(positive, prior.shape[2:], mode="bicubic", antialias=True)
    return normalize_maps(larger.clamp(min=0))


def _kernel() -> Tensor:
    """Covariance (cells, cells) of two positions: falls with their distance as a Gaussian does."""
    positions = (torch.arange(_GRID, dtype=torch.float64, device="cpu") + 0.5) / _GRID
    distances = positions[:, None] - positions
    of_axis = (-distances.square() / (2 * _LENGTH_SCALE**2)).exp()
    return torch.kron(of_axis, of_axis)
