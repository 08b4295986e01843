"""A run: every image, every method, in one or several processes."""

from __future__ import annotations

import hashlib
import platform
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from captum_advise._core.targets import softmax_over_classes
from captum_advise._utils.errors import reason
from captum_advise._utils.optional_dependencies import import_optional
from captum_advise._version import __version__
from captum_advise.evaluation.columns import columns
from captum_advise.evaluation.image_evaluation import (
    ImageEvaluator,
    MethodError,
    MetricSettings,
)
from captum_advise.evaluation.methods import (
    Context,
    MethodLike,
    MethodSettings,
    as_method,
    by_name,
)
from captum_advise.evaluation.processes import Processes, processes
from captum_advise.evaluation.store import FAILURE_COLUMNS, FORMAT, Appender, RunFolder
from captum_advise.pixels import PixelSpace

if TYPE_CHECKING:
    import pandas as pd

# The run gives up when this many images fail at the start, before any succeeds.
_MAX_FAILURES_AT_START = 3
_PACKAGES = ("torch", "captum", "piq", "torchvision", "timm", "torchcam", "numpy", "scipy")


@dataclass(frozen=True)
class Evaluation:
    """Result of :func:`evaluate`.

    Attributes:
        results: One row per image and method.
        summary: One row per method and metric.
        failures: One row per image that could not be evaluated.
        folder: The folder of the report.
        seconds: Time that this call spent on images, without the report.
        evaluated: Number of images in that time; earlier calls evaluated the others.

    Example::

        >>> dataset = [(image, 3) for image in images]
        >>> evaluation = evaluate(net, net.conv4, dataset, ["grad-cam", "random"], "report")
        >>> evaluation.evaluated, len(evaluation.results), len(evaluation.failures)
        (2, 4, 0)
    """

    results: pd.DataFrame
    summary: pd.DataFrame
    failures: pd.DataFrame
    folder: Path
    seconds: float = field(compare=False)
    evaluated: int = field(compare=False)


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
    progress: bool = True,
) -> Evaluation:
    """Compare explanation methods on images, and write a report.

    A run that was stopped or killed continues when it is called again with the same arguments and
    output. Under ``torchrun`` the processes share the images, and the first one writes the report.
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
            Captum attribution (object or class) or
            :class:`captum_advise.evaluation.Method`. If ``"grad-cam"`` is among them, the others
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
        progress: Show a progress bar on stderr.

    Returns:
        :class:`Evaluation`, in every process.

    Raises:
        ValueError: An argument is not valid, the folder holds another run, or no image could be
            evaluated.
        MethodError: The methods fail on the first images.
        OutputError: The output cannot be written.
        ModuleNotFoundError: A package is missing; the message names the extra that brings it.

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
    _check(model, dataset, chosen)
    evaluator = ImageEvaluator(
        model=model,
        layer=layer,
        methods=chosen,
        context=Context(pixel_space, confidence, method_settings, internal_batch_size),
        settings=settings,
        seed=seed,
        compiled=compiled,
    )
    configuration = {
        "format": FORMAT,
        "captum_advise": __version__,
        **(description or {}),
        "layer": _layer_name(model, layer),
        "model_sha256": _model_digest(model),
        "images": _length(dataset),
        "data_sha256": _data_digest(dataset),
        "methods": {
            name: name if not isinstance(methods, Mapping) else _qualified_name(methods[name])
            for name in chosen
        },
        **asdict(method_settings),
        **asdict(settings),
        "on_request": sorted(settings.on_request),
        "pixel_space": None if pixel_space is None else asdict(pixel_space),
        "confidence": _qualified_name(confidence),
        "seed": seed,
        "internal_batch_size": internal_batch_size,
        "compiled": compiled,
        "device": _device(model).type,
    }
    folder = RunFolder(Path(output), columns(settings.on_request), tuple(chosen))
    with processes(_device(model)) as group, ExitStack() as held:

        def prepare() -> None:
            held.enter_context(folder.reserved())
            folder.prepare(configuration)

        group.first_does(prepare)
        folder.check(configuration)  # another host may have other weights or images
        finished = folder.finished()
        group.wait()
        start = time.perf_counter()
        _evaluate_rest(evaluator, dataset, folder, finished, group, progress)
        group.wait()
        seconds = time.perf_counter() - start

        def finish() -> None:
            folder.merge()
            results = read_results(folder)
            if results.empty:
                failure = read_failures(folder).iloc[0]
                raise ValueError(
                    f"None of the {_length(dataset)} images could be evaluated "
                    f"({folder.failures}); the first, {failure['file']}: {failure['reason']}"
                )
            folder.inform(_information(folder, configuration, results, seconds, finished, group))
            write_report(evaluator, dataset, folder, results)

        group.first_does(finish)
    results = read_results(folder)
    return Evaluation(
        results=results,
        summary=import_optional("pandas", "evaluation").read_csv(folder.path / "summary.csv"),
        failures=read_failures(folder),
        folder=folder.path,
        seconds=seconds,
        evaluated=results["index"].nunique() - len(finished),
    )


def _evaluate_rest(
    evaluator: ImageEvaluator,
    dataset: Dataset[Any],
    folder: RunFolder,
    finished: set[int],
    group: Processes,
    progress: bool,
) -> None:
    """Evaluate this process's share of the images that are not finished."""
    n_images = _length(dataset)
    share = [index for index in range(n_images) if index not in finished]
    share = share[group.rank :: group.count]
    alone = group.count == 1
    bar = import_optional("tqdm", "evaluation").tqdm(
        share,
        desc="images" if alone else f"images of process 1 of {group.count}",
        initial=len(finished) if alone else 0,
        total=n_images if alone else len(share),
        unit="image",
        disable=not (progress and group.is_first),
        dynamic_ncols=True,
    )
    device = _device(evaluator.model)
    any_success, n_failures = bool(finished), 0
    with Appender(folder.part("results", group.rank), folder.columns) as results:
        for index in bar:
            name = _name(dataset, index)
            try:
                inputs, label = _item(dataset[index])
                rows = evaluator.rows(index, name, inputs.to(device)[None], label)
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
            results.append(rows)


