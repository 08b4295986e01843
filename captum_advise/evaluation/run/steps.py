"""The steps of a run: prepare the folder, evaluate what is missing, write what is asked for."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from captum_advise._utils.errors import reason
from captum_advise._utils.optional_dependencies import import_optional
from captum_advise.evaluation.columns import IDENTITY, Metric, curves_of
from captum_advise.evaluation.curves import mean_curves
from captum_advise.evaluation.data.items import Items
from captum_advise.evaluation.methods.interface import selecting_by_avx
from captum_advise.evaluation.output import as_csv, remove_output, reserved, write_output
from captum_advise.evaluation.report.page import write_report
from captum_advise.evaluation.run.image_evaluator import (
    ImageEvaluator,
    MethodError,
    UnsuitableMethodError,
)
from captum_advise.evaluation.run.keys import keys_of, missing_rows
from captum_advise.evaluation.run.processes import Processes
from captum_advise.evaluation.run.results import StoredRun, as_table, information
from captum_advise.evaluation.run.store import FILE, Key, Setting, Store, digest_of_name

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
    failures: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def total(cls, shares: Sequence[Share]) -> Share:
        """What all processes did, images in order."""
        keys = {index: own for share in shares for index, own in share.keys.items()}
        failures = [failure for share in shares for failure in share.failures]
        return cls(
            keys=dict(sorted(keys.items())),
            reused=sum(share.reused for share in shares),
            reasons=sum((share.reasons for share in shares), Counter()),
            failures=sorted(failures, key=lambda failure: int(failure["index"])),
        )


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
        seen = repr((self.items.names, self.settings))
        digest = hashlib.sha256(seen.encode(errors="replace")).hexdigest()
        for rank, other in enumerate(group.gather(digest)):
            if other != digest:
                raise ValueError(
                    "The processes do not see the same data or settings: number "
                    f"{rank + 1} has other ones than number {group.rank + 1}."
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
            disable=not (progress and group.is_first),
            dynamic_ncols=True,
        )
        share, n_failed = Share(), 0
        with closing(Store.open(self.output, rank=group.rank, count=group.count)) as store:
            # A method that is added can fail on every image, as those of a new run can.
            any_success = all(store.has_rows(setting.id) for setting in self.settings.values())
            for index in bar:
                error = self._evaluate(index, store, share, warns=group.is_first)
                any_success |= error is None
                if error is None:
                    continue
                name, sentence = self.items.names[index], _sentence(error)
                share.failures.append({"index": index, "file": name, "reason": sentence})
                n_failed += isinstance(error, MethodError)
                if n_failed >= _MAX_FAILURES_AT_START and not any_success:
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
        metrics = [
            metric
            for metric in self.metrics
            if metric.applies_to(has_region=item.region is not None, in_mosaic=item.in_mosaic)
        ]
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

    def finish(self, shares: Sequence[Share], *, prune: bool) -> dict[str, Any]:
        """Merge the rows of all processes, write tables and report; the result's attributes.

        Raises:
            ValueError: No image could be evaluated.
        """
        total = Share.total(shares)
        keys, failures = total.keys, total.failures
        with closing(Store(self.output)) as store:
            store.merge()
            path = self.output / "failures.csv"
            if failures:
                write_output(path, as_csv(FAILURE_COLUMNS, failures))
            else:
                remove_output(path)
            if not keys:
                first = failures[0]
                raise ValueError(
                    f"None of the {len(self.items)} images could be evaluated ({path}); the first, "
                    f"{first['file']}: {first['reason']}"
                )
            used = {key for own in keys.values() for key in own.values()}
            if prune:
                store.keep(used, {digest_of_name(failure["file"]) for failure in failures})
            stored = StoredRun(store, keys, self.items)
            counts = {
                "reused": total.reused,
                "computed": total.reasons.total(),
                "reasons": dict(total.reasons),
                "others": store.count() - len(used),
            }
            session = {**counts, "failed": len(failures), "processes": len(shares)}
            described = information(self.evaluator, self.items, self.settings, session)
            write_output(
                self.output / "run.json", json.dumps(described, indent=2, default=str) + "\n"
            )
            results, summary = self._write(stored, described, failures)
        return {
            "results": results,
            "summary": summary,
            "failures": as_table(failures, FAILURE_COLUMNS),
            "folder": self.output,
            **counts,
        }

    def _write(
        self, stored: StoredRun, described: Mapping[str, Any], failures: Sequence[Mapping[str, Any]]
    ) -> tuple[Any, Any]:
        """Write the results, the summary and the report."""
        columns = (*IDENTITY, *(metric.name for metric in self.metrics))
        write_output(self.output / "results.csv", as_csv(columns, stored.records()))
        results = as_table(stored.records(), columns)
        in_mosaic = results["index"].map(self.items.in_mosaic)
        # A cell of a mosaic is named by the mosaic and its image.
        image = results["file"].str.partition(": ")[2].where(in_mosaic)
        summary = write_report(
            self.output,
            results=results.assign(image=image) if in_mosaic.any() else results,
            methods=tuple(self.settings),
            metrics=self.metrics,
            curve_titles=curves_of(self.metrics),
            curves=mean_curves((method, row.curves) for _, method, _, row in stored.rows()),
            shown=lambda index: stored.shown(index, self.evaluator),
            information=described,
            class_names=tuple(getattr(self.items.network, "class_names", ())),
            failures=[(failure["file"], failure["reason"]) for failure in failures],
            by_avx=selecting_by_avx(self.evaluator.methods),
        )
        return results, summary


def _sentence(error: Exception) -> str:
    """The reason for a failure, for ``failures.csv``."""
    is_plain = isinstance(error, ValueError | OSError | MethodError)
    return f"{reason(error)}." if is_plain else f"{type(error).__name__}: {reason(error)}."
