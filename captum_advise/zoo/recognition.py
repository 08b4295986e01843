"""What timm, torchvision and Hugging Face know of the inputs of a model that the caller built."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from captum_advise._utils.optional_dependencies import import_optional
from captum_advise.pixels import PixelSpace
from captum_advise.zoo.families import Parts, timm_parts, torchvision_parts

if TYPE_CHECKING:
    from PIL import Image

# Any weights of torchvision with the usual transform: 256, central 224, the usual normalisation.
_USUAL = "AlexNet_Weights.DEFAULT"


class LogitsOf(nn.Module):
    """A classifier of Hugging Face as a model that returns class scores (N, K).

    Attributes:
        model: The classifier.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.training = model.training

    def forward(self, inputs: Tensor) -> Tensor:
        """Images as the model takes them to its logits."""
        logits: Tensor = self.model(pixel_values=inputs).logits
        return logits


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside ``torch.compile``, ``DataParallel`` and ``DistributedDataParallel``."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def family(model: nn.Module) -> str | None:
    """``"timm"``, ``"torchvision"`` or ``"transformers"`` by the model's class, else None."""
    packages = [cls.__module__.partition(".")[0] for cls in type(model).__mro__]
    known = ("timm", "torchvision", "transformers")
    return next((package for package in packages if package in known), None)


def classifier_of(model: nn.Module) -> tuple[nn.Module, tuple[str, ...] | None]:
    """The model as a function to class scores, and its class names where it brings them.

    Args:
        model: From :func:`unwrapped`.
    """
    if family(model) == "transformers":
        names: dict[int, str] = getattr(model.config, "id2label", None) or {}
        is_named = any(name != f"LABEL_{index}" for index, name in names.items())
        return LogitsOf(model), tuple(names[i] for i in range(len(names))) if is_named else None
    config = getattr(model, "pretrained_cfg", None) or {}
    labels = config.get("label_names") if isinstance(config, dict) else None
    return model, tuple(labels) if labels else None


def recognize(model: nn.Module) -> Parts | None:
    """The inputs of a model of timm, torchvision or Hugging Face; None for any other model.

    Args:
        model: From :func:`unwrapped`.

    Raises:
        ImportError: A package that the family needs is missing.
    """
    found = family(model)
    if found == "torchvision":
        return _torchvision(model)
    if found == "transformers":
        return _transformers(model)
    # Models that others register with timm have a data configuration, too.
    return timm_parts(model) if found == "timm" or hasattr(model, "pretrained_cfg") else None


def normalization(transform: Callable[..., Any]) -> PixelSpace | None:
    """The mean and std of a transform; None if it does not normalise in a way that is known.

    Args:
        transform: A Normalize, a preset of torchvision's weights, a Compose with one of them, or
            an image processor of Hugging Face.
    """
    if is_processor(transform):
        return PixelSpace(transform.image_mean, transform.image_std)  # type: ignore[attr-defined]
    parts = getattr(transform, "transforms", [transform])
    known = [part for part in parts if hasattr(part, "mean") and hasattr(part, "std")]
    return PixelSpace(known[-1].mean, known[-1].std) if known else None


def is_processor(transform: object) -> bool:
    """Whether a transform is an image processor of Hugging Face."""
    return hasattr(transform, "image_mean")


def _torchvision(model: nn.Module) -> Parts:
    models = import_optional("torchvision.models", "zoo")
    count = _parameters_with_1000_classes(model)
    for name in models.list_models(module=models):
        if models.get_model_builder(name).__module__ != type(model).__module__:
            continue
        enum = models.get_model_weights(name)
        for weights in (enum.DEFAULT, *enum):
            if weights.meta["num_params"] == count:
                return torchvision_parts(model, weights)
    usual = torchvision_parts(model, models.get_weight(_USUAL))
    return Parts(model, usual.size, usual.pixel_space, usual.transform, "ImageNet's defaults")


def _parameters_with_1000_classes(model: nn.Module) -> int:
    """How many parameters a model has, or had before its last linear layer got other classes."""
    count = sum(parameter.numel() for parameter in model.parameters())
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    if not linear:
        return count
    per_class = linear[-1].in_features + (linear[-1].bias is not None)
    return count + per_class * (1000 - linear[-1].out_features)


def _transformers(model: Any) -> Parts:
    processor, source = _processor(model)
    transform = processing(processor)
    pixels = transform(import_optional("PIL.Image", "zoo").new("RGB", (256, 256)))
    height, width = pixels.shape[-2:]
    space = PixelSpace(tuple(processor.image_mean), tuple(processor.image_std))
    return Parts(LogitsOf(model), (height, width), space, transform, source)


def processing(processor: Any) -> Callable[[Image.Image], Tensor]:
    """An image processor of Hugging Face as a transform."""

    def transform(image: Image.Image) -> Tensor:
        pixels: Tensor = processor(images=image, return_tensors="pt")["pixel_values"][0]
        return pixels

    return transform


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
            f"{type(model).__name__} has no image processor: only image classifiers can be "
            "explained; for another model pass transform and pixel_space."
        ) from None
    # Versions before 5 have a pair: one for PIL, and one for tensors, which may be missing.
    known = classes if isinstance(classes, dict) else {"pil": classes[0], "torchvision": classes[1]}
    cls = known.get("torchvision") or known["pil"]
    size = getattr(model.config, "image_size", None)
    processor = cls()
    if isinstance(size, int):
        processor = cls(size=dict.fromkeys(processor.to_dict()["size"], size))
    warnings.warn(
        f"The checkpoint of this {type(model).__name__} has no image processor on this machine, so "
        f"{cls.__name__} is used with its default mean and std, which may not be those of the "
        "training: pass transform=AutoImageProcessor.from_pretrained(...).",
        UserWarning,
        stacklevel=2,
    )
    return processor, f"{cls.__name__} with its default settings"
