import torch

from captum_advise.metrics import infidelity


def test_infidelity_of_the_gradient_of_a_linear_model_is_zero():
    weights = torch.rand(1, 1, 4, 4)

    def linear(images):
        score = (images * weights).sum((1, 2, 3))
        return torch.stack([score, -score], 1)

    inputs, target = torch.rand(2, 3, 4, 4), torch.tensor([0, 0])
    torch.manual_seed(1)
    exact = infidelity(linear, inputs, weights.expand(2, -1, -1, -1), target)
    torch.testing.assert_close(exact, torch.zeros(2), atol=1e-6, rtol=0)
    wrong = infidelity(linear, inputs, torch.rand(2, 1, 4, 4), target)
    assert (wrong > 1e-4).all()
