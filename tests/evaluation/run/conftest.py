from __future__ import annotations

import pytest


@pytest.fixture
def no_report(monkeypatch):
    """Reports are tested elsewhere."""
    from captum_advise.evaluation.run import steps

    def only_means(folder, report, shown):
        names = [metric.name for metric in report.metrics]
        summary = report.results.groupby("method")[names].mean().stack().rename("mean")
        summary = summary.rename_axis(["method", "metric"]).reset_index()
        summary.to_csv(folder / "summary.csv", index=False)
        return summary

    monkeypatch.setattr(steps, "write_report", only_means)
