"""Timings of each op by each backend, the choice made by them, and what kernels take."""
