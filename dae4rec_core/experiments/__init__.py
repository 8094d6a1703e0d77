"""Whole experiments: baselines, evaluation, sweeps, and the artifacts that the notebooks load."""
