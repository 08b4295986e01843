"""Models"""

import copy
import dataclasses
import re

import pytest
import torch
import torch.distributed as dist
from captum.attr import LayerGradCam
from torch import nn
from torch.distributed import fsdp
from torchvision.transforms.functional import to_pil_image, to_tensor
from toy_networks import Apply, Net, images, network

from captum_advise import GatedGradCam, LayerAdvise, PixelSpace, explain, metrics
from captum_advise.layouts import Tokens, channels_last

SELECTIONS = ("avx", "average_drop", 1, None)


def attribute(forward_func, layer, inputs=None, **options):
    inputs = images() if inputs is None else inputs
    return LayerAdvise(forward_func, layer).attribute(inputs, **options)


def assert_refused(forward_func, layer, error, message, inputs=None):
    for selection in SELECTIONS:
        with pytest.raises(error, match=message):
            attribute(forward_func, layer, inputs, unit_selection=selection)


# --- wrappers of models


@pytest.mark.case("`nn.DataParallel`, without a GPU", "the model's own result")
@pytest.mark.parametrize("device_ids", [None, []])
def test_data_parallel(device_ids):
    net = network()
    expected = attribute(net, net.layer)
    advise = LayerAdvise(nn.DataParallel(net), net.layer, device_ids)
    assert torch.equal(advise.attribute(images()), expected)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.case("`nn.DataParallel` on two GPUs", "the result of one GPU, within 1e-4")
def test_data_parallel_on_gpus():
    net = network().cuda()
    expected = attribute(net, net.layer, images(4).cuda())
    advise = LayerAdvise(nn.DataParallel(net, [0, 1]), net.layer, [0, 1])
    found = advise.attribute(images(4).cuda())
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.fixture
def one_process():
    """A process group of one process."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def fully_sharded(net):
    """A model in shards, as the documentation of torch says: its blocks first, then the whole."""
    if not hasattr(fsdp, "fully_shard"):
        pytest.skip("torch has no fully_shard before version 2.6")
    mesh = dist.init_device_mesh("cpu", (1,))
    for module in (net.layer, net):
        fsdp.fully_shard(module, mesh=mesh)
    return net


def wrapped_in_shards(net):
    net.layer = fsdp.FullyShardedDataParallel(net.layer, device_id=torch.device("cpu"))
    return fsdp.FullyShardedDataParallel(net, device_id=torch.device("cpu"))


@pytest.mark.case(
    "`DistributedDataParallel`, `fully_shard`, `FullyShardedDataParallel`",
    "the model's own result, without a warning; every process needs the same inputs, because the "
    "number of passes depends on them",
)
@pytest.mark.filterwarnings("ignore:FSDP is switching", "ignore:The .grad attribute of a Tensor")
@pytest.mark.parametrize(
    "wrap", [fully_sharded, wrapped_in_shards, nn.parallel.DistributedDataParallel]
)
def test_distributed(one_process, wrap):
    net, inputs, space, target = network(), images(2), PixelSpace.identity(), torch.tensor([1, 2])

    def transform(image):
        return to_tensor(image.resize((24, 24)))

    def results(model, net):
        advise = LayerAdvise(model, net.layer, pixel_space=space)
        gated = GatedGradCam(model, [net.stem, net.layer], pixel_space=space)
        yield from (advise.attribute(inputs, target, unit_selection=one) for one in SELECTIONS)
        yield gated.attribute(inputs, target, n_occlusions=4)
        yield metrics.insertion_auc(model, inputs, inputs.mean(1, keepdim=True), target)
        image = to_pil_image(inputs[0])
        found = explain(image, model, layer=net.layer, transform=transform, pixel_space=space)
        yield from found.maps.values()

    expected = list(results(net, net))
    model = wrap(copy.deepcopy(net))
    for found, wanted in zip(
        results(model, getattr(model, "module", model)), expected, strict=True
    ):
        assert torch.equal(found, wanted)


@pytest.mark.case(
    "`FullyShardedDataParallel` over several processes, groups compared",
    "ValueError: it frees its weights after one backward pass; use `fully_shard`",
)
@pytest.mark.filterwarnings("ignore:FSDP is switching")
def test_weights_that_are_freed(one_process):
    net = network()
    model = fsdp.FullyShardedDataParallel(net, device_id=torch.device("cpu"))
    model.sharding_strategy = fsdp.ShardingStrategy.FULL_SHARD  # what it is in several processes
    with pytest.raises(ValueError, match=r"by torch\.distributed\.fsdp\.fully_shard"):
        attribute(model, net.layer)
    assert attribute(model, net.layer, unit_selection=None).any()


@pytest.mark.skipif(
    torch.__version__.startswith("2.4."), reason="compiled models call no hooks in torch 2.4"
)
@pytest.mark.case(
    "`torch.compile`d model, compiled before or after the first explanation",
    "the result of the model as it was written; the hooked pass is not compiled, because compiled "
    "code calls no new hooks",
)
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("ran_before", [False, True])
def test_compiled(backend, ran_before):
    torch._dynamo.reset()
    net = network()
    expected = attribute(net, net.layer)
    compiled = torch.compile(net, backend=backend)
    if ran_before:
        compiled(images())
    for layer in (net.layer, compiled.layer):
        torch.testing.assert_close(attribute(compiled, layer), expected)
        relevance = LayerAdvise(compiled, layer).unit_relevance(images())
        assert torch.equal(relevance, LayerAdvise(net, net.layer).unit_relevance(images()))
    torch.testing.assert_close(compiled(images()), net(images()))


@pytest.mark.case(
    "layer of a scripted or traced model", "TypeError: explain the model before `torch.jit.script`"
)
@pytest.mark.parametrize("make", [torch.jit.script, lambda net: torch.jit.trace(net, images())])
def test_scripted(make):
    scripted = make(network(Net, nn.ReLU))
    with pytest.raises(TypeError, match=r"before torch\.jit\.script"):
        LayerAdvise(scripted, scripted.layer)


@pytest.mark.case(
    "scripted model, layer of the original", "ValueError: the layer did not run in the forward pass"
)
def test_scripted_model_with_a_plain_layer():
    net = network()
    assert_refused(torch.jit.script(net), net.layer, ValueError, "did not run")


# --- how the layer is used


class Twice(Net):
    """The layer, from 6 to 6 channels, runs two times."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(6, 6, 3, padding=1)
        self.head = nn.Linear(6, 7)

    def forward(self, x, second=None):
        first = self.layer(self.stem(x))
        again = (second or self.layer)(first.relu())
        return self.head(again.relu().mean((2, 3)))


