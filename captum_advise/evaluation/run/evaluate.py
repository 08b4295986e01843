"""``evaluate``: compare explanation methods on images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.utils.data import Dataset

from captum_advise._utils.checks import check_count
from captum_advise._utils.optional_dependencies import import_optional
from captum_advise._utils.probabilities import default_confidence
from captum_advise.evaluation.columns import get_metrics
from captum_advise.evaluation.data.items import Items
from captum_advise.evaluation.methods.interface import Context
from captum_advise.evaluation.methods.registry import MethodLike, as_method, get_methods
from captum_advise.evaluation.metric_values import MetricSettings
from captum_advise.evaluation.randomness import kept_random_states
from captum_advise.evaluation.run.image_evaluator import ImageEvaluator
from captum_advise.evaluation.run.keys import settings_of
from captum_advise.evaluation.run.processes import processes
from captum_advise.evaluation.run.results import Evaluation
from captum_advise.evaluation.run.steps import Run
from captum_advise.layouts import ReshapeTransform
from captum_advise.pixels import PixelSpace


@kept_random_states()
def evaluate(
    model: nn.Module,
    layer: nn.Module,
    dataset: Dataset[Any],
    methods: Mapping[str, MethodLike] | Iterable[str],
    output: str | Path,
    *,
    metrics: Iterable[str] | None = None,
    pixel_space: PixelSpace | None = None,
    reshape_transform: ReshapeTransform | None = None,
    confidence: Callable[[Tensor], Tensor] | None = None,
    settings: MetricSettings = MetricSettings(),  # noqa: B008 - frozen
    seed: int = 0,
    internal_batch_size: int = 8,
    recompute: Iterable[str] = (),
    prune: bool = False,
    progress: bool = True,
) -> Evaluation:
    """Compare explanation methods on images, and write a report.

    Each method makes a map of each image, metrics score it, and one row per image and method goes
    to ``results.csv``. ``report.html`` shows means, intervals, tests and maps.

    Rows are kept in ``results.sqlite``, under a key of all that they depend on: the image with its
    class and region, the method, the settings, the model and the versions of packages. A call
    computes the rows that are missing, so a stopped run continues, and anything can be added.

    A row depends neither on the other images and methods nor on the number of processes: images
    pass one at a time, and random numbers depend on the image's name. Under ``torchrun`` the
    processes share the images, and the first one writes the report. The random states of Python,
    NumPy and torch are restored.

    Args:
        model: Classifier in eval mode, from (N, C, H, W) inputs with one or three channels to
            class scores (N, K).
        layer: The module of ``model`` that layer methods explain.
        dataset: Items are inputs (C, H, W), or pairs of inputs and class. Without a class, or with
            None, the predicted class is explained. An item that raises an error is recorded as a
            failure. An attribute ``names`` gives the name of each item. With a true attribute
            ``has_regions``, items have a third entry for the pointing games: the pixels of the
            object, bool (H, W) or (1, H, W). Data sets can be added:
            ``images + mosaic_dataset(model, images)``.
        methods: Names from :func:`captum_advise.evaluation.list_methods`, or a mapping by name, as
            ``get_methods`` makes it. Its values are classes of attributions (of Captum,
            pytorch-grad-cam or TorchCAM), or callables with the interface of
            :class:`captum_advise.evaluation.Method`. Tests compare each with ``"grad-cam"``, or
            with the first if that is not among them.
        output: Folder for the report; it is created if it does not exist.
        metrics: Names from :func:`captum_advise.evaluation.list_metrics`; ``"default"`` and
            ``"all"`` stand for several. None: the default ones. Metrics of objects and of mosaics
            are left out where the data have none.
        pixel_space: How the model's inputs relate to images in [0, 1]. None: the minimum of each
            input is black, its maximum white.
        reshape_transform: How to rearrange what ``layer`` returns as (N, C, H, W), as in
            :class:`captum_advise.LayerAdvise`. None: found by its shape, where it is channels last
            or tokens. Class activation maps of all packages then explain it as a feature map.
        confidence: Class scores to probabilities. None: those of a wrapper of
            :mod:`captum_advise.targets`, else softmax.
        settings: Settings of the metrics.
        seed: Seed of random maps, of methods that draw samples, and of the bootstrap.
        internal_batch_size: How many masked images go through the model at once.
        recompute: Names of methods whose stored rows are deleted first, as of one that reads files.
        prune: Delete, at the end, the rows that are not of this call.
        progress: Show a progress bar on stderr.

    Returns:
        :class:`Evaluation`, in every process.

    Raises:
        TypeError: The model is not a module. The data are not a data set. A number is not an int.
            A method is none of these, as an attribution that is an object.
        ValueError: An argument is not valid. The folder holds files that no run has written, or a
            damaged ``results.sqlite``. A method cannot explain the layer. No image could be
            evaluated.
        MethodError: The methods fail on the first images.
        OutputError: The output cannot be written.
        ModuleNotFoundError: A package is missing; the message names the extra that brings it.

    Warns:
        UserWarning: The first image is not in [0, 1] under ``pixel_space``, or the model returns
            probabilities, to which the default ``confidence`` applies softmax again.

    Example::

        >>> dataset = [(image, 3) for image in images]
        >>> evaluation = evaluate(net, net.conv4, dataset, ["layer-advise", "grad-cam"], "report")
        >>> evaluation.summary[["method", "metric", "mean"]].shape
        (..., 3)
    """
    # All packages are imported first: a missing one must not be found after hours of work.
    for module in ("pandas", "scipy.stats", "torchvision", "tqdm"):
        import_optional(module, "evaluation")
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"The model is a {type(model).__name__}, not a torch.nn.Module, and methods need its "
            "layers: give the module, or wrap the function in one."
        )
    if not isinstance(methods, Mapping):
        methods = get_methods([methods] if isinstance(methods, str) else methods)
    check_count("seed", seed, at_least=0)
    check_count("internal_batch_size", internal_batch_size, at_least=1)
    evaluator = ImageEvaluator(
        model=model,
        layer=layer,
        methods={name: as_method(method) for name, method in methods.items()},
        context=Context(pixel_space, confidence or default_confidence(model), internal_batch_size),
        settings=settings,
        seed=seed,
        reshape_transform=reshape_transform,
    )
    items = Items(dataset, evaluator.dtype)
    again = frozenset([recompute] if isinstance(recompute, str) else recompute)
    _check(evaluator, items, again)
    chosen = tuple(m for m in get_metrics(metrics) if items.have(m.of))
    run = Run(evaluator, items, chosen, settings_of(evaluator), Path(output), again)
    with processes() as group, ExitStack() as held:
        group.first_does(lambda: run.begin(held))
        run.check_same_data(group)
        shares = group.gather(run.evaluate_share(group, progress=progress))
        return group.first_does(lambda: run.finish(shares, prune=prune))


def _check(evaluator: ImageEvaluator, items: Items, again: Iterable[str]) -> None:
    methods = evaluator.methods
    if evaluator.model.training:
        raise ValueError("The model is in training mode: call model.eval() first.")
    if not methods:
        raise ValueError("Name at least one method.")
    for name in methods:
        # It is a field of a table.
        if not isinstance(name, str) or not name.strip() or len(name.splitlines()) > 1:
            raise ValueError(f"The name of a method is one line of text, got {name!r}.")
    for name in again:
        if name not in methods:
            raise ValueError(
                f"{name} cannot be computed again, because it is not among the methods of this "
                f"call: {', '.join(methods)}."
            )
    if not items.have("images"):
        raise ValueError("The data are mosaics alone: evaluate them together with their images.")
