"""A network and images for which a run of the evaluation takes a second."""

from __future__ import annotations

import torch
from skimage import data
from torch import nn
from torch.utils.data import Dataset

from captum_advise import PixelSpace

SIZE = 24
SPACE = PixelSpace.identity()


def squares_network(seed: int = 0) -> nn.Sequential:
    """A classifier whose layer 3 is followed by an in-place ReLU."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(3),
        nn.Flatten(),
        nn.Linear(72, 7),
    ).eval()


class Squares(Dataset):
    """Pieces of an image of scikit-image, every other one with a class."""

    def __init__(self, n: int = 5):
        image = torch.from_numpy(data.astronaut().copy()).permute(2, 0, 1) / 255
        self.inputs = [image[:, i * 20 : i * 20 + 96 : 4, 180 : 180 + 96 : 4] for i in range(n)]
        self.names = [f"square {i}" for i in range(n)]
        self.targets = [None if i % 2 else i % 7 for i in range(n)]

    def __len__(self):
        return len(self.inputs)

    def __getitem__(self, index):
        return self.inputs[index], self.targets[index]
