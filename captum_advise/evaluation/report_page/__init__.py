"""``report.html``: the results of a run as one page that works without a network connection."""

from captum_advise.evaluation.report_page.content import Run, content, worst_cases, worst_images
from captum_advise.evaluation.report_page.images import ReportImage, chosen_images, embedded
from captum_advise.evaluation.report_page.page import render

__all__ = [
    "ReportImage",
    "Run",
    "chosen_images",
    "content",
    "embedded",
    "render",
    "worst_cases",
    "worst_images",
]
