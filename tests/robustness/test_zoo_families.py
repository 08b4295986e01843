"""Networks of torchvision and timm"""

import pytest
import torch

from captum_advise import LayerAdvise, zoo
from captum_advise.layouts import Tokens
from captum_advise.zoo.layer_probe import probe
from captum_advise.zoo.registry import architectures

# One small member of each family: the layer that the default rule finds, its layout.
TORCHVISION = {
    "alexnet": "avgpool",
    "convnext_tiny": "features",
    "densenet121": "features",
    "efficientnet_b0": "features",
    "efficientnet_v2_s": "features",
    "googlenet": "inception5b",
    "inception_v3": "Mixed_7c",
    "maxvit_t": "blocks.3",
    "mnasnet0_5": "layers",
    "mobilenet_v2": "features",
    "mobilenet_v3_small": "features",
    "regnet_x_400mf": "trunk_output",
    "regnet_y_400mf": "trunk_output",
    "resnet18": "layer4",
    "resnext50_32x4d": "layer4",
    "shufflenet_v2_x0_5": "conv5",
    "squeezenet1_1": "classifier.2",
    "swin_t": "permute",
    "swin_v2_t": "permute",
    "vgg11": "avgpool",
    "vgg11_bn": "avgpool",
    "wide_resnet50_2": "layer4",
}
PLAIN, LAST, TOKENS = "N x C x H x W", "N x H x W x C", "N x tokens x C"
TIMM = {
    "test_byobnet": ("final_conv", PLAIN),
    "test_coatnet": ("norm", PLAIN),
    "test_convnext": ("norm_pre", PLAIN),
    "test_efficientnet": ("bn2", PLAIN),
    "test_mambaout": ("stages", LAST),
    "test_maxvit": ("norm", PLAIN),
    "test_nfnet": ("final_act", PLAIN),
    "test_resnet": ("layer4", PLAIN),
    "test_vit": ("blocks.5.norm1", TOKENS),
    "beit_base_patch16_224": ("blocks.11.norm2", TOKENS),
    "caformer_s18": ("stages", PLAIN),
    "cait_xxs24_224": ("blocks_token_only.1.norm1", TOKENS),
    "coat_lite_mini": ("serial_blocks4.1.norm1", TOKENS),
    "convit_tiny": ("blocks.11.norm1", TOKENS),
    "convnext_atto": ("norm_pre", PLAIN),
    "davit_tiny": ("norm_pre", PLAIN),
    "deit_tiny_distilled_patch16_224": ("blocks.11.norm1", TOKENS),
    "efficientformer_l1": ("norm", TOKENS),
    "eva02_tiny_patch14_224": ("blocks.11.norm2", TOKENS),
    "focalnet_tiny_srf": ("norm", PLAIN),
    "gcvit_xxtiny": ("stages", PLAIN),
    "gmlp_ti16_224": ("norm", TOKENS),
    "hiera_tiny_224": ("blocks.11.norm2", TOKENS),
    "mambaout_femto": ("stages", LAST),
    "mixer_s32_224": ("norm", TOKENS),
    "mvitv2_tiny": ("norm", TOKENS),
    "nest_tiny": ("norm", LAST),
    "nextvit_small": ("norm", PLAIN),
    "pit_ti_224": ("transformers.2.blocks.3.norm1", TOKENS),
    "poolformer_s12": ("stages", PLAIN),
    "pvt_v2_b0": ("stages", PLAIN),
    "sequencer2d_s": ("norm", LAST),
    "swiftformer_xs": ("norm", PLAIN),
    "swin_tiny_patch4_window7_224": ("norm", LAST),
    "swinv2_tiny_window8_256": ("norm", LAST),
    "tiny_vit_5m_224": ("stages", PLAIN),
    "tnt_s_patch16_224": ("blocks.11.norm_out", TOKENS),
    "twins_svt_small": ("norm", TOKENS),
    "visformer_tiny": ("norm", PLAIN),
    "volo_d1_224": ("post_network.1.norm1", TOKENS),
    "xcit_nano_12_p16_224": ("cls_attn_blocks.1.norm1", TOKENS),
}
QUICK = {
    "mnasnet0_5",
    "mobilenet_v3_small",
    "shufflenet_v2_x0_5",
    "squeezenet1_1",
    *(name for name in TIMM if name.startswith("test_")),
}


