"""Maps from attention, against formulas computed in another way: timm's unfused attention."""

from __future__ import annotations

from functools import partial

import pytest
import timm
import torch
from method_names import OF_ATTENTION
from torch import nn
from torch.nn import functional

from captum_advise.evaluation import Context, get_methods
from captum_advise.evaluation.methods.layers import find_layers

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
CLASSES = torch.tensor([2, 4])
HEADS = 2
SETTINGS = {
    "img_size": 32, "patch_size": 8, "embed_dim": 12, "depth": 3, "num_heads": HEADS,
    "num_classes": 5,
}  # fmt: skip
# The model, how many tokens precede the patches, and from which tokens it reads.
CASES = {
    "class token": ("vit_tiny_patch16_224", {}, 1, [0]),
    "two tokens": ("deit_tiny_distilled_patch16_224", {}, 2, [0, 1]),
    "registers": ("vit_small_patch14_reg4_dinov2", {}, 5, [0]),
    "mean of patches": (
        "vit_tiny_patch16_224", {"class_token": False, "global_pool": "avg"}, 0, list(range(16)),
    ),
    "normalised queries": ("vit_tiny_patch16_224", {"qk_norm": True}, 1, [0]),
}  # fmt: skip


class Case:
    """A network, and what runs in it, seen by hooks on the parts of timm's attention."""

    def __init__(self, name):
        architecture, options, self.n_prefix, self.read = CASES[name]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            self.model = timm.create_model(architecture, **SETTINGS, **options).eval()
            for parameter in self.model.parameters():
                nn.init.normal_(parameter, std=0.4)

    def run(self, inputs):
        """Per block: weights, scores, tokens before attention, and the block's output; scores."""
        seen = {key: [] for key in ("weights", "scores", "tokens", "outputs")}

        def scores_of(attention, given, _output):
            # As timm's attention computes them.
            n, t, _ = given[0].shape
            query, key, _ = attention.qkv(given[0]).view(n, t, 3, HEADS, -1).unbind(2)
            query, key = attention.q_norm(query), attention.k_norm(key)
            seen["scores"].append(torch.einsum("nqhd,nkhd->nhqk", query, key) * attention.scale)

        hooks = []
        for block in self.model.blocks:
            block.attn.fused_attn = False
            hooks += [
                block.attn.attn_drop.register_forward_hook(
                    lambda _m, _i, output: seen["weights"].append(output)
                ),
                block.attn.register_forward_hook(scores_of),
                block.norm1.register_forward_hook(
                    lambda _m, _i, output: seen["tokens"].append(output)
                ),
                block.register_forward_hook(lambda _m, _i, output: seen["outputs"].append(output)),
            ]
        outputs = self.model(inputs)
        for hook in hooks:
            hook.remove()
        for block in self.model.blocks:
            block.attn.fused_attn = True
        return seen, outputs.gather(1, CLASSES[:, None]).sum()

    def map(self, rows):
        """Relevance of pairs (N, T, T) as a map of the patches, averaged over the rows read."""
        return rows[:, self.read, self.n_prefix :].mean(1).reshape(2, 1, 4, 4)


@pytest.fixture(params=CASES)
def case(request):
    return Case(request.param)


@pytest.fixture
def inputs():
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(2))


def maps_of(name, model, inputs):
    method = get_methods([name])[name]
    assert find_layers(model, model, method.layers, inputs).name == "attention"
    return method(model, model, inputs, CLASSES, Context())


same = partial(torch.testing.assert_close, atol=1e-6, rtol=1e-3)


def test_attention_rollout_is_a_product_of_attention_with_skips(case, inputs):
    seen, _ = case.run(inputs)
    rows = []
    for image in range(2):
        product = torch.eye(seen["weights"][0].shape[-1])
        for weights in seen["weights"]:
            product = (sum(weights[image]) / HEADS / 2 + torch.eye(len(product)) / 2) @ product
        rows.append(product.detach())
    same(maps_of("attention-rollout", case.model, inputs), case.map(torch.stack(rows)))


def test_generic_attention_is_its_recursion(case, inputs):
    seen, score = case.run(inputs)
    gradients = torch.autograd.grad(score, seen["weights"])
    rows = []
    for image in range(2):
        relevance = torch.eye(gradients[0].shape[-1])
        for weights, gradient in zip(seen["weights"], gradients, strict=True):
            heads = [(weights[image, h] * gradient[image, h]).clamp(min=0) for h in range(HEADS)]
            relevance = relevance + sum(heads) / HEADS @ relevance
        rows.append(relevance.detach())
    same(maps_of("generic-attention", case.model, inputs), case.map(torch.stack(rows)))


def test_attention_guided_cam_is_its_sum(case, inputs):
    seen, score = case.run(inputs)
    gradients = torch.autograd.grad(score, seen["weights"])
    total = torch.zeros_like(gradients[0][:, 0])
    for scores, gradient in zip(seen["scores"], gradients, strict=True):
        for head in range(HEADS):
            total += torch.sigmoid(scores[:, head]) * gradient[:, head].clamp(min=0)
    same(maps_of("attention-guided-cam", case.model, inputs), case.map(total.detach()))


