"""A run: every image, every method, in one or several processes."""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from captum_advise._core.targets import softmax_over_classes
from captum_advise._utils.checks import check_count
from captum_advise._utils.errors import reason
from captum_advise._utils.optional_dependencies import import_optional
from captum_advise.evaluation.columns import columns
from captum_advise.evaluation.configuration import configuration_of
from captum_advise.evaluation.data import ImageDataset, check_output
from captum_advise.evaluation.image_evaluation import (
    ImageEvaluator,
    MethodError,
    MetricSettings,
)
from captum_advise.evaluation.items import (
    Continuation,
    compare,
    length_of,
    name_of,
    read,
    saved_maps_of,
)
from captum_advise.evaluation.methods import (
    Context,
    MethodLike,
    MethodSettings,
    SavedMaps,
    as_method,
    by_name,
)
from captum_advise.evaluation.processes import Processes, processes
from captum_advise.evaluation.store import FAILURE_COLUMNS, Appender, Image, RunFolder, as_field
from captum_advise.pixels import PixelSpace

if TYPE_CHECKING:
    import pandas as pd

# The run gives up when this many images fail at the start, before any succeeds.
_MAX_FAILURES_AT_START = 3
_TEXT = ("file", "content", "method", "layer")
_PACKAGES = (
    *("torch", "captum", "piq", "torchvision", "timm", "torchcam", "grad-cam", "zennit"),
    *("numpy", "scipy"),
)


@dataclass(frozen=True)
class Evaluation:
    """Result of :func:`evaluate`.

    Attributes:
        results: One row per image and method.
        summary: One row per method and metric.
        failures: One row per image that could not be evaluated.
        folder: The folder of the report.
        seconds: Time that this call spent on images, without the report.
        evaluated: Number of images in that time.
        reused: Number of images that earlier calls evaluated, and that have not changed since.
        changed: Number of images that earlier calls evaluated, and that this call evaluated again:
            their content, their class or their position in the data has changed.
        dropped: Number of images of earlier calls that are no longer in the data.

    Example::

        >>> dataset = [(image, 3) for image in images]
        >>> evaluation = evaluate(net, net.conv4, dataset, ["grad-cam", "random"], "report")
        >>> evaluation.evaluated, len(evaluation.results), len(evaluation.failures)
        (2, 4, 0)
        >>> evaluate(net, net.conv4, dataset, ["grad-cam", "random"], "report").reused
        2
    """

    results: pd.DataFrame
    summary: pd.DataFrame
    failures: pd.DataFrame
    folder: Path
    seconds: float = field(compare=False)
    evaluated: int = field(compare=False)
    reused: int = field(compare=False, default=0)
    changed: int = field(compare=False, default=0)
    dropped: int = field(compare=False, default=0)


