"""The run: every picture, every method, in as many processes as there are."""

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

from captum_advise._version import __version__
from captum_advise.class_scores import softmax_over_classes
from captum_advise.evaluation import measures as columns_of
from captum_advise.evaluation.extras import package
from captum_advise.evaluation.methods import (
    Context,
    MethodLike,
    MethodSettings,
    as_method,
    by_name,
)
from captum_advise.evaluation.processes import Processes, processes
from captum_advise.evaluation.scoring import MethodError, Scorer, ScoringSettings
from captum_advise.evaluation.store import FAILURE_COLUMNS, Appender, RunFolder
from captum_advise.pixels import PixelSpace

if TYPE_CHECKING:
    import pandas as pd

# So many pictures may fail one after the other, from the start, before the run gives up.
_FAILURES_AT_START = 3
_PACKAGES = ("torch", "captum", "piq", "torchvision", "timm", "torchcam", "numpy", "scipy")


@dataclass(frozen=True)
class Evaluation:
    """What a run has found.

    Attributes:
        results: One row per picture and method.
        summary: One row per method and measure.
        failures: One row per picture that could not be evaluated.
        folder: Where the report is.
        seconds: How long the pictures of this call took, without the report.
        evaluated: How many they were; the others had been evaluated before.

    Example::

        >>> dataset = [(image, 3) for image in images]
        >>> found = evaluate(net, net.conv4, dataset, ["grad-cam", "random"], "report")
        >>> found.evaluated, len(found.results), len(found.failures)
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
    settings: ScoringSettings = ScoringSettings(),  # noqa: B008 - frozen
    seed: int = 0,
    internal_batch_size: int = 8,
    compiled: bool = False,
    description: Mapping[str, str] | None = None,
    progress: bool = True,
) -> Evaluation:
    """Compare explanation methods on pictures, and write a report.

    A run that was stopped, killed even, continues when it is called again with the same arguments
    and output. Under ``torchrun`` the processes share the pictures, and the first one writes the
    report. Pictures go through one at a time, so that what is found for one does not depend on
    the others, nor on the number of processes.

    Args:
        model: Classifier in eval mode, (N, C, H, W) inputs with one or three channels to class
            scores (N, K).
        layer: The module of ``model`` that layer methods explain.
        dataset: Items are inputs (C, H, W), or pairs of inputs and class; of pictures without
            class (None), the predicted class is explained. Items that raise an error are recorded
            as failures. If it has an attribute ``names``, one per item, the report uses it.
        methods: Names from :func:`captum_advise.evaluation.names`, or a mapping from name to
            Captum attribution (object or class) or
            :class:`captum_advise.evaluation.Method`. Methods are compared with ``"grad-cam"`` if
            it is among them.
        output: Folder for the report; made if it is not there.
        pixel_space: How the model's inputs relate to pictures in [0, 1]. None: each is a picture
            up to one affine map.
        confidence: Class scores to probabilities. Default: softmax.
        method_settings: Of the methods that have any.
        settings: How maps are scored.
        seed: Of random maps, of methods that draw samples, and of the bootstrap.
        internal_batch_size: How many masked pictures go through the model at once.
        compiled: Score maps with ``torch.compile(model)``: a minute's start, then faster. Needs a
            C++ compiler on CPU. Maps are made by the model as it is.
        description: More that tells this run from others in the same folder, as the name of the
            network.
        progress: Show a progress bar on stderr.

    Returns:
        :class:`Evaluation`, in every process.

    Raises:
        ValueError: An argument cannot be used, the folder holds another run, or no picture could
            be evaluated.
        MethodError: The first pictures all fail.
        OutputError: The output cannot be written.
        ModuleNotFoundError: A package is missing; the message names the extra that brings it.

    Example::

        >>> dataset = [(image, 3) for image in images]
        >>> found = evaluate(net, net.conv4, dataset, ["advise", "grad-cam"], "report")
        >>> found.summary[["method", "measure", "mean"]].shape
        (..., 3)
    """
    # Before hours of work, not after them.
    for module in ("pandas", "scipy.stats", "matplotlib", "tqdm"):
        package(module)
    from captum_advise.evaluation.report import write_report  # needs matplotlib

    chosen = (
        {name: as_method(method) for name, method in methods.items()}
        if isinstance(methods, Mapping)
        else by_name([methods] if isinstance(methods, str) else methods)
    )
    _check(model, dataset, chosen)
    scorer = Scorer(
        model=model,
        layer=layer,
        methods=chosen,
        context=Context(pixel_space, confidence, method_settings, internal_batch_size),
        settings=settings,
        seed=seed,
        compiled=compiled,
    )
    configuration = {
        "captum_advise": __version__,
        **(description or {}),
        "layer": _layer_name(model, layer),
        "model_sha256": _model_digest(model),
        "pictures": _length(dataset),
        "data_sha256": _data_digest(dataset),
        "methods": {
            name: name if not isinstance(methods, Mapping) else _described(methods[name])
            for name in chosen
        },
        **asdict(method_settings),
        **asdict(settings),
        "on_request": sorted(settings.on_request),
        "pixel_space": None if pixel_space is None else asdict(pixel_space),
        "confidence": _described(confidence),
        "seed": seed,
        "internal_batch_size": internal_batch_size,
        "compiled": compiled,
        "device": _device(model).type,
    }
    folder = RunFolder(Path(output), columns_of.columns(settings.on_request), tuple(chosen))
    with processes(_device(model)) as group, ExitStack() as held:

        def prepare() -> None:
            held.enter_context(folder.reserved())
            folder.prepare(configuration)

        group.first_does(prepare)
        folder.check(configuration)  # another host may have other weights or pictures
        finished = folder.finished()
        group.wait()
        began = time.perf_counter()
        _evaluate_rest(scorer, dataset, folder, finished, group, progress)
        group.wait()
        seconds = time.perf_counter() - began

        def finish() -> None:
            folder.merge()
            results = read_results(folder)
            if results.empty:
                failed = read_failures(folder).iloc[0]
                raise ValueError(
                    f"None of the {_length(dataset)} pictures could be evaluated; the first, "
                    f"{failed['file']}: {failed['reason']} ({folder.failures})."
                )
            folder.inform(_information(folder, configuration, results, seconds, finished, group))
            write_report(scorer, dataset, folder, results)

        group.first_does(finish)
    results = read_results(folder)
    return Evaluation(
        results=results,
        summary=package("pandas").read_csv(folder.path / "summary.csv"),
        failures=read_failures(folder),
        folder=folder.path,
        seconds=seconds,
        evaluated=results["index"].nunique() - len(finished),
    )


def _evaluate_rest(
    scorer: Scorer,
    dataset: Dataset[Any],
    folder: RunFolder,
    finished: set[int],
    group: Processes,
    progress: bool,
) -> None:
    """This process's share of the pictures that are not finished."""
    n_pictures = _length(dataset)
    share = [index for index in range(n_pictures) if index not in finished]
    share = share[group.rank :: group.count]
    alone = group.count == 1
    bar = package("tqdm").tqdm(
        share,
        desc="pictures" if alone else f"pictures of process 1 of {group.count}",
        initial=len(finished) if alone else 0,
        total=n_pictures if alone else len(share),
        unit="picture",
        disable=not (progress and group.is_first),
        dynamic_ncols=True,
    )
    device = _device(scorer.model)
    any_success, failed = bool(finished), 0
    with Appender(folder.part("results", group.rank), folder.columns) as results:
        for index in bar:
            name = _name(dataset, index)
            try:
                inputs, label = _item(dataset[index])
                rows = scorer.rows(index, name, inputs.to(device)[None], label)
            except Exception as error:
                reason = _reason(error)
                failure = {"index": index, "file": name, "reason": reason}
                with Appender(folder.part("failures", group.rank), FAILURE_COLUMNS) as failures:
                    failures.append([failure])
                failed += isinstance(error, MethodError)
                if failed >= _FAILURES_AT_START and not any_success:
                    raise MethodError(
                        f"The first pictures all fail, and no other has succeeded: of {name}, "
                        f"{reason} Leave the method out, or mend it."
                    ) from error
                continue
            any_success = True
            results.append(rows)