def test_cdam_is_gradient_times_token_before_the_last_attention(case, inputs):
    seen, score = case.run(inputs)
    tokens = seen["tokens"][-1]
    (gradient,) = torch.autograd.grad(score, tokens)
    relevance = torch.einsum("ntc,ntc->nt", tokens, gradient)[:, case.n_prefix :]
    same(maps_of("cdam", case.model, inputs), relevance.reshape(2, 1, 4, 4).detach())


def test_legrad_is_the_gradient_of_the_class_score_of_each_block(case, inputs):
    seen, _ = case.run(inputs)
    model, total = case.model, 0
    for weights, output in zip(seen["weights"], seen["outputs"], strict=True):
        mean = model.norm(output.mean(1))
        # Heads of timm after pooling.
        mean = model.fc_norm(mean)
        logits = model.head(mean)
        if hasattr(model, "head_dist"):
            logits = (logits + model.head_dist(mean)) / 2
        score = logits.gather(1, CLASSES[:, None]).sum()
        (gradient,) = torch.autograd.grad(score, weights, retain_graph=True)
        total = total + gradient.clamp(min=0).mean((1, 2))[:, case.n_prefix :]
    same(maps_of("legrad", case.model, inputs), total.reshape(2, 1, 4, 4))


@pytest.mark.parametrize("name", OF_ATTENTION)
def test_fused_or_not_the_model_and_torch_stay_as_they_are(name, inputs):
    case = Case("class token")
    before = {key: value.clone() for key, value in case.model.state_dict().items()}
    original = functional.scaled_dot_product_attention
    maps = maps_of(name, case.model, inputs)
    assert not maps.requires_grad
    assert maps.any()
    for block in case.model.blocks:
        block.attn.fused_attn = False
    same(maps_of(name, case.model.requires_grad_(False), inputs), maps)
    assert functional.scaled_dot_product_attention is original
    for module in case.model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert not getattr(module, "fused_attn", False)
    assert all(torch.equal(value, before[key]) for key, value in case.model.state_dict().items())
    # Both together give what each gives alone.
    alone = [
        get_methods([name])[name](case.model, case.model, inputs[i : i + 1], CLASSES[i : i + 1],
                                  Context())
        for i in range(2)
    ]  # fmt: skip
    same(torch.cat(alone), maps)


def test_other_packages_attention_is_seen_too(inputs):
    torchvision = pytest.importorskip("torchvision.models")
    transformers = pytest.importorskip("transformers")
    options = dict(  # noqa: C408
        image_size=32, patch_size=8, hidden_size=12, num_hidden_layers=3, num_attention_heads=2,
        intermediate_size=24, num_labels=5, attn_implementation="sdpa",
    )  # fmt: skip
    hugging_face, eager = (
        transformers.ViTForImageClassification(transformers.ViTConfig(**options)).eval()
        for _ in range(2)
    )
    eager.load_state_dict(hugging_face.state_dict())
    eager.set_attn_implementation("eager")
    weights = eager(inputs, output_attentions=True).attentions
    product = torch.eye(17)
    for one in weights:
        product = (one.mean(1) + torch.eye(17)) / 2 @ product
    expected = product[:, 0, 1:].reshape(2, 1, 4, 4).detach()

    class Logits(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, images):
            return self.model(images).logits

    same(maps_of("attention-rollout", Logits(hugging_face), inputs), expected)
    with pytest.raises(ValueError, match='attn_implementation="sdpa"'):
        maps_of("attention-rollout", Logits(eager), inputs)
    vit = torchvision.VisionTransformer(
        image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=12, mlp_dim=24,
        num_classes=5,
    ).eval()  # fmt: skip
    nn.init.normal_(vit.heads[0].weight)
    tokens = []
    hook = vit.encoder.layers[-1].ln_1.register_forward_hook(lambda _m, _i, out: tokens.append(out))
    score = vit(inputs).gather(1, CLASSES[:, None]).sum()
    hook.remove()
    (gradient,) = torch.autograd.grad(score, tokens)
    relevance = (gradient * tokens[0]).sum(2)[:, 1:].reshape(2, 1, 4, 4).detach()
    same(maps_of("cdam", vit, inputs), relevance)


def test_attention_in_windows_is_refused(inputs):
    swin = timm.create_model(
        "swin_tiny_patch4_window7_224", num_classes=5, depths=(1, 1), num_heads=(2, 2),
        img_size=32, patch_size=4, window_size=4, embed_dim=8,
    ).eval()  # fmt: skip
    with pytest.raises(ValueError, match="of all patches to all patches"):
        find_layers(swin, swin.norm, "attention", inputs)
    with pytest.raises(ValueError, match="it needs attention"):
        find_layers(nn.Sequential(nn.Flatten(), nn.Linear(3072, 5)), swin.norm, "attention", inputs)


def test_attention_of_patches_with_a_border_has_no_grid():
    # 1 + 4 x 9 patches of 32 x 66 pixels: the last column is cut. 6 x 6 would be another grid.
    options = {"dynamic_img_size": True, "dynamic_img_pad": True}
    model = timm.create_model("vit_tiny_patch16_224", **SETTINGS, **options).eval()
    method = get_methods(["generic-attention"])["generic-attention"]
    with pytest.raises(ValueError, match="all patches"):
        method(model, model.blocks[-1], torch.rand(1, 3, 32, 66), CLASSES[:1], Context())
