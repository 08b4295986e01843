import captum.metrics
import pytest
import torch
from captum.attr import LayerGradCam, Saliency
from messages import one_sentence
from torch import nn

from captum_advise.metrics import sensitivity_max

pytestmark = pytest.mark.filterwarnings("ignore:Input Tensor 0")


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sigmoid(), nn.Flatten(), nn.Linear(16, 2)).eval()


@pytest.fixture
def inputs():
    return torch.rand(2, 3, 4, 4)


TARGET = torch.tensor([0, 1])


def test_it_is_captums(model, inputs):
    saliency = Saliency(model)
    torch.manual_seed(5)
    expected = captum.metrics.sensitivity_max(saliency.attribute, inputs, target=TARGET)
    torch.manual_seed(5)
    torch.testing.assert_close(sensitivity_max(saliency.attribute, inputs, TARGET), expected)


def test_a_single_class_is_repeated_for_the_noisy_images(inputs):
    calls = []

    def recording(images, classes):
        calls.append((len(images), classes.tolist()))
        return images

    sensitivity_max(recording, inputs[1:], TARGET[1:], n_perturb_samples=3)
    assert calls == [(1, [1]), (3, [1, 1, 1])]


def test_layer_attributions_return_a_tensor_even_for_a_tuple(model, inputs):
    grad_cam = LayerGradCam(model, model[0]).attribute
    assert sensitivity_max(grad_cam, inputs, TARGET).shape == (2,)


def test_a_constant_map_has_none(inputs):
    assert not sensitivity_max(lambda x, _: torch.ones(len(x), 1, 2, 2), inputs, TARGET).any()


@pytest.mark.parametrize(
    ("target", "error", "text"),
    [
        (3, TypeError, "torch.int64, got int"),
        (TARGET.float(), TypeError, "torch.int64, got torch.float32"),
        (TARGET[:1], ValueError, r"\(2,\), got \(1,\)"),
    ],
)
def test_other_targets_are_refused(inputs, target, error, text):
    with pytest.raises(error, match=text) as raised:
        sensitivity_max(lambda x, _: x, inputs, target)
    one_sentence(raised)
