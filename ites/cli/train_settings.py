"""The settings of a training by its options, its file and its data, for `ites train`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ites.cli.options import say
from ites.errors import ItesError
from ites.runs.settings import (
    FORMER_NAMES,
    STAGES,
    Settings,
    make_settings,
    nearest_name,
    parse_setting,
    read_toml,
    refuse_in_file,
    refuse_without_effect,
    stages_of,
)

Given = tuple[str, str, str, str]
"""A setting on the command line: its spelling, the stage or "" for all, the name, the text."""


def assignment(text: str) -> Given:
    """`teacher.atoms=30` or `batch=64` in parts."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ItesError(f"train: --set: expected NAME=VALUE, such as teacher.atoms=30, got {text}")
    stage, dot, setting = name.partition(".")
    if not dot:
        stage, setting = "", name
    elif stage not in STAGES:
        raise ItesError(f"train: --set {name}: expected one of {', '.join(STAGES)}, got '{stage}'")
    return f"--set {name}", stage, _current_name(setting), value


def _current_name(setting: str) -> str:
    """A setting's present name; a former one prints it."""
    name = FORMER_NAMES.get(setting, setting)
    if name != setting and os.environ.get("RANK", "0") == "0":
        say(f"the setting {setting} is now called {name}")
    return name


def chosen_settings(
    only: str | None, config: Path | None, given: Sequence[Given]
) -> tuple[list[Settings], str]:
    """The settings of each stage to train, and a line that states the recipe and the reason."""
    recipe, why = _recipe(only, config, given)
    stages = [only] if only else list(stages_of(recipe))
    options = _options(stages, given, recipe)
    for own in options.values():
        own.setdefault("recipe", recipe)
    chosen = [make_settings(stage, config, options[stage]) for stage in stages]
    refuse_without_effect(chosen, [one[:3] for one in given])
    if config is not None:
        refuse_in_file(config, recipe)
    return chosen, why


def settings_to_resume(only: str | None, run: Path, given: Sequence[Given]) -> list[Settings]:
    """The settings of each stage of an earlier run that is continued."""
    from ites.runs.folder import RunFolder, resumed_settings

    file = RunFolder(run).settings
    tables = read_toml(file) if file.is_file() else {}
    held = [stage for stage, table in tables.items() if table and stage]
    stages = [only] if only else held or ["teacher"]
    for spelling, _, name, value in given:
        if name == "out" and Path(value) != run:
            raise ItesError(f"train: {spelling} has no effect with --resume {run}; leave one out")
    recipe = tables[stages[-1]].get("recipe", "paper") if held else "paper"
    options = _options(stages, given, recipe)
    chosen = [resumed_settings(run, stage, options[stage]) for stage in stages]
    refuse_without_effect(chosen, [one[:3] for one in given])
    return chosen


def _recipe(only: str | None, config: Path | None, given: Sequence[Given]) -> tuple[str, str]:
    """The recipe, and a line that states the reason; "" for the prior alone."""
    recipe = _asked("recipe", only, config, given)
    if only == "prior":
        return recipe or "upright", ""
    if recipe is not None:
        parse_setting("teacher", "recipe", recipe)
        return recipe, f"recipe {recipe}, as asked for"
    data = _asked("data", only, config, given)
    if data:
        from ites.runs.recipe import default_recipe

        if default_recipe(data) == "upright":
            return "upright", (
                f"recipe upright: {data} holds no 3D, so 2D must determine the depth's sign "
                "(--recipe paper: the published method)"
            )
    return "paper", (
        "recipe paper: the published method, the default for data with 3D "
        "(--recipe upright: finds each depth's sign from 2D)"
    )


def _asked(name: str, only: str | None, config: Path | None, given: Iterable[Given]) -> Any:
    """A setting's value as given, or else in a file; None if neither has it."""
    stage, value = only or "student", None
    for _, of_stage, setting, text in given:
        if setting == name and of_stage in ("", stage):
            value = text
    if value is None and config is not None:
        tables = read_toml(config)
        value = tables[stage].get(name, tables[""].get(name))
    return value


def _options(stages: list[str], given: Iterable[Given], recipe: str) -> dict[str, dict[str, Any]]:
    """What is given, by stage and setting; a value for one stage overrides one for all."""
    options: dict[str, dict[str, Any]] = {stage: {} for stage in stages}
    for spelling, of_stage, name, text in sorted(given, key=lambda one: bool(one[1])):
        having = [stage for stage in STAGES if name in STAGES[stage].names()]
        if of_stage and of_stage not in having or not having:
            known = STAGES[of_stage].names() if of_stage else _all_names()
            raise ItesError(
                f"train: {spelling}: unknown setting '{name}'; the nearest known one is "
                f"'{nearest_name(name, known)}'"
            )
        targets = [stage for stage in having if stage in stages and of_stage in ("", stage)]
        if not targets:
            raise ItesError(
                f"train: {spelling} has no effect: it belongs to the {of_stage or having[0]}, and "
                f"recipe {recipe} trains {' and '.join(stages)} here"
            )
        for stage in targets:
            try:
                options[stage][name] = parse_setting(stage, name, text)
            except ItesError as error:
                raise ItesError(f"train: {spelling}: {error}") from None
    return options


def _all_names() -> list[str]:
    return list(dict.fromkeys(name for kind in STAGES.values() for name in kind.names()))
