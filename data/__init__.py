"""Rows and what is done to them, without weights: load, render, grade, select, measure. Imports no torch."""
