"""Conclusions from the statistics, in words."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan

from captum_advise.evaluation.columns import Metric
from captum_advise.evaluation.statistics import SIGNIFICANCE, Comparison

# Mean ranks that are equal up to rounding are a tie.
_EQUAL = 1e-9


def conclusions(comparison: Comparison, baseline: str) -> str:
    """A paragraph: the best method, what differs significantly from a baseline, and a caveat."""
    if len(comparison.methods) == 1:
        return f"The run has one method, {baseline}, so there is nothing to compare."
    tested = [metric for metric in comparison.metrics if metric.tested]
    # Saved maps have no value of some metrics.
    primary = [
        metric
        for metric in tested
        if metric.kind == "faithfulness" and not any(map(isnan, comparison.ranks[metric.name].mean))
    ]
    protocol = [metric for metric in tested if metric.name == "avx"]
    n_tests = len(tested) * (len(comparison.methods) - 1)
    sentences = [_best(comparison, primary)]
    # The smallest p value of the exact Wilcoxon test: all differences have one sign.
    smallest = n_tests * 2.0 ** (1 - comparison.images)
    if smallest > SIGNIFICANCE:
        sentences.append(
            f"With {_count(comparison.images, 'image')} and {_count(n_tests, 'test')}, no "
            f"difference from {baseline} can be significant after Holm's correction: evaluate "
            "more images."
        )
    else:
        sentences += _significant(comparison, baseline, primary, protocol)
    if protocol and any(method.startswith("layer-advise") for method in comparison.methods):
        sentences.append("AVX and its parts favour ADVISE, which selects by AVX.")
    return " ".join(sentences)


def _best(comparison: Comparison, primary: Sequence[Metric]) -> str:
    if not primary:
        return "The run has no faithfulness metric."
    ranks = [
        sum(comparison.ranks[metric.name].mean[i] for metric in primary) / len(primary)
        for i in range(len(comparison.methods))
    ]
    order = sorted(range(len(ranks)), key=lambda i: ranks[i])
    best = [comparison.methods[i] for i in order if ranks[i] - ranks[order[0]] < _EQUAL]
    others = [i for i in order if comparison.methods[i] not in best]
    over = _listed([metric.title for metric in primary])
    if not others:
        return f"All methods have the same mean rank over {over}."
    verb = "has" if len(best) == 1 else "share"
    follows = f"{comparison.methods[others[0]]} follows with {ranks[others[0]]:.1f}"
    return (
        f"{_listed(best)} {verb} the best mean rank over {over} ({ranks[order[0]]:.1f} of "
        f"{len(ranks)}); {follows}."
    )


def _significant(
    comparison: Comparison, baseline: str, primary: Sequence[Metric], protocol: Sequence[Metric]
) -> list[str]:
    """A sentence for each metric in which a method differs significantly from the baseline."""
    sentences = []
    for metric in [*primary, *protocol]:
        better, worse = _differing(comparison, baseline, metric)
        clauses = [
            f"{_listed(names)} {'is' if len(names) == 1 else 'are'} significantly {which} than "
            f"{baseline}"
            for names, which in ((better, "better"), (worse, "worse"))
            if names
        ]
        if clauses:
            sentences.append(f"In {metric.title}, {' and '.join(clauses)}.")
    if not any(metric.title in s for metric in primary for s in sentences):
        over = _listed([metric.title for metric in primary], "or")
        sentences.insert(0, f"No method differs significantly from {baseline} in {over}.")
    return sentences


def _differing(
    comparison: Comparison, baseline: str, metric: Metric
) -> tuple[list[str], list[str]]:
    """The methods that are significantly better, and those that are worse."""
    better: list[str] = []
    worse: list[str] = []
    for method in comparison.methods:
        found = comparison.differences.get((baseline, method, metric.name))
        if found is not None and found.outcome:
            (better if found.outcome > 0 else worse).append(method)
    return better, worse


def _listed(names: Sequence[str], word: str = "and") -> str:
    return f" {word} ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
