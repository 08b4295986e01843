"""Methods at layers of tokens and channels last, against formulas on the rearranged maps."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import partial

import pandas as pd
import pytest
import timm
import torch
from captum.attr import LayerGradCam
from messages import one_sentence
from method_names import OF_ATTENTION
from quick_runs import QUICK_SETTINGS
from torch import nn
from torchvision.transforms import v2

from captum_advise import LayerAdvise, PixelSpace, cli, zoo
from captum_advise.evaluation import (
    ClassMaps,
    Context,
    MetricSettings,
    evaluate,
    get_methods,
    list_methods,
    randomize_parameters,
)
from captum_advise.evaluation.methods.layer_views import LayerViews
from captum_advise.evaluation.methods.layers import find_layers
from captum_advise.evaluation.methods.registry import as_method
from captum_advise.layouts import Tokens
from captum_advise.pixels import normalize_maps
from captum_advise.targets import Output

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
CLASSES = torch.tensor([2, 4])


@dataclass
class Case:
    """A small network, its layer, and how to rearrange the layer by hand: (N, C, 4, 4)."""

    model: nn.Module
    layer: str
    n_prefix: int | None  # None: channels last

    @property
    def module(self):
        return self.model.get_submodule(self.layer)

    def maps(self, tensor):
        if self.n_prefix is None:
            return tensor.permute(0, 3, 1, 2)
        patches = tensor[:, self.n_prefix :]
        return torch.stack([patches[:, i * 4 : i * 4 + 4] for i in range(4)], 1).permute(0, 3, 1, 2)

    def ablated(self, tensor, unit):
        tensor = tensor.clone()
        tensor[:, self.n_prefix or 0 :, ..., unit] = 0
        return tensor

    def run(self, inputs, change=torch.positive):
        """The layer's output, which ``change`` may replace, and the class scores."""
        seen = []

        def hook(_module, _inputs, output):
            seen.append(change(output))
            return seen[-1]

        with self.module.register_forward_hook(hook):
            scores = self.model(inputs)
        return seen[0], scores

    def activations_and_gradients(self, inputs, score=None):
        output, scores = self.run(inputs)
        chosen = scores.gather(1, CLASSES[:, None]) if score is None else score(scores)
        (gradient,) = torch.autograd.grad(chosen.sum(), output)
        return self.maps(output).detach(), self.maps(gradient)


def _vit(name, **options):
    settings = {"img_size": 32, "patch_size": 8, "embed_dim": 12, "depth": 3, "num_heads": 2}
    return timm.create_model(name, num_classes=5, **settings, **options)


def _swin():
    settings = {"img_size": 32, "patch_size": 4, "window_size": 4, "embed_dim": 8}
    return timm.create_model(
        "swin_tiny_patch4_window7_224", num_classes=5, depths=(1, 1), num_heads=(2, 2), **settings
    )


def _hugging_face():
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        image_size=32, patch_size=8, hidden_size=12, num_hidden_layers=3, num_attention_heads=2,
        intermediate_size=24, num_labels=5,
    )  # fmt: skip
    return Output(transformers.ViTForImageClassification(config))


CASES = {
    "ViT": (partial(_vit, "vit_tiny_patch16_224"), "blocks.2.norm1", 1),
    "DeiT, distilled": (partial(_vit, "deit_tiny_distilled_patch16_224"), "blocks.2.norm1", 2),
    "DINOv2 with registers": (partial(_vit, "vit_small_patch14_reg4_dinov2"), "blocks.2.norm1", 5),
    "Swin": (_swin, "norm", None),
    "Hugging Face ViT": (_hugging_face, "model.vit.layers.2.layernorm_before", 1),
}


@pytest.fixture(params=CASES)
def case(request):
    make, layer, n_prefix = CASES[request.param]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = make().eval()
        for parameter in model.parameters():  # so that classes, units and tokens differ
            nn.init.normal_(parameter, std=0.3)
    return Case(model, layer, n_prefix)


@pytest.fixture
def inputs():
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(2))


