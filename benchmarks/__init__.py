"""Timings of the ops and of training, each against a baseline of the same run."""
