"""Fixtures of the tests of figures."""

import pytest
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
