"""Where the training of a fit starts: from scratch, or from a trained run."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from ites.errors import ItesError
from ites.inference.roll import find_roll
from ites.pose.geometry import unrolled
from ites.pose.skeleton import Skeleton
from ites.runs.checkpoint import load_model, load_prior, load_stage
from ites.runs.packaged import FOLDER, has_packaged_run
from ites.runs.settings import current_names, stages_of
from ites.system.console import say
from ites.training.run import settings_of
from ites.workflows.fit_data import Gravity
from ites.workflows.fit_settings import SCRATCH, settings_for, settings_from

AUTO = "auto"
"""The start that takes the packaged model, if there is one."""


class Start(NamedTuple):
    """The run at the start: its folder or None, its recipe, and its settings by stage."""

    run: str | None
    recipe: str
    settings: dict[str, Mapping[str, Any]]


def start_of(asked: str | None, skeleton: Skeleton, console: Console) -> Start:
    """The start that was asked for.

    Args:
        asked: a run folder; `AUTO`; or None: from scratch.
        skeleton: of the keypoints.
        console: where a line states that the packaged model has another skeleton.

    Raises:
        ItesError: the folder is absent, or holds no prior and teacher of this skeleton.
    """
    scratch = Start(None, SCRATCH, {})
    if asked is None or asked == AUTO and not has_packaged_run():
        return scratch
    run = str(FOLDER) if asked == AUTO else asked
    if not Path(run).is_dir():
        raise ItesError(f"{run}: expected a run folder to start from; there is none")
    teacher, about = load_stage(run, "teacher")
    if about.skeleton != skeleton:
        words = f"{run}: expected a teacher of {skeleton.name}, got {about.skeleton.name}"
        if asked != AUTO:
            raise ItesError(words)
        say(console, f"{words}: training from scratch")
        return scratch
    recipe = str(getattr(teacher, "recipe", ""))
    if "prior" not in stages_of(recipe):
        raise ItesError(f"{run}: expected a run of recipe upright or general, got {recipe}")
    settings: dict[str, Mapping[str, Any]] = {}
    for stage in stages_of(recipe):
        model, about = load_stage(run, stage)
        sizes: dict[str, Any] = model.sizes()  # type: ignore[operator]
        settings[stage] = {**about.settings, **sizes}
    return Start(run, recipe, settings)


def plan(
    points: NDArray[np.float32], start: Start, given: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """The settings of each stage to train: those of the rule, overridden by a caller's.

    Args:
        points: (N, J, 2), the networks' input, root-relative.
        start: where the training starts.
        given: settings by name, or by stage and name.

    Raises:
        ItesError: a setting belongs to no trained stage.
    """
    if start.run is None:
        ruled = settings_for(points)
    else:
        ruled = settings_from(points, start.settings, start.recipe)
    given = current_names(given, "fit")
    return {stage: own | settings_of(stage, [*ruled], given) for stage, own in ruled.items()}


def camera_of(run: str | os.PathLike[str]) -> Gravity:
    """What estimates elevation and roll of a clip's camera, by the teacher and prior of a run."""
    teacher, _ = load_model(run, "teacher")
    prior = load_prior(run)

    def angles(points: NDArray[np.float32]) -> tuple[float, float]:
        roll = find_roll(points, prior)
        with torch.inference_mode():
            level = unrolled(torch.from_numpy(points), torch.tensor(roll))
            elevation = teacher.elevation(level)  # type: ignore[operator]
        return float(elevation.median().rad2deg()), math.degrees(roll)

    return angles
