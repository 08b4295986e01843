"""μ-fidelity: whether regions with more of a map's mass cost more confidence when hidden."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from captum_advise._utils.checks import check_count
from captum_advise.metrics._maps import check_maps, single
from captum_advise.metrics._passes import target_confidences
from captum_advise.pixels import PixelSpace, black

_GRID, _SHARE = 14, 0.2


@torch.no_grad()
def mu_fidelity(
    forward_func: Callable[[Tensor], Tensor],
    inputs: Tensor,
    maps: Tensor,
    target: Tensor,
    *,
    pixel_space: PixelSpace | None = None,
    n_subsets: int = 64,
    confidence: Callable[[Tensor], Tensor] | None = None,
    internal_batch_size: int = 32,
) -> Tensor:
    """Correlation of the confidence lost when random subsets are hidden with the mass in them.

    The features are the cells of a grid of 14 x 14, because a single pixel changes nothing. A
    subset is a fifth of them, and becomes black.

    Source: Bhatt, Weller and Moura, "Evaluating and Aggregating Feature-based Model Explanations",
    IJCAI 2020; sensitivity-n of Ancona, Ceolini, Öztireli and Gross, ICLR 2018, for a single n.

    Args:
        forward_func, inputs, maps, target, confidence, internal_batch_size: As in
            :func:`captum_advise.metrics.insertion_auc`, also what is refused and warned of.
        pixel_space: Defines black, as in :func:`captum_advise.metrics.deletion_auc`.
        n_subsets: How many subsets are hidden, at least 2. All maps of an input share them, and
            their forward passes.

    Returns:
        (N,) Pearson correlations in [-1, 1], or (N, M) for more than one map; larger is better.
        Zero where the map or the confidence does not differ between subsets. Depends on torch's
        random state.

    Raises:
        TypeError, ValueError: Likewise, or a number is of the wrong type or out of its range.

    Example::

        >>> mu_fidelity(net, images, torch.rand(2, 1, 32, 32), torch.tensor([3, 3])).shape
        torch.Size([2])
    """
    check_maps(inputs, maps, target)
    check_count("n_subsets", n_subsets, at_least=2)
    n_examples, size = len(maps), list(maps.shape[2:])
    baselines = black(inputs, pixel_space).expand_as(inputs)
    hidden = _subsets(n_examples * n_subsets, size).to(inputs.device)

    examples = torch.arange(n_examples, device=inputs.device).repeat_interleave(n_subsets)

    def images() -> Iterator[Tensor]:
        parts = (torch.split(rows, internal_batch_size) for rows in (examples, hidden))
        for example, is_hidden in zip(*parts, strict=True):
            yield torch.where(is_hidden, baselines[example], inputs[example])

    confidences = target_confidences(
        forward_func, confidence, images(), examples, target, internal_batch_size
    )
    # What the whole image's confidence is does not matter to the correlation.
    lost = -confidences.view(n_examples, 1, n_subsets).double()
    masks = hidden.view(n_examples, n_subsets, size[0] * size[1]).double()
    # Map by map: the order of a product's sums depends on the number of its columns.
    correlations = [
        _pearson((masks @ of_map.double()).mT, lost)
        for of_map in maps.flatten(2)[..., None].unbind(1)
    ]
    return single(torch.cat(correlations, 1)).to(torch.promote_types(maps.dtype, torch.float32))


def _subsets(count: int, size: list[int]) -> Tensor:
    """Random subsets of the cells of a grid, bool (count, 1, H, W), all of the same size."""
    rows, columns = (min(_GRID, side) for side in size)
    n_cells = rows * columns
    n_hidden = min(max(1, round(_SHARE * n_cells)), n_cells - 1)
    # On the CPU: one seed gives the same subsets on every device.
    cells = torch.zeros(count, n_cells, dtype=torch.float32, device="cpu")
    cells.scatter_(1, torch.rand_like(cells).argsort(1)[:, :n_hidden], 1.0)
    return F.interpolate(cells.view(count, 1, rows, columns), size, mode="nearest") > 0


def _pearson(first: Tensor, second: Tensor) -> Tensor:
    """Correlation along the last dimension; zero where a variable is constant."""
    varies, centred = [], []
    for values in (first, second):
        centred.append(values - values.mean(-1, keepdim=True))
        # Rounding leaves constants a norm.
        varies.append(centred[-1].norm(dim=-1) > 1e-7 * values.norm(dim=-1))
    both = varies[0] & varies[1]
    norms = (centred[0].norm(dim=-1) * centred[1].norm(dim=-1)).where(both, 1.0)
    products = (centred[0] * centred[1]).sum(-1)
    return torch.where(both, products / norms, 0.0).clamp(-1, 1)
