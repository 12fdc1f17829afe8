"""The result of a training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Result:
    """The result of training one stage.

    Attributes:
        stage: "prior", "teacher" or "student".
        run: the run folder.
        step: optimiser steps taken, including earlier parts of a resumed run.
        steps: steps of the whole schedule; more than `step` if the training was interrupted.
        epochs: epochs so far, as a fraction.
        poses: in the training split.
        losses: the last logged means by name.
        seconds: time spent training, including earlier parts.
        poses_per_second: poses seen per second of that time.
        device: name of the device.
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
