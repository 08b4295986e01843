import captum.metrics
import pytest
import torch
from messages import one_sentence
from toy_networks import images, network

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


@pytest.mark.parametrize("size", [(24, 24), (9, 7)])
def test_the_noise_does_not_depend_on_how_many_images_go_through_at_once(size):
    inputs, target = images(5, height=size[0], width=size[1]), torch.arange(5)
    maps = torch.rand(5, 1, *size)

    def value(internal_batch_size):
        torch.manual_seed(0)
        return infidelity(network(), inputs, maps, target, internal_batch_size=internal_batch_size)

    expected = value(1000)
    for internal_batch_size in (1, 3, 7, 10, 32):
        torch.testing.assert_close(value(internal_batch_size), expected, rtol=1e-4, atol=1e-7)


def test_no_more_images_go_through_at_once():
    sizes = []

    def model(images):
        sizes.append(len(images))
        return network()(images)

    infidelity(
        model, images(3), torch.rand(3, 1, 24, 24), torch.tensor([0, 1, 2]), internal_batch_size=4
    )
    assert max(sizes) == 4


def test_it_is_captums_in_one_batch():
    inputs, maps, target = images(2), torch.rand(2, 1, 24, 24), torch.tensor([0, 3])

    def perturb(originals):
        change = 0.2 * torch.randn(originals.shape)
        return change, originals - change

    torch.manual_seed(0)
    expected = captum.metrics.infidelity(
        network(), perturb, inputs, maps.expand(-1, 3, -1, -1), target=target, normalize=True
    )
    torch.manual_seed(0)
    torch.testing.assert_close(infidelity(network(), inputs, maps, target, noise=0.2), expected)


@pytest.mark.parametrize("option", ["n_perturb_samples", "internal_batch_size"])
def test_numbers_below_one_are_refused(option):
    with pytest.raises(ValueError, match=f"{option} must be at least 1, got 0") as raised:
        infidelity(network(), images(), torch.rand(3, 1, 24, 24), torch.arange(3), **{option: 0})
    one_sentence(raised)
