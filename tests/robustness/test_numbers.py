"""Numbers"""

import math

import pytest
import torch
from captum.attr import LayerGradCam
from torch import nn
from toy_networks import Apply, Net, images, network

from captum_advise import LayerAdvise, PixelSpace, unit_relevance
from captum_advise.metrics import class_sensitivity

CHOICES = ("avx", "average_drop")


def case(what, outcome, *values):
    return pytest.param(*values, marks=pytest.mark.case(what, outcome))


def explain(net, layer=None, inputs=None, **options):
    inputs = images() if inputs is None else inputs
    made = {name: options.pop(name) for name in {"activation_range"} & options.keys()}
    advise = LayerAdvise(net, net.layer if layer is None else layer, **made)
    return advise.explain(inputs, **options)


def put(value):
    """Into one position of one unit of example 1."""

    def change(x):
        place = torch.zeros_like(x, dtype=torch.bool)
        place[1, 2, 3, 3] = True
        return torch.where(place, value, x)

    return Apply(change)


NOT_FINITE = "ValueError that names the examples; for None and relevances as `LayerGradCam`"


@pytest.mark.parametrize(
    "value",
    [
        case("NaN activation", NOT_FINITE, math.nan),
        case("infinite activation", NOT_FINITE, math.inf),
    ],
)
def test_activations_that_are_not_finite(value):
    net = network(Net, put(value))
    for choice in CHOICES:
        with pytest.raises(ValueError, match="for examples 1: "):
            explain(net, net.between, unit_selection=choice)
    advise = LayerAdvise(net, net.between)
    found = advise.attribute(images(), 1, unit_selection=None)
    expected = LayerGradCam(net, net.between).attribute(images(), 1)
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)
    relevance = unit_relevance(torch.full((1, 1, 4, 4), value))
    assert relevance.tolist() == [[0]]


@pytest.mark.case("NaN or infinite gradients", NOT_FINITE)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_gradients_that_are_not_finite(value):
    net = network()
    net.head.register_full_backward_pre_hook(lambda _module, grads: (grads[0] * value,))
    for choice in CHOICES:
        with pytest.raises(ValueError, match=r"examples 0, 1, 2: leave them out"):
            explain(net, unit_selection=choice)


@pytest.mark.case("NaN input", NOT_FINITE)
def test_nan_inputs():
    inputs = images()
    inputs[2, 0, 0, 0] = math.nan
    with pytest.raises(ValueError, match="for examples 2: "):
        explain(network(), inputs=inputs)


@pytest.mark.parametrize(
    "value",
    [
        case("NaN output", "ValueError: confidences must be probabilities", math.nan),
        case("infinite output", "ValueError: confidences must be probabilities", math.inf),
    ],
)
def test_outputs_that_are_not_finite(value):
    net = network()
    net.head.bias.data[2] = value
    for choice in CHOICES:
        with pytest.raises(ValueError, match="must return probabilities"):
            explain(net, target=1, unit_selection=choice)


@pytest.mark.case(
    "all gradients zero, or every unit dead",
    "all units are kept, the map is zero, `fallback` is set, one warning",
)
@pytest.mark.parametrize("dead", [False, True])
def test_no_evidence(dead):
    net = network(Net, Apply(lambda x: 0 * x) if dead else nn.Identity())
    if not dead:
        net.head.weight.data.zero_()
    for choice in CHOICES:
        with pytest.warns(UserWarning, match="3 of 3 examples have no group") as caught:
            explanation = explain(net, net.between, unit_selection=choice)
        assert len(caught) == 1
        assert explanation.fallback.all()
        assert explanation.selected_units.all()
        assert not explanation.attributions.any()


@pytest.mark.case(
    "no group explains the prediction: the AVX of all is 0, or the average drop 1",
    "the lowest relevance is selected, `unexplained` is set, one warning",
)
@pytest.mark.parametrize("choice", CHOICES)
def test_no_group_explains_the_prediction(choice):
    net = network()
    other = 1e3 * nn.functional.one_hot(torch.tensor(5), 7)

    def forward(x):
        # A masked image is black where its map is lowest: then it is certainly of class 5.
        return net(x) + (x.amin((1, 2, 3)) < 0.19)[:, None] * other

    bright = 0.2 + 0.8 * images()
    advise = LayerAdvise(forward, net.layer, pixel_space=PixelSpace.identity())
    for with_metrics in (True, False):
        with pytest.warns(UserWarning, match="explains the prediction") as caught:
            explanation = advise.explain(
                bright, 1, unit_selection=choice, with_metrics=with_metrics
            )
        assert len(caught) == 1
        # Where there is one group, nothing was compared.
        several = [len(candidates) > 1 for candidates in explanation.candidates]
        assert f"{sum(several)} of 3 examples" in str(caught[0].message)
        assert explanation.unexplained.tolist() == several
        assert not explanation.fallback.any()
        lowest = [candidates[0].relevance for candidates in explanation.candidates]
        assert explanation.selected.tolist() == lowest
        for index, is_told in enumerate(several):
            text = explanation.describe_selection(index)
            assert text.endswith("selected, no group explains the prediction") == is_told
    with pytest.warns(UserWarning, match="explains the prediction"):
        advise.attribute(bright, 1, unit_selection=choice)
    usual = LayerAdvise(net, net.layer, pixel_space=PixelSpace.identity())
    assert not usual.explain(bright, 1, unit_selection=choice).unexplained.any()


