"""Invalid arguments

Whatever is passed, only TypeError and ValueError come out, or a result of the right shape.
"""

import functools
import math
import string

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from toy_networks import images, network

from captum_advise import (
    AVXProtocol,
    LayerAdvise,
    PixelSpace,
    adaptive_kde,
    metrics,
    pixels,
    unit_relevance,
    zoo,
)
from captum_advise.layouts import Tokens

ALLOWED = (TypeError, ValueError)
pytestmark = pytest.mark.filterwarnings("ignore")

fuzzed = settings(
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)

SHAPES = st.lists(st.integers(0, 5), max_size=5).map(tuple)
DTYPES = st.sampled_from(
    [
        *(torch.float32, torch.float64, torch.float16, torch.bfloat16),
        *(torch.int64, torch.uint8, torch.bool, torch.complex64),
    ]
)
NUMBERS = st.one_of(
    st.integers(-3, 12),
    st.booleans(),
    st.floats(-2, 12),
    st.sampled_from([math.nan, math.inf, -math.inf, 10**30, np.int64(1), np.float32(0.5)]),
)


@st.composite
def tensors(draw, shapes=SHAPES, dtypes=DTYPES):
    shape, dtype = draw(shapes), draw(dtypes)
    values = torch.rand(shape, generator=torch.Generator().manual_seed(draw(st.integers(0, 9))))
    scale = draw(st.sampled_from([1.0, -1.0, 1e3, math.nan, math.inf]))
    return (
        (values * scale).nan_to_num().to(dtype)
        if not dtype.is_floating_point
        else (values * scale).to(dtype)
    )


THINGS = st.one_of(
    st.none(),
    NUMBERS,
    st.text(string.ascii_letters, max_size=5),
    st.sampled_from(["avx", "average_drop", (0.0, 1.0), "minmax", "mean"]),
    st.lists(NUMBERS, max_size=4),
    st.lists(NUMBERS, max_size=4).map(tuple),
    st.lists(st.lists(NUMBERS, max_size=2).map(tuple), max_size=4),
    st.dictionaries(st.sampled_from(["allow_unused", "create_graph", "x"]), NUMBERS, max_size=2),
    st.binary(max_size=3),
    st.sampled_from([object(), dict, len, nn.Identity(), AVXProtocol(), PixelSpace.imagenet()]),
    tensors(),
    st.lists(tensors(), max_size=2).map(tuple),
    st.builds(np.zeros, st.integers(0, 3)),
)


@functools.cache
def net():
    return network()


def outcome(function, *arguments, **options):
    """The result, or None where an exception that may come out did."""
    try:
        return function(*arguments, **options)
    except ALLOWED:
        return None


OPTIONS = [
    *(
        "target",
        "unit_selection",
        "activation_range",
        "min_prominence",
        "baselines",
    ),
    *("protocol", "internal_batch_size", "grad_kwargs"),
]


@pytest.mark.case(
    "arguments of `attribute`, `explain`, `unit_relevance` of any type and range",
    "TypeError or ValueError, or N x 1 x h x w",
)
@pytest.mark.parametrize("method", ["attribute", "explain"])
@fuzzed
@given(
    st.sampled_from(["avx", "average_drop", 1, [0, 2], None]),
    st.dictionaries(st.sampled_from(OPTIONS), THINGS, min_size=1, max_size=2),
)
def test_options(method, selection, options):
    advise, inputs = LayerAdvise(net(), net().layer), images(2, height=8, width=8)
    options = {"unit_selection": selection, **options}
    found = outcome(getattr(advise, method), inputs, **options)
    if found is not None:
        attributions = found if method == "attribute" else found.attributions
        assert attributions.shape == (2, 1, 4, 4)


@fuzzed
@given(THINGS, st.sampled_from(["avx", "average_drop", 1, None]))
def test_inputs(inputs, selection):
    if isinstance(inputs, torch.Tensor) or (
        isinstance(inputs, tuple) and all(isinstance(x, torch.Tensor) for x in inputs)
    ):
        return  # what the model says about tensors is the model's
    advise = LayerAdvise(net(), net().layer)
    assert outcome(advise.attribute, inputs, unit_selection=selection) is None
    assert outcome(advise.unit_relevance, inputs) is None


