"""Settings in which a plausible, wrong result came without a word."""

from __future__ import annotations

import functools
import itertools

import numpy as np
import pytest
import timm
import torch
import torchvision
from captum.attr import LayerGradCam
from messages import one_sentence, said
from torch import nn
from toy_networks import Apply, Net, images, network

from captum_advise import GatedGradCam, LayerAdvise, PixelSpace, explain, targets
from captum_advise._utils.randomness import unsteady
from captum_advise.layouts import Tokens
from captum_advise.metrics import deletion_auc, insertion_auc, mu_fidelity, road

SPACE = PixelSpace.identity()


# --- inputs and pixel space


@pytest.mark.case(
    "normalised inputs without `pixel_space`",
    "one warning that names `PixelSpace.imagenet()` where masks need black, else none",
)
@pytest.mark.filterwarnings("ignore:.* no group")
def test_normalised_inputs_without_a_pixel_space():
    net, inputs = network(), PixelSpace.imagenet().from_pixels(images())
    advise, kept = LayerAdvise(net, net.layer), PixelSpace.imagenet()
    gated = GatedGradCam(net, [net.stem, net.layer])
    for call in (
        lambda: advise.attribute(inputs, 1),
        lambda: advise.explain(inputs, 1),
        lambda: advise.explain(inputs, 1, with_metrics=False),
        lambda: advise.attribute(inputs, 1, unit_selection="average_drop"),
        lambda: gated.attribute(inputs, 1, n_occlusions=4),
    ):
        (message,) = said(call)
        assert "hold values from -2." in message
        assert "PixelSpace.imagenet()" in message
    known = LayerAdvise(net, net.layer, pixel_space=kept)
    for call in (
        lambda: advise.attribute(images(), 1),
        lambda: advise.attribute(images() - 0.05, 1),  # resized by bicubic interpolation
        lambda: advise.attribute(inputs, 1, unit_selection=None),
        lambda: advise.attribute(inputs, 1, unit_selection=1),
        lambda: advise.explain(inputs, 1, unit_selection=1),
        lambda: advise.attribute(inputs, 1, unit_selection="average_drop", baselines=0),
        lambda: known.attribute(inputs, 1),
        lambda: gated.attribute(inputs, 1),
    ):
        assert said(call) == []


@pytest.mark.case(
    "layer of a transformer after its last attention",
    "a map of zero, with one warning that says to name a layer before it",
)
def test_patches_after_the_last_attention():
    net = timm.create_model("test_vit", num_classes=5).eval()
    inputs, tokens = images(1, height=160, width=160), Tokens(1)
    late = LayerAdvise(net, net.blocks[-1].norm2, pixel_space=SPACE, reshape_transform=tokens)
    (message,) = said(lambda: late.attribute(inputs, 1))
    assert "name a layer before it" in message
    early = LayerAdvise(net, net.blocks[-1].norm1, pixel_space=SPACE, reshape_transform=tokens)
    assert not any(
        "name a layer" in message for message in said(lambda: early.attribute(inputs, 1))
    )


# --- a layer that runs several times


class Siamese(nn.Module):
    """Two images go through one encoder."""

    def __init__(self):
        super().__init__()
        self.encoder = network()
        self.head = nn.Linear(14, 5)

    def forward(self, first, second):
        return self.head(torch.cat([self.encoder(first), self.encoder(second)], 1))


