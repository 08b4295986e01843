"""Helpers that know nothing of explanations: files, errors, checks, tables."""
