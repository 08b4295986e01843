"""Captum's own LayerGradCam cases, run against LayerAdvise with every unit, bit for bit."""

import pytest
import torch
from captum.attr import LayerGradCam
from torch import nn

from captum_advise import LayerAdvise

# Captum ships its test models since 0.9.
models = pytest.importorskip("captum.testing.helpers.basic_models")


def one():
    return torch.ones(1, 3) * torch.tensor([0.0, 100.0, 0.0])


def grid(n=1):
    return 100 * torch.arange(16.0).repeat(n, 1).view(n, 1, 4, 4) / 100


CASES = {
    # Captum's test_simple_input_non_conv and following, with the numbers Captum expects.
    "dense": (models.BasicModel_MultiLayer, "linear0", one(), {"target": 0}, [400.0]),
    "dense, layer input": (
        lambda: models.BasicModel_MultiLayer(multi_input_module=True),
        "multi_relu",
        one(),
        {"target": 0, "attribute_to_layer_input": True},
        None,
    ),
    "several tensors": (
        lambda: models.BasicModel_MultiLayer(multi_input_module=True),
        "multi_relu",
        one(),
        {"target": 0},
        None,
    ),
    "several inputs": (
        models.BasicModel_MultiLayer_MultiInput,
        "model.linear1",
        (
            torch.tensor([[0.0, 10.0, 0.0]]),
            torch.tensor([[0.0, 10.0, 0.0]]),
            torch.tensor([[0.0, 5.0, 0.0]]),
        ),
        {"target": 0, "additional_forward_args": (4,)},
        None,
    ),
    "convolution": (models.BasicModel_ConvNet_One_Conv, "conv1", grid(), {"target": 0}, None),
    "relu attributions": (
        models.BasicModel_ConvNet_One_Conv,
        "conv1",
        -grid(),
        {"target": 0, "relu_attributions": True},
        None,
    ),
    "not summed": (
        models.BasicModel_ConvNet_One_Conv,
        "conv1",
        grid(),
        {"target": 0, "attr_dim_summation": False},
        None,
    ),
    "layer input": (
        models.BasicModel_ConvNet,
        "conv2",
        torch.arange(300.0).view(3, 1, 10, 10),
        {"target": [0, 4, 9], "attribute_to_layer_input": True},
        None,
    ),
    "tensor targets": (
        models.BasicModel_ConvNet,
        "pool1",
        torch.arange(300.0).view(3, 1, 10, 10),
        {"target": torch.tensor([1, 2, 3])},
        None,
    ),
    "tuple targets": (
        models.BasicModel_ConvNet,
        "relu2",
        torch.arange(300.0).view(3, 1, 10, 10),
        {"target": [(1,), (2,), (3,)]},
        None,
    ),
    "gradient options": (
        models.BasicModel_ConvNet,
        "conv1",
        torch.arange(300.0).view(3, 1, 10, 10),
        {"target": 1, "grad_kwargs": {"create_graph": True, "allow_unused": True}},
        None,
    ),
}


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_equal_bit_for_bit(name, frozen):
    make, path, inputs, options, expected = CASES[name]
    net = make().eval().requires_grad_(not frozen)
    layer = net.get_submodule(path)
    theirs = LayerGradCam(net, layer).attribute(inputs, **options)
    ours = LayerAdvise(net, layer).attribute(inputs, unit_selection=None, **options)
    assert isinstance(ours, tuple) == isinstance(theirs, tuple)
    for one_of_ours, one_of_theirs in zip(
        ours if isinstance(ours, tuple) else (ours,),
        theirs if isinstance(theirs, tuple) else (theirs,),
        strict=True,
    ):
        assert torch.equal(one_of_ours, one_of_theirs)
        assert one_of_ours.dtype == one_of_theirs.dtype
    if expected is not None:
        assert ours.flatten().tolist() == expected


def test_scalar_per_example():
    class Scalar(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 3, 3)

        def forward(self, x):
            return self.conv(x).sigmoid().sum((1, 2, 3))

    net, inputs = Scalar(), torch.rand(4, 1, 8, 8)
    assert torch.equal(
        LayerAdvise(net, net.conv).attribute(inputs, unit_selection=None),
        LayerGradCam(net, net.conv).attribute(inputs),
    )


def test_relevance_scores_of_several_tensors():
    net = models.BasicModel_MultiLayer(multi_input_module=True)
    ours = LayerAdvise(net, net.multi_relu).attribute(one(), target=0, unit_selection=0)
    theirs = LayerGradCam(net, net.multi_relu).attribute(one(), target=0)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert isinstance(net.multi_relu, models.MultiRelu)
    with pytest.raises(ValueError, match="2 tensors"):
        LayerAdvise(net, net.multi_relu).attribute(one(), target=0, unit_selection="average_drop")


def test_differentiable_as_captum_is():
    net, inputs = models.BasicModel_ConvNet_One_Conv(), grid().requires_grad_()
    ours = LayerAdvise(net, net.conv1).attribute(inputs, 0, unit_selection=None)
    theirs = LayerGradCam(net, net.conv1).attribute(inputs, 0)
    assert ours.requires_grad == theirs.requires_grad
    (one_gradient,) = torch.autograd.grad(ours.sum(), inputs)
    (other,) = torch.autograd.grad(theirs.sum(), inputs)
    assert torch.equal(one_gradient, other)
    assert inputs.requires_grad