@pytest.mark.case(
    "module used twice in one forward pass",
    "its last use is explained, as by `LayerGradCam`, with a warning that names `layer_run`",
)
@pytest.mark.filterwarnings("ignore:.* no group", "ignore:The layer ran 2 times")
def test_module_used_twice():
    net = network(Twice)
    copy = nn.Conv2d(6, 6, 3, padding=1)
    copy.load_state_dict(net.layer.state_dict())
    expected = attribute(lambda x: net(x, copy), copy)
    assert torch.equal(attribute(net, net.layer), expected)
    grad_cam = LayerGradCam(net, net.layer).attribute(images(), 1)
    assert torch.equal(attribute(net, net.layer, target=1, unit_selection=None), grad_cam)


@pytest.mark.case(
    "in-place ReLU after the layer, or as the layer", "the values before, or after, the ReLU"
)
def test_in_place():
    net, out_of_place = network(), network()
    out_of_place.act = nn.ReLU()
    for name in ("layer", "act"):
        expected = attribute(out_of_place, out_of_place.get_submodule(name))
        assert torch.equal(attribute(net, net.get_submodule(name)), expected)
    assert attribute(net, net.act, attribute_to_layer_input=True, unit_selection=None).min() < 0


class WithoutGraph(Net):
    def features(self, x):
        with torch.no_grad():
            return super().features(x)


@pytest.mark.case(
    "layer under `torch.no_grad`, output detached, or layer without influence on the outputs",
    "ValueError: the target's output has no gradient with respect to the layer",
)
def test_no_graph():
    net = network(WithoutGraph)
    assert_refused(net, net.stem, ValueError, "no gradient with respect to the layer")
    net = network(Net, Apply(torch.detach))
    assert_refused(net, net.layer, ValueError, "no gradient")
    net = network()
    aside = nn.Conv2d(3, 4, 3)
    without_influence = lambda x: net(x + 0 * aside(x).detach().mean())  # noqa: E731
    assert_refused(without_influence, aside, ValueError, "no gradient")
    with pytest.raises(ValueError, match="no gradient"):
        attribute(without_influence, aside, grad_kwargs={"allow_unused": True})


@pytest.mark.case("`torch.no_grad` around `attribute`", "the usual result")
def test_caller_without_gradients():
    net = network()
    with torch.no_grad():
        found = attribute(net, net.layer)
    assert torch.equal(found, attribute(net, net.layer))


