"""Training: one engine, two stages.

`stages` says what is learned, `engine` how, `run` where it is kept, `log` how it is told.
"""

from ites.train.engine import Result, train

__all__ = ["Result", "train"]