@pytest.mark.case(
    "constant maps, dead units among others",
    "constant maps are shown as evidence everywhere; dead units add nothing to a map",
)
def test_constant_maps():
    net = network(Net, Apply(lambda x: torch.zeros_like(x) + 0.5 + 0 * x))
    explanation = explain(net, net.between)
    constant = explanation.attributions[:, :, :1, :1].expand(-1, -1, 12, 12)
    torch.testing.assert_close(explanation.attributions, constant)
    # Nothing is hidden: differences by rounding are not stretched to a mask.
    assert not explanation.fallback.any()
    torch.testing.assert_close(explanation.metrics.ssim, torch.ones(3))

    alive, some_dead = network(Net, nn.ReLU()), network(Net, nn.ReLU())
    for net in (alive, some_dead):
        net.layer.bias.data[4] = -100.0  # dead in both
    some_dead.head.weight.data[:, 4] *= 50
    for selection in (*CHOICES, None):
        options = {"target": 1, "unit_selection": selection}
        first = LayerAdvise(alive, alive.between).attribute(images(), **options)
        second = LayerAdvise(some_dead, some_dead.between).attribute(images(), **options)
        assert torch.equal(first, second)


@pytest.mark.parametrize(
    "scale",
    [
        case("activations of 1e30", "the maps and metrics of the same network at scale 1", 1e30),
        case("activations of 1e-30", "the maps and metrics of the same network at scale 1", 1e-30),
    ],
)
def test_scale(scale):
    """Every unit times a power of two, undone after the layer."""
    factor = 2.0 ** round(math.log2(scale))
    plain, scaled = network(), network(Net, Apply(lambda x: x * factor))
    scaled.act = nn.Sequential(Apply(lambda x: x / factor), nn.ReLU())
    plain.act = nn.ReLU()
    expected = explain(plain, activation_range="minmax")
    found = explain(scaled, scaled.between, activation_range="minmax")
    assert torch.equal(found.unit_relevance, expected.unit_relevance)
    assert torch.equal(found.selected, expected.selected)
    torch.testing.assert_close(found.attributions, expected.attributions)
    torch.testing.assert_close(found.metrics.avx, expected.metrics.avx)


def test_class_sensitivity_of_huge_and_tiny_maps():
    maps = torch.tensor([[0.0, 1.0, 2.0, 1.0]]) * torch.tensor([[1e30], [1e-30]])
    for other in (maps, maps.flip(0)):
        torch.testing.assert_close(class_sensitivity(maps, other), torch.ones(2))
    with_half = class_sensitivity(maps.sign().half() * 60000, maps.sign().half() * 60000)
    torch.testing.assert_close(with_half, torch.ones(2))


@pytest.mark.case("denormal activations (1e-40)", "finite maps, or the fallback with its warning")
@pytest.mark.filterwarnings("ignore:.* no group")
def test_denormals():
    net = network(Net, Apply(lambda x: x * 1e-40))
    for activation_range in ((0.0, 1.0), "minmax"):
        explanation = explain(net, net.between, activation_range=activation_range)
        assert explanation.attributions.isfinite().all()
        assert explanation.metrics.avx.isfinite().all()


@pytest.mark.case("activations or gradients that overflow", "ValueError: run it in float32")
def test_overflow():
    net = network(Net, Apply(lambda x: x * 1e6)).half()
    net.act = nn.Sequential(Apply(lambda x: x.clamp(-1, 1)), nn.ReLU())
    with pytest.raises(ValueError, match="overflow"):
        explain(net, net.between, images().half())
    # Each unit is finite, their sum is not.
    net = network(Net, Apply(lambda x: torch.zeros_like(x) + 3e38 + 0 * x))
    net.act = Apply(lambda x: x - x.detach() + 1)
    net.head.weight.data.fill_(28.0)
    with pytest.raises(ValueError, match="overflow"):
        explain(net, net.between)


