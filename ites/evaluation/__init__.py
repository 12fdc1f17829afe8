"""Metrics of a run against the truth, by the protocols of the field and of the paper."""
