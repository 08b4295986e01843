"""The steps of a run: prepare the folder, evaluate what is missing, write what is asked for."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from captum_advise._utils.errors import reason
from captum_advise._utils.optional_dependencies import import_optional
from captum_advise.evaluation.columns import IDENTITY, Metric
from captum_advise.evaluation.curves import mean_curves
from captum_advise.evaluation.data.items import Items
from captum_advise.evaluation.digests import digest
from captum_advise.evaluation.methods.interface import selecting_by_avx
from captum_advise.evaluation.output import reserved, write_output
from captum_advise.evaluation.report.page import Report, write_report
from captum_advise.evaluation.run.image_evaluator import (
    ImageEvaluator,
    MethodError,
    UnsuitableMethodError,
)
from captum_advise.evaluation.run.keys import keys_of, missing_rows
from captum_advise.evaluation.run.processes import Processes
from captum_advise.evaluation.run.results import (
    Evaluation,
    StoredRun,
    as_csv,
    as_table,
    information,
)
from captum_advise.evaluation.run.store import FILE, Key, Setting, Store

FAILURE_COLUMNS = ("index", "file", "reason")
# The run gives up when this many images fail at the start, before any succeeds.
_MAX_FAILURES_AT_START = 3


@dataclass
class Share:
    """What one process did: which rows are there, how many were stored, or computed and why."""

    # By position and method, of the images that have a row of every method.
    keys: dict[int, Mapping[str, Key]] = field(default_factory=dict)
    reused: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    failures: dict[int, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def total(cls, shares: Sequence[Share]) -> Share:
        """What all processes did, images in order."""
        keys = {index: own for share in shares for index, own in share.keys.items()}
        failures = {index: own for share in shares for index, own in share.failures.items()}
        reasons = sum((share.reasons for share in shares), Counter())
        reused = sum(share.reused for share in shares)
        return cls(dict(sorted(keys.items())), reused, reasons, dict(sorted(failures.items())))


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
                name, sentence = self.items.names[index], _sentence(error)
                share.failures[index] = {"index": index, "file": name, "reason": sentence}
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
            keys = keys_of(item, self.settings, evaluator.methods)
        except Exception as error:
            return error
        metrics = [metric for metric in self.metrics if metric.applies_to(item)]
        missing = missing_rows(store, keys, self.settings, metrics, self.again)
        if missing:
            try:
                item = item.to(evaluator.device)
                if not share.reasons:
                    evaluator.check(item.inputs, warns=warns)
                rows = evaluator.rows(item, {name: own.metrics for name, own in missing.items()})
            except UnsuitableMethodError:
                raise
            except Exception as error:
                return error
            store.add(
                {keys[name]: row.added_to(missing[name].stored) for name, row in rows.items()},
                [self.settings[name] for name in rows],
            )
            share.reasons.update(own.reason for own in missing.values())
        share.reused += len(keys) - len(missing)
        share.keys[index] = keys
        return None

    def finish(self, shares: Sequence[Share], *, prune: bool) -> Evaluation:
        """Merge the rows of all processes, and write tables and report.

        Raises:
            ValueError: No image could be evaluated.
        """
        total = Share.total(shares)
        failures = list(total.failures.values())
        with closing(Store(self.output)) as store:
            store.merge()
            path = self.output / "failures.csv"
            write_output(path, as_csv(failures, FAILURE_COLUMNS) if failures else None)
            if not total.keys:
                first = failures[0]
                raise ValueError(
                    f"None of the {len(self.items)} images could be evaluated ({path}); the first, "
                    f"{first['file']}: {first['reason']}"
                )
            used = {key for own in total.keys.values() for key in own.values()}
            if prune:
                store.keep(used, {digest(failure["file"]) for failure in failures})
            counts: dict[str, Any] = {
                "reused": total.reused,
                "computed": total.reasons.total(),
                "reasons": dict(total.reasons),
                "others": store.count() - len(used),
            }
            session = {**counts, "failed": len(failures), "processes": len(shares)}
            described = information(self.evaluator, self.items, self.settings, session)
            text = json.dumps(described, indent=2, default=str)
            write_output(self.output / "run.json", f"{text}\n")
            stored = StoredRun(store, total.keys, self.items)
            columns = (*IDENTITY, *(metric.name for metric in self.metrics))
            write_output(self.output / "results.csv", as_csv(stored.records(), columns))
            results = as_table(stored.records(), columns)
            in_mosaic = results["index"].map(self.items.in_mosaic)
            # A cell of a mosaic is named by the mosaic and its image, an object by its scene.
            is_part = in_mosaic | self.items.have("pairs")
            image = results["file"].str.partition(": ")[2].where(is_part)
            report = Report(
                results=results.assign(image=image) if is_part.any() else results,
                methods=tuple(self.settings),
                metrics=self.metrics,
                curves=mean_curves(stored.curves()),
                information=described,
                class_names=tuple(getattr(self.items.first("network"), "class_names", ())),
                failures=[(own["file"], own["reason"]) for own in failures],
                by_avx=selecting_by_avx(self.evaluator.methods),
            )
            shown = partial(stored.shown, evaluator=self.evaluator)
            summary = write_report(self.output, report, shown)
        table = as_table(failures, FAILURE_COLUMNS)
        return Evaluation(results, summary, table, self.output, **counts)


def _sentence(error: Exception) -> str:
    """The reason for a failure, for ``failures.csv``."""
    is_plain = isinstance(error, ValueError | OSError | MethodError)
    return f"{reason(error)}." if is_plain else f"{type(error).__name__}: {reason(error)}."
