"""Queries of finished and unfinished runs: list, trace, compare, verify, reconcile."""