def evaluate(
    model: nn.Module,
    layer: nn.Module,
    dataset: Dataset[Any],
    methods: Mapping[str, MethodLike] | Iterable[str],
    output: str | Path,
    *,
    pixel_space: PixelSpace | None = None,
    confidence: Callable[[Tensor], Tensor] = softmax_over_classes,
    method_settings: MethodSettings = MethodSettings(),  # noqa: B008 - frozen
    settings: MetricSettings = MetricSettings(),  # noqa: B008 - frozen
    seed: int = 0,
    internal_batch_size: int = 8,
    compiled: bool = False,
    description: Mapping[str, str] | None = None,
    restart: bool = False,
    progress: bool = True,
) -> Evaluation:
    """Compare explanation methods on images, and write a report.

    A run that was stopped or killed continues when it is called again with the same arguments and
    output. Images whose content, class or position has changed since are evaluated again; the rows
    of images that are no longer in the data are dropped when the run ends. Anything else that
    differs is refused: the weights, classes and settings of the model, the code of methods and of
    ``confidence`` and the values that they use, settings, and versions of packages. Tensors that
    a module of the model holds besides its parameters and buffers are not compared.

    Under ``torchrun`` the processes share the images, and the first one writes the report.
    Images go through the model one at a time. The results for an image therefore depend neither
    on the other images nor on the number of processes.

    Args:
        model: Classifier in eval mode, from (N, C, H, W) inputs with one or three channels to
            class scores (N, K).
        layer: The module of ``model`` that layer methods explain.
        dataset: Items are inputs (C, H, W), or pairs of inputs and class. Where the class is
            missing or None, the predicted class is explained. Items that raise an error are
            recorded as failures. If the data set has an attribute ``names``, one per item, the
            report uses it.
        methods: Names from :func:`captum_advise.evaluation.names`, or a mapping from name to
            whatever :func:`captum_advise.evaluation.as_method` takes, or to
            :class:`captum_advise.evaluation.SavedMaps`. If ``"grad-cam"`` is among them, the others
            are compared with it.
        output: Folder for the report; it is created if it does not exist.
        pixel_space: How the model's inputs relate to images in [0, 1]. None: the minimum of each
            input is black, its maximum white.
        confidence: Class scores to probabilities. Default: softmax.
        method_settings: Settings of single methods.
        settings: Settings of the metrics.
        seed: Seed of random maps, of methods that draw samples, and of the bootstrap.
        internal_batch_size: How many masked images go through the model at once.
        compiled: Compute metrics with ``torch.compile(model)``. It takes a minute to start and is
            faster then; on a CPU it needs a C++ compiler. Maps use the model as it is.
        description: What else distinguishes this run from others in the same folder, for example
            the network's name.
        restart: Begin anew: delete the files of the run in ``output``, whichever run it is, when
            all arguments have been checked. Other files there are left as they are.
        progress: Show a progress bar on stderr.

    Returns:
        :class:`Evaluation`, in every process.

    Raises:
        TypeError: A number is not an int, or a method is not callable.
        ValueError: An argument is not valid, the folder holds another run or files that no run
            has written, it is one of the folders of images, or no image could be evaluated.
        MethodError: The methods fail on the first images.
        OutputError: The output cannot be written.
        ModuleNotFoundError: A package is missing; the message names the extra that brings it.

    Warns:
        UserWarning: The first image is not in [0, 1] under ``pixel_space``, or the model returns
            probabilities, to which the default ``confidence`` applies softmax again.

    Example::

        >>> dataset = [(image, 3) for image in images]
        >>> evaluation = evaluate(net, net.conv4, dataset, ["advise", "grad-cam"], "report")
        >>> evaluation.summary[["method", "metric", "mean"]].shape
        (..., 3)
    """
    # All packages are imported first: a missing one must not be found after hours of work.
    for module in ("pandas", "scipy.stats", "matplotlib", "tqdm"):
        import_optional(module, "evaluation")
    from captum_advise.evaluation.report import write_report  # needs matplotlib

    chosen = (
        {name: as_method(method) for name, method in methods.items()}
        if isinstance(methods, Mapping)
        else by_name([methods] if isinstance(methods, str) else methods)
    )
    check_count("seed", seed, at_least=0)
    check_count("internal_batch_size", internal_batch_size, at_least=1)
    _check(model, dataset, chosen, Path(output))
    evaluator = ImageEvaluator(
        model=model,
        layer=layer,
        methods=chosen,
        context=Context(pixel_space, confidence, method_settings, internal_batch_size),
        settings=settings,
        seed=seed,
        compiled=compiled,
    )
    saved = saved_maps_of(chosen, dataset)
    configuration = configuration_of(evaluator, dataset, methods, description or {})
    folder = RunFolder(Path(output), columns(settings.on_request), tuple(chosen))
    with processes(_device(model)) as group, ExitStack() as held:

        def prepare() -> list[Image]:
            held.enter_context(folder.reserved())
            folder.prepare(configuration, restart=restart)
            return folder.finished()

        finished = group.first_does(prepare)
        folder.check(configuration)  # another host may have other weights or packages
        earlier = compare(dataset, finished, group, saved, progress=progress)
        start = time.perf_counter()
        _evaluate_rest(evaluator, dataset, folder, earlier, group, saved, progress)
        group.wait()
        seconds = time.perf_counter() - start

        def finish() -> None:
            if not folder.merge(outdated=earlier.outdated, unread=earlier.unread):
                failure = read_failures(folder).iloc[0]
                raise ValueError(
                    f"None of the {length_of(dataset)} images could be evaluated "
                    f"({folder.failures}); the first, {failure['file']}: {failure['reason']}"
                )
            results = read_results(folder)
            folder.inform(
                {
                    "configuration": configuration,
                    **_origin(dataset),
                    **_information(folder, results, seconds, earlier, group, _device(model)),
                }
            )
            write_report(evaluator, dataset, folder, results)

        group.first_does(finish)
    results = read_results(folder)
    return Evaluation(
        results=results,
        summary=import_optional("pandas", "evaluation").read_csv(folder.path / "summary.csv"),
        failures=read_failures(folder),
        folder=folder.path,
        seconds=seconds,
        evaluated=results["index"].nunique() - len(earlier.reused),
        reused=len(earlier.reused),
        changed=earlier.changed,
        dropped=earlier.dropped,
    )


