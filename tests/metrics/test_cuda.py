"""Metrics on a GPU against those on the CPU, in double precision: also random numbers agree."""

import pytest
import torch
from torch import nn
from toy_networks import images, network

from captum_advise import metrics
from captum_advise.pixels import masked_images

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

N, SIDE = 3, 40
TARGET = torch.tensor([1, 4, 2])


class Case:
    """A network, images, two maps for each and what else metrics take, on one device."""

    def __init__(self, device):
        self.net = network().double().to(device)
        self.inputs = images(N, height=SIDE, width=SIDE).double().to(device)
        generator = torch.Generator().manual_seed(5)
        coarse = torch.rand(N, 2, 5, 5, generator=generator, dtype=torch.float64)
        self.maps = nn.functional.interpolate(coarse, (SIDE, SIDE), mode="bilinear").to(device)
        self.target = TARGET.to(device)
        self.regions = self.maps[:, :1] > self.maps[:, :1].mean()
        self.masked = masked_images(self.inputs, self.maps[:, :1], torch.zeros(()))

    def confidences(self, inputs):
        return self.net(inputs).softmax(1)


def _faithfulness(metric):
    return lambda case: metric(case.net, case.inputs, case.maps, case.target)


METRICS = {
    "average_drop": lambda c: metrics.average_drop(c.inputs[:, 0, 0, 0], c.maps[:, 0, 0, 0]),
    "blurred": lambda c: metrics.blurred(c.inputs),
    "class_sensitivity": lambda c: metrics.class_sensitivity(c.maps[:, :1], c.maps[:, 1:]),
    "deletion_auc": _faithfulness(metrics.deletion_auc),
    "energy_pointing_game": lambda c: metrics.energy_pointing_game(c.maps, c.regions),
    "fsim": lambda c: metrics.fsim(c.inputs, c.masked),
    "insertion_auc": _faithfulness(metrics.insertion_auc),
    "mse": lambda c: metrics.mse(c.inputs, c.masked),
    "mu_fidelity": _faithfulness(metrics.mu_fidelity),
    "pointing_game": lambda c: metrics.pointing_game(c.maps, c.regions),
    "road": _faithfulness(metrics.road),
    "sparseness": lambda c: metrics.sparseness(c.maps),
    "ssim": lambda c: metrics.ssim(c.inputs, c.masked),
    "top_pixels": lambda c: metrics.top_pixels(c.maps, c.regions),
    "visual_explainability": lambda c: metrics.visual_explainability(
        c.inputs,
        c.masked,
        c.confidences(c.inputs),
        c.confidences(c.masked),
        c.target,
        metrics.class_sensitivity(c.maps[:, :1], c.maps[:, 1:]),
    ),
}


def _fields(result):
    return result if isinstance(result, tuple) else vars(result).values()


@pytest.mark.parametrize("name", METRICS)
def test_equal_to_the_cpu(name):
    found = []
    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        result = METRICS[name](Case(device))
        values = [result] if isinstance(result, torch.Tensor) else list(_fields(result))
        assert all(value.device.type == device for value in values)
        found.append([value.cpu() for value in values])
    torch.testing.assert_close(*found, rtol=1e-6, atol=1e-6)