def read_results(folder: RunFolder) -> pd.DataFrame:
    """``results.csv`` as a table, with 0 and 1 for false and true."""
    return import_optional("pandas", "evaluation").read_csv(
        folder.results, dtype={"file": str, "method": str}, keep_default_na=False, na_values=["nan"]
    )


def read_failures(folder: RunFolder) -> pd.DataFrame:
    """``failures.csv`` as a table, empty if no image has failed."""
    pandas = import_optional("pandas", "evaluation")
    if not folder.failures.exists():
        return pandas.DataFrame(columns=list(FAILURE_COLUMNS))
    return pandas.read_csv(folder.failures, dtype=str, keep_default_na=False)


def _item(item: Any) -> tuple[Tensor, int | None]:
    inputs, label = item if isinstance(item, tuple | list) else (item, None)
    if not isinstance(inputs, Tensor) or inputs.dim() != 3:
        raise ValueError("An item of the data is not a tensor (C, H, W).")
    return inputs, None if label is None else int(label)


def _name(dataset: Dataset[Any], index: int) -> str:
    names = getattr(dataset, "names", None)
    return str(index) if names is None else str(names[index])


def _sentence(error: Exception) -> str:
    """The reason for a failure, for ``failures.csv``."""
    is_plain = isinstance(error, ValueError | OSError | MethodError)
    return f"{reason(error)}." if is_plain else f"{type(error).__name__}: {reason(error)}."


def _check(model: nn.Module, dataset: Dataset[Any], methods: Mapping[str, Any]) -> None:
    if model.training:
        raise ValueError("The model is in training mode: call model.eval() first.")
    if not methods:
        raise ValueError("Name at least one method.")
    if _length(dataset) == 0:
        raise ValueError("There is no image in the data.")


def _length(dataset: Dataset[Any]) -> int:
    return len(dataset)  # type: ignore[arg-type]


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def _layer_name(model: nn.Module, layer: nn.Module) -> str:
    for name, module in model.named_modules():
        if module is layer:
            return str(name)
    raise ValueError("The layer is not a module of the model.")


def _model_digest(model: nn.Module) -> str:
    digest = hashlib.sha256(type(model).__qualname__.encode())
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        if isinstance(value, Tensor):
            whole = value.detach().cpu().contiguous().reshape(-1)
            digest.update(whole.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _data_digest(dataset: Dataset[Any]) -> str:
    known = [getattr(dataset, name, None) for name in ("names", "targets")]
    listed = [None if value is None else [str(entry) for entry in value] for value in known]
    return hashlib.sha256(repr(listed).encode(errors="surrogateescape")).hexdigest()


def _qualified_name(value: Any) -> str:
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}.{named.__qualname__}"


def _information(
    folder: RunFolder,
    configuration: Mapping[str, Any],
    results: pd.DataFrame,
    seconds: float,
    finished: set[int],
    group: Processes,
) -> dict[str, Any]:
    """The content of ``run.json`` at the end."""
    n_done = int(results["index"].nunique())
    evaluated = n_done - len(finished)
    sessions = folder.information_so_far().get("sessions", [])
    session = {
        "ended": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "arguments": sys.argv,
        "processes": group.count,
        "threads_per_process": torch.get_num_threads(),
        "images": evaluated,
        "seconds": round(seconds, 3),
        "images_per_second": round(evaluated / seconds, 6),
    }
    return {
        "configuration": configuration,
        "images_evaluated": n_done,
        "images_failed": len(read_failures(folder)),
        "versions": {
            "python": platform.python_version(),
            **{name: _version(name) for name in _PACKAGES},
        },
        "machine": {
            "platform": platform.platform(),
            "processor": platform.processor() or platform.machine(),
            "device": torch.cuda.get_device_name() if configuration["device"] == "cuda" else "cpu",
        },
        # A session that only wrote the report again has no speed.
        "sessions": [*sessions, session] if evaluated else sessions,
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