@pytest.mark.case(
    "`torch.inference_mode` around `attribute`, or inputs made under it",
    "ValueError that names `torch.inference_mode` where gradients are ruled out; else the usual",
)
def test_inference_mode():
    net = network()
    with torch.inference_mode():
        inputs = images()
        assert_refused(net, net.layer, ValueError, "inference_mode")
        relevance = LayerAdvise(net, net.layer).unit_relevance(inputs)
    # The model gets copies of the inputs.
    assert torch.equal(attribute(net, net.layer, inputs), attribute(net, net.layer))
    assert torch.equal(
        attribute(net, net.layer, inputs, unit_selection=None),
        attribute(net, net.layer, unit_selection=None),
    )
    assert torch.equal(relevance, LayerAdvise(net, net.layer).unit_relevance(images()))


@pytest.mark.case("layer that is not part of the model", "ValueError: the layer did not run")
def test_foreign_layer():
    net = network()
    assert_refused(net, network().layer, ValueError, "did not run")
    with pytest.raises(ValueError, match="did not run"):
        LayerAdvise(net, network().layer).unit_relevance(images())


@pytest.mark.case(
    "layer that returns a dict, or nested tuples", "ValueError: name a module inside it"
)
@pytest.mark.parametrize("wrap", [lambda x: {"map": x}, lambda x: (x, (x, x))])
def test_layer_without_tensors(wrap):
    net = network(Net, Apply(lambda x: wrap(x)))
    net.act = Apply(lambda found: next(iter(found.values() if isinstance(found, dict) else found)))
    assert_refused(net, net.between, ValueError, "name a module inside it")
    with pytest.raises(ValueError, match="name a module inside it"):
        LayerAdvise(net, net.between).unit_relevance(images())


# --- modes and precision


@pytest.mark.case(
    "batch norm or dropout in training mode",
    "works, with one warning: the explanation is random, call `model.eval()`",
)
@pytest.mark.parametrize("method", ["attribute", "explain", "unit_relevance"])
def test_training_mode(method):
    net = network().train()
    with pytest.warns(UserWarning, match=r"training mode.*model\.eval") as caught:
        getattr(LayerAdvise(net, net.layer), method)(images())
    assert sum("training mode" in str(warning.message) for warning in caught) == 1
    assert caught[0].filename == __file__
    assert net.training


@pytest.mark.case("training mode without batch norm or active dropout", "works, no warning")
def test_harmless_training_mode():
    net = network(Net, nn.Dropout(0.0))
    net.norm = nn.Identity()
    expected = attribute(net, net.layer)
    assert torch.equal(attribute(net.train(), net.layer), expected)


@pytest.mark.case(
    "quantised model, dynamic or static",
    "ValueError: no gradient; use a model in floating point",
)
@pytest.mark.filterwarnings("ignore")
def test_quantised():
    quantization = pytest.importorskip("torch.ao.quantization")
    dynamic = quantization.quantize_dynamic(network(), {nn.Linear}, dtype=torch.qint8)
    assert_refused(dynamic, dynamic.layer, ValueError, "floating point")

    net = nn.Sequential(
        quantization.QuantStub(),
        nn.Conv2d(3, 6, 3),
        nn.Flatten(),
        nn.Linear(6 * 22 * 22, 4),
        quantization.DeQuantStub(),
    ).eval()
    net.qconfig = quantization.get_default_qconfig(torch.backends.quantized.engine)
    prepared = quantization.prepare(net)
    prepared(images())
    static = quantization.convert(prepared)
    assert_refused(static, static[1], ValueError, "floating point")


# --- what the model returns


@dataclasses.dataclass
class Output:
    logits: torch.Tensor


RETURNS = {
    "a tuple": (lambda y: (y, y), lambda found: found[0]),
    "a dict": (lambda y: {"logits": y}, lambda found: found["logits"]),
    "a dataclass": (Output, lambda found: found.logits),
    "a list": (lambda y: [y], lambda found: found[0]),
}


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(
            kind,
            marks=pytest.mark.case(
                f"model that returns {kind}",
                "TypeError: wrap it in a function that picks the tensor; works so wrapped",
            ),
        )
        for kind in RETURNS
    ],
)
def test_model_that_returns(kind):
    make, pick = RETURNS[kind]
    net = network()
    odd = nn.Sequential(net, Apply(make)).eval()
    assert_refused(odd, net.layer, TypeError, "wrap it in a function that picks the tensor")
    found = attribute(lambda x: pick(odd(x)), net.layer)
    assert torch.equal(found, attribute(net, net.layer))


@pytest.mark.case(
    "model that returns nothing, an array, class indices or one number for the batch",
    "TypeError: numbers are needed, one row per example",
)
@pytest.mark.parametrize(
    "make", [lambda y: None, lambda y: y.detach().numpy(), lambda y: y.argmax(1), torch.sum]
)
def test_model_without_numbers(make):
    net = network()
    assert_refused(lambda x: make(net(x)), net.layer, TypeError, "real numbers|not a tensor")


