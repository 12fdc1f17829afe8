"""A run folder: its settings, its paths, its checkpoints."""
