"""The steps of a run: prepare the folder, evaluate what is missing, write what is asked for."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from captum_advise._utils.errors import reason
from captum_advise._utils.optional_dependencies import import_optional
from captum_advise.evaluation.columns import IDENTITY, Metric
from captum_advise.evaluation.data.items import Items
from captum_advise.evaluation.digests import digest
from captum_advise.evaluation.methods.interface import selecting_by_avx
from captum_advise.evaluation.output import printable, reserved, write_output, write_table
from captum_advise.evaluation.report.page import Report, write_report
from captum_advise.evaluation.run.image_evaluator import (
    ImageEvaluator,
    MethodError,
    UnsuitableMethodError,
)
from captum_advise.evaluation.run.processes import Processes
from captum_advise.evaluation.run.results import Evaluation, information
from captum_advise.evaluation.run.store import FILE, Key, Row, Setting, Store, unpacked
from captum_advise.pixels import to_pixels

# The run gives up when this many images fail at the start, before any succeeds.
_MAX_FAILURES_AT_START = 3


@dataclass
class Share:
    """What one process did."""

    # By position and method, of the images that have a row of every method.
    keys: dict[int, dict[str, Key]] = field(default_factory=dict)
    # Why rows were computed.
    reasons: Counter[str] = field(default_factory=Counter)
    failures: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Run:
    """What all steps have in common."""

    evaluator: ImageEvaluator
    items: Items
    metrics: tuple[Metric, ...]
    settings: Mapping[str, Setting]  # by method
    output: Path
    again: frozenset[str]  # methods to compute again

    def begin(self, held: ExitStack) -> None:
        """Reserve the folder, collect what killed processes have left, delete what is to go."""
        held.enter_context(reserved(self.output, FILE))
        with closing(Store(self.output)) as store:
            store.merge()
            for name in self.again:
                store.delete(self.settings[name].id)

    def check_same_data(self, group: Processes) -> None:
        """Require that all processes see the same images and settings."""
        settings = [(name, setting.id) for name, setting in self.settings.items()]
        seen = group.gather(digest(repr((self.items.names, settings))))
        if len(set(seen)) > 1:
            raise ValueError(
                "The processes do not see the same data or settings: let each make the same data "
                "set, in the same order, and the same model and methods."
            )

    def evaluate_share(self, group: Processes, *, progress: bool) -> Share:
        """Evaluate what is missing, of every ``group.count``-th image.

        Raises:
            MethodError: The methods fail on the first images.
            UnsuitableMethodError: A method cannot explain its layers.
        """
        bar = import_optional("tqdm", "evaluation").tqdm(
            range(group.rank, len(self.items), group.count),
            desc="images" if group.count == 1 else f"images of process 1 of {group.count}",
            unit="image",
            disable=not progress or group.rank > 0,
            dynamic_ncols=True,
        )
        share, n_failed = Share(), 0
        own = group.rank if group.count > 1 else None
        with closing(Store(self.output, own)) as store:
            for index in bar:
                error = self._evaluate(index, store, share, warns=group.rank == 0)
                if error is None:
                    continue
                is_plain = isinstance(error, ValueError | OSError | MethodError)
                kind = "" if is_plain else f"{type(error).__name__}: "
                name, sentence = self.items.names[index], f"{kind}{reason(error)}."
                share.failures.append({"index": index, "file": name, "reason": sentence})
                n_failed += isinstance(error, MethodError)
                if n_failed >= _MAX_FAILURES_AT_START and not share.keys:
                    raise MethodError(
                        f"The first images all fail, and none has succeeded; for {name}, "
                        f"{sentence} Leave the method out, or correct it."
                    ) from error
        return share

    def _evaluate(self, index: int, store: Store, share: Share, *, warns: bool) -> Exception | None:
        """Evaluate what is missing of an image; returns why it could not be done."""
        evaluator = self.evaluator
        try:
            item = self.items[index]
            image, content = digest(item.name), item.fingerprint
        except Exception as error:
            return error
        keys = {name: Key(image, content, own.id) for name, own in self.settings.items()}
        metrics = [metric for metric in self.metrics if metric.applies_to(item)]
        stored = {name: store.row(key) or Row({}) for name, key in keys.items()}
        # What is lacking of any method is computed for all that lack something.
        lacking = {
            name: {metric.name for metric in metrics} - row.values.keys()
            for name, row in stored.items()
        }
        methods = [name for name, own in lacking.items() if own or not stored[name].values]
        if methods:
            names = set().union(*lacking.values())
            try:
                item = item.to(evaluator.device)
                if not share.reasons:
                    evaluator.check(item.inputs, warns=warns)
                rows = evaluator.rows(item, methods, [m for m in metrics if m.name in names])
            except UnsuitableMethodError:
                raise
            except Exception as error:
                return error
            latest = store.latest(image)
            share.reasons.update(
                self._reason(name, keys[name], stored[name], latest) for name in methods
            )
            joined = {
                keys[name]: Row({**stored[name].values, **row.values}, row.map)
                for name, row in rows.items()
            }
            store.add(joined, [self.settings[name] for name in rows])
        share.keys[index] = keys
        return None

    def _reason(
        self,
        method: str,
        key: Key,
        stored: Row,
        latest: Mapping[str, tuple[str, Mapping[str, str]]],
    ) -> str:
        """Why a row is computed: what differs from the latest one of the image and the method."""
        if stored.values:
            return "new metric"
        if method in self.again:
            return "asked for again"
        if method not in latest:
            return "new method" if latest else "new image"
        content, parts = latest[method]
        before = {"the image": content, **parts}
        now = {"the image": key.content, **self.settings[method].parts}
        differing = [part for part in {**now, **before} if now.get(part) != before.get(part)]
        return f"{' and '.join(differing)} changed"

    def finish(self, shares: Sequence[Share], *, prune: bool) -> Evaluation:
        """Merge the rows of all processes, and write tables and report.

        Raises:
            ValueError: No image could be evaluated.
        """
        keys = dict(sorted(pair for share in shares for pair in share.keys.items()))
        failed = [failure for share in shares for failure in share.failures]
        failed.sort(key=lambda failure: failure["index"])
        pandas = import_optional("pandas", "evaluation")
        failures = pandas.DataFrame(failed, columns=["index", "file", "reason"])
        reasons = sum((share.reasons for share in shares), Counter())
        with closing(Store(self.output)) as store:
            store.merge()
            path = self.output / "failures.csv"
            if failed:
                write_table(path, failures)
            else:
                path.unlink(missing_ok=True)
            failures = printable(failures)
            if not keys:
                raise ValueError(
                    f"None of the {len(self.items)} images could be evaluated ({path}); the first, "
                    f"{failures['file'][0]}: {failures['reason'][0]}"
                )
            if prune:
                used = {key for own in keys.values() for key in own.values()}
                store.keep(used, {digest(failure["file"]) for failure in failed})
            counts: dict[str, Any] = {
                "reused": sum(map(len, keys.values())) - reasons.total(),
                "computed": reasons.total(),
                "reasons": dict(reasons),
            }
            described = {
                **information(self.evaluator, self.items),
                **counts,
                "failed": len(failed),
                "processes": len(shares),
            }
            text = json.dumps(described, indent=2, default=str)
            write_output(self.output / "run.json", f"{text}\n")
            columns = [*IDENTITY, *(metric.name for metric in self.metrics)]
            table = pandas.DataFrame(self._records(store, keys), columns=columns)
            write_table(self.output / "results.csv", table)
            results = printable(table)
            report = Report(
                results=results.assign(image=results["index"].map(self.items.image)),
                methods=tuple(self.settings),
                metrics=self.metrics,
                information=described,
                images=[index for index in keys if not self.items.in_mosaic(index)],
                class_names=tuple(getattr(self.items.first("network"), "class_names", ())),
                failures=len(failed),
                by_avx=selecting_by_avx(self.evaluator.methods),
            )
            summary = write_report(
                self.output, report, lambda index: self._shown(store, index, keys[index])
            )
        return Evaluation(results, summary, failures, self.output, **counts)

    def _records(
        self, store: Store, keys: Mapping[int, Mapping[str, Key]]
    ) -> Iterator[dict[str, Any]]:
        """The rows of ``results.csv``, image by image."""
        for index, own in keys.items():
            about = {"index": index, "file": self.items.names[index]}
            for method, row in _rows(store, own).items():
                values = {k: v for k, v in row.values.items() if not isinstance(v, list)}
                yield {**about, "method": method, "content": own[method].content, **values}

    def _shown(
        self, store: Store, index: int, keys: Mapping[str, Key]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The image (3, H, W) in [0, 1] at a position, and each method's map (1, 1, h, w)."""
        inputs = self.items[index].inputs
        pixels = to_pixels(inputs, self.evaluator.context.pixel_space, inputs)[0].clamp(0, 1)
        maps = {method: unpacked(row.map) for method, row in _rows(store, keys).items()}
        return pixels.expand(3, -1, -1).float(), maps


def _rows(store: Store, keys: Mapping[str, Key]) -> dict[str, Row]:
    """The rows of an image by method. It has one of every method."""
    return {method: row for method, key in keys.items() if (row := store.row(key))}