@pytest.mark.case(
    "layer that runs twice (two images through one encoder, augmentation)",
    "the last run with one warning; `layer_run` chooses; the image that the run saw is masked",
)
@pytest.mark.filterwarnings("ignore:.* no group")
def test_runs_of_a_layer():
    net = network(Siamese).eval()
    first, second = images(2), images(4)[2:]
    layer = net.encoder.layer
    (message,) = said(
        lambda: LayerAdvise(net, layer).attribute((first, second), 1, unit_selection=None)
    )
    assert "The layer ran 2 times" in message
    assert "layer_run" in message

    (message,) = said(lambda: LayerAdvise(net, layer).unit_relevance((first, second)))
    assert "The layer ran 2 times" in message

    def of_run(run, inputs, selection):
        advise = LayerAdvise(net, layer, layer_run=run, pixel_space=SPACE)
        return advise.attribute(inputs, 1, unit_selection=selection)

    # The map of an image is that of a network in which the other image's features are fixed.
    # One example at a time, so that masked images of one example go with the same features.
    for run, index, selection in itertools.product(
        (0, 1), (0, 1), (None, 1, "avx", "average_drop")
    ):
        both = (first[index : index + 1], second[index : index + 1])
        with torch.no_grad():
            features = [net.encoder(image) for image in both]

        def fixed(x, run=run, features=features):
            parts = [of_image.expand(len(x), -1) for of_image in features]
            parts[run] = net.encoder(x)
            return net.head(torch.cat(parts, 1))

        alone = LayerAdvise(fixed, layer, pixel_space=SPACE)
        expected = alone.attribute(both[run], 1, unit_selection=selection)
        torch.testing.assert_close(of_run(run, both, selection), expected)
    assert torch.equal(of_run(-1, (first, second), None), of_run(1, (first, second), None))
    with pytest.raises(ValueError, match="layer_run must be from 0 to 1, got 2"):
        of_run(2, (first, second), None)
    with pytest.raises(TypeError, match="layer_run must be an int"):
        LayerAdvise(net, layer, layer_run="first")


def test_runs_of_layers_of_gated_grad_cam():
    net, inputs = network(), images()

    def flipped(x):
        return (net(x) + net(x.flip(-1))) / 2

    layers = [net.stem, net.layer]

    def gated(run):
        return GatedGradCam(flipped, layers, layer_run=run).attribute(inputs, 1)

    assert any("ran 2 times" in text for text in said(lambda: gated(None)))
    expected = GatedGradCam(net, layers).attribute(inputs, 1)
    torch.testing.assert_close(gated(0), expected)
    assert not torch.allclose(gated(1), expected)


# --- randomness


@pytest.mark.case(
    "training mode: stochastic depth, DropPath, LSTM dropout, RReLU, a model inside a function",
    "one warning that names the modules",
)
def test_modes_that_make_results_random():
    net = torchvision.models.resnet18()
    for forward_func in (net, lambda x: net(x), functools.partial(net), net.forward):
        (message,) = said(lambda f=forward_func: LayerAdvise(f, net.layer4).unit_relevance(X))
        assert "training mode" in message
        assert "BatchNorm2d" in message
    random = {
        "StochasticDepth": torchvision.models.convnext_tiny(),
        "DropPath": timm.create_model("test_convnext", drop_path_rate=0.1),
        "RReLU": nn.Sequential(nn.RReLU()),
        "LSTM": nn.LSTM(2, 3, 2, dropout=0.5),
        "_SpectralNorm": nn.utils.parametrizations.spectral_norm(nn.Conv2d(3, 4, 3)),
    }
    for name, model in random.items():
        assert name in unsteady(model)
        assert name in unsteady(lambda x, model=model: model(x))
        assert unsteady(model.eval()) is None
    # As a hook, it changes its vectors in training mode.
    model = nn.Sequential(nn.utils.spectral_norm(nn.Conv2d(3, 4, 3)))
    assert "Conv2d" in unsteady(model)
    assert unsteady(model.eval()) is None


X = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.case("functional dropout in evaluation mode", "one warning: outputs differ")
def test_models_that_are_random_in_evaluation_mode():
    class Sampling(type(network())):
        def forward(self, x):
            return nn.functional.dropout(super().forward(x), 0.5, training=True)

    net = Sampling().eval()
    advise, gated = LayerAdvise(net, net.layer), GatedGradCam(net, [net.stem, net.layer])
    for call in (
        lambda: advise.attribute(X, 1),
        lambda: advise.attribute(X, 1, unit_selection=None),
        lambda: advise.explain(X, 1),
        lambda: gated.attribute(X, 1),
    ):
        (message,) = (text for text in said(call) if "evaluation mode" in text)
        assert "its outputs differ from pass to pass" in message
    of_metric = torch.rand(2, 1, 64, 64), torch.ones(2, dtype=torch.int64)
    for metric in (insertion_auc, deletion_auc, road, mu_fidelity):
        (message,) = said(lambda metric=metric: metric(net, X, *of_metric))
        assert "its outputs differ from pass to pass" in message

    class Seeded(Sampling):
        def forward(self, x):
            torch.manual_seed(0)
            return super().forward(x)

    seeded = Seeded().eval()
    assert not any(
        "evaluation" in m for m in said(lambda: LayerAdvise(seeded, seeded.layer).attribute(X, 1))
    )
    assert said(lambda: road(seeded, X, *of_metric)) == []


@pytest.mark.case("quantised model, whose modules keep the mode of training", "no such warning")
@pytest.mark.filterwarnings("ignore")
def test_quantised_modules_have_no_mode():
    quantization = pytest.importorskip("torch.ao.quantization")
    layers = [nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.5)]
    net = quantization.QuantWrapper(nn.Sequential(*layers)).eval()
    net.qconfig = quantization.get_default_qconfig(torch.backends.quantized.engine)
    prepared = quantization.prepare(net)
    prepared(images())
    static = quantization.convert(prepared)
    assert static(images()).equal(static(images()))
    assert any(module.training for module in static.modules())
    assert unsteady(static) is None


@pytest.mark.case("training mode without anything random", "no warning")
@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Conv2d(3, 3, 3), nn.Dropout(0.0), nn.LSTM(3, 3), nn.InstanceNorm2d(3)),
        nn.TransformerEncoderLayer(8, 2, dropout=0.0, batch_first=True),
        Apply(torch.relu),
    ],
    ids=["usual layers", "transformer", "own module"],
)
def test_modes_that_change_nothing(model):
    assert unsteady(model.train()) is None
    assert unsteady(torch.relu) is None


@pytest.mark.case(
    "batch norm without running statistics, in evaluation mode",
    "one warning: results depend on the batch",
)
def test_batch_norm_without_statistics():
    net = network()
    net.norm = nn.BatchNorm2d(6, track_running_stats=False).eval()
    (message,) = said(lambda: LayerAdvise(net, net.layer).attribute(images(), unit_selection=1))
    assert "depend on the other images" in message
    net.norm = nn.InstanceNorm2d(6).eval()
    assert said(lambda: LayerAdvise(net, net.layer).unit_relevance(images())) == []


# --- grids of tokens


