"""What a training did."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Result:
    """What a training did.

    Attributes:
        stage: "prior", "teacher" or "student".
        run: the run folder.
        step: optimiser steps taken, earlier parts of a resumed run included.
        steps: steps of the whole schedule; more than `step` where it was interrupted.
        epochs: passes over the data, a fraction of one included.
        poses: in the training split.
        losses: the last logged means by name.
        seconds: time spent training, earlier parts included.
        poses_per_second: poses seen per second of that time.
        device: in words.
        backend: of the ops.
    """

    stage: str
    run: Path
    step: int
    steps: int
    epochs: float
    poses: int
    losses: dict[str, float]
    seconds: float
    poses_per_second: float
    device: str
    backend: str

    @property
    def interrupted(self) -> bool:
        """Whether it stopped before the end of its schedule."""
        return self.step < self.steps
