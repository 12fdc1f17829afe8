"""Training: one engine, two stages.

`stages` says what is learned, `engine` how, `run` where it is kept, `log` how it is told.
"""
