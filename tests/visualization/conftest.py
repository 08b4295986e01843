"""Fixtures of the tests of figures."""

import pytest
import torch
from example_explanations import explanation as example
from matplotlib import pyplot as plt
from skimage import data


@pytest.fixture(autouse=True)
def _no_pyplot_figures():
    yield
    assert plt.get_fignums() == []


@pytest.fixture(scope="session")
def image():
    """(224, 224, 3) in [0, 1]."""
    return data.chelsea()[:224, :224] / 255


@pytest.fixture
def explanation():
    return example()


@pytest.fixture
def feature_maps():
    """Four units of 8 x 8 positions: two clusters, one cluster, all zero, all out of range."""
    draw = torch.Generator().manual_seed(0)
    spread = 0.01 * torch.randn(3, 64, generator=draw)
    two, one = spread[:2] + 0.5
    two[::2] -= 0.3
    two[1::2] += 0.3
    return torch.stack([two, one, torch.zeros(64), spread[2] + 7]).view(4, 8, 8)