class Elementwise(nn.Module):
    """Accepts every real tensor; scores are the means over all but the first two dimensions."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Identity()

    def forward(self, x, *more):
        return self.layer(x * 1.0).flatten(2).mean(2) if x.dim() > 2 else self.layer(x * 1.0)


@pytest.mark.case("inputs of any shape and dtype", "TypeError or ValueError, or the right shape")
@fuzzed
@given(
    tensors(dtypes=st.sampled_from([torch.float32, torch.float64])),
    st.sampled_from(["avx", "average_drop", 0, None]),
    st.one_of(st.none(), st.integers(0, 2)),
)
def test_shapes(inputs, selection, target):
    model = Elementwise()
    advise = LayerAdvise(model, model.layer)
    found = outcome(advise.attribute, inputs, target, unit_selection=selection)
    if found is not None:
        assert found.shape == (len(inputs), 1, *inputs.shape[2:])


@pytest.mark.case("arguments of `LayerAdvise` itself", "TypeError or ValueError")
@fuzzed
@given(
    st.dictionaries(
        st.sampled_from(
            ["forward_func", "layer", "pixel_space", "confidence", "reshape_transform"]
        ),
        THINGS,
        min_size=1,
        max_size=2,
    )
)
def test_constructor(parts):
    arguments = {"forward_func": net(), "layer": net().layer, **parts}
    advise = outcome(lambda: LayerAdvise(**arguments))
    if advise is None or "forward_func" in parts:
        return
    found = outcome(advise.attribute, images(2, height=8, width=8))
    assert found is None or found.shape[:2] == (2, 1)


def call(draw, function, *strategies):
    return outcome(function, *(draw(strategy) for strategy in strategies))


REAL = tensors()
FUNCTIONS = {
    "unit_relevance": (unit_relevance, [THINGS]),
    "adaptive_kde": (adaptive_kde, [st.one_of(REAL, THINGS), st.one_of(REAL, THINGS)]),
    "PixelSpace": (PixelSpace, [THINGS, THINGS]),
    "PixelSpace.to_pixels": (PixelSpace.imagenet().to_pixels, [THINGS]),
    "PixelSpace.from_pixels": (PixelSpace.imagenet().from_pixels, [THINGS]),
    "Tokens": (lambda *a: Tokens(*a[:2])(a[2]), [st.integers(0, 3), st.none(), REAL]),
    "upsample_maps": (pixels.upsample_maps, [REAL, st.tuples(NUMBERS, NUMBERS)]),
    "metrics.average_drop": (metrics.average_drop, [THINGS, THINGS]),
    "metrics.increase_in_confidence": (metrics.increase_in_confidence, [THINGS, THINGS]),
    "metrics.class_sensitivity": (metrics.class_sensitivity, [THINGS, THINGS]),
    "metrics.ssim": (metrics.ssim, [THINGS, THINGS]),
    "metrics.fsim": (metrics.fsim, [THINGS, THINGS]),
    "metrics.mse": (metrics.mse, [THINGS, THINGS]),
    "metrics.sparseness": (metrics.sparseness, [THINGS]),
    "metrics.pointing_game": (metrics.pointing_game, [THINGS, THINGS]),
    "metrics.energy_pointing_game": (metrics.energy_pointing_game, [THINGS, THINGS]),
    "metrics.top_pixels": (metrics.top_pixels, [THINGS, THINGS]),
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name,
            marks=pytest.mark.case(f"arguments: `{name}`", "TypeError or ValueError, or a result"),
        )
        for name in FUNCTIONS
    ],
)
@fuzzed
@given(st.data())
def test_functions(name, data):
    function, strategies = FUNCTIONS[name]
    call(data.draw, function, *strategies)


@pytest.mark.case("names for `zoo.load` and `class_index`", "ValueError, with the nearest names")
@settings(fuzzed, max_examples=8)
@given(st.text(max_size=12), st.sampled_from(["", "torchvision/", "timm/", "timm/test_", "/"]))
def test_names(text, prefix):
    if text.strip() and (prefix + text) not in ("timm/test_vit",):
        assert outcome(zoo.load, prefix + text, weights="random") is None
    network = zoo_network()
    index = outcome(network.class_index, text)
    assert index is None or 0 <= index < 1000
    assert outcome(zoo.load, "timm/test_resnet", layer=text or "?", weights="random") is None


@functools.cache
def zoo_network():
    return zoo.load("timm/test_resnet", weights="random")
