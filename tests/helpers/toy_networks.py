"""Small networks and images for tests."""

import torch
from torch import nn


class Net(nn.Module):
    """Two convolutions and a head; ``between`` acts on what the explained layer returns.

    The ReLU after the layer works in place, as in torchvision.
    """

    def __init__(self, between=nn.Identity, *, channels=3, classes=7):
        super().__init__()
        self.stem = nn.Conv2d(channels, 6, 3, padding=1, stride=2)
        self.norm = nn.BatchNorm2d(6)
        self.layer = nn.Conv2d(6, 12, 3, padding=1)
        self.between = between if isinstance(between, nn.Module) else between()
        self.act = nn.ReLU(inplace=True)
        self.head = nn.Linear(12, classes)

    def features(self, x):
        return self.between(self.layer(self.norm(self.stem(x)).relu()))

    def forward(self, x):
        return self.head(self.act(self.features(x)).mean((2, 3)) * 5)


class Apply(nn.Module):
    """A function as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class ConvNet(nn.Module):
    """One convolution in one to three dimensions, and a head."""

    def __init__(self, dims=2, channels=3):
        super().__init__()
        convolution = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[dims]
        self.convolution = convolution(channels, 12, 3, stride=2)
        self.head = nn.Linear(12, 5)

    def forward(self, inputs):
        return self.head(self.convolution(inputs).relu().flatten(2).mean(2))


def network(cls=Net, *arguments, seed=3, **options):
    """A network in eval mode, with the same weights every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return cls(*arguments, **options).eval()


def images(n=3, channels=3, height=24, width=24):
    """Smooth images in [0, 1]."""
    generator = torch.Generator().manual_seed(4)
    coarse = torch.rand(n, channels, 6, 6, generator=generator)
    return nn.functional.interpolate(coarse, (height, width), mode="bicubic", antialias=True).clamp(
        0, 1
    )