class TokensOf(nn.Module):
    """Patches of 16, a class token, and a head on their mean."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 16, stride=16)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = self.norm(torch.cat([tokens.mean(1, keepdim=True), tokens], 1))
        return self.head(tokens.relu().mean(1))


@pytest.mark.case(
    "tokens of an image of 144 x 256 (a square number of patches), `Tokens(1)`",
    "the 9 x 16 grid of the image",
)
def test_token_grids_have_the_aspect_of_the_image():
    net = network(TokensOf)
    for height, width in ((144, 256), (256, 144), (64, 64), (32, 128), (48, 80)):
        grid = (height // 16, width // 16)
        inputs = torch.rand(2, 3, height, width)
        given = LayerAdvise(net, net.norm, reshape_transform=Tokens(1, grid))
        found = LayerAdvise(net, net.norm, reshape_transform=Tokens(1))
        expected = given.attribute(inputs, 1, unit_selection=None)
        assert expected.shape[2:] == grid
        assert torch.equal(found.attribute(inputs, 1, unit_selection=None), expected)


@pytest.mark.case("`Tokens` with rows and columns exchanged", "one warning that names both shapes")
def test_exchanged_rows_and_columns():
    net = network(TokensOf)
    advise = LayerAdvise(net, net.norm, reshape_transform=Tokens(1, (16, 9)))
    inputs = torch.rand(1, 3, 144, 256)
    (message,) = said(lambda: advise.attribute(inputs, 1, unit_selection=None))
    assert "maps of 16 x 9 for images of 144 x 256" in message


@pytest.mark.case("attention weights taken as feature maps", "one warning")
def test_attention_weights():
    net = network(Net, Apply(lambda x: x))
    net.attention = Apply(lambda x: x)
    weights = Apply(lambda x: torch.einsum("nchw,nchv->ncwv", x, x).softmax(3))

    class Attending(nn.Module):
        def __init__(self):
            super().__init__()
            self.weights = weights

        def forward(self, x):
            return self.weights(x).flatten(1)[:, :5]

    model = Attending()
    messages = said(lambda: LayerAdvise(model, weights).attribute(images(), 1, unit_selection=None))
    assert any("attention weights" in message for message in messages)
    assert said(lambda: LayerAdvise(net, net.layer).attribute(images(), unit_selection=None)) == []


# --- confidence


@pytest.mark.case(
    "wrapper of `captum_advise.targets` with a confidence of its own",
    "it is the default of every class",
)
def test_the_confidence_of_a_wrapper_is_the_default():
    net = network()
    wrapped = targets.Output(net, confidence=torch.sigmoid)
    expected = net(images()).sigmoid().detach()[:, 2]
    explanation = LayerAdvise(wrapped, net.layer).explain(images(), 2)
    torch.testing.assert_close(explanation.confidence, expected)
    layers = [net.stem, net.layer]
    given = GatedGradCam(net, layers, confidence=torch.sigmoid)
    found = GatedGradCam(wrapped, layers)
    assert torch.equal(
        found.attribute(images(), 2, n_occlusions=8), given.attribute(images(), 2, n_occlusions=8)
    )
    softmax = GatedGradCam(net, layers).attribute(images(), 2, n_occlusions=8)
    assert not torch.allclose(found.attribute(images(), 2, n_occlusions=8), softmax)


@pytest.mark.case(
    "model whose outputs all lie in [0, 1] and do not sum to 1", "one warning that asks"
)
def test_scores_that_may_be_probabilities():
    net = nn.Sequential(network(), nn.Sigmoid())
    layer = net[0].layer
    (message,) = said(lambda: LayerAdvise(net, layer).explain(images()))
    assert "All outputs lie in [0, 1]" in message
    for confidence in (nn.Identity(), lambda outputs: outputs.softmax(1)):
        advise = LayerAdvise(net, layer, confidence=confidence)
        assert said(lambda advise=advise: advise.explain(images())) == []


@pytest.mark.parametrize("n_classes", [2, 5])
@pytest.mark.filterwarnings("ignore:.* no (group|evidence)")
def test_few_scores_that_may_be_probabilities(n_classes):
    """One image, and a model for a few labels."""
    net = network(classes=n_classes)
    model = nn.Sequential(net, nn.Sigmoid())
    gated = GatedGradCam(model, [net.stem, net.layer], pixel_space=SPACE)
    for call in (
        lambda: LayerAdvise(model, net.layer, pixel_space=SPACE).explain(images(1), 1),
        lambda: LayerAdvise(model, net.layer, pixel_space=SPACE).attribute(images(1), 1),
        lambda: gated.attribute(images(1), 1, n_occlusions=4),
        lambda: explain(images(1), model, 1, layer=net.layer, pixel_space=SPACE),
    ):
        (message,) = [one for one in said(call) if "confidence" in one]
        assert "All outputs lie in [0, 1]" in message


# --- arguments and inputs that do not belong to the examples


class Prompted(nn.Module):
    """Scores of images for T prompts, N x T."""

    def __init__(self):
        super().__init__()
        self.encoder = network()

    def forward(self, x, prompts):
        return self.encoder(x) @ prompts.T


@pytest.mark.case(
    "two images and two prompts in `additional_forward_args`",
    "ValueError: bind this argument in a function",
)
@pytest.mark.parametrize("internal_batch_size", [1, 2, 8])
def test_arguments_with_as_many_rows_as_examples(internal_batch_size):
    net = network(Prompted)
    prompts = torch.randn(2, 7, generator=torch.Generator().manual_seed(1))
    options = {"internal_batch_size": internal_batch_size}
    for selection in ("avx", "average_drop"):
        with pytest.raises(ValueError, match="Bind it in a function"):
            LayerAdvise(net, net.encoder.layer).attribute(
                images(2), 1, prompts, unit_selection=selection, **options
            )
    with pytest.raises(ValueError, match="Bind it in a function"):
        GatedGradCam(net, [net.encoder.stem, net.encoder.layer]).attribute(
            images(2), 1, prompts, n_occlusions=4, **options
        )
    bound = LayerAdvise(lambda x: net(x, prompts), net.encoder.layer)
    together = bound.explain(images(2), 1)
    alone = bound.explain(images(2)[1:], 1)
    torch.testing.assert_close(together.metrics.avx[1:], alone.metrics.avx)


@pytest.mark.case(
    "side inputs beside an image: words N x T x F",
    "passed on unchanged; AVX accepts them, because there is one image",
)
def test_side_inputs_are_not_masked():
    class Captioned(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = network()

        def forward(self, image, words):
            return self.encoder(image) * (1 + words.mean((1, 2), keepdim=True)[:, :, 0])

    net = network(Captioned)
    words = torch.rand(3, 6, 9, generator=torch.Generator().manual_seed(2))
    for selection in ("avx", "average_drop"):
        found = LayerAdvise(net, net.encoder.layer).explain(
            (images(), words), 1, unit_selection=selection
        )
        with_argument = LayerAdvise(net, net.encoder.layer).explain(
            images(), 1, words, unit_selection=selection
        )
        assert found.attributions.equal(with_argument.attributions)
        torch.testing.assert_close(found.metrics.average_drop, with_argument.metrics.average_drop)


@pytest.mark.case("model that changes its input in place", "the result of one that does not")
@pytest.mark.filterwarnings("ignore:.*GatedGradCam are zero")
def test_models_that_change_their_inputs():
    plain = network()

    class Changing(Net):
        def forward(self, x):
            return super().forward(x.mul_(2).sub_(1))

    def like(x):
        return plain(x * 2 - 1)

    changing = network(Changing)
    for options in ({}, {"unit_selection": "average_drop"}):
        inputs = images()
        expected = LayerAdvise(like, plain.layer, pixel_space=SPACE).explain(inputs, 1, **options)
        found = LayerAdvise(changing, changing.layer, pixel_space=SPACE)
        explanation = found.explain(inputs, 1, **options)
        assert torch.equal(inputs, images())
        torch.testing.assert_close(explanation.metrics.average_drop, expected.metrics.average_drop)
        torch.testing.assert_close(explanation.attributions, expected.attributions)
    gated = GatedGradCam(changing, [changing.stem, changing.layer], pixel_space=SPACE)
    expected = GatedGradCam(like, [plain.stem, plain.layer], pixel_space=SPACE)
    torch.testing.assert_close(
        gated.attribute(images(), 1, n_occlusions=8),
        expected.attribute(images(), 1, n_occlusions=8),
    )


# --- torch's defaults


@pytest.mark.case("default dtype float64, or a default device other than the model's", "no change")
def test_defaults_of_torch_change_nothing():
    net, inputs = network(), images()
    gated = GatedGradCam(net, [net.stem, net.layer], pixel_space=SPACE)
    advise = LayerAdvise(net, net.layer, pixel_space=SPACE)

    def results():
        explanation = advise.explain(inputs, 1)
        return (
            gated.attribute(inputs, 1, n_occlusions=32),
            explanation.attributions,
            explanation.metrics.avx,
            explanation[0].unit_relevance,
        )

    expected = results()
    try:
        torch.set_default_dtype(torch.float64)
        of_dtype = results()
    finally:
        torch.set_default_dtype(torch.float32)
    try:
        torch.set_default_device("meta")
        of_device = results()
    finally:
        torch.set_default_device(None)
    for found in (of_dtype, of_device):
        assert all(map(torch.equal, found, expected))


# --- targets


@pytest.mark.case(
    "targets by NumPy: numbers, arrays; lists of 0-d tensors", "the same as Python's ints"
)
@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (np.int64(2), 2),
        (np.array(2), 2),
        (np.array([1, 2, 3]), [1, 2, 3]),
        ([np.int32(1), np.int64(2), 3], [1, 2, 3]),
        ([torch.tensor(1), torch.tensor(2), torch.tensor(3)], [1, 2, 3]),
        ((np.int64(2),), (2,)),
    ],
)
def test_targets_in_other_forms(target, expected):
    net = network()
    for selection in ("avx", 1, None):
        advise = LayerAdvise(net, net.layer)
        found = advise.attribute(images(), target, unit_selection=selection)
        assert found.equal(advise.attribute(images(), expected, unit_selection=selection))
    gated = GatedGradCam(net, [net.stem, net.layer])
    assert gated.attribute(images(), target).equal(gated.attribute(images(), expected))


@pytest.mark.case("targets that are not integers", "ValueError: a target tensor holds integers")
@pytest.mark.parametrize("target", [torch.tensor([1.0, 2.0, 3.0]), np.array([0.0, 1.0, 1.0])])
def test_targets_of_floating_point(target):
    net = network()
    with pytest.raises(ValueError, match="A target tensor holds integers"):
        LayerAdvise(net, net.layer).attribute(images(), target)


@pytest.mark.case("mask of a segmentation as the target", "ValueError: use `targets.Segmentation`")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bool])
def test_a_mask_is_no_target(dtype):
    net = network()
    mask = (images()[:, :1] > 0.5).to(dtype)
    with pytest.raises(ValueError, match=r"targets\.Segmentation"):
        LayerAdvise(net, net.layer).attribute(images(), mask)


@pytest.mark.case(
    "`target=1` of a single logit", "ValueError that says how to get the negative one"
)
@pytest.mark.filterwarnings("ignore:.* no group")
def test_the_negative_class_of_a_single_logit():
    net = network(classes=1)
    advise = LayerAdvise(net, net.layer, confidence=torch.sigmoid)
    with pytest.raises(ValueError, match=r"one column, .* lambda inputs: -model\(inputs\)"):
        advise.attribute(images(), 1)
    assert advise.explain(images(), 0).target.tolist() == [0, 0, 0]


# --- layers


@pytest.mark.case(
    "layer whose rows are not the examples (tokens first)",
    "`reshape_transform` may restore the examples",
)
def test_rows_that_are_made_the_examples():
    net = network()

    class TokensFirst(Net):
        def __init__(self):
            super().__init__()
            self.tokens = Apply(lambda x: x.flatten(2).permute(2, 0, 1))

        def forward(self, x):
            tokens = self.tokens(self.features(x))
            return self.head(tokens.relu().mean(0) * 5)

    model = network(TokensFirst)
    restore = LayerAdvise(
        model,
        model.tokens,
        reshape_transform=lambda x: x.permute(1, 2, 0).unflatten(2, (12, 12)),
    )
    for selection in ("avx", 1, None):
        found = restore.attribute(images(), 1, unit_selection=selection)
        expected = LayerAdvise(net, net.layer).attribute(images(), 1, unit_selection=selection)
        torch.testing.assert_close(found, expected)


@pytest.mark.case("a `ModuleList` as the layer", "TypeError: it is never called itself")
def test_a_list_of_modules_is_no_layer():
    with pytest.raises(TypeError, match="ModuleList, which is never called itself"):
        LayerAdvise(network(), nn.ModuleList())


@pytest.mark.case(
    "gradient checkpointing",
    "ValueError: switch it off, where layers run without a graph; else the usual result",
)
@pytest.mark.filterwarnings(
    "ignore:.*use_reentrant", "ignore:None of the inputs have requires_grad"
)
@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing(reentrant):
    class Checkpointed(Net):
        gradient_checkpointing = True

        def features(self, x):
            run = torch.utils.checkpoint.checkpoint
            return run(super().features, x, use_reentrant=reentrant)

    net = network(Checkpointed)
    advise = LayerAdvise(net, net.layer)
    if reentrant:
        with pytest.raises(ValueError, match="gradient checkpointing"):
            advise.attribute(images(), 1)
    else:
        plain = network()
        expected = LayerAdvise(plain, plain.layer).attribute(images(), 1)
        torch.testing.assert_close(advise.attribute(images(), 1), expected)


@pytest.mark.case("inputs of uint8", "ValueError: convert them to floating point")
def test_inputs_of_integers():
    net = network()

    def cast(x):
        return net(x.float() / 255)

    inputs = (images() * 255).to(torch.uint8)
    for selection in ("avx", "average_drop"):
        with pytest.raises(ValueError, match="hold integers: convert them to floating point"):
            LayerAdvise(cast, net.layer).attribute(inputs, 1, unit_selection=selection)
    with pytest.raises(ValueError, match="are of uint8 and the model does not take them"):
        LayerAdvise(net, net.layer).attribute(inputs, 1)
    with pytest.raises(ValueError, match=r"floating point among the inputs, .* torch\.uint8"):
        GatedGradCam(net, [net.stem, net.layer]).attribute(inputs, 1)
    expected = LayerGradCam(cast, net.layer).attribute(inputs, 1)
    found = LayerAdvise(cast, net.layer).attribute(inputs, 1, unit_selection=None)
    assert torch.equal(found, expected)


@pytest.mark.case(
    "side input of no dimension, or empty, with `unit_selection=None`",
    "the result of `LayerGradCam`",
)
@pytest.mark.parametrize("side", [torch.tensor(2.0), torch.zeros(0, 4)], ids=["0-d", "empty"])
def test_side_inputs_without_examples(side):
    net = network()

    def model(x, side):
        return net(x) * (side.sum() + 1)

    expected = LayerGradCam(model, net.layer).attribute((images(), side), 1)
    found = LayerAdvise(model, net.layer).attribute((images(), side), 1, unit_selection=None)
    assert torch.equal(found, expected)
    with pytest.raises(ValueError, match="one row per example"):
        LayerAdvise(model, net.layer).attribute((images(), side), 1)


class Added(nn.Module):
    """Scores of images, to which those of words are added."""

    def __init__(self):
        super().__init__()
        self.encoder, self.words = network(), nn.Linear(4, 7)

    def forward(self, x, words):
        return self.encoder(x) + self.words(words)


@pytest.mark.case(
    "inputs with different numbers of rows", "ValueError that names each input and its rows"
)
@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("selection", ["avx", "average_drop"])
def test_inputs_of_different_rows(rows, selection):
    net = network(Added)
    advise = LayerAdvise(net, net.encoder.layer, pixel_space=SPACE)
    with pytest.raises(ValueError, match=rf"inputs\[0\] 3, inputs\[1\] {rows}\b") as caught:
        advise.attribute((images(), torch.rand(rows, 4)), 1, unit_selection=selection)
    one_sentence(caught)


@pytest.mark.filterwarnings("ignore:.* no group")
@pytest.mark.parametrize("selection", ["avx", "average_drop"])
def test_an_image_among_the_further_arguments_is_not_mistaken_for_an_input(selection):
    net = network(Siamese).eval()
    first, second = images(2), images(4)[2:]
    layer = net.encoder.layer

    def of_run(run, inputs, arguments=None):
        advise = LayerAdvise(net, layer, layer_run=run, pixel_space=SPACE)
        return advise.attribute(inputs, 1, arguments, unit_selection=selection)

    torch.testing.assert_close(of_run(0, first, second), of_run(0, (first, second)))
    with pytest.raises(ValueError, match="sees none of the inputs: pass what it sees"):
        of_run(1, first, second)
    gated = GatedGradCam(net, [net.encoder.stem, layer], layer_run=1, pixel_space=SPACE)
    both = gated.attribute((first, second), 1)
    torch.testing.assert_close(gated.attribute(first, 1, second), both)
    with pytest.raises(ValueError, match="does not see: use n_occlusions=0"):
        gated.attribute(first, 1, second, n_occlusions=4)