def maps_of(case, name, inputs):
    method = get_methods([name], QUICK_SETTINGS)[name]
    found = find_layers(case.model, case.module, method.layers, inputs)
    assert found.name == case.layer
    layer, transforms = found.modules[-1], found.reshape_transforms
    result = method(
        case.model, layer, inputs, CLASSES, Context(layers=(layer,), reshape_transforms=transforms)
    )
    return (result.maps if isinstance(result, ClassMaps) else result), result


def test_maps_are_those_of_formulas(case, inputs):
    a, g = case.activations_and_gradients(inputs)
    assert a.shape[2:] == (4, 4)
    share = (g * a).sum((2, 3), keepdim=True) / a.sum((2, 3), keepdim=True)
    squares = g.relu() / (2 + a.sum((2, 3), keepdim=True) * g.relu())
    expected = {
        "grad-cam": (g.mean((2, 3), keepdim=True) * a).sum(1, keepdim=True),
        "layer-gradient-x-activation": g * a,
        "hirescam": g * a,
        "grad-cam++": (squares.sum((2, 3), keepdim=True) * a).sum(1, keepdim=True).relu(),
        "layer-cam": (g.relu() * a).sum(1, keepdim=True).relu(),
        "xgrad-cam": (share * a).sum(1, keepdim=True).relu(),
    }
    for name, formula in expected.items():
        torch.testing.assert_close(
            maps_of(case, name, inputs)[0], formula, atol=1e-5, rtol=1e-3, msg=name
        )
    maps, _ = maps_of(case, "eigen-cam", inputs)
    for image, found in zip(a.double(), maps, strict=True):
        units = image.flatten(1)
        component = torch.linalg.eigh(units @ units.T).eigenvectors[:, -1] @ units
        component = component * component.sum().sign()
        torch.testing.assert_close(found.flatten().double(), component, atol=1e-4, rtol=1e-3)


def test_ablations_leave_class_tokens_as_they_are(case, inputs):
    tokens, scores = case.run(inputs)
    a = case.maps(tokens)
    lost = torch.stack(
        [
            scores - case.run(inputs, partial(case.ablated, unit=unit))[1]
            for unit in range(a.shape[1])
        ],
        1,
    )
    maps, result = maps_of(case, "ablation-cam", inputs)
    for classes, found in ((CLASSES, maps), (CLASSES - 1, result.of_class(CLASSES - 1))):
        weights = lost[torch.arange(2), :, classes][..., None, None]
        expected = (weights * a).sum(1, keepdim=True).relu().detach()
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-3)


def test_second_derivatives_pass_fused_attention(case, inputs):
    tokens, _ = case.run(inputs)
    tokens = tokens.detach().requires_grad_()
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        _, scores = case.run(inputs, lambda _output: tokens)
        score = (scores + scores.log_softmax(1)).gather(1, CLASSES[:, None]).sum()
        (g,) = torch.autograd.grad(score, tokens, create_graph=True)
        a = case.maps(tokens.detach())
        (hessian_times_a,) = torch.autograd.grad(case.maps(g), tokens, a)
    weights = (case.maps(g) - case.maps(hessian_times_a) / 2).mean((2, 3), keepdim=True)
    expected = (weights * a).sum(1, keepdim=True).relu().detach()
    maps, _ = maps_of(case, "shapley-cam", inputs)
    torch.testing.assert_close(maps, normalize_maps(expected), atol=1e-4, rtol=1e-2)


def test_layer_advise_gets_the_layout(case, inputs):
    advise = LayerAdvise(case.model, case.module, reshape_transform=case.maps)
    maps, result = maps_of(case, "layer-advise", inputs)
    explanation = advise.explain(inputs, CLASSES)
    torch.testing.assert_close(maps, explanation.attributions)
    own = advise.attribute(inputs, CLASSES - 1, attr_dim_summation=False, unit_selection=None)
    weights = explanation.selected_units[..., None, None]
    of_others = (own.detach() * weights).sum(1, keepdim=True)
    torch.testing.assert_close(result.of_class(CLASSES - 1), of_others)


