"""A run: every image, every method, in one or several processes."""

from __future__ import annotations

import io
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

from captum_advise._utils.checks import check_count
from captum_advise._utils.errors import reason
from captum_advise._utils.optional_dependencies import import_optional
from captum_advise._utils.probabilities import softmax_over_classes
from captum_advise.evaluation.columns import MOSAIC_METRICS, columns
from captum_advise.evaluation.configuration import configuration_of
from captum_advise.evaluation.curves import (
    CURVE_COLUMNS,
    curve_rows,
    merge_curves,
    repair_curves,
)
from captum_advise.evaluation.data import ImageDataset, check_output
from captum_advise.evaluation.image_evaluation import (
    ImageEvaluator,
    MethodError,
    MetricSettings,
    Row,
)
from captum_advise.evaluation.items import (
    Continuation,
    Item,
    compare,
    has_regions,
    images_of,
    length_of,
    name_of,
    read,
    saved_maps,
)
from captum_advise.evaluation.methods import (
    Context,
    MethodLike,
    MethodSettings,
    as_method,
    get_methods,
)
from captum_advise.evaluation.mosaics import MosaicDataset, by_image, mosaic_dataset
from captum_advise.evaluation.processes import Processes, processes
from captum_advise.evaluation.store import (
    FAILURE_COLUMNS,
    Appender,
    Image,
    RunFolder,
    as_field,
    write_output,
)
from captum_advise.pixels import PixelSpace

if TYPE_CHECKING:
    import pandas as pd

# The run gives up when this many images fail at the start, before any succeeds.
_MAX_FAILURES_AT_START = 3
# The columns of the results that do not hold real numbers.
_TYPES = dict.fromkeys(("file", "content", "method", "layer"), "str") | dict.fromkeys(
    ("index", "target", "predicted", "hit", "increase_in_confidence"), "int64"
)
_PACKAGES = (
    *("torch", "captum", "numba", "torchvision", "timm", "torchcam", "grad-cam", "zennit"),
    *("numpy", "scipy"),
)