def member(family, name, layer, layout):
    case = pytest.mark.case(f"{family}/{name} `{layer}`", layout)
    marks = [case] if name in QUICK else [case, pytest.mark.slow]
    return pytest.param(f"{family}/{name}", layer, layout, marks=marks, id=name)


def by_hand(network, inputs):
    """Grad-CAM of the layer, without Captum and without ``reshape_transform``."""
    outputs = []
    handle = network.layer.register_forward_hook(
        lambda _module, _inputs, output: outputs.append(output) or output.clone()
    )
    logits = network.model(inputs)
    handle.remove()
    (gradient,) = torch.autograd.grad(logits.amax(1).sum(), outputs[0])
    values = [outputs[0].detach(), gradient]
    if values[0].dim() == 3:  # tokens: the patches are the last ones
        side = int(values[0].shape[1] ** 0.5)
        values = [v[:, -side * side :].mT.unflatten(2, (side, side)) for v in values]
    elif isinstance(network.reshape_transform, type(lambda: None)):
        values = [v.permute(0, 3, 1, 2) for v in values]
    features, gradient = values
    return (gradient.mean((2, 3), keepdim=True) * features).sum(1, keepdim=True)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "layer", "layout"),
    [
        *(member("torchvision", name, layer, PLAIN) for name, layer in TORCHVISION.items()),
        *(member("timm", name, *expected) for name, expected in TIMM.items()),
    ],
)
def test_family(name, layer, layout, told):
    family, _, architecture = name.partition("/")
    if architecture not in architectures(family):
        pytest.skip("not in this version")
    network = zoo.load(name, weights="random")
    assert network.layer_name == layer
    size = network.transform(_grey()).shape[-2:]
    inputs = torch.rand(1, 3, *size)
    advise = LayerAdvise(
        network.model,
        network.layer,
        pixel_space=network.pixel_space,
        reshape_transform=network.reshape_transform,
    )
    attributions = advise.attribute(inputs, unit_selection=None)
    expected = by_hand(network, inputs)
    scale = expected.abs().max().item()
    torch.testing.assert_close(attributions, expected, rtol=1e-3, atol=1e-4 * scale)
    assert (network.reshape_transform is None) == (layout == PLAIN)
    side = attributions.shape[-1]
    assert attributions.shape == (1, 1, side, side)
    explanation = advise.explain(inputs, unit_selection=1)
    assert explanation.attributions.isfinite().all()
    assert explanation.metrics.avx.isfinite().all()
    advise.attribute(inputs)
    assert told == []


def _grey():
    from PIL import Image

    return Image.new("L", (300, 300), 128)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.case(
    "every other ImageNet classifier of torchvision", "the default rule finds a layer; finite maps"
)
@pytest.mark.parametrize("name", [n for n in architectures("torchvision") if n not in TORCHVISION])
def test_every_member(name, told):
    network = zoo.load(f"torchvision/{name}", weights="random")
    inputs = torch.rand(1, 3, *network.transform(_grey()).shape[-2:])
    advise = LayerAdvise(network.model, network.layer, reshape_transform=network.reshape_transform)
    attributions = advise.attribute(inputs, unit_selection=None)
    assert attributions.shape[-1] > 1
    assert attributions.isfinite().all()
    units = advise.unit_relevance(inputs) if attributions[0, 0].numel() <= 200 else None
    assert units is None or (units >= 0).all()
    assert told == []


@pytest.mark.case(
    "vision transformer of torchvision",
    "`encoder.layers.encoder_layer_11.ln_1`, N x tokens x C",
)
@pytest.mark.filterwarnings("ignore")
def test_tokens_of_torchvision():
    from torchvision.models import VisionTransformer

    model = VisionTransformer(64, 16, 12, 2, 16, 32, num_classes=10).eval()
    assert not model.heads.head.weight.any()
    result = probe(model, (3, 64, 64), "vit")
    assert not model.heads.head.weight.any()
    assert result.layer == "encoder.layers.encoder_layer_11.ln_1"
    assert result.layouts[result.layer] == Tokens(1, (4, 4))
