"""One tensor of what a model returns."""

from collections import namedtuple
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from captum.attr import LayerGradCam
from messages import one_sentence
from torch import nn
from toy_networks import Apply, images, network

from captum_advise import LayerAdvise
from captum_advise.layouts import Tokens
from captum_advise.targets import Output

# A random network may hold no evidence for a class.
pytestmark = pytest.mark.filterwarnings("ignore:.*no group of units:UserWarning")


@dataclass
class Prediction:
    logits: Any = None
    boxes: Any = None


Pair = namedtuple("Pair", "features logits")

NESTED = {
    "key": (lambda s: {"scores": s, "other": s + 1}, "scores"),
    "attribute": (lambda s: Prediction(boxes=s), "boxes"),
    "position": (lambda s: (s + 1, s), 1),
    "position in a path": (lambda s: {"heads": [s + 1, (s,)]}, "heads.1.0"),
    "path": (lambda s: {"a": Prediction(logits=s)}, "a.logits"),
    "function": (lambda s: [s[:, :3], s[:, 3:]], lambda parts: torch.cat(parts, 1)),
    "tensor": (lambda s: s, None),
    "only element": (lambda s: (s,), None),
    "logits": (lambda s: Prediction(logits=s), None),
    "named tuple": (lambda s: Pair(s + 1, s), None),
    "out": (lambda s: {"aux": s + 1, "out": s}, None),
}


@pytest.mark.parametrize(("wrap", "output"), NESTED.values(), ids=NESTED)
def test_takes_the_tensor(wrap, output):
    net, inputs = network(), images()
    wrapped = Output(nn.Sequential(net, Apply(wrap)), output)
    assert torch.equal(wrapped(inputs), net(inputs))
    assert torch.equal(
        LayerGradCam(wrapped, net.layer).attribute(inputs, target=2),
        LayerGradCam(net, net.layer).attribute(inputs, target=2),
    )


@pytest.mark.parametrize("unit_selection", ["avx", "average_drop", 0, None])
@pytest.mark.parametrize("confidence", [torch.sigmoid, None], ids=["several labels", "classes"])
def test_explains_as_the_model_itself(unit_selection, confidence):
    net, inputs = network(), images()
    options = {} if confidence is None else {"confidence": confidence}
    wrapped = Output(nn.Sequential(net, Apply(lambda s: {"logits": s})), **options)
    maps = [
        LayerAdvise(forward_func, net.layer, confidence=wrapped.confidence).attribute(
            inputs, 3, unit_selection=unit_selection
        )
        for forward_func in (net, wrapped)
    ]
    assert torch.equal(*maps)


def test_further_arguments_reach_the_model():
    wrapped = Output(lambda inputs, factor: {"out": inputs.mean((2, 3)) * factor})
    inputs = images()
    assert torch.equal(wrapped(inputs, 2.0), inputs.mean((2, 3)) * 2)


def test_the_model_keeps_its_state():
    net = network()
    net.norm.train()
    before = {name: module.training for name, module in net.named_modules()}
    wrapped = Output(net)
    wrapped(images())
    assert {name: module.training for name, module in net.named_modules()} == before
    assert wrapped.training is False
    assert wrapped.model is net
    assert Output(network().train()).training


ERRORS = {
    "no name": (lambda s: {"a": s, "b": s}, None, ValueError, "a dict with a, b"),
    "several": (lambda s: (s, s), None, ValueError, "a tuple of 2"),
    "wrong key": (lambda s: {"a": s}, "logits", ValueError, "'logits'.*a dict with a"),
    "wrong position": (lambda s: [s], 3, ValueError, "'3'.*a list of 1"),
    "into a tensor": (lambda s: s, "T", ValueError, "'T'.*a Tensor"),
    "text": (lambda s: {"a": "cat"}, "a", TypeError, "got str"),
    "integers": (lambda s: s.argmax(1), None, TypeError, r"torch.int64 of shape \(3,\)"),
    "one number": (lambda s: s.sum(), None, TypeError, r"of shape \(\)"),
    "nothing": (lambda s: None, None, ValueError, "a NoneType"),
}


@pytest.mark.parametrize(("wrap", "output", "error", "text"), ERRORS.values(), ids=ERRORS)
def test_unknown_outputs(wrap, output, error, text):
    with pytest.raises(error, match=text) as raised:
        Output(nn.Sequential(network(), Apply(wrap)), output)(images())
    one_sentence(raised)


def test_the_model_must_be_callable():
    with pytest.raises(TypeError, match="got dict") as raised:
        Output({"logits": 1})
    one_sentence(raised)


@pytest.fixture
def transformers():
    return pytest.importorskip("transformers")


def test_hugging_face_convnext(transformers):
    config = transformers.ConvNextConfig(
        num_channels=3, hidden_sizes=[8, 16], depths=[1, 1], num_stages=2, num_labels=4
    )
    model = transformers.ConvNextForImageClassification(config).eval()
    inputs, layer = images(height=32, width=32), model.convnext.encoder.stages[-1]
    wrapped = Output(model)
    assert torch.equal(wrapped(inputs), model(pixel_values=inputs).logits)
    by_hand = LayerGradCam(lambda x: model(x).logits, layer).attribute(inputs, target=1)
    assert torch.equal(LayerGradCam(wrapped, layer).attribute(inputs, target=1), by_hand)
    assert LayerAdvise(wrapped, layer).explain(inputs).metrics.avx.shape == (3,)


def test_hugging_face_vit(transformers):
    config = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=32,
        patch_size=8,
        num_labels=4,
    )
    model = transformers.ViTForImageClassification(config).eval()
    wrapped = Output(model, "logits")
    layer = model.get_submodule(
        next(name for name, _ in model.named_modules() if name.endswith("layernorm_before"))
    )
    options = {"reshape_transform": Tokens(n_prefix=1), "activation_range": "minmax"}
    advise = LayerAdvise(wrapped, layer, **options)
    inputs = images(height=32, width=32)
    assert advise.attribute(inputs).shape == (3, 1, 4, 4)


@pytest.mark.parametrize(
    ("problem_type", "expected"),
    [
        ("multi_label_classification", torch.sigmoid),
        ("single_label_classification", lambda scores: scores.softmax(1)),
        (None, lambda scores: scores.softmax(1)),
    ],
)
def test_hugging_face_says_whether_labels_are_independent(transformers, problem_type, expected):
    config = transformers.ConvNextConfig(
        hidden_sizes=[8], depths=[1], num_stages=1, num_labels=4, problem_type=problem_type
    )
    wrapped = Output(transformers.ConvNextForImageClassification(config))
    scores = torch.randn(2, 4)
    torch.testing.assert_close(wrapped.confidence(scores), expected(scores))
    assert Output(wrapped.model, confidence=torch.tanh).confidence is torch.tanh


def test_a_wrapper_of_a_wrapper_has_its_confidence():
    inner = Output(nn.Identity(), confidence=torch.sigmoid)
    assert Output(inner).confidence is torch.sigmoid