@pytest.mark.parametrize(
    ("bias", "confidence"),
    [
        case("confidence 0 in the target", "average drop 0: nothing can be lost", -1e4, 0.0),
        case("confidence 1 in the target", "the usual metrics, all finite", 1e4, 1.0),
    ],
)
def test_extreme_confidence(bias, confidence):
    net = network()
    net.head.bias.data[2] = bias
    for choice in CHOICES:
        explanation = explain(net, target=2, unit_selection=choice)
        assert explanation.confidence.tolist() == [confidence] * 3
        assert explanation.metrics.average_drop.tolist() == [0.0] * 3
        assert explanation.metrics.avx.isfinite().all()


@pytest.mark.case(
    "a single class under softmax", "ValueError: pass `confidence`; a fixed group works"
)
def test_single_class():
    net = network(classes=1)
    for choice in CHOICES:
        with pytest.raises(ValueError, match=r"torch\.sigmoid"):
            explain(net, unit_selection=choice)
    found = LayerAdvise(net, net.layer).attribute(images(), unit_selection=1)
    assert found.shape == (3, 1, 12, 12)


@pytest.mark.filterwarnings("ignore:.* no group")
@pytest.mark.case("a single logit with `confidence=torch.sigmoid`", "works, target None or 0 alike")
def test_single_logit():
    net = network(classes=1)
    advise = LayerAdvise(net, net.layer, confidence=torch.sigmoid)
    explanation = advise.explain(images())
    torch.testing.assert_close(explanation.confidence, torch.sigmoid(net(images()))[:, 0])
    assert torch.equal(advise.attribute(images(), 0), explanation.attributions)


@pytest.mark.case(
    "`confidence` that does not return probabilities", "ValueError: pass softmax or sigmoid"
)
def test_confidence_that_is_none():
    net = network()
    advise = LayerAdvise(net, net.layer, confidence=nn.Identity())
    with pytest.raises(ValueError, match="probabilities"):
        advise.attribute(images())
    with pytest.raises(ValueError, match="of the outputs' shape"):
        LayerAdvise(net, net.layer, confidence=lambda y: y.softmax(1)[:, :2]).attribute(images())


# --- sizes


@pytest.mark.case("batch of 0", "ValueError: the inputs hold no example")
def test_empty_batch():
    for selection in (*CHOICES, 1, None):
        with pytest.raises(ValueError, match="no example"):
            explain(network(), inputs=torch.zeros(0, 3, 24, 24), unit_selection=selection)


