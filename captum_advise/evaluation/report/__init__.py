"""Rows of results to statistics, conclusions in words, and ``report.html``."""
