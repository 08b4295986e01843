"""The examples in the docstrings do what they say."""

import doctest
import importlib
import pkgutil

import pytest
import torch
from captum.attr import LayerAttribution
from torch import nn

import captum_advise

CORE = ["captum_advise"] + [
    f"captum_advise.{name}"
    for name in ("density", "relevance", "pixels", "layer_advise", "explanation", "map_scoring")
]
METRICS = [
    module.name
    for module in pkgutil.iter_modules(
        importlib.import_module("captum_advise.metrics").__path__, "captum_advise.metrics."
    )
    if module.name != "captum_advise.metrics.faithfulness"  # its examples need a trained network
]


class ImageClassifier(nn.Module):
    """The network of Captum's docstrings."""

    def __init__(self):
        super().__init__()
        self.conv4 = nn.Conv2d(3, 50, 3, stride=4, padding=1)
        self.head = nn.Linear(50, 10)

    def forward(self, x):
        return self.head(self.conv4(x).relu().mean((2, 3)))


@pytest.mark.parametrize("name", CORE + METRICS)
def test_examples(name):
    module = importlib.import_module(name)
    torch.manual_seed(0)
    net = ImageClassifier().eval()
    names = {
        **vars(module),
        **{export: getattr(captum_advise, export) for export in captum_advise.__all__},
        "ImageClassifier": ImageClassifier,
        "LayerAttribution": LayerAttribution,
        "images": torch.rand(2, 3, 32, 32),
        "net": net,
        "torch": torch,
    }
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    for test in doctest.DocTestFinder(exclude_empty=True).find(module, globs=names):
        runner.run(test)
    assert runner.failures == 0