@pytest.mark.parametrize("name", ["ScoreCAM", "SSCAM", "LayerCAM"])
def test_classes_of_torchcam_are_what_its_own_argument_gives(name, case, inputs):
    extractor = getattr(pytest.importorskip("torchcam.methods"), name)
    context = Context(layers=(case.module,), reshape_transforms=(case.maps,))
    torch.manual_seed(0)
    maps = as_method(extractor)(case.model, case.module, inputs, CLASSES, context)
    try:
        made = extractor(case.model, case.module, reshape_transform=case.maps)
    except TypeError:
        pytest.skip("This version of TorchCAM knows no layouts.")
    with made as cam:
        torch.manual_seed(0)
        scores = case.model(inputs.clone().requires_grad_())
        (peers,) = cam(CLASSES.tolist(), scores, normalized=False)
    torch.testing.assert_close(maps[:, 0], peers.detach(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["GradCAM", "EigenGradCAM", "LayerCAM"])
def test_classes_of_pytorch_grad_cam_are_what_its_own_argument_gives(name, case, inputs):
    cam_class = getattr(pytest.importorskip("pytorch_grad_cam"), name)
    context = Context(layers=(case.module,), reshape_transforms=(case.maps,))
    maps = as_method(cam_class)(case.model, case.module, inputs, CLASSES, context)
    # A copy, because the package detaches in place what it gets.
    own = cam_class(case.model, [case.module], lambda tensor: case.maps(tensor).clone())
    targets = importlib.import_module("pytorch_grad_cam.utils.model_targets")
    peers = own(inputs, [targets.ClassifierOutputTarget(label) for label in CLASSES.tolist()])
    torch.testing.assert_close(maps[:, 0], torch.from_numpy(peers), atol=1e-5, rtol=1e-4)


def test_a_view_leaves_outputs_gradients_and_the_model_as_they_are(case, inputs):
    views = LayerViews(case.model, [case.module], [case.maps])
    (view,) = views.layers
    assert torch.equal(views(inputs), case.model(inputs))
    seen = {}
    view.register_forward_hook(lambda _module, given, _output: seen.update(maps=given[0]))
    tokens, _ = case.run(inputs)
    (gradient,) = torch.autograd.grad(views(inputs)[:, 2].sum(), seen["maps"])
    assert torch.equal(seen["maps"], case.maps(tokens))
    tokens, scores = case.run(inputs)
    (expected,) = torch.autograd.grad(scores[:, 2].sum(), tokens)
    torch.testing.assert_close(gradient, case.maps(expected))
    assert not any(module._forward_hooks for module in case.model.modules())


def test_every_method_that_can_is_evaluated(case, inputs, tmp_path):
    dataset = [(image, int(label)) for image, label in zip(inputs, CLASSES, strict=True)]
    names = [name for name in list_methods() if not name.startswith("gated-grad-cam")]
    if case.n_prefix is None:  # attention in windows
        names = [name for name in names if name not in OF_ATTENTION]
    found = evaluate(
        case.model,
        case.module,
        dataset,
        get_methods(names, QUICK_SETTINGS),
        tmp_path,
        metrics=["sparseness", "avx"],
        settings=MetricSettings(steps=1),
        progress=False,
    )
    assert not len(found.failures)
    assert found.results["sparseness"].notna().all()
    layers = found.results.groupby("method")["layer"].first()
    assert set(layers[["grad-cam", "ablation-cam", "score-cam"]]) == {case.layer}


@pytest.fixture
def vit():
    make, layer, n_prefix = CASES["ViT"]
    return Case(make().eval(), layer, n_prefix)


def test_a_layout_of_the_caller_s_own_is_used(vit, inputs, tmp_path):
    def transposed(tensor):
        return vit.maps(tensor).transpose(2, 3)

    maps = {}

    def keep(model, layer, images, target, context):
        maps["own"] = context.reshape_transforms
        return images

    evaluate(
        vit.model, vit.module, [(inputs[0], 2)], {"mine": keep, "grad-cam": LayerGradCam}, tmp_path,
        metrics=["sparseness"], reshape_transform=transposed, progress=False,
    )  # fmt: skip
    assert maps["own"] == (transposed,)
    # Rows under another layout are other rows.
    again = evaluate(
        vit.model, vit.module, [(inputs[0], 2)], {"grad-cam": LayerGradCam}, tmp_path,
        metrics=["sparseness"], progress=False,
    )  # fmt: skip
    assert again.reasons == {"the layout changed": 1}


def complaint(methods, vit, layer, inputs, folder):
    """The sentence with which both tools refuse, before the first image."""
    module = vit.model.get_submodule(layer)
    options = {"metrics": ["sparseness"], "progress": False}
    with pytest.raises(ValueError, match="cannot be run") as error:
        evaluate(vit.model, module, [(inputs[0], 2)], methods, folder, **options)
    one_sentence(error)
    assert not (folder / "results.csv").exists()
    return str(error.value)


def test_what_cannot_explain_a_layer_says_so_by_name(vit, inputs, tmp_path):
    gated = get_methods(["random", "gated-grad-cam"])
    sentence = complaint(gated, vit, vit.layer, inputs, tmp_path)
    assert sentence.startswith(
        "The method gated-grad-cam cannot be run: GatedGradCam needs a layer with twice the "
        "resolution of blocks.2.norm1"
    )
    with pytest.raises(ValueError, match="method gated-grad-cam cannot be run: GatedGradCam needs"):
        randomize_parameters(gated, vit.model, vit.layer, inputs, CLASSES)


def test_tokens_that_are_no_grid_of_the_image_are_refused(inputs, tmp_path):
    class Queries(nn.Module):
        def __init__(self):
            super().__init__()
            self.tokens, self.head = nn.Linear(64, 8), nn.Linear(8, 5)

        def forward(self, images):
            return self.head(self.tokens(images.reshape(len(images), 48, 64)).mean(1))

    network = Queries().eval()
    case = Case(network, "tokens", 0)
    sentence = complaint(["grad-cam"], case, "tokens", inputs, tmp_path)
    assert "tokens returns tokens that are not a grid of the image's aspect: give" in sentence
    found = evaluate(
        network, network.tokens, [(inputs[0], 2)], ["grad-cam"], tmp_path,
        metrics=["sparseness"], reshape_transform=Tokens(0, (6, 8)), progress=False,
    )  # fmt: skip
    assert found.computed == 1


def test_randomised_transformers(case, inputs):
    methods = get_methods(["layer-advise", "grad-cam", "layer-cam", "ablation-cam"])
    found = randomize_parameters(methods, case.model, case.layer, inputs, CLASSES)
    a, g = case.activations_and_gradients(inputs)
    expected = (g.mean((2, 3), keepdim=True) * a).sum(1, keepdim=True)
    torch.testing.assert_close(found.original["grad-cam"], expected.detach(), atol=1e-5, rtol=1e-3)
    for name in methods:
        assert all(maps.shape == (2, 1, 4, 4) for maps in found.maps[name])
        assert not torch.allclose(found.maps[name][-1], found.original[name])


@pytest.fixture
def small_vit(monkeypatch):
    """In place of the zoo's, whose maps take seconds."""
    resize = v2.Compose([v2.Resize((32, 32)), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
    model = CASES["ViT"][0]().eval()
    network = zoo.describe(model, transform=resize, pixel_space=PixelSpace.identity())
    monkeypatch.setattr(zoo, "load", lambda *_arguments, **_options: network)
    return network


def test_the_commands_run_on_a_transformer(small_vit, photos, tmp_path, capsys):
    report = tmp_path / "report"
    command = ["evaluate", "--data", photos, "--output", report, "--steps", "1"]
    assert cli.main(list(map(str, command))) == 0
    assert "gated-grad-cam is left out: " in " ".join(capsys.readouterr().err.split())
    methods = pd.read_csv(report / "results.csv")["method"].unique()
    assert methods.tolist() == ["layer-advise", "grad-cam", "random", "gaussian"]
    assert cli.main([*map(str, command), "--methods", "gated-grad-cam"]) == 2
    assert "error: The method gated-grad-cam cannot be run: " in capsys.readouterr().err
    photo = next(photos.iterdir())
    sanity = ["sanity", photo, "--output", tmp_path / "checks"]
    assert cli.main(list(map(str, sanity))) == 0
    assert (tmp_path / "checks" / "sanity.csv").exists()
