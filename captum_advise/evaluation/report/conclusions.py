"""Conclusions from the statistics, in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan

from captum_advise.evaluation.columns import Metric
from captum_advise.evaluation.report.statistics import SIGNIFICANCE, Comparison

# Mean ranks that are equal up to rounding are a tie.
_EQUAL = 1e-9
# Of the metrics of location, those that only depend on the order of pixels. Sharper maps of the
# same order raise the others, and sparseness only describes a map.
_LOCATION = ("pointing", "top_pixels", "grid_top")


@dataclass(frozen=True)
class Conclusions:
    """What a comparison says.

    Attributes:
        first: Sentences about all methods.
        methods: Those that differ significantly from the baseline, with the titles of the metrics
            in which they are better, and in which they are worse.
        last: Sentences about how to read it.
    """

    first: tuple[str, ...]
    methods: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = ()
    last: tuple[str, ...] = ()


def conclusions(comparison: Comparison, baseline: str, by_avx: Sequence[str] = ()) -> Conclusions:
    """The best method, who differs significantly from a baseline, and what to be careful about."""
    if len(comparison.methods) == 1:
        return Conclusions((f"The run has one method, {baseline}: there is nothing to compare.",))
    best = _best(comparison)
    last = tuple(filter(None, [favoured(comparison, by_avx)]))
    # The smallest p value of the exact Wilcoxon test: all differences have one sign.
    possible = [
        n_tests * 2.0 ** (1 - n_images) <= SIGNIFICANCE
        for n_tests, n_images in zip(comparison.tests, comparison.images, strict=True)
        if n_tests
    ]
    if not any(possible):
        n_images, n_tests = max(comparison.images), max(comparison.tests, default=0)
        few = (
            f"With {_count(n_images, 'image')} and {_count(n_tests, 'test')}, no difference from "
            f"{baseline} can be significant after Holm's correction: evaluate more images."
        )
        return Conclusions((best, few), (), last)
    judged = [metric for metric in comparison.metrics if judges(metric)]
    judged += [metric for metric in comparison.metrics if metric.name == "avx"]
    differing = []
    for method in comparison.methods:
        outcomes = {
            metric.title: found.outcome
            for metric in judged
            if (found := comparison.differences.get((baseline, method, metric.name)))
        }
        if any(outcomes.values()):
            better, worse = (
                tuple(title for title, outcome in outcomes.items() if outcome == sign)
                for sign in (1, -1)
            )
            differing.append((method, better, worse))
    over = _listed([metric.title for metric in judged], "or")
    text = (
        f"Compared with {baseline}, significantly:"
        if differing
        else f"No method differs significantly from {baseline} in {over}."
    )
    return Conclusions((best, text), tuple(differing), last)


def judges(metric: Metric) -> bool:
    """Whether a metric judges a map, without being what a method selects by."""
    return metric.kind == "faithfulness" or metric.name in _LOCATION


def favoured(comparison: Comparison, by_avx: Sequence[str]) -> str:
    """Which methods AVX favours; empty if it does not matter here."""
    own = [method for method in comparison.methods if method in by_avx]
    if not own or not any(metric.name == "avx" for metric in comparison.metrics):
        return ""
    verb = "selects" if len(own) == 1 else "select"
    return f"AVX and its parts favour {_listed(own)}, which {verb} by AVX."


def mean_ranks(comparison: Comparison) -> tuple[tuple[str, ...], list[float]]:
    """The titles of the metrics of faithfulness that are known of all methods, and mean ranks."""
    known = [
        metric
        for metric in comparison.metrics
        if metric.kind == "faithfulness" and not any(map(isnan, comparison.ranks[metric.name].mean))
    ]
    ranks = [
        sum(comparison.ranks[metric.name].mean[i] for metric in known) / len(known)
        if known
        else float("nan")
        for i in range(len(comparison.methods))
    ]
    return tuple(metric.title for metric in known), ranks


def _best(comparison: Comparison) -> str:
    titles, ranks = mean_ranks(comparison)
    if not titles:
        return "The run has no faithfulness metric."
    order = sorted(range(len(ranks)), key=lambda i: ranks[i])
    best = [comparison.methods[i] for i in order if ranks[i] - ranks[order[0]] < _EQUAL]
    others = [i for i in order if comparison.methods[i] not in best]
    over = _listed(titles)
    if not others:
        return f"All methods have the same mean rank over {over}."
    verb = "has" if len(best) == 1 else "share"
    return (
        f"{_listed(best)} {verb} the best mean rank over {over} ({ranks[order[0]]:.1f} of "
        f"{len(ranks)}); {comparison.methods[others[0]]} follows with {ranks[others[0]]:.1f}."
    )


def _listed(names: Sequence[str], word: str = "and") -> str:
    return f" {word} ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
