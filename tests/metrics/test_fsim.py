import torch

from captum_advise.metrics import fsim


def test_the_authors_program_gives_the_same(golden, as_batch):
    *images, expected, expected_with_colour = golden
    distorted, reference = map(as_batch, images)
    assert abs(fsim(distorted, reference).item() - expected_with_colour) < 5e-4
    luminance = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    grey = [(image * luminance).sum(1, keepdim=True) for image in (distorted, reference)]
    assert abs(fsim(*grey).item() - expected) < 5e-4