@pytest.mark.case(
    "model whose number of outputs differs from that of inputs",
    "ValueError for a choice among groups; relevances and None as by `LayerGradCam`",
)
def test_other_number_of_outputs():
    net = network()
    fewer = lambda x: net(x)[:2]  # noqa: E731
    with pytest.raises(ValueError, match="inputs 3, layer 3, outputs 2"):
        attribute(fewer, net.layer)
    found = attribute(fewer, net.layer, target=1, unit_selection=None)
    assert torch.equal(found, LayerGradCam(fewer, net.layer).attribute(images(), 1))


# --- layouts


class ChannelsLast(Net):
    """The same network, with the explained layer's output as N x H x W x C."""

    def __init__(self):
        super().__init__(Apply(lambda x: x.movedim(1, -1).contiguous()))
        self.act = nn.Sequential(Apply(lambda x: x.movedim(-1, 1)), nn.ReLU())


class AsTokens(Net):
    """The same network, with the explained layer's output as tokens after a class token."""

    def __init__(self):
        super().__init__(Apply(lambda x: nn.functional.pad(x.flatten(2).mT, (0, 0, 1, 0))))
        self.act = nn.Sequential(Apply(lambda x: x[:, 1:].mT.unflatten(2, (12, 12))), nn.ReLU())


@pytest.mark.parametrize(
    ("cls", "transform"),
    [
        pytest.param(
            ChannelsLast,
            channels_last,
            marks=pytest.mark.case(
                "layer N x H x W x C, `reshape_transform=channels_last`",
                "what the same layer gives as N x C x H x W",
            ),
        ),
        pytest.param(
            AsTokens,
            Tokens(n_prefix=1),
            marks=pytest.mark.case(
                "layer N x tokens x C, `reshape_transform=Tokens(n_prefix=1)`",
                "what the same layer gives as N x C x H x W",
            ),
        ),
    ],
)
def test_reshape_transform(cls, transform):
    net, plain = network(cls), network()
    plain.act = nn.ReLU()
    advise = LayerAdvise(net, net.between, reshape_transform=transform)
    expected = LayerAdvise(plain, plain.layer)
    for selection in SELECTIONS:
        torch.testing.assert_close(
            advise.attribute(images(), unit_selection=selection),
            expected.attribute(images(), unit_selection=selection),
        )
    assert torch.equal(advise.unit_relevance(images()), expected.unit_relevance(images()))


@pytest.mark.case(
    "gradients of attributions through `reshape_transform`", "those of the plain layout"
)
def test_gradients_flow_through_reshape_transform():
    net, plain = network(ChannelsLast), network()
    plain.act = nn.ReLU()
    options = {"target": 1, "unit_selection": None, "grad_kwargs": {"create_graph": True}}
    first, second = images().requires_grad_(), images().requires_grad_()
    advise = LayerAdvise(net, net.between, reshape_transform=channels_last)
    (found,) = torch.autograd.grad(advise.attribute(first, **options).square().sum(), first)
    attributions = LayerAdvise(plain, plain.layer).attribute(second, **options)
    (expected,) = torch.autograd.grad(attributions.square().sum(), second)
    torch.testing.assert_close(found, expected)


@pytest.mark.case(
    "`reshape_transform` that does not give N x C x spatial",
    "TypeError or ValueError with the shapes",
)
@pytest.mark.parametrize(
    ("transform", "error", "message"),
    [
        (lambda x: None, TypeError, "must return a tensor, got a NoneType"),
        (lambda x: x[0], ValueError, "(3, 12, 12, 12) into (12, 12, 12)"),
        (lambda x: x.mean((2, 3)), ValueError, "(3, 12, 12, 12) into (3, 12)"),
        (lambda x: torch.cat([x, x], 1), ValueError, "rearrange"),
        (Tokens(), ValueError, "(N, tokens, C) is needed"),
    ],
)
def test_bad_reshape_transform(transform, error, message):
    net = network()
    advise = LayerAdvise(net, net.layer, reshape_transform=transform)
    with pytest.raises(error, match=re.escape(message)):
        advise.attribute(images())


def test_tokens():
    tokens = torch.arange(2 * 8 * 3).reshape(2, 8, 3)
    found = Tokens(n_prefix=2, size=(2, 3))(tokens)
    assert found.shape == (2, 3, 2, 3)
    assert found[1, 2, 1, 0] == tokens[1, 2 + 3, 2]
    with pytest.raises(ValueError, match="2 x 2 of patches"):
        Tokens(1, (2, 2))(tokens)
    with pytest.raises(ValueError, match="a square of patches"):
        Tokens()(tokens)
