"""Measurements: `ops` and `speed` against a baseline of the same run, `accuracy` against truth."""