@pytest.mark.case("batch of 1", "the row of a larger batch, within 1e-4")
def test_batch_of_one():
    net = network()
    together, alone = explain(net), explain(net, inputs=images()[1:2])
    torch.testing.assert_close(alone.attributions[0], together.attributions[1])
    torch.testing.assert_close(alone.metrics.avx[0], together.metrics.avx[1], rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore:.* no group")
@pytest.mark.case(
    "maps of 1 x 1", "every unit has relevance 0; the map is Grad-CAM's and hides nothing"
)
def test_maps_of_one_position():
    net = network(Net, nn.AdaptiveAvgPool2d(1))
    explanation = explain(net, net.between)
    assert not explanation.unit_relevance.any()
    predicted = net(images()).argmax(1)
    expected = LayerGradCam(net, net.between).attribute(images(), predicted)
    torch.testing.assert_close(explanation.attributions, expected)
    kept = ~explanation.fallback
    torch.testing.assert_close(explanation.metrics.ssim[kept], torch.ones(3)[kept])


@pytest.mark.filterwarnings("ignore:.* no group")
@pytest.mark.parametrize(
    ("height", "width"),
    [
        case("inputs of 8 x 8 pixels", "works", 8, 8),
        case("inputs of 1 x 1 pixel", "works", 1, 1),
        case("inputs of 16 x 96 and 96 x 16 pixels", "works", 16, 96),
        pytest.param(96, 16),
        case("inputs of 224 x 224 pixels, layer 7 x 7", "works", 224, 224),
        pytest.param(
            2048,
            2048,
            marks=[
                pytest.mark.slow,
                pytest.mark.case(
                    "inputs of 2048 x 2048 pixels, layer 64 x 64",
                    "works; takes seconds per unit",
                ),
            ],
        ),
    ],
)
def test_sizes(height, width):
    stride = max(1, min(height, width) // 8) if height < 200 else 32
    net = network(Net, nn.AvgPool2d(max(1, stride // 2), ceil_mode=True))
    net.layer = nn.Conv2d(6, 2, 3, padding=1)
    net.head = nn.Linear(2, 7)
    explanation = explain(net, net.between, images(1, height=height, width=width))
    _, _, rows, columns = explanation.attributions.shape
    assert (rows > columns) == (height > width)
    assert explanation.attributions.isfinite().all()
    assert 0 <= explanation.metrics.avx.item() <= 1


@pytest.mark.case("layer with more than 128 x 128 positions", "works")
def test_many_positions():
    net = network()
    found = LayerAdvise(net, net.layer).unit_relevance(images(1, height=260, width=260))
    assert found.shape == (1, 12)


@pytest.mark.case(
    "layer with more than 128 x 128 positions, without numba", "ValueError: captum-advise[fast]"
)
def test_too_many_positions(monkeypatch):
    monkeypatch.setattr("captum_advise.density._engine.compiled", lambda: None)
    net = network()
    with pytest.raises(ValueError, match="deeper layer"):
        explain(net, inputs=images(1, height=260, width=260))
    found = LayerAdvise(net, net.layer).attribute(
        images(1, height=260, width=260), unit_selection=None
    )
    assert found.shape == (1, 1, 130, 130)


@pytest.mark.parametrize(
    ("channels", "choices"),
    [
        case("grey inputs (N x 1 x H x W)", "works", 1, CHOICES),
        case(
            "inputs of 4 channels",
            "ValueError for AVX; `average_drop`, relevances and None work",
            4,
            ("average_drop",),
        ),
    ],
)
def test_channels(channels, choices):
    net, inputs = network(channels=channels), images(channels=channels)
    for choice in (*choices, 1, None):
        found = LayerAdvise(net, net.layer).attribute(inputs, unit_selection=choice)
        assert found.isfinite().all()
    if channels == 4:
        with pytest.raises(ValueError, match="compares images"):
            LayerAdvise(net, net.layer).attribute(inputs)


@pytest.mark.case("`pixel_space` of another number of channels", "ValueError with both numbers")
def test_pixel_space_of_other_channels():
    net = network()
    advise = LayerAdvise(net, net.layer, pixel_space=PixelSpace.identity(1))
    with pytest.raises(ValueError, match="1 channels"):
        advise.attribute(images())


# --- precision


@pytest.mark.parametrize(
    "dtype",
    [
        case("float16 model and inputs", "float16 maps, metrics within 0.02", torch.float16),
        case("bfloat16 model and inputs", "bfloat16 maps, metrics within 0.02", torch.bfloat16),
        case("float64 model and inputs", "float64 maps, metrics within 1e-4", torch.float64),
    ],
)
def test_dtypes(dtype):
    expected = explain(network())
    found = explain(network().to(dtype), inputs=images().to(dtype))
    assert found.attributions.dtype == dtype
    tolerance = 1e-4 if dtype == torch.float64 else 0.02
    torch.testing.assert_close(
        found.metrics.avx, expected.metrics.avx, rtol=0, atol=tolerance, check_dtype=False
    )


@pytest.mark.parametrize(
    ("dtype", "inputs_dtype"),
    [
        case("bfloat16 autocast", "metrics within 0.02", torch.bfloat16, torch.float32),
        case("float16 autocast", "metrics within 0.02", torch.float16, torch.float32),
        case("float64 under autocast", "as without autocast", torch.bfloat16, torch.float64),
    ],
)
def test_autocast(dtype, inputs_dtype):
    net = network().to(inputs_dtype)
    expected = explain(net, inputs=images().to(inputs_dtype))
    with torch.autocast("cpu", dtype):
        found = explain(net, inputs=images().to(inputs_dtype))
    tolerance = 0.02 if inputs_dtype == torch.float32 else 0
    torch.testing.assert_close(found.metrics.avx, expected.metrics.avx, rtol=0, atol=tolerance)


class NotCast(Net):
    """Autocast changes nothing in it, neither forward nor backward (no matrix products)."""

    def forward(self, x):
        with torch.autocast("cpu", enabled=False):
            return self.act(self.features(x)).mean((2, 3))[:, :7] * 5


@pytest.mark.case(
    "autocast around `attribute`", "the network alone is cast, the metrics are computed in float32"
)
def test_autocast_does_not_reach_the_metrics():
    net = network(NotCast)
    advise = LayerAdvise(net, net.layer, confidence=lambda outputs: outputs.softmax(1))
    expected = advise.explain(images())
    with torch.autocast("cpu", torch.bfloat16):
        found = advise.explain(images())
    assert torch.equal(found.attributions, expected.attributions)
    for part in ("avx", "ssim", "fsim", "mse", "class_sensitivity", "average_drop"):
        assert torch.equal(getattr(found.metrics, part), getattr(expected.metrics, part)), part


@pytest.mark.case("inputs of another dtype than the model's", "the model's own error, unchanged")
def test_mixed_dtypes():
    net = network()
    with pytest.raises(RuntimeError) as theirs:
        net(images().double())
    with pytest.raises(RuntimeError) as ours:
        explain(net, inputs=images().double())
    assert str(ours.value) == str(theirs.value)