def _evaluate_rest(
    evaluator: ImageEvaluator,
    dataset: Dataset[Any],
    folder: RunFolder,
    earlier: Continuation,
    group: Processes,
    saved: Sequence[SavedMaps],
    progress: bool,
) -> None:
    """Evaluate this process's share of the images that have no rows, or rows that do not hold."""
    n_images, finished = length_of(dataset), earlier.indices
    share = [index for index in range(n_images) if index not in finished]
    share = share[group.rank :: group.count]
    alone = group.count == 1
    changed = f" ({earlier.changed} changed)" if earlier.changed else ""
    bar = import_optional("tqdm", "evaluation").tqdm(
        share,
        desc=("images" if alone else f"images of process 1 of {group.count}") + changed,
        initial=len(finished) if alone else 0,
        total=n_images if alone else len(share),
        unit="image",
        disable=not (progress and group.is_first),
        dynamic_ncols=True,
    )
    device = _device(evaluator.model)
    any_success, n_failures = bool(finished), 0
    is_checked = not group.is_first
    with Appender(folder.part("results", group.rank), folder.columns) as results:
        for index in bar:
            name = name_of(dataset, index)
            try:
                item = read(dataset, index, saved)
                inputs = item.inputs.to(device)[None]
                if not is_checked:
                    is_checked = True
                    evaluator.warn_of_suspicions(inputs)
                rows = evaluator.rows(index, name, inputs, item.label)
            except Exception as error:
                sentence = _sentence(error)
                failure = {"index": index, "file": name, "reason": sentence}
                with Appender(folder.part("failures", group.rank), FAILURE_COLUMNS) as failures:
                    failures.append([failure])
                n_failures += isinstance(error, MethodError)
                if n_failures >= _MAX_FAILURES_AT_START and not any_success:
                    raise MethodError(
                        f"The first images all fail, and none has succeeded; for {name}, "
                        f"{sentence} Leave the method out, or correct it."
                    ) from error
                continue
            any_success = True
            results.append({**row, "content": item.content} for row in rows)


def read_results(folder: RunFolder) -> pd.DataFrame:
    """``results.csv`` as a table, with 0 and 1 for false and true."""
    return _read_csv(folder.results, dtype=dict.fromkeys(_TEXT, str), na_values=["nan"])


def read_failures(folder: RunFolder) -> pd.DataFrame:
    """``failures.csv`` as a table, empty if no image has failed."""
    if not folder.failures.exists():
        pandas = import_optional("pandas", "evaluation")
        return pandas.DataFrame(columns=list(FAILURE_COLUMNS))
    return _read_csv(folder.failures, dtype=str)


def _read_csv(path: Path, **options: Any) -> pd.DataFrame:
    # A file's name need not be UTF-8.
    return import_optional("pandas", "evaluation").read_csv(
        path, keep_default_na=False, encoding_errors="replace", **options
    )


def _sentence(error: Exception) -> str:
    """The reason for a failure, for ``failures.csv``."""
    is_plain = isinstance(error, ValueError | OSError | MethodError)
    return f"{reason(error)}." if is_plain else f"{type(error).__name__}: {reason(error)}."


def _check(
    model: nn.Module, dataset: Dataset[Any], methods: Mapping[str, Any], output: Path
) -> None:
    if model.training:
        raise ValueError("The model is in training mode: call model.eval() first.")
    if not methods:
        raise ValueError("Name at least one method.")
    for name in methods:
        # It is a field of a row, and a row is a line.
        if not isinstance(name, str) or not name.strip() or as_field(name) != name:
            raise ValueError(f"The name of a method is one line of text, got {name!r}.")
    n_images = length_of(dataset)
    if n_images == 0:
        raise ValueError("There is no image in the data.")
    names = getattr(dataset, "names", None)
    if names is not None and len(names) != n_images:
        raise ValueError(f"The data have {len(names)} names for {n_images} images.")
    if isinstance(dataset, ImageDataset):
        images = (dataset.folder / name for name in dataset.names)
        check_output(output, dataset.source, images)


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def _origin(dataset: Dataset[Any]) -> dict[str, Any]:
    """Where data and weights were, which are known by their content."""
    n_images = length_of(dataset)
    if not isinstance(dataset, ImageDataset):
        return {"data": {"images": n_images}}
    path = (dataset.source or dataset.folder).absolute()
    return {"data": {"images": n_images, "path": str(path)}, "weights": dataset.network.weights}


def _information(
    folder: RunFolder,
    results: pd.DataFrame,
    seconds: float,
    earlier: Continuation,
    group: Processes,
    device: torch.device,
) -> dict[str, Any]:
    """What ``run.json`` holds at the end, besides the configuration."""
    n_done = int(results["index"].nunique())
    evaluated = n_done - len(earlier.reused)
    sessions = folder.information_so_far().get("sessions", [])
    session = {
        "ended": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "arguments": sys.argv,
        "processes": group.count,
        "threads_per_process": torch.get_num_threads(),
        "images": evaluated,
        "reused": len(earlier.reused),
        "changed": earlier.changed,
        "dropped": earlier.dropped,
        "seconds": round(seconds, 3),
        "images_per_second": round(evaluated / seconds, 6),
    }
    return {
        "images_evaluated": n_done,
        "images_failed": len(read_failures(folder)),
        "versions": {
            "python": platform.python_version(),
            **{name: _version(name) for name in _PACKAGES},
        },
        "machine": {
            "platform": platform.platform(),
            "processor": platform.processor() or platform.machine(),
            "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        },
        # A session that only wrote the report again has no speed.
        "sessions": [*sessions, session] if evaluated else sessions,
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
