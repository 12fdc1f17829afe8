"""Whole workflows made of the commands below them."""
