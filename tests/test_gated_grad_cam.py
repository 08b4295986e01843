"""GatedGradCam against its definition, written without Captum, and its invariances."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
import torch.nn.functional as F
from captum.attr import LayerGradCam
from messages import one_sentence
from torch import nn
from toy_networks import Apply, images, network

from captum_advise import GatedGradCam
from captum_advise.layouts import channels_last

SIZE = (32, 28)


class Deep(nn.Module):
    """Feature maps of 16 x 14, 8 x 7 and again 8 x 7; in-place ReLUs, as in torchvision."""

    def __init__(self):
        super().__init__()
        self.finer = nn.Conv2d(3, 8, 3, padding=1, stride=2)
        self.block = nn.Conv2d(8, 10, 3, padding=1, stride=2)
        self.last = nn.Conv2d(10, 12, 3, padding=1)
        self.act = nn.ReLU(inplace=True)
        self.head = nn.Linear(12, 7)

    def forward(self, x):
        x = self.act(self.block(self.act(self.finer(x))))
        return self.head(self.act(self.last(x)).mean((2, 3)))

    @property
    def layers(self):
        return [self.finer, self.block, self.last]


def deep(seed=3):
    net = network(Deep, seed=seed)
    # Every unit counts for every class to some degree, so that no map is zero.
    net.head.weight.data += 0.1
    return net


INPUTS = images(3, height=SIZE[0], width=SIZE[1])
TARGET = torch.tensor([3, 0, 6])


def stretched(maps):
    return torch.stack([(m - m.min()) / (m.max() - m.min()) for m in maps])


def smoothed(maps, sides):
    """The mean over a box, over the part of it that lies in the image."""
    height, width = sides
    box = torch.ones(1, 1, height, width, dtype=maps.dtype)
    padding = (height // 2, width // 2)
    return F.conv2d(maps, box, padding=padding) / F.conv2d(
        torch.ones_like(maps), box, padding=padding
    )


def by_hand(net, inputs, target):
    finer = net.finer(inputs)
    block = net.block(finer.relu())
    last = net.last(block.relu())
    logits = net.head(last.relu().mean((2, 3)))
    score = logits[torch.arange(len(inputs)), target].sum()
    of_finer, of_block, of_last = torch.autograd.grad(score, [finer, block, last])
    grad_cam = (of_last.mean((2, 3), keepdim=True) * last).sum(1, keepdim=True).relu()
    gate = stretched(F.interpolate(grad_cam, inputs.shape[2:], mode="bicubic", antialias=True))
    evidence = sum(
        stretched(
            F.interpolate(
                smoothed((gradient * value).sum(1, keepdim=True).relu(), (3, 3)),
                inputs.shape[2:],
                mode="bilinear",
                align_corners=False,
            )
        )
        for gradient, value in ((of_finer, finer), (of_block, block))
    )
    return (gate * evidence).detach()


def test_the_definition():
    net = deep().double()
    maps = GatedGradCam(net, net.layers).attribute(INPUTS.double(), TARGET)
    expected = by_hand(net, INPUTS.double(), TARGET)
    assert expected.flatten(1).amax(1).gt(0).all()
    torch.testing.assert_close(maps, expected, rtol=1e-9, atol=1e-12)
    assert not maps.requires_grad


class Gain(nn.Module):
    """The class scores times the mean of a layer of ones."""

    def __init__(self):
        super().__init__()
        self.gain = Apply(torch.ones_like)
        self.last = nn.Conv2d(3, 6, 1)
        self.head = nn.Linear(6, 4)
        for parameter in self.parameters():
            parameter.data = parameter.data.abs()

    def forward(self, x):
        gain = self.gain(x).mean((2, 3)).sum(1, keepdim=True)
        return self.head(self.last(x).mean((2, 3))) * gain


def test_with_the_same_evidence_everywhere_the_map_is_grad_cam():
    net = network(Gain).double()
    inputs = INPUTS.double()
    grad_cam = LayerGradCam(net, net.last).attribute(inputs, 1, relu_attributions=True).detach()
    assert grad_cam.gt(0).all()
    expected = stretched(grad_cam)
    maps = GatedGradCam(net, [net.gain, net.last]).attribute(inputs, 1)
    torch.testing.assert_close(maps, expected, rtol=1e-9, atol=1e-9)


def test_a_batch_gives_what_each_image_gives():
    net = deep()
    gated = GatedGradCam(net, net.layers)
    together = gated.attribute(INPUTS, TARGET)
    alone = [gated.attribute(INPUTS[i : i + 1], int(TARGET[i])) for i in range(3)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-5)


def test_the_same_call_gives_the_same_bits():
    net = deep()
    first, second = (GatedGradCam(net, net.layers).attribute(INPUTS, TARGET) for _ in range(2))
    assert torch.equal(first, second)


def test_no_target_is_the_predicted_class():
    net = deep()
    gated = GatedGradCam(net, net.layers)
    assert torch.equal(gated.attribute(INPUTS), gated.attribute(INPUTS, net(INPUTS).argmax(1)))


@pytest.mark.parametrize("layer", ["finer", "block", "last"])
def test_permuted_units_of_any_layer(layer):
    net = deep().double()
    other = copy.deepcopy(net)
    reader = {"finer": "block", "block": "last", "last": "head"}[layer]
    order = torch.randperm(getattr(net, layer).out_channels)
    for parameter in getattr(other, layer).parameters():
        parameter.data = parameter.data[order]
    reading = getattr(other, reader).weight
    reading.data = reading.data[:, order]
    inputs = INPUTS.double()
    torch.testing.assert_close(other(inputs), net(inputs))
    torch.testing.assert_close(
        GatedGradCam(other, other.layers).attribute(inputs, TARGET),
        GatedGradCam(net, net.layers).attribute(inputs, TARGET),
    )


@pytest.mark.parametrize("factor", [1e-6, 3.7, 1e6])
def test_scaled_class_scores(factor):
    net = deep()
    expected = GatedGradCam(net, net.layers).attribute(INPUTS, TARGET)
    maps = GatedGradCam(lambda x: factor * net(x), net.layers).attribute(INPUTS, TARGET)
    torch.testing.assert_close(maps, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-4), (torch.bfloat16, 0.3), (torch.float16, 0.05)]
)
def test_dtypes(dtype, tolerance):
    net = deep()
    expected = GatedGradCam(net, net.layers).attribute(INPUTS, TARGET)
    other = copy.deepcopy(net).to(dtype)
    maps = GatedGradCam(other, other.layers).attribute(INPUTS.to(dtype), TARGET)
    assert maps.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(maps.float(), expected, rtol=0, atol=tolerance)


def test_one_forward_pass():
    net = deep()
    calls = []
    net.register_forward_hook(lambda *_: calls.append(1))
    GatedGradCam(net, net.layers).attribute(INPUTS, TARGET)
    assert calls == [1]


def test_the_model_is_left_unchanged_also_by_an_error():
    net = deep()
    net.finer.weight.requires_grad_(False)
    before = copy.deepcopy(net.state_dict())
    inputs = INPUTS.clone()
    gated = GatedGradCam(net, net.layers)
    with torch.no_grad():
        gated.attribute(inputs, TARGET)
    with pytest.raises(ValueError, match="out of range"):
        gated.attribute(inputs, 99)
    failing = GatedGradCam(lambda x: net(x).foo, net.layers)
    with pytest.raises(AttributeError):
        failing.attribute(inputs, TARGET)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
    assert not inputs.requires_grad
    assert torch.equal(inputs, INPUTS)


def test_frozen_parameters():
    net = deep()
    expected = GatedGradCam(net, net.layers).attribute(INPUTS, TARGET)
    net.requires_grad_(False)
    assert torch.equal(GatedGradCam(net, net.layers).attribute(INPUTS, TARGET), expected)


def test_layer_inputs():
    net = deep().double()
    inputs = INPUTS.double()
    at_inputs = GatedGradCam(net, [net.block, net.last, net.head]).attribute
    with pytest.raises(ValueError, match="layers\\[2\\] has a tensor of shape"):
        at_inputs(inputs, TARGET, attribute_to_layer_input=True)
    # The input of the block is the finer layer after its ReLU, with the same gradient times
    # activation.
    before = GatedGradCam(net, [net.block, net.last]).attribute(
        inputs, TARGET, attribute_to_layer_input=True
    )
    behind_relu = nn.Sequential(net.finer, nn.ReLU(), net.block, nn.ReLU(), net.last, nn.ReLU())
    whole = nn.Sequential(behind_relu, Apply(lambda x: net.head(x.mean((2, 3)))))
    expected = GatedGradCam(whole, [behind_relu[1], behind_relu[3]]).attribute(inputs, TARGET)
    torch.testing.assert_close(before, expected)


def test_additional_arguments_and_further_inputs():
    net = deep()
    expected = GatedGradCam(net, net.layers).attribute(INPUTS, TARGET)

    def forward(x, shift, factor):
        return net(x) * factor + shift

    maps = GatedGradCam(forward, net.layers).attribute((INPUTS, torch.zeros(3, 1)), TARGET, 1)
    assert torch.equal(maps, expected)


def test_layouts_one_for_all_or_one_per_layer():
    class Last(nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net = net
            self.first, self.second = Apply(channels_moved), Apply(channels_moved)

        def forward(self, x):
            finer = channels_last(self.first(self.net.finer(x)))
            last = channels_last(self.second(self.net.last(self.net.block(finer.relu()).relu())))
            return self.net.head(last.relu().mean((2, 3)))

    def channels_moved(x):
        return x.movedim(1, -1)

    net = deep()
    moved = Last(net).eval()
    expected = GatedGradCam(net, [net.finer, net.last]).attribute(INPUTS, TARGET)
    layers = [moved.first, moved.second]
    for transform in (channels_last, [channels_last, channels_last]):
        maps = GatedGradCam(moved, layers, reshape_transform=transform).attribute(INPUTS, TARGET)
        torch.testing.assert_close(maps, expected)
    mixed = GatedGradCam(moved, [net.finer, moved.second], reshape_transform=[None, channels_last])
    torch.testing.assert_close(mixed.attribute(INPUTS, TARGET), expected)


@pytest.mark.filterwarnings("ignore:.*lazy")
def test_compiled_and_parallel_models():
    net = deep()
    expected = GatedGradCam(net, net.layers).attribute(INPUTS, TARGET)
    compiled = torch.compile(net, backend="eager")
    assert torch.equal(GatedGradCam(compiled, net.layers).attribute(INPUTS, TARGET), expected)
    parallel = nn.DataParallel(net)
    assert torch.equal(GatedGradCam(parallel, net.layers).attribute(INPUTS, TARGET), expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_cuda():
    net = deep()
    expected = GatedGradCam(net, net.layers).attribute(INPUTS, TARGET)
    maps = GatedGradCam(net.cuda(), net.layers).attribute(INPUTS.cuda(), TARGET.cuda())
    assert maps.is_cuda
    torch.testing.assert_close(maps.cpu(), expected, rtol=1e-2, atol=1e-2)


def test_no_evidence_is_a_zero_map_and_a_warning():
    net = deep()
    net.head.weight.data[2] = 0
    gated = GatedGradCam(net, net.layers)
    with pytest.warns(UserWarning, match="1 of 3 examples have no evidence") as record:
        maps = gated.attribute(INPUTS, [3, 2, 6])
    assert record[0].filename == __file__
    assert not maps[1].any()
    assert maps[0].any()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gated.attribute(INPUTS, TARGET)


def test_training_mode_warns():
    net = nn.Sequential(deep(), nn.Dropout(1e-9)).train()
    with pytest.warns(UserWarning, match="training mode") as record:
        GatedGradCam(net, net[0].layers).attribute(INPUTS, TARGET)
    assert record[0].filename == __file__


NET = deep()


@pytest.mark.parametrize(
    ("layers", "error", "match"),
    [
        ([], ValueError, "layers has 0 modules"),
        ([NET.last], ValueError, "layers has 1 modules"),
        ([NET.last, NET.last], ValueError, "names a module twice"),
        (nn.Sequential(nn.ReLU()), TypeError, "must be a list of modules"),
        (["finer", "last"], TypeError, "layers\\[0\\] must be a module"),
        ([NET.last, NET.finer], ValueError, "layers\\[1\\] ran before layers\\[0\\]"),
        ([nn.ReLU(), NET.last], ValueError, "layers\\[0\\]: The layer did not run"),
        ([nn.ReLU(), nn.ReLU()], ValueError, "layer did not run"),
        ([NET.finer, NET.head], ValueError, "layers\\[1\\] has a tensor of shape \\(3, 7\\)"),
    ],
)
def test_layers_that_do_not_suit(layers, error, match):
    with pytest.raises(error, match=match) as raised:
        GatedGradCam(NET, layers).attribute(INPUTS, TARGET)
    one_sentence(raised)


@pytest.mark.parametrize(
    ("inputs", "target", "options", "error", "match"),
    [
        (torch.rand(2, 3, 9), 0, {}, ValueError, "needs images"),
        (torch.rand(0, 3, 9, 9), 0, {}, ValueError, "no example"),
        ("image", 0, {}, TypeError, "inputs must be a tensor"),
        (INPUTS, [0, 1], {}, ValueError, "3 examples but 2 targets"),
        (INPUTS, 0, {"grad_kwargs": 1}, TypeError, "grad_kwargs must be a dict"),
        (INPUTS * torch.nan, 0, {}, ValueError, "NaN, infinite"),
    ],
)
def test_arguments_that_do_not_suit(inputs, target, options, error, match):
    with pytest.raises(error, match=match) as raised:
        GatedGradCam(NET, NET.layers).attribute(inputs, target, **options)
    one_sentence(raised)


def test_transforms_that_do_not_suit():
    with pytest.raises(ValueError, match="3 layers and 2 reshape transforms"):
        GatedGradCam(NET, NET.layers, reshape_transform=[None, None])
    with pytest.raises(TypeError, match="reshape_transform must be a function"):
        GatedGradCam(NET, NET.layers, reshape_transform=1)
