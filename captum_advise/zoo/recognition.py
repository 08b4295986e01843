"""What timm, torchvision and Hugging Face know of a model's inputs, and what is measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from captum_advise._utils.optional_dependencies import import_optional
from captum_advise.pixels import PixelSpace
from captum_advise.targets import Output

if TYPE_CHECKING:
    from PIL import Image

# Any weights of torchvision with the usual transform: 256, central 224, the usual normalisation.
_USUAL = "AlexNet_Weights.DEFAULT"
# What wraps a model and returns what it returns.
_AROUND = (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)
# As a share of the range from black to white; 8-bit images are exact to half of 1/255.
_TOLERANCE = 0.02


@dataclass(frozen=True)
class Inputs:
    """How images become inputs of a model."""

    transform: Callable[[Image.Image], Tensor]  # RGB image to (C, H, W)
    shape: tuple[int, int, int]  # (C, H, W)
    pixel_space: PixelSpace
    source: str  # where the transform comes from, in a few words


def unwrapped(model: nn.Module) -> nn.Module:
    """The model in ``torch.compile``, ``DataParallel``, averages, PEFT and ``targets.Output``."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if isinstance(model, _AROUND):
            inner = model.module
        elif isinstance(model, Output):
            inner = model.model
        elif callable(base := getattr(model, "get_base_model", None)):  # adapters are its layers
            inner = base()
        elif type(model).__module__.startswith("peft."):
            inner = model._modules.get("base_model") or model._modules.get("model")
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def check_head(model: nn.Module, name: str) -> None:
    """Refuse a model of a known family without its head: features would pass for class scores."""
    brand, last = family(model), next(reversed(list(model.children())), None)
    if (
        (brand == "torchvision" and isinstance(last, nn.Identity))
        or (brand == "timm" and getattr(model, "num_classes", None) == 0)
        or (brand == "transformers" and type(model).__name__.endswith("Model"))
    ):
        raise ValueError(
            f"{name} has no classification head: it returns features, not class scores (N, K); "
            "build it with one."
        )


def family(model: nn.Module) -> str | None:
    """``"timm"``, ``"torchvision"`` or ``"transformers"`` by the model's class, else None."""
    packages = [cls.__module__.partition(".")[0] for cls in type(model).__mro__]
    known = ("timm", "torchvision", "transformers")
    return next((package for package in packages if package in known), None)


def classifier_of(model: nn.Module) -> tuple[nn.Module, tuple[str, ...] | None]:
    """The model as a function to class scores, and its class names where it brings them.

    A ``targets.Output`` stays what it is.
    """
    classifier, model = model, unwrapped(model)
    config: Any
    if family(model) == "transformers":
        config = model.config
        classifier = classifier if isinstance(classifier, Output) else Output(model)
        names: dict[int, str] = getattr(config, "id2label", None) or {}
        is_named = any(name != f"LABEL_{index}" for index, name in names.items())
        return classifier, tuple(names[i] for i in range(len(names))) if is_named else None
    config = getattr(model, "pretrained_cfg", None) or {}
    labels = config.get("label_names") if isinstance(config, dict) else None
    classifier = classifier if isinstance(classifier, Output) else model
    return classifier, tuple(labels) if labels else None


def recognize(model: nn.Module, pixel_space: PixelSpace | None) -> Inputs | None:
    """The inputs of a model of timm, torchvision or Hugging Face; None for any other model.

    The pixel space of an image processor is measured, unless it is known. A model of one channel
    gets grey images.
    """
    found = family(model)
    if found == "torchvision":
        inputs = _torchvision(model)
    elif found == "transformers":
        processor, source = _processor(model)
        transform = partial(processed, processor)
        inputs = Inputs(transform, *measure(transform, pixel_space), source)
    # Models that others register with timm have a data configuration, too.
    elif found == "timm" or hasattr(model, "pretrained_cfg"):
        inputs = timm_inputs(model)
    else:
        return None
    first = next((layer for layer in model.modules() if isinstance(layer, nn.Conv2d)), None)
    return _grey(inputs) if first is not None and first.in_channels == 1 else inputs


def _grey(inputs: Inputs) -> Inputs:
    """Grey images through a transform for colours, and the mean of the channels."""
    space = inputs.pixel_space
    scale = sum(1 / std for std in space.std)
    mean = sum(mean / std for mean, std in zip(space.mean, space.std, strict=True)) / scale
    return Inputs(
        transform=partial(_grey_input, inputs.transform),
        shape=(1, *inputs.shape[1:]),
        pixel_space=PixelSpace((mean,), (len(space.std) / scale,)),
        source=f"{inputs.source}, of grey images",
    )


def _grey_input(transform: Callable[[Image.Image], Tensor], image: Image.Image) -> Tensor:
    return transform(image.convert("L").convert("RGB")).mean(0, keepdim=True)


