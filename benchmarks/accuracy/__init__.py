"""Errors of the recipes: the rows of docs/accuracy.md."""
