"""Conclusions from the statistics, in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from captum_advise.evaluation.columns import Metric
from captum_advise.evaluation.report.statistics import baseline_of, outcome

if TYPE_CHECKING:
    import pandas as pd


def conclusions(
    table: pd.DataFrame, metrics: Sequence[Metric], by_avx: Sequence[str] = ()
) -> list[str]:
    """Sentences: which methods differ significantly from the baseline, and in what.

    ``table`` is a comparison, and ``by_avx`` are the methods that select by AVX, which favours
    them.
    """
    methods = list(table["method"].unique())
    baseline = baseline_of(methods)
    if len(methods) == 1:
        return [f"The run has one method, {baseline}: there is nothing to compare."]
    judged = [metric for metric in metrics if metric.judges or metric.name == "avx"]
    sentences = list(_differences(table, judged, baseline))
    own = [method for method in methods if method in by_avx]
    if own and any(metric.name == "avx" for metric in metrics):
        verb = "selects" if len(own) == 1 else "select"
        sentences.append(f"AVX and its parts favour {_listed(own)}, which {verb} by AVX.")
    return sentences


def _differences(table: pd.DataFrame, judged: Sequence[Metric], baseline: str) -> Iterator[str]:
    """A sentence for all methods of which the same is true."""
    titles = {metric.name: metric.title for metric in judged}
    alike: dict[str, list[str]] = {}
    for method, rows in table[table["metric"].isin(titles)].groupby("method", sort=False):
        parts = []
        for word, wanted in (("better", 1), ("worse", -1)):
            of_word = rows[rows.apply(outcome, axis=1) == wanted]
            if len(of_word):
                parts.append(f"{word} in {_listed([*of_word['metric'].map(titles)])}")
        if parts:
            alike.setdefault("; ".join(parts), []).append(str(method))
    for text, methods in alike.items():
        who = f"{_listed(methods)} {'is' if len(methods) == 1 else 'are'}"
        yield f"Compared with {baseline}, {who} significantly {text}."
    if titles and not alike:
        over = _listed([*titles.values()], "or")
        yield f"No method differs significantly from {baseline} in {over}."


def _listed(names: Sequence[str], word: str = "and") -> str:
    return f" {word} ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
