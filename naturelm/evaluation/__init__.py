"""Scoring a model: on BEANS-Zero, on labelled recordings, or by a file of predictions."""
