from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from squares import Squares, squares_network


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Tables are equal digit by digit only with one number of threads, on any machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def network():
    return squares_network()


@pytest.fixture
def squares():
    return Squares()


@pytest.fixture
def inputs(squares):
    return torch.stack(squares.inputs[:2])


def labelled(*class_names):
    """The part of a Network that reading images uses."""

    def transform(image):
        return torch.tensor(image.convert("RGB").getpixel((0, 0))).float()

    return SimpleNamespace(name="net", class_names=class_names, transform=transform)


@pytest.fixture
def three_classes():
    return labelled("tench", "tabby cat", "Persian cat")


@pytest.fixture(scope="session")
def imagenet_classes():
    models = pytest.importorskip("torchvision.models")
    return labelled(*models.ResNet50_Weights.DEFAULT.meta["categories"])
