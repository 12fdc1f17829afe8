"""Timings of training steps, of lifting, and of growth."""
