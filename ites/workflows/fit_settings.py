"""The settings of a fit: the one place that says how they follow from the amount of data.

N frames to train on become 2N poses with their mirror images. C principal components carry most of
the poses' variance. A prior that is too wide for its data overfits them. Views of other poses
are then unlikely, and the teacher learns nothing. So few frames get a narrow one.

| setting | N below 10,000 | below 30,000 | more |
|---|---|---|---|
| variance that C components carry | 99% | 99.5% | 99.9% |
| prior.width | 64 | 128 | 256 |
| prior.steps | 15 epochs | 20 epochs | 20 epochs, at most 1,500 |

| setting | rule |
|---|---|
| prior.components | C, from 4 to 26 |
| prior.batch | 2N / 16, rounded down to a power of two, from 64 to 512 |
| teacher.atoms | 1.5 C, from 8 to 30 |
| teacher.batch | 256, or as the prior's if that is less |
| teacher.steps | 100 epochs, from 1,500 to 4,000 |
| teacher.start_elevation_steps | a quarter of the steps |
| student.batch | 128, or as the prior's if that is less |
| student.steps | 40 epochs, from 1,000 to 3,000 |

A fit that starts from a run keeps its sizes and weights of losses. The prior takes 5 epochs, the
teacher 20, the student 10, at lower learning rates: few frames must not undo what the run knows.
It searches neither elevation nor sign again: both are known.

From a run of recipe general only the teacher is trained, for 40 epochs and at least 800 steps. The
prior stays, and so do BatchNorm's statistics: those of few poses of one person mislead the network.
Half of each batch are synthetic poses as the run has seen them (`ites.data.datasets.field`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ites.runs.settings import STAGES, in_recipe

Value = int | float | str

PRIORS = ((10_000, 0.99, 64, 15), (30_000, 0.995, 128, 20), (math.inf, 0.999, 256, 20))
"""Of the prior: frames below which it holds, variance carried, width, epochs."""
COMPONENTS, ATOMS = (4, 26), (8, 30)
BATCHES = {"prior": 512, "teacher": 256, "student": 128}
EPOCHS = {"teacher": 100, "student": 40}
STEPS = {"prior": (100, 1500), "teacher": (1500, 4000), "student": (1000, 3000)}
KEPT = (
    "width", "blocks", "atoms", "components", "distance", "optimiser", "momentum", "decay",
    "weight_decay", "grad_clip", "samples", "reprojection_weight", "turn_weight", "prior_weight",
    "bone_weight", "distillation_weight", "vertical", "elevation_weight", "noise",
)  # fmt: skip
"""Settings that a fit takes from the run it starts from."""


@dataclass(frozen=True)
class FitRecipe:
    """What a fit asks of a recipe.

    Attributes:
        further: of each stage that a fit from a trained run trains: epochs, fewest steps, learning
            rate. The steps are at most half of those from scratch. Other stages stay the run's.
        settings: further settings of these stages.
        gravity: whether poses need elevation and roll of their cameras, which the run estimates,
            and synthetic poses are replayed.
        dictionary: whether the teacher's own poses are those of its dictionary.
    """

    further: Mapping[str, tuple[int, int, float]]
    settings: Mapping[str, Value] = field(default_factory=dict)
    gravity: bool = False
    dictionary: bool = False


SCRATCH = "upright"
"""The recipe of a fit from scratch."""
RECIPES = {
    "upright": FitRecipe(
        {"prior": (5, 1, 1e-4), "teacher": (20, 1, 1e-4), "student": (10, 1, 1e-3)},
        dictionary=True,
    ),
    "general": FitRecipe({"teacher": (40, 800, 1e-4)}, {"batch_statistics": "kept"}, gravity=True),
}
"""By the name of a recipe."""


def settings_for(points: NDArray[np.floating]) -> dict[str, dict[str, Value]]:
    """The settings of each stage that differ from the recipe's own.

    Args:
        points: (N, J, 2), the networks' input, root-relative.
    """
    poses = 2 * len(points)
    carried, width, epochs = next(rule[1:] for rule in PRIORS if len(points) < rule[0])
    parts = components(points, carried)
    least = _within(2 ** int(np.log2(max(1, poses // 16))), (64, BATCHES["prior"]))
    chosen: dict[str, dict[str, Value]] = {}
    for stage in STAGES:
        batch = min(BATCHES[stage], least)
        steps = _within(EPOCHS.get(stage, epochs) * poses // batch, STEPS[stage])
        chosen[stage] = {"batch": batch, "steps": steps, "epochs": 1 + steps * batch // poses * 2}
    chosen["prior"] |= {"components": _within(parts, COMPONENTS), "width": width}
    chosen["teacher"]["atoms"] = _within(round(1.5 * parts), ATOMS)
    chosen["teacher"]["start_elevation_steps"] = max(1, int(chosen["teacher"]["steps"]) // 4)
    return chosen


def settings_from(
    points: NDArray[np.floating], started: Mapping[str, Mapping[str, Any]], recipe: str
) -> dict[str, dict[str, Value]]:
    """The same for a fit that starts from a trained run.

    Args:
        points: (N, J, 2), the networks' input, root-relative.
        started: the settings of the run's stages, by name.
        recipe: of the run.
    """
    asked = RECIPES[recipe]
    further = {stage: rule for stage, rule in asked.further.items() if stage in started}
    chosen = {stage: own for stage, own in settings_for(points).items() if stage in further}
    for stage, own in chosen.items():
        epochs, least, rate = further[stage]
        limits = least, STEPS[stage][1] // 2
        own["steps"] = _within(epochs * 2 * len(points) // int(own["batch"]), limits)
        own |= {"learning_rate": rate, **asked.settings}
        own |= {name: started[stage][name] for name in KEPT if name in started[stage]}
        still = {
            "pilot_steps": 0,
            "start_elevation_weight": 0.0,
            "start_elevation_steps": 20 * int(own["steps"]),
        }
        own |= {name: value for name, value in still.items() if in_recipe(stage, name, recipe)}
        own |= {"epochs": 1 + int(own["steps"])}
        for name in [name for name in own if not in_recipe(stage, name, recipe)]:
            del own[name]
    return chosen


def components(points: NDArray[np.floating], carried: float) -> int:
    """The number of principal components that carry a share of the variance of (N, J, 2)."""
    rows = points.reshape(len(points), -1).astype(np.float64)
    rows -= rows.mean(0)
    variance = np.linalg.eigvalsh(rows.T @ rows)[::-1].clip(min=0)
    shares = np.cumsum(variance) / max(float(variance.sum()), 1e-30)
    return min(int(np.searchsorted(shares, carried)) + 1, len(shares))


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