def _torchvision(model: nn.Module) -> Inputs:
    models = import_optional("torchvision.models", "zoo")
    counts, module = _parameter_counts(model), type(model).__module__
    names = models.list_models(module=models)
    names = [name for name in names if models.get_model_builder(name).__module__ == module]
    for name in names:
        enum = models.get_model_weights(name)
        for weights in (enum.DEFAULT, *enum):
            if weights.meta["num_params"] in counts:
                return torchvision_inputs(weights)
    return replace(torchvision_inputs(models.get_weight(_USUAL)), source="ImageNet's defaults")


def _parameter_counts(model: nn.Module) -> set[int]:
    """How many parameters a model with 1000 classes has, whatever linear layers its head got."""
    count = sum(parameter.numel() for parameter in model.parameters())
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    if not linear:
        return {count}
    # Those of auxiliary heads, too.
    heads = [one for one in linear if one.out_features == linear[-1].out_features]
    missing = [
        (one.in_features + (one.bias is not None)) * (1000 - one.out_features) for one in heads
    ]
    *_, last = model.children()
    own = [module for module in last.modules() if isinstance(module, nn.Linear)] or linear[-1:]
    of_head = sum(parameter.numel() for one in own for parameter in one.parameters())
    whole = count - of_head + 1000 * (own[0].in_features + 1)
    return {count + missing[-1], count + sum(missing), whole}


def torchvision_inputs(weights: Any) -> Inputs:
    """What weights of torchvision, an enum's member, say about inputs."""
    preset = weights.transforms()
    shape = (3, preset.crop_size[0], preset.crop_size[0])
    space = PixelSpace(preset.mean, preset.std)
    return Inputs(preset, shape, space, f"torchvision's transform for {weights}")


def timm_inputs(model: nn.Module) -> Inputs:
    """What the data configuration of a model of timm says about inputs."""
    data = import_optional("timm.data", "zoo")
    config = data.resolve_model_data_config(model)
    source = "timm's data configuration of the model"
    if not getattr(model, "pretrained_cfg", None):
        source = "timm's defaults, as the model has no data configuration"
    space = PixelSpace(config["mean"], config["std"])
    return Inputs(data.create_transform(**config), config["input_size"], space, source)


def processed(processor: Any, image: Image.Image) -> Tensor:
    """What an image processor of Hugging Face makes of an image: (C, H, W)."""
    pixels: Tensor = processor(images=image, return_tensors="pt")["pixel_values"][0]
    return pixels


def _processor(model: Any) -> tuple[Any, str]:
    """The image processor of the model's checkpoint, if it is on this machine."""
    auto = import_optional("transformers.models.auto.image_processing_auto")
    checkpoint = model.config._name_or_path
    try:
        processor = auto.AutoImageProcessor.from_pretrained(checkpoint, local_files_only=True)
    # What a missing configuration raises depends on the version.
    except (OSError, ValueError) as error:
        raise ValueError(
            f"The checkpoint of this {type(model).__name__} has no image processor on this "
            "machine, and only image classifiers can be explained: if it is one, pass transform, "
            "such as AutoImageProcessor.from_pretrained(...)."
        ) from error
    return processor, f"the image processor of {checkpoint}"


def measure(
    transform: Callable[[Image.Image], Any], pixel_space: PixelSpace | None = None
) -> tuple[tuple[int, int, int], PixelSpace]:
    """The shape (C, H, W) of a transform's results, and how they relate to images in [0, 1].

    Images of one colour go through it: black, dark grey, white and red. Where grey is not where
    black and white say, as after a normalisation of each image by itself, it is a ValueError.
    """
    pil = import_optional("PIL.Image", "zoo")
    colours = ((0, 0, 0), (51, 51, 51), (255, 255, 255), (255, 0, 0))
    results = [transform(pil.new("RGB", (256, 256), colour)) for colour in colours]
    first = results[0]
    if not isinstance(first, Tensor) or first.dim() != 3:
        raise ValueError(
            "The transform must turn a PIL image into a tensor (3, H, W), got "
            f"{tuple(first.shape) if isinstance(first, Tensor) else type(first).__name__}."
        )
    channels, height, width = first.shape
    if pixel_space is not None:
        return (channels, height, width), pixel_space
    # In double precision, and in the middle: borders may be padding.
    black, grey, white, red = (
        result[:, height // 2, width // 2].to("cpu", torch.float64) for result in results
    )
    span = white - black
    is_linear = (span > 0) & (((grey - black) / span - 0.2).abs() < _TOLERANCE)
    if not is_linear.all():
        raise ValueError(
            "The transform does not map black, grey and white onto a line, so it is not known how "
            "the model's inputs relate to pixels: pass pixel_space, which is "
            "PixelSpace.identity() for inputs in [0, 1]."
        )
    # Six digits: inputs in single precision have no more.
    mean, std = (
        tuple(float(f"{value:.6g}") + 0.0 for value in values)
        for values in (-black / span, 1 / span)
    )
    redness = (red - black) / span
    is_bgr = channels == 3 and bool(redness[2] > redness[0] + _TOLERANCE)
    return (channels, height, width), PixelSpace(mean, std, is_bgr)
