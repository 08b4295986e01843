"""Class scores of a region."""

import pytest
import torch
import torch.nn.functional as F
from captum.attr import IntegratedGradients, LayerGradCam, Occlusion
from hypothesis import given, settings
from hypothesis import strategies as st
from messages import one_sentence
from torch import nn
from toy_networks import images, network

from captum_advise import LayerAdvise
from captum_advise.evaluation import evaluate
from captum_advise.targets import Segmentation

# A random network may hold no evidence for a class.
pytestmark = pytest.mark.filterwarnings("ignore:.*no group of units:UserWarning")


class Segmenter(nn.Module):
    """Class scores N x K x H/2 x W/2, from the layer's twelve units."""

    def __init__(self, dims=2, classes=4):
        super().__init__()
        convolution = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[dims]
        self.layer = convolution(3, 12, 3, stride=2, padding=1)
        self.head = convolution(12, classes, 1)

    def forward(self, x):
        return self.head(self.layer(x).relu())


def halves(n=3, height=24, width=24):
    """The left half of the first image, the upper half of the others."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    left, upper = columns < width // 2, rows < height // 2
    return torch.stack([left] + [upper] * (n - 1))


def enlarged(scores, size=(24, 24)):
    return F.interpolate(scores, size, mode="bilinear", align_corners=False)


def pixel(point, size):
    mask = torch.zeros(size)
    mask[point] = 1
    return mask


def test_mean_over_a_region():
    model, inputs, regions = network(Segmenter), images(), halves()
    scores = enlarged(model(inputs))
    expected = torch.stack([s[:, r].mean(1) for s, r in zip(scores, regions, strict=True)])
    torch.testing.assert_close(Segmentation(model)(inputs, regions), expected)
    # One region for all.
    shared = Segmentation(model, regions[0])
    torch.testing.assert_close(shared(inputs), scores[:, :, regions[0]].mean(2))
    torch.testing.assert_close(shared(inputs, regions[:1]), shared(inputs))
    torch.testing.assert_close(shared(inputs, regions), expected)
    torch.testing.assert_close(Segmentation(model)(inputs), model(inputs).mean((2, 3)))


def test_weights():
    model, inputs = network(Segmenter), images()
    weights = torch.rand(24, 24)
    scores = enlarged(model(inputs))
    expected = (scores * weights).sum((2, 3)) / weights.sum()
    torch.testing.assert_close(Segmentation(model, weights)(inputs), expected)
    torch.testing.assert_close(Segmentation(model, 255 * weights)(inputs), expected)
    integers = torch.randint(0, 256, (24, 24), dtype=torch.uint8)
    torch.testing.assert_close(
        Segmentation(model, integers)(inputs), Segmentation(model, integers.float())(inputs)
    )


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_signals_and_volumes(dims):
    model, size = network(Segmenter, dims), (8, 10, 12)[:dims]
    inputs, point = torch.rand(2, 3, *size), (1,) * dims
    segmentation = Segmentation(model, pixel(point, size))
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[dims]
    scores = F.interpolate(model(inputs), size, mode=mode, align_corners=False)
    torch.testing.assert_close(segmentation(inputs), scores[(..., *point)])
    advise = LayerAdvise(segmentation, model.layer, confidence=segmentation.confidence)
    maps = advise.attribute(inputs, 2, unit_selection="average_drop")
    assert maps.shape == (2, 1, *model.layer(inputs).shape[2:])


def test_the_gradient_is_that_of_the_mean():
    model, inputs, regions = network(Segmenter), images(), halves()

    def by_hand(x):
        return (enlarged(model(x))[:, 2] * regions).sum((1, 2)) / regions.sum((1, 2))

    torch.testing.assert_close(
        LayerGradCam(Segmentation(model), model.layer).attribute(
            inputs, target=2, additional_forward_args=regions
        ),
        LayerGradCam(by_hand, model.layer).attribute(inputs),
    )


@pytest.mark.parametrize("unit_selection", ["avx", "average_drop", 0, None])
def test_layer_advise_keeps_the_region_of_each_image(unit_selection):
    model, inputs = network(Segmenter), images()
    segmentation = Segmentation(model)
    advise = LayerAdvise(segmentation, model.layer, confidence=segmentation.confidence)

    def explain(examples):
        return advise.explain(
            inputs[examples], 1, halves()[examples], unit_selection=unit_selection
        )

    together = explain(slice(0, 3))
    for image in range(3):
        alone = explain(slice(image, image + 1))
        torch.testing.assert_close(together.attributions[image], alone.attributions[0])
        torch.testing.assert_close(together.confidence[image], alone.confidence[0])


@settings(max_examples=8)
@given(n_steps=st.integers(2, 6), per_pass=st.integers(1, 5))
def test_captum_keeps_the_region_of_each_image(n_steps, per_pass):
    model, inputs, regions = network(Segmenter), images(height=12, width=12), halves(3, 12, 12)
    segmentation = Segmentation(model)
    gradients, occlusion = IntegratedGradients(segmentation), Occlusion(segmentation)
    window = {"sliding_window_shapes": (3, 4, 4), "strides": (3, 4, 4)}
    for image in range(3):
        one = slice(image, image + 1)
        torch.testing.assert_close(
            gradients.attribute(inputs, target=1, additional_forward_args=regions, n_steps=n_steps)[
                one
            ],
            gradients.attribute(
                inputs[one], target=1, additional_forward_args=regions[one], n_steps=n_steps
            ),
        )
        torch.testing.assert_close(
            occlusion.attribute(
                inputs,
                target=1,
                additional_forward_args=regions,
                perturbations_per_eval=per_pass,
                **window,
            )[one],
            occlusion.attribute(
                inputs[one], target=1, additional_forward_args=regions[one], **window
            ),
        )


def test_predicted_region():
    model, inputs = network(Segmenter), images()
    segmentation = Segmentation(model)
    classes = enlarged(model(inputs)).argmax(1)
    common = classes.flatten(1).mode(1).values
    regions = segmentation.predicted_region(inputs, common)
    assert torch.equal(regions, classes == common[:, None, None])
    one = int(common[0])
    assert torch.equal(segmentation.predicted_region(inputs[:1], one), classes[:1] == one)


@pytest.mark.parametrize("sigmoid", [torch.sigmoid, F.sigmoid, nn.Sigmoid()])
@pytest.mark.parametrize("classes", [1, 4])
def test_predicted_region_of_independent_classes(classes, sigmoid):
    model, inputs, target = network(Segmenter, classes=classes), images(), classes - 1
    with torch.no_grad():
        model.head.bias[target] -= model(inputs)[:, target].mean()
    segmentation = Segmentation(model, confidence=sigmoid)
    region = segmentation.predicted_region(inputs, target)
    assert torch.equal(region, enlarged(model(inputs))[:, target] > 0)
    advise = LayerAdvise(segmentation, model.layer, confidence=segmentation.confidence)
    assert advise.attribute(inputs, target, region).shape == (len(inputs), 1, 12, 12)


def test_half_precision_does_not_overflow():
    model, inputs = network(Segmenter), images(height=300, width=300).bfloat16()
    scores = Segmentation(model.bfloat16(), torch.ones(300, 300) * 255)(inputs)
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores, model(inputs).float().mean((2, 3)), atol=1e-2, rtol=1e-2)


def test_evaluate(tmp_path):
    model, dataset = network(Segmenter), [(image, 1) for image in images(2)]

    def run(region):
        segmentation = Segmentation(model, region)
        return evaluate(
            segmentation,
            model.layer,
            dataset,
            ["layer-advise", "grad-cam"],
            tmp_path,
            confidence=segmentation.confidence,
            progress=False,
        )

    evaluation = run(halves()[0])
    assert len(evaluation.results) == 4
    assert evaluation.failures.empty
    scores = enlarged(model(torch.stack([image for image, _ in dataset])))[..., halves()[0]].mean(2)
    expected = scores.softmax(1)[:, 1].detach().repeat_interleave(2)
    torch.testing.assert_close(
        torch.tensor(evaluation.results["confidence"].values).float(), expected
    )
    # The region is part of what a row depends on.
    other = run(halves()[1])
    assert (other.computed, other.reused) == (4, 0)
    assert not other.results["confidence"].equals(evaluation.results["confidence"])
    assert run(halves()[0]).reused == 4


TORCHVISION = [
    ("deeplabv3_mobilenet_v3_large", "backbone.16"),
    ("lraspp_mobilenet_v3_large", "backbone.16"),
    pytest.param("fcn_resnet50", "backbone.layer4", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("name", "layer_name"), TORCHVISION)
def test_torchvision(name, layer_name):
    models = pytest.importorskip("torchvision.models.segmentation")
    model = getattr(models, name)(weights=None, weights_backbone=None, num_classes=5).eval()
    inputs, layer = images(2, height=64, width=64), model.get_submodule(layer_name)
    segmentation = Segmentation(model, pixel((30, 40), (64, 64)))
    torch.testing.assert_close(segmentation(inputs), model(inputs)["out"][:, :, 30, 40])
    advise = LayerAdvise(segmentation, layer, confidence=segmentation.confidence)
    assert advise.explain(inputs).metrics.avx.shape == (2,)
    grad_cam = LayerGradCam(segmentation, layer).attribute(inputs, target=3)
    by_index = LayerGradCam(lambda x: model(x)["out"], layer).attribute(inputs, (3, 30, 40))
    torch.testing.assert_close(grad_cam, by_index)


def test_hugging_face():
    transformers = pytest.importorskip("transformers")
    config = transformers.SegformerConfig(
        num_encoder_blocks=2,
        depths=[1, 1],
        sr_ratios=[2, 1],
        hidden_sizes=[8, 16],
        patch_sizes=[7, 3],
        strides=[4, 2],
        num_attention_heads=[1, 2],
        mlp_ratios=[2, 2],
        decoder_hidden_size=16,
        num_labels=4,
    )
    model = transformers.SegformerForSemanticSegmentation(config).eval()
    inputs = images(2, height=64, width=64)
    logits = enlarged(model(pixel_values=inputs).logits, (64, 64))
    region = pixel((9, 50), (64, 64))
    torch.testing.assert_close(Segmentation(model, region)(inputs), logits[:, :, 9, 50])


REGIONS = {
    "empty": (torch.zeros(24, 24), "at least one pixel"),
    "negative": (torch.full((24, 24), -1.0), "at least zero"),
    "infinite": (torch.full((24, 24), float("inf")), "finite"),
    "another size": (torch.ones(12, 12), r"size \(24, 24\).*got \(1, 12, 12\)"),
    "batched": (torch.ones(3, 24, 24), r"got \(1, 3, 24, 24\)"),
}


@pytest.mark.parametrize(("region", "text"), REGIONS.values(), ids=REGIONS)
def test_regions_that_do_not_fit(region, text):
    with pytest.raises(ValueError, match=text) as raised:
        Segmentation(network(Segmenter), region)(images())
    one_sentence(raised)


def test_regions_of_the_images_that_do_not_fit():
    segmentation = Segmentation(network(Segmenter))
    with pytest.raises(ValueError, match=r"\(2, 24, 24\) for 3 images") as raised:
        segmentation(images(), torch.ones(2, 24, 24))
    one_sentence(raised)
    one_is_empty = halves()
    one_is_empty[1] = False
    with pytest.raises(ValueError, match="at least one pixel") as raised:
        segmentation(images(), one_is_empty)
    one_sentence(raised)
    for region in ([1, 2], halves().numpy()):
        with pytest.raises(TypeError, match="region must be a real tensor, got") as raised:
            Segmentation(network(Segmenter), region)
        one_sentence(raised)
        with pytest.raises(TypeError, match="region must be a real tensor, got"):
            segmentation(images(), region)


def test_targets_that_match_nothing():
    model, inputs = network(Segmenter), images()
    with torch.no_grad():
        model.head.bias[2] = -1e3
    segmentation = Segmentation(model)
    found = sorted(set(enlarged(model(inputs))[0].argmax(0).flatten().tolist()))
    with pytest.raises(ValueError, match="no pixel of image 0 to class 2") as raised:
        segmentation.predicted_region(inputs, 2)
    assert ", ".join(map(str, found)) in one_sentence(raised)
    for target in (4, -1, torch.tensor([0, 1, 9]), 1.5):
        with pytest.raises(ValueError, match="classes from 0 to 3") as raised:
            segmentation.predicted_region(inputs, target)
        one_sentence(raised)
    for classes in (1, 4):
        model = network(Segmenter, classes=classes)
        with torch.no_grad():
            model.head.bias[:] = -1e3
        with pytest.raises(ValueError, match="no pixel of image 0 to class 0") as raised:
            Segmentation(model, confidence=torch.sigmoid).predicted_region(inputs, 0)
        assert "assigns them" not in one_sentence(raised)


def test_outputs_without_classes():
    for model in (lambda x: x.mean(1), lambda x: x.mean((2, 3))):
        with pytest.raises(ValueError, match="class scores N x K") as raised:
            Segmentation(model)(images())
        one_sentence(raised)