@dataclass(frozen=True)
class Evaluation:
    """Result of :func:`evaluate`.

    Attributes:
        results: One row per image and method.
        summary: One row per method and metric.
        failures: One row per image, or cell of a mosaic, that could not be evaluated.
        folder: The folder of the report.
        seconds: Time that this call spent on images, without the report.
        evaluated: Number of images in that time.
        reused: Number of images that have all their rows from earlier calls.
        extended: Number of images, of those evaluated, that had rows of some methods from earlier
            calls. This call evaluated the other methods.
        changed: Number of images whose content or class has changed since earlier calls. This call
            evaluated them again.
        left_out: Number of images of earlier calls that are not in the data. Their rows are kept.
        mosaics: One row per cell of a mosaic and method; None without mosaics.

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
    extended: int = field(compare=False, default=0)
    changed: int = field(compare=False, default=0)
    left_out: int = field(compare=False, default=0)
    mosaics: pd.DataFrame | None = None


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
    bf16: bool = False,
    mosaics: int | None = None,
    n_mosaics: int = 20,
    description: Mapping[str, str] | None = None,
    restart: bool = False,
    recompute: bool = False,
    progress: bool = True,
) -> Evaluation:
    """Compare explanation methods on images, and write a report.

    A run that was stopped, killed or finished continues when it is called again with the same
    output. Methods and images may be added and left out: only rows that are missing are computed.
    The report shows the methods and images of the call. Rows of others are kept, and used when
    they are named again. Images whose content or class has changed are evaluated again. Anything
    else that differs is refused: the weights, classes and settings of the model, the code of
    methods and of ``confidence`` and the values that they use, settings, and versions of packages.
    Tensors that a module of the model holds besides its parameters and buffers are not compared.

    Under ``torchrun`` the processes share the images, and the first one writes the report.
    Images go through the model one at a time, and random numbers depend on the image's name. The
    results for an image and a method therefore depend neither on the other images and methods
    nor on the number of processes.

    Args:
        model: Classifier in eval mode, from (N, C, H, W) inputs with one or three channels to
            class scores (N, K).
        layer: The module of ``model`` that layer methods explain.
        dataset: Items are inputs (C, H, W), or pairs of inputs and class. Where the class is
            missing or None, the predicted class is explained. Items that raise an error are
            recorded as failures. If the data set has an attribute ``names``, one per item, the
            report uses it. If its attribute ``has_regions`` is true, items have a third entry,
            the pixels of the object, bool (H, W) or (1, H, W), for the pointing games.
        methods: Names from :func:`captum_advise.evaluation.list_methods`, or a mapping from name to
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
        bf16: Compute metrics with the model under autocast to bfloat16. It is faster on devices
            with bfloat16 arithmetic, and changes insertion by about 0.01. Maps use the model as it
            is.
        mosaics: Add the grid pointing game on mosaics of ``mosaics`` x ``mosaics`` images, from
            :func:`mosaic_dataset`. The model must take images of any size, and no method may have
            its maps in files. The rows are in the folder ``mosaics`` of the output.
        n_mosaics: The number of mosaics, at most.
        description: What else distinguishes this run from others in the same folder, for example
            the network's name.
        restart: Begin anew: delete the files of the run in ``output``, whichever run it is, when
            all arguments have been checked. Other files there are left as they are.
        recompute: Accept what would be refused, and compute again what depends on it: the rows of
            methods that differ, or all rows if anything else differs. The old ones are deleted at
            the start. The same call continues after a stop.
        progress: Show a progress bar on stderr.

    Returns:
        :class:`Evaluation`, in every process.

    Raises:
        TypeError: A number is not an int, or a method is not callable.
        ValueError: An argument is not valid, the folder holds another run or files that no run
            has written, it is one of the folders of images, both ``restart`` and ``recompute`` are
            given, no image could be evaluated, or no mosaic can be made.
        MethodError: The methods fail on the first images.
        OutputError: The output cannot be written.
        ModuleNotFoundError: A package is missing; the message names the extra that brings it.

    Warns:
        UserWarning: The first image is not in [0, 1] under ``pixel_space``, the model returns
            probabilities, to which the default ``confidence`` applies softmax again, or there are
            images for fewer mosaics than asked for.

    Example::

        >>> dataset = [(image, 3) for image in images]
        >>> evaluation = evaluate(net, net.conv4, dataset, ["layer-advise", "grad-cam"], "report")
        >>> evaluation.summary[["method", "metric", "mean"]].shape
        (..., 3)
    """
    # All packages are imported first: a missing one must not be found after hours of work.
    for module in ("pandas", "pyarrow", "scipy.stats", "matplotlib", "tqdm"):
        import_optional(module, "evaluation")
    from captum_advise.evaluation.report import write_report  # needs matplotlib

    chosen = (
        {name: as_method(method) for name, method in methods.items()}
        if isinstance(methods, Mapping)
        else get_methods([methods] if isinstance(methods, str) else methods)
    )
    check_count("seed", seed, at_least=0)
    check_count("internal_batch_size", internal_batch_size, at_least=1)
    check_count("n_mosaics", n_mosaics, at_least=1)
    if mosaics is not None:
        check_count("mosaics", mosaics, at_least=2)
        if saved_maps(chosen):
            raise ValueError(
                f"There are no maps of mosaics for {', '.join(saved_maps(chosen))}, whose maps are "
                "files: leave the mosaics out, or these methods."
            )
    if restart and recompute:
        raise ValueError("Give restart or recompute, not both.")
    _check(model, dataset, chosen, Path(output))
    evaluator = ImageEvaluator(
        model=model,
        layer=layer,
        methods=chosen,
        context=Context(pixel_space, confidence, method_settings, internal_batch_size),
        settings=settings,
        seed=seed,
        compiled=compiled,
        bf16=bf16,
        with_regions=has_regions(dataset),
    )
    _check_maps(chosen, dataset)
    configuration = configuration_of(evaluator, dataset, methods, description or {})
    folder = RunFolder(Path(output), columns(evaluator.metrics), tuple(chosen))
    with processes() as group, ExitStack() as held:
        mosaics_of_images = None
        if mosaics is not None:
            side = mosaics

            def selected() -> tuple[Any, Any]:
                made = mosaic_dataset(
                    model, dataset, side=side, count=n_mosaics, seed=seed, confidence=confidence
                )
                return made.tiles, made.classes

            # First: without mosaics, nothing earlier is deleted.
            mosaics_of_images = MosaicDataset(dataset, side, *group.first_does(selected))
        work = _Work(evaluator, group, held, restart, recompute, progress)
        images = work.begin("images", dataset, folder, configuration)
        tiled = None
        if mosaics_of_images is not None:
            tiled = work.begin(
                "mosaics",
                mosaics_of_images,
                RunFolder(folder.path / "mosaics", columns(MOSAIC_METRICS), tuple(chosen)),
                {**configuration, "mosaics": mosaics, "n_mosaics": n_mosaics},
            )
        start = time.perf_counter()
        evaluated = work.evaluate(images)
        seconds = time.perf_counter() - start
        evaluated_cells = {} if tiled is None else work.evaluate(tiled)
        counts = _counts(images.earlier, evaluated, folder.methods)

        def finish() -> None:
            results = images.merged(evaluated)
            merge_curves(folder)
            folder.inform(
                {
                    "configuration": folder.information_so_far()["configuration"],
                    **_origin(dataset),
                    **_information(folder, results, seconds, counts, group, _device(model)),
                }
            )
            of_mosaics = None
            if tiled is not None:
                of_mosaics = by_image(tiled.merged(evaluated_cells))
            write_report(evaluator, dataset, folder, results, of_mosaics)

        group.first_does(finish)
    results = read_results(folder)
    pandas = import_optional("pandas", "evaluation")
    return Evaluation(
        results=results,
        summary=pandas.read_csv(folder.path / "summary.csv"),
        failures=pandas.concat(
            [read_failures(part.folder) for part in (images, tiled) if part is not None],
            ignore_index=True,
        ),
        folder=folder.path,
        seconds=seconds,
        mosaics=None if tiled is None else read_results(tiled.folder),
        **counts,
    )


def _counts(
    earlier: Continuation, evaluated: Mapping[int, Any], methods: Sequence[str]
) -> dict[str, int]:
    """The numbers of images of :class:`Evaluation`."""
    reused = sum(not earlier.missing(index, methods) for index in earlier.images)
    extended = sum(len(earlier.missing(index, methods)) < len(methods) for index in evaluated)
    return {
        "evaluated": len(evaluated),
        "reused": reused,
        "extended": extended,
        "changed": earlier.changed,
        "left_out": earlier.left_out,
    }


@dataclass(frozen=True)
class _Part:
    """What a folder holds the results of: the images, or mosaics of them."""

    kind: str
    dataset: Any
    folder: RunFolder
    earlier: Continuation

    def merged(self, evaluated: Mapping[int, Mapping[str, Image]]) -> pd.DataFrame:
        """The results of all processes, in one file.

        Args:
            evaluated: The images that this call evaluated, by position and method.

        Raises:
            ValueError: There is none.
        """
        if not self.folder.merge({**self.earlier.images, **evaluated}):
            failure = read_failures(self.folder).iloc[0]
            raise ValueError(
                f"None of the {length_of(self.dataset)} {self.kind} could be evaluated "
                f"({self.folder.failures}); the first, {failure['file']}: {failure['reason']}"
            )
        results = read_results(self.folder)
        write_output(self.folder.parquet, _as_parquet(results))
        return results


@dataclass(frozen=True)
class _Work:
    """What all parts of a run have in common."""

    evaluator: ImageEvaluator
    group: Processes
    held: ExitStack
    restart: bool
    recompute: bool
    progress: bool

    def begin(
        self, kind: str, dataset: Any, folder: RunFolder, configuration: dict[str, Any]
    ) -> _Part:
        """Prepare a folder, and find what earlier calls have left to do."""

        def prepare() -> dict[Image, frozenset[str]]:
            self.held.enter_context(folder.reserved())
            folder.prepare(configuration, restart=self.restart, recompute=self.recompute)
            stored = folder.stored()
            repair_curves(folder, stored)
            return stored

        stored = self.group.first_does(prepare)
        folder.check(configuration)  # another host may have other weights or packages
        earlier = compare(
            dataset,
            stored,
            {name: self.evaluator.methods[name] for name in folder.methods},
            self.group,
            # With other images, all mosaics may be others.
            any_data=isinstance(dataset, MosaicDataset),
            progress=self.progress,
        )
        return _Part(kind, dataset, folder, earlier)

    def evaluate(self, part: _Part) -> dict[int, dict[str, Image]]:
        """Evaluate what has no row for each method; the processes share it.

        Returns:
            The images that any of them evaluated, by position and method.
        """
        own = self._evaluate_share(part)
        return {index: image for other in self.group.gather(own) for index, image in other.items()}

    def _evaluate_share(self, part: _Part) -> dict[int, dict[str, Image]]:
        group, methods = self.group, part.folder.methods
        n_items = length_of(part.dataset)
        missing = {index: part.earlier.missing(index, methods) for index in range(n_items)}
        share = [index for index in range(n_items) if missing[index]]
        n_done = n_items - len(share)
        share = share[group.rank :: group.count]
        alone = group.count == 1
        of = "" if alone else f" of process 1 of {group.count}"
        changed = f" ({part.earlier.changed} changed)" if part.earlier.changed else ""
        bar = import_optional("tqdm", "evaluation").tqdm(
            share,
            desc=f"{part.kind}{of}{changed}",
            initial=n_done if alone else 0,
            total=n_items if alone else len(share),
            unit="image",
            disable=not (self.progress and group.is_first),
            dynamic_ncols=True,
        )
        device = _device(self.evaluator.model)
        # A method that is added can fail on every image, as those of a new run can.
        with_rows = {name for names in part.earlier.methods.values() for name in names}
        any_success, n_failures = set(methods) <= with_rows, 0
        evaluated: dict[int, dict[str, Image]] = {}
        saved = saved_maps(self.evaluator.methods)
        is_checked = not group.is_first
        with (
            Appender(part.folder.part("results", group.rank), part.folder.columns) as results,
            Appender(part.folder.part("curves", group.rank), CURVE_COLUMNS) as curves,
        ):
            for index in bar:
                name = name_of(part.dataset, index)
                try:
                    item = read(part.dataset, index, saved).to(device)
                    if not is_checked:
                        is_checked = True
                        self.evaluator.warn_of_suspicions(item.inputs[None])
                    rows = self._rows(part, index, name, item, missing[index])
                except Exception as error:
                    sentence = _sentence(error)
                    failure = {"index": index, "file": name, "reason": sentence}
                    failures_file = part.folder.part("failures", group.rank)
                    with Appender(failures_file, FAILURE_COLUMNS) as failures:
                        failures.append([failure])
                    n_failures += isinstance(error, MethodError)
                    if n_failures >= _MAX_FAILURES_AT_START and not any_success:
                        raise MethodError(
                            f"The first {part.kind} all fail, and none has succeeded; for {name}, "
                            f"{sentence} Leave the method out, or correct it."
                        ) from error
                    continue
                any_success = True
                rows = [{**row, "content": item.contents.of(row["method"])} for row in rows]
                evaluated_image = images_of(name, item.contents, methods)
                # The results last: an image is done when these are on the disk.
                for row in rows:
                    if "map" in row:
                        part.folder.keep_map(
                            evaluated_image[row["method"]], row["method"], row["map"]
                        )
                curves.append(curve_rows(rows))
                results.append(rows)
                evaluated[index] = evaluated_image
        return evaluated

    def _rows(
        self, part: _Part, index: int, name: str, item: Item, methods: Sequence[str]
    ) -> list[Row]:
        inputs = item.inputs[None]
        if isinstance(part.dataset, MosaicDataset):
            side = part.dataset.side
            return self.evaluator.mosaic_rows(
                index,
                name,
                inputs,
                item.label,
                cell=index % side**2,
                side=side,
                methods=methods,
            )
        region = None if item.region is None else item.region[None]
        return self.evaluator.rows(index, name, inputs, item.label, region, methods)


def read_results(folder: RunFolder) -> pd.DataFrame:
    """``results.csv`` as a table, with 0 and 1 for false and true."""
    types = {name: _TYPES.get(name, "float64") for name in folder.columns}
    return _read_csv(folder.results, dtype=types, na_values=["nan"])


def _as_parquet(results: pd.DataFrame) -> bytes:
    with io.BytesIO() as stream:
        # Saved maps took no passes that are known.
        typed = results.astype({name: "Int64" for name in ("forward_passes",) if name in results})
        typed.to_parquet(stream, engine="pyarrow", index=False)
        return stream.getvalue()


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


def _check_maps(methods: Mapping[str, Any], dataset: Dataset[Any]) -> None:
    """Require that no two images, nor an image with two classes, have the same map in a file."""
    saved = saved_maps(methods)
    if not saved:
        return
    names = [name_of(dataset, index) for index in range(length_of(dataset))]
    targets = getattr(dataset, "targets", None)
    for method, maps in saved.items():
        maps.check(names)
        classes: dict[str, str] = {}
        for name, target in zip(names, [] if targets is None else targets, strict=False):
            if classes.setdefault(name, str(target)) != str(target):
                raise ValueError(
                    f"{name} is listed with two classes, and {method} has one map of it: list it "
                    "once, or evaluate the classes in two runs with a folder of maps each."
                )


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
    counts: Mapping[str, int],
    group: Processes,
    device: torch.device,
) -> dict[str, Any]:
    """What ``run.json`` holds at the end, besides the configuration."""
    evaluated = counts["evaluated"]
    sessions = folder.information_so_far().get("sessions", [])
    session = {
        "ended": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "arguments": sys.argv,
        "processes": group.count,
        "threads_per_process": torch.get_num_threads(),
        "methods": list(folder.methods),
        "images": evaluated,
        **{name: number for name, number in counts.items() if name != "evaluated"},
        "seconds": round(seconds, 3),
        "images_per_second": round(evaluated / seconds, 6),
    }
    return {
        "images_evaluated": int(results["index"].nunique()),
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