def read_results(folder: RunFolder) -> pd.DataFrame:
    """``results.csv`` as a table; truth values as 0 and 1."""
    return package("pandas").read_csv(
        folder.results, dtype={"file": str, "method": str}, keep_default_na=False, na_values=["nan"]
    )


def read_failures(folder: RunFolder) -> pd.DataFrame:
    """``failures.csv`` as a table, empty if no picture has failed."""
    pandas = package("pandas")
    if not folder.failures.exists():
        return pandas.DataFrame(columns=list(FAILURE_COLUMNS))
    return pandas.read_csv(folder.failures, dtype=str, keep_default_na=False)


def _item(item: Any) -> tuple[Tensor, int | None]:
    inputs, label = item if isinstance(item, tuple | list) else (item, None)
    if not isinstance(inputs, Tensor) or inputs.dim() != 3:
        raise ValueError("An item of the data is no tensor (C, H, W).")
    return inputs, None if label is None else int(label)


def _name(dataset: Dataset[Any], index: int) -> str:
    names = getattr(dataset, "names", None)
    return str(index) if names is None else str(names[index])


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    text = lines[0].rstrip(".") if lines else type(error).__name__
    plain = isinstance(error, ValueError | OSError | MethodError)
    return f"{text}." if plain else f"{type(error).__name__}: {text}."


def _check(model: nn.Module, dataset: Dataset[Any], methods: Mapping[str, Any]) -> None:
    if model.training:
        raise ValueError("The model is in training mode: call model.eval() first.")
    if not methods:
        raise ValueError("Name at least one method.")
    if _length(dataset) == 0:
        raise ValueError("There is no picture in the data.")


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


def _described(thing: Any) -> str:
    named = thing if hasattr(thing, "__qualname__") else type(thing)
    return f"{named.__module__}.{named.__qualname__}"


def _information(
    folder: RunFolder,
    configuration: Mapping[str, Any],
    results: pd.DataFrame,
    seconds: float,
    finished: set[int],
    group: Processes,
) -> dict[str, Any]:
    """What ``run.json`` says at the end."""
    n_done = int(results["index"].nunique())
    evaluated = n_done - len(finished)
    sessions = folder.information_so_far().get("sessions", [])
    session = {
        "ended": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "arguments": sys.argv,
        "processes": group.count,
        "threads_per_process": torch.get_num_threads(),
        "pictures": evaluated,
        "seconds": round(seconds, 3),
        "pictures_per_second": round(evaluated / seconds, 6),
    }
    return {
        "configuration": configuration,
        "pictures_evaluated": n_done,
        "pictures_failed": len(read_failures(folder)),
        "versions": {
            "python": platform.python_version(),
            **{name: _version(name) for name in _PACKAGES},
        },
        "machine": {
            "platform": platform.platform(),
            "processor": platform.processor() or platform.machine(),
            "device": torch.cuda.get_device_name() if configuration["device"] == "cuda" else "cpu",
        },
        # A session that only wrote the report again says nothing about speed.
        "sessions": [*sessions, session] if evaluated else sessions,
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
