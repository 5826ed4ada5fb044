"""Rows and what is done with them, without weights: load, render, grade, select, measure. Imports no torch."""
