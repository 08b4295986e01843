from __future__ import annotations

import pytest
import torch
from squares import SPACE

from captum_advise.evaluation import Context, get_methods
from captum_advise.evaluation.methods.rise import draw_cells, smooth_masks


def test_masks_show_half_of_every_pixel_on_average():
    torch.manual_seed(0)
    values = smooth_masks(*draw_cells(4000, (24, 30)), (24, 30))
    assert values.shape == (4000, 1, 24, 30)
    assert values.min() >= 0
    assert values.max() <= 1
    # At borders as well; the standard error is below 0.008.
    assert (values.mean(0) - 0.5).abs().max() < 0.035
    # A mask is one part of cells that are enlarged: near pixels are alike.
    assert (values[..., 1:] - values[..., :-1]).abs().max() < 0.5
    assert values[:, 0, 0, 0].unique().numel() > 10


@pytest.mark.parametrize("batch_size", [1, 7])
def test_a_map_is_the_mean_of_the_masks_weighted_by_the_confidence(batch_size):
    """The confidence is the brightness of one corner: what is shown there counts."""

    class Corner(torch.nn.Module):
        def forward(self, inputs):
            inside = inputs[:, :, :8, :8].mean((1, 2, 3))
            return torch.stack([inside, torch.ones_like(inside)], 1)

    context = Context(
        SPACE,
        confidence=torch.nn.Identity(),
        internal_batch_size=batch_size,
    )
    torch.manual_seed(0)
    result = get_methods(["rise"], {"rise_masks": 500})["rise"](
        Corner(), None, torch.ones(2, 3, 24, 24), torch.tensor([0, 1]), context
    )
    torch.manual_seed(0)
    masks = smooth_masks(*draw_cells(500, (24, 24)), (24, 24))
    of_corner = masks[:, :, :8, :8].mean((1, 2, 3))
    expected = (of_corner[:, None, None, None] * masks).mean(0) / 0.5
    torch.testing.assert_close(result.maps[0], expected)
    # With a constant confidence, every pixel has the same expectation: that constant.
    torch.testing.assert_close(result.maps[1], masks.mean(0) / 0.5)
    corner = result.maps[0, 0, :8, :8].mean()
    assert corner > result.maps[0, 0, 16:, 16:].mean() + 0.05
    torch.testing.assert_close(result.of_class(torch.tensor([1, 0]))[1], expected)
