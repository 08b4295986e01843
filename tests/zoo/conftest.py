"""Networks and images for the tests of the zoo."""

import pytest
import torch

from captum_advise import zoo


@pytest.fixture(scope="session")
def chelsea():
    return zoo.example_image()


@pytest.fixture(scope="session")
def lite0():
    return zoo.load("efficientnet-lite0")


@pytest.fixture(scope="session")
def small():
    """A network that is built in no time."""
    return zoo.load("torchvision/shufflenet_v2_x0_5", weights="random", seed=3)


@pytest.fixture(scope="session")
def logits_of():
    """The logits of a network for the same input every time."""

    def logits(network):
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            return network.model(torch.randn(1, 3, 64, 64, generator=generator))

    return logits
