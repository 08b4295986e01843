import pytest
import torch
from scipy.stats import pearsonr

from captum_advise.metrics import class_sensitivity


def test_scipy_gives_the_same():
    first, second = torch.rand(4, 1, 7, 7), torch.rand(4, 1, 7, 7)
    correlations = class_sensitivity(first, second)
    for i in range(4):
        expected = pearsonr(first[i].flatten().numpy(), second[i].flatten().numpy()).statistic
        assert correlations[i].item() == pytest.approx(expected, abs=1e-5)


def test_a_constant_map_has_zero():
    assert class_sensitivity(torch.ones(1, 4), torch.rand(1, 4)).item() == 0


def test_maps_of_another_shape_are_refused():
    with pytest.raises(ValueError, match="same shape"):
        class_sensitivity(torch.ones(1, 4), torch.ones(1, 5))
