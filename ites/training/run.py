"""`ites.train`: all stages of a recipe, from Python."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from ites.errors import ItesError
from ites.runs.folder import RunFolder, resumed_settings
from ites.runs.recipe import default_recipe
from ites.runs.settings import (
    STAGES,
    Settings,
    current_names,
    make_settings,
    read_toml,
    refuse_in_file,
    refuse_without_effect,
    stages_of,
)
from ites.system.arguments import checked
from ites.training import engine
from ites.training.result import Result


@checked("train")
def train(
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    recipe: str | None = None,
    only: str | Sequence[str] | None = None,
    config: str | os.PathLike[str] | None = None,
    start: str | os.PathLike[str] | None = None,
    resume: bool = False,
    console: Console | None = None,
    **settings: Any,
) -> list[Result]:
    """Train all stages of a recipe from a pose store's 2D keypoints.

    Example:
        >>> import ites
        >>> results = ites.train("mine.h5", "runs/mine", seed=0, teacher={"steps": 4000})
        >>> summary = ites.lift("clip.npz", "clip3d.npz", run="runs/mine")

    Args:
        data: a pose store, as `ites prepare` writes it.
        out: the run folder to write.
        recipe: "paper", the published method: a teacher, then a student; "upright", which finds the
            sign of depth from 2D alone and trains a prior first; or "general", one model for any
            camera: a prior, then a teacher. None: "upright" where the store holds no 3D, else
            "paper".
        only: the stage to train, "prior", "teacher" or "student", or several; None: all of the
            recipe.
        config: a TOML file of settings, which may name the recipe; the arguments override it.
        start: a run folder of the same recipe, skeleton and sizes; each stage begins with its
            weights. None: weights drawn from the seed.
        resume: continue the training in `out`, with the settings that it began with and from the
            same poses.
        console: where progress is shown; None: standard output.
        **settings: settings of `ites.runs.settings` by name, for each stage that has them; or for
            one stage, a dictionary by the stage's name.

    Returns:
        The result of each stage; fewer than the stages if one was interrupted.

    Raises:
        ItesError: a setting is unknown, out of range or without effect, the folder holds a training
            already, the store cannot be used, or a loss is not finite.
    """
    settings = current_names(settings, "train")
    recipe = recipe or _stated_recipe(out if resume else None, config) or default_recipe(data)
    asked = [only] if isinstance(only, str) else list(only or stages_of(recipe))
    for stage in asked:
        if stage not in STAGES:
            raise ItesError(f"train: only must be one of {', '.join(STAGES)}, got {stage!r}")
    stages = [stage for stage in STAGES if stage in asked]
    common = {"data": str(data), "out": str(out), "recipe": recipe}
    if start is not None:
        common["start"] = str(start)
    chosen = [
        _settings(stage, config, resume, common, settings_of(stage, stages, settings))
        for stage in stages
    ]
    refuse_without_effect(chosen, _spelled(settings))
    if config is not None:
        refuse_in_file(config, recipe)
    return list(train_stages(chosen, resume=resume, console=console))


def _stated_recipe(
    run: str | os.PathLike[str] | None, config: str | os.PathLike[str] | None
) -> str | None:
    """The recipe that a resumed run's settings state, or a file of settings."""
    file = config if run is None else RunFolder(run).settings
    if file is None or (run is not None and not Path(file).is_file()):
        return None
    tables = read_toml(file)
    return next((table["recipe"] for table in tables.values() if "recipe" in table), None)


def _spelled(settings: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Each setting with its spelling and its stage, for `refuse_without_effect`."""
    spelled = []
    for name, value in settings.items():
        if isinstance(value, Mapping):
            spelled += [(f"{name}.{own}", name, own) for own in value]
        else:
            spelled.append((name, "", name))
    return spelled


def train_stages(
    chosen: Sequence[Settings], *, resume: bool = False, console: Console | None = None
) -> Iterator[Result]:
    """Train stages into one run folder, one after another, until one is interrupted.

    Args:
        chosen: the settings of each stage, in order.
        resume: continue those of which the folder holds a state.
        console: where progress is shown; None: standard output.

    Yields:
        the result of each stage.

    Raises:
        ItesError: see `ites.training.engine.train`.
    """
    for settings in chosen:
        started = resume and RunFolder(settings.out).state(settings.stage).is_file()
        result = engine.train(settings, resume=started, console=console, planned=chosen)
        yield result
        if result.interrupted:
            return


def settings_of(stage: str, stages: list[str], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Select the settings of one stage; its own override the common ones.

    Raises:
        ItesError: a name belongs to none of the stages.
    """
    own: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            having = [name] if name in stages else []
        else:
            having = [s for s in stages if name in STAGES[s].names()]
        if not having:
            raise ItesError(f"train: no stage of {', '.join(stages)} has a setting {name!r}")
        if stage in having and not isinstance(value, Mapping):
            own[name] = value
    table = settings.get(stage)
    return own | dict(table) if isinstance(table, Mapping) else own


def _settings(
    stage: str,
    config: str | os.PathLike[str] | None,
    resume: bool,
    common: Mapping[str, Any],
    own: Mapping[str, Any],
) -> Settings:
    if not resume:
        return make_settings(stage, config, {**common, **own})
    if config is not None:
        raise ItesError("train: a resumed training takes the run's own settings, not a file's")
    given = {name: value for name, value in common.items() if name != "out"}
    return resumed_settings(common["out"], stage, {**given, **own})
