"""Judging learners: episodes, intervals, comparisons, plots and reports."""
