"""What timm, torchvision and Hugging Face know of the inputs of a model that the caller built."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from captum_advise._utils.errors import warn_caller
from captum_advise._utils.optional_dependencies import import_optional
from captum_advise._utils.probabilities import softmax_over_classes
from captum_advise.pixels import PixelSpace
from captum_advise.targets import Output
from captum_advise.zoo.families import Inputs, timm_inputs, torchvision_inputs
from captum_advise.zoo.measurement import measure

if TYPE_CHECKING:
    from PIL import Image

# Any weights of torchvision with the usual transform: 256, central 224, the usual normalisation.
_USUAL = "AlexNet_Weights.DEFAULT"


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside ``torch.compile``, ``DataParallel``, PEFT and ``targets.Output``."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
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
        if not isinstance(classifier, Output):
            is_multi_label = config.problem_type == "multi_label_classification"
            confidence = torch.sigmoid if is_multi_label else softmax_over_classes
            classifier = Output(model, confidence=confidence)
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
    count = _parameters_with_1000_classes(model)
    for name in models.list_models(module=models):
        if models.get_model_builder(name).__module__ != type(model).__module__:
            continue
        enum = models.get_model_weights(name)
        for weights in (enum.DEFAULT, *enum):
            if weights.meta["num_params"] == count:
                return torchvision_inputs(weights)
    return replace(torchvision_inputs(models.get_weight(_USUAL)), source="ImageNet's defaults")


def _parameters_with_1000_classes(model: nn.Module) -> int:
    """How many parameters a model has, or had before its last linear layer got other classes."""
    count = sum(parameter.numel() for parameter in model.parameters())
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    if not linear:
        return count
    per_class = linear[-1].in_features + (linear[-1].bias is not None)
    return count + per_class * (1000 - linear[-1].out_features)


def processed(processor: Any, image: Image.Image) -> Tensor:
    """What an image processor of Hugging Face makes of an image: (C, H, W)."""
    pixels: Tensor = processor(images=image, return_tensors="pt")["pixel_values"][0]
    return pixels


def _processor(model: Any) -> tuple[Any, str]:
    """The image processor of the model's checkpoint if it is here, or that of its family."""
    auto = import_optional("transformers.models.auto.image_processing_auto")
    checkpoint = model.config._name_or_path
    if checkpoint:
        try:
            processor = auto.AutoImageProcessor.from_pretrained(checkpoint, local_files_only=True)
        # What a missing configuration raises depends on the version.
        except (OSError, ValueError):
            pass
        else:
            return processor, f"the image processor of {checkpoint}"
    try:
        classes = auto.IMAGE_PROCESSOR_MAPPING[type(model.config)]
    except KeyError:
        raise ValueError(
            f"Transformers has no image processor for {type(model).__name__}, and only image "
            "classifiers can be explained: if it is one, pass transform, such as "
            "AutoImageProcessor.from_pretrained(...)."
        ) from None
    # Versions before 5 have a pair: one for PIL, and one for tensors, which may be missing.
    known = classes if isinstance(classes, dict) else {"pil": classes[0], "torchvision": classes[1]}
    cls = known.get("torchvision") or known["pil"]
    size = getattr(model.config, "image_size", None)
    processor = cls()
    if isinstance(size, int):
        sizes = {key: processor.to_dict().get(key) for key in ("size", "crop_size")}
        processor = cls(**{key: dict.fromkeys(old, size) for key, old in sizes.items() if old})
    warn_caller(
        f"The checkpoint of this {type(model).__name__} has no image processor on this machine, so "
        f"{cls.__name__} is used with its default mean and std, which may not be those of the "
        "training: pass transform=AutoImageProcessor.from_pretrained(...)."
    )
    return processor, f"{cls.__name__} with its default settings"
