"""The settings of a fit: the one place that says how they follow from the amount of data.

N frames to train on become 2N poses with their mirror images. C principal components carry
`CARRIED` of the poses' variance.

| setting | rule |
|---|---|
| prior.components | C, from 4 to 26 |
| prior.batch | 2N / 16, rounded down to a power of two, from 64 to 512 |
| prior.steps | 20 epochs, at most 1,500 |
| teacher.atoms | 1.2 C, from 8 to 30 |
| teacher.batch | 256, or as the prior's if that is less |
| teacher.steps | 100 epochs, from 1,500 to 4,000 |
| teacher.level_steps | a quarter of the steps |
| student.batch | 128, or as the prior's if that is less |
| student.steps | 40 epochs, from 1,000 to 3,000 |

A fit that starts from a run keeps its sizes and weights of losses. It takes a share of the steps
at a lower learning rate, and searches neither elevation nor sign again: both are known.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ites.runs.settings import STAGES

Value = int | float | str

CARRIED = 0.999
COMPONENTS, ATOMS = (4, 26), (8, 30)
BATCHES = {"prior": 512, "teacher": 256, "student": 128}
EPOCHS = {"prior": 20, "teacher": 100, "student": 40}
STEPS = {"prior": (100, 1500), "teacher": (1500, 4000), "student": (1000, 3000)}
FURTHER = {"prior": (0.25, 1e-4), "teacher": (0.5, 1e-4), "student": (0.5, 1e-3)}
"""From a trained run: share of the steps, and the learning rate."""
KEPT = (
    "width", "blocks", "atoms", "components", "distance", "optimiser", "momentum", "decay",
    "weight_decay", "clip", "samples", "reprojection_weight", "turn_weight", "prior_weight",
    "bone_weight", "elevation_weight", "noise", "distillation_weight", "vertical",
)  # fmt: skip
"""Settings that a fit takes from the run it starts from."""


def settings_for(points: NDArray[np.floating]) -> dict[str, dict[str, Value]]:
    """The settings of each stage that differ from the recipe's own.

    Args:
        points: (N, J, 2), the networks' input, root-relative.
    """
    poses, parts = 2 * len(points), components(points)
    least = _within(2 ** int(np.log2(max(1, poses // 16))), (64, BATCHES["prior"]))
    chosen: dict[str, dict[str, Value]] = {}
    for stage in STAGES:
        batch = min(BATCHES[stage], least)
        steps = _within(EPOCHS[stage] * poses // batch, STEPS[stage])
        chosen[stage] = {"batch": batch, "steps": steps, "epochs": 1 + steps * batch // poses * 2}
    chosen["prior"]["components"] = _within(parts, COMPONENTS)
    chosen["teacher"]["atoms"] = _within(round(1.2 * parts), ATOMS)
    chosen["teacher"]["level_steps"] = max(1, int(chosen["teacher"]["steps"]) // 4)
    return chosen


def settings_from(
    points: NDArray[np.floating], started: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Value]]:
    """The same for a fit that starts from a trained run.

    Args:
        points: (N, J, 2), the networks' input, root-relative.
        started: the settings of the run's stages, by name.
    """
    chosen = {stage: own for stage, own in settings_for(points).items() if stage in started}
    for stage, own in chosen.items():
        known = STAGES[stage].names()
        share, rate = FURTHER[stage]
        own["steps"] = max(1, round(share * int(own["steps"])))
        own["learning_rate"] = rate
        own |= {name: started[stage][name] for name in KEPT if name in started[stage]}
        still = {"pilot_steps": 0, "level_weight": 0.0, "level_steps": 20 * int(own["steps"])}
        own |= {name: value for name, value in still.items() if name in known}
    return chosen


def components(points: NDArray[np.floating]) -> int:
    """The number of principal components that carry `CARRIED` of the variance of (N, J, 2)."""
    rows = points.reshape(len(points), -1).astype(np.float64)
    rows -= rows.mean(0)
    variance = np.linalg.eigvalsh(rows.T @ rows)[::-1].clip(min=0)
    carried = np.cumsum(variance) / max(float(variance.sum()), 1e-30)
    return int(np.searchsorted(carried, CARRIED)) + 1


def in_words(chosen: Mapping[str, Mapping[str, Value]]) -> list[str]:
    """The settings, one line per stage."""
    lines = []
    for stage, own in chosen.items():
        more = [f"{name} {own[name]}" for name in ("components", "atoms") if name in own]
        words = [f"{own['steps']:,} steps of {own['batch']} poses", *more]
        lines.append(f"{stage}: {', '.join(words)}")
    return lines


def _within(value: int, limits: tuple[int, int]) -> int:
    return min(max(value, limits[0]), limits[1])
