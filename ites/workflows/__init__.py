"""Workflows of several steps: the demo and the fit."""
