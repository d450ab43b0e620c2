"""Runs from a data set to a result, and from a model to predictions."""
