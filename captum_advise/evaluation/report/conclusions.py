"""Conclusions from the statistics, in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from captum_advise.evaluation.report.statistics import SIGNIFICANCE, Comparison

# Mean ranks that are equal up to rounding are a tie.
_EQUAL = 1e-9


@dataclass(frozen=True)
class Conclusions:
    """What a comparison says.

    Attributes:
        first: Sentences about all methods.
        methods: Those that differ significantly from the baseline, with the titles of the metrics
            in which they are better, and in which they are worse. Methods of which the same is
            true share an entry.
        last: Sentences about how to read it.
    """

    first: tuple[str, ...]
    methods: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = ()
    last: tuple[str, ...] = ()


def conclusions(comparison: Comparison, baseline: str, by_avx: Sequence[str] = ()) -> Conclusions:
    """The best method, who differs significantly from a baseline, and what to be careful about."""
    if len(comparison.methods) == 1:
        return Conclusions((f"The run has one method, {baseline}: there is nothing to compare.",))
    best, last = _best(comparison), _favoured(comparison, by_avx)
    # The smallest p value of the exact Wilcoxon test: all differences have one sign.
    possible = [
        n_tests * 2.0 ** (1 - n_images) <= SIGNIFICANCE
        for n_tests, n_images in zip(comparison.tests, comparison.images, strict=True)
        if n_tests
    ]
    if not any(possible):
        few = (
            f"No difference from {baseline} can be significant after Holm's correction (images: "
            f"{max(comparison.images)}, tests: {max(comparison.tests)}): evaluate more images."
        )
        return Conclusions((best, few), (), last)
    judged = [metric for metric in comparison.metrics if metric.judges or metric.name == "avx"]

    def titles(method: str, outcome: int) -> tuple[str, ...]:
        found = [comparison.differences.get((baseline, method, metric.name)) for metric in judged]
        pairs = zip(judged, found, strict=True)
        return tuple(metric.title for metric, own in pairs if own and own.outcome == outcome)

    alike: dict[tuple[tuple[str, ...], tuple[str, ...]], list[str]] = {}
    for method in comparison.methods:
        alike.setdefault((titles(method, 1), titles(method, -1)), []).append(method)
    differing = tuple((_listed(own), *found) for found, own in alike.items() if any(found))
    over = _listed([metric.title for metric in judged], "or")
    text = (
        f"Compared with {baseline}, significantly:"
        if differing
        else f"No method differs significantly from {baseline} in {over}."
    )
    return Conclusions((best, text), differing, last)


def mean_ranks(comparison: Comparison) -> tuple[list[str], list[float]]:
    """The titles of the metrics of faithfulness that are known of all methods, and mean ranks."""
    metrics = [metric for metric in comparison.metrics if metric.kind == "faithfulness"]
    known = [m for m in metrics if not np.isnan(comparison.ranks[m.name]).any()]
    ranks = np.array([comparison.ranks[metric.name] for metric in known])
    means = ranks.mean(0) if known else np.full(len(comparison.methods), np.nan)
    return [metric.title for metric in known], means.tolist()


def _best(comparison: Comparison) -> str:
    titles, ranks = mean_ranks(comparison)
    if not titles:
        return "The run has no faithfulness metric."
    smallest, over = min(ranks), _listed(titles)
    pairs = sorted(zip(ranks, comparison.methods, strict=True), key=lambda pair: pair[0])
    best = [method for rank, method in pairs if rank - smallest < _EQUAL]
    if len(best) == len(pairs):
        return f"All methods have the same mean rank over {over}."
    verb = "has" if len(best) == 1 else "share"
    rank, follower = pairs[len(best)]
    return (
        f"{_listed(best)} {verb} the best mean rank over {over} ({smallest:.1f} of {len(ranks)}); "
        f"{follower} follows with {rank:.1f}."
    )


def _favoured(comparison: Comparison, by_avx: Sequence[str]) -> tuple[str, ...]:
    """Which methods AVX favours; empty if it does not matter here."""
    own = [method for method in comparison.methods if method in by_avx]
    if not own or not any(metric.name == "avx" for metric in comparison.metrics):
        return ()
    verb = "selects" if len(own) == 1 else "select"
    return (f"AVX and its parts favour {_listed(own)}, which {verb} by AVX.",)


def _listed(names: Sequence[str], word: str = "and") -> str:
    return f" {word} ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
