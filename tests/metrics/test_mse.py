import numpy as np
import torch

from captum_advise.metrics import mse


def test_numpy_gives_the_same():
    first, second = torch.rand(3, 3, 5, 6), torch.rand(3, 3, 5, 6)
    expected = ((first.numpy() - second.numpy()) ** 2).mean((1, 2, 3))
    np.testing.assert_allclose(mse(first, second).numpy(), expected, rtol=1e-5)
