"""`ites train`.

PyTorch is imported by the commands, not by their help.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table
from typer.core import TyperGroup

from ites.cli.hints import print_findings
from ites.cli.older import add_older_spellings
from ites.cli.options import Device, say
from ites.cli.train_settings import (
    Given,
    assignment,
    chosen_settings,
    settings_to_resume,
)
from ites.errors import ItesError
from ites.runs.settings import Settings, commented_toml, stages_of, tables_of
from ites.system.console import command_console, duration
from ites.system.console import say as print_line
from ites.system.files import atomic_write

if TYPE_CHECKING:
    from ites.training.engine import Result
    from ites.training.seeds import Study


class _Train(TyperGroup):
    """The command with the settings of the recipe that would run in its help."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.meta["ites.arguments"] = list(args)
        return super().parse_args(ctx, _joined_seeds(args))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        super().format_help(ctx, formatter)
        arguments = ctx.meta.get("ites.arguments", [])
        _show_settings({name: _value_of(arguments, name) for name in ("recipe", "data", "config")})


app = typer.Typer(cls=_Train, invoke_without_command=True, no_args_is_help=True)


@app.callback()
def train(
    ctx: typer.Context,
    data: Annotated[
        str | None, typer.Option(metavar="STORE", help="Pose store from `ites prepare`.")
    ] = None,
    out: Annotated[
        str | None, typer.Option(metavar="RUN", help="Run folder to write; run by default.")
    ] = None,
    recipe: Annotated[
        Literal["paper", "upright", "general"] | None,
        typer.Option(
            help="paper: the published method. upright: finds each depth's sign from 2D. general: "
            "one model for any camera, from `ites prepare field`. By default upright where the "
            "data hold no 3D, else paper."
        ),
    ] = None,
    only: Annotated[
        Literal["prior", "teacher", "student"] | None,
        typer.Option(help="Train this stage only; by default all stages of the recipe."),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(help="Stop each stage after this many steps; --set STAGE.steps for one."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of weights, order and rotations; 0 by default.")
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option(
            metavar="N ...",
            help="Train once per seed in this process, into RUN/seed-N, and print the mean and the "
            "spread of the figures. A seed that fails does not stop the others.",
        ),
    ] = None,
    device: Device = None,
    precision: Annotated[
        Literal["float32", "float64", "tf32", "bf16"] | None,
        typer.Option(help="Arithmetic; float32 by default."),
    ] = None,
    missing: Annotated[
        Literal["error", "drop", "interpolate"] | None,
        typer.Option(help="What to do with a pose that lacks a joint; error by default."),
    ] = None,
    assign: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="Any setting below, such as teacher.atoms=30."
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="TOML file of settings.")
    ] = None,
    write_config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the settings that would be used, and stop."),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="Run folder to continue; with --seeds their folder."),
    ] = None,
) -> None:
    """Train all stages of a recipe from 2D keypoints.

    Recipe paper trains a teacher, then a student.
    Recipe upright first trains a prior, which is a density of 2D poses.
    Recipe general trains a prior and a teacher for any camera.
    Options override the file; a stage's table overrides the file's top.

    Example: ites train --data cmu.h5 --out runs/cmu --set teacher.atoms=30
    """
    common = {
        "data": data, "out": out, "recipe": recipe, "steps": steps, "seed": seed,
        "device": device, "precision": precision, "missing": missing,
    }  # fmt: skip
    given = [
        (f"--{name}", "", name, str(value)) for name, value in common.items() if value is not None
    ]
    given += [assignment(text) for text in assign or []]
    if ctx.invoked_subcommand is not None:
        if given or only or config or write_config or resume or seeds:
            raise ItesError(
                f"train: '{ctx.invoked_subcommand}' must come before the options; "
                "today's spelling needs no such word, see ites train --help"
            )
        return
    if write_config is not None:
        if resume is not None or seeds is not None:
            other = "--resume" if seeds is None else "--seeds"
            raise ItesError(f"train: --write-config has no effect with {other}; leave one out")
        _write_config(write_config, only, config, given)
    elif seeds is not None or (resume is not None and _is_of_seeds(resume)):
        if run_seeds(seeds, only, config, resume, given).interrupted:
            raise typer.Exit(130)
    elif run_stages(only, config, resume, given)[-1].interrupted:
        raise typer.Exit(130)


def run_stages(
    only: str | None, config: Path | None, resume: Path | None, given: Sequence[Given]
) -> list[Result]:
    """Train stages one after another into one run folder and print the results.

    Args:
        only: the one stage to train; None for all of the recipe.
        config: a TOML file, or None.
        resume: the run folder to continue, or None.
        given: settings that override the file.

    Returns:
        what each stage did; fewer than the stages where one was interrupted.

    Raises:
        ItesError: a setting has no effect, or see `ites.training.engine.train`.
    """
    from ites.runs.folder import refuse_to_overwrite
    from ites.system.ranks import Ranks
    from ites.training.log import quiet_console
    from ites.training.run import train_stages

    ranks = Ranks.here()
    console = command_console() if ranks.is_main else quiet_console()
    if resume is None:
        chosen, why = chosen_settings(only, config, given)
        for settings in chosen:
            refuse_to_overwrite(settings.out, settings.stage)
    elif config is not None:
        raise ItesError("train: --resume takes the run's own settings, so leave --config out")
    else:
        chosen, why = settings_to_resume(only, resume, given), ""
    if why:
        print_line(console, why)
    if resume is None and ranks.is_main:
        print_findings(_implausible(chosen[0]))
    results = []
    for result in train_stages(chosen, resume=resume is not None, console=console):
        results.append(result)
        _print_result(result, console)
        if result.interrupted:
            alone = f" --only {only}" if only else ""
            print_line(console, f"continue with: ites train{alone} --resume {result.run}")
            ranks.leave()
            return results
    ranks.leave()
    if why:
        print_line(console, why)
    print_line(console, f"next: {_next(only, chosen[-1])}")
    return results


def _joined_seeds(arguments: Sequence[str]) -> list[str]:
    """The arguments with `--seeds 0 1 2` as `--seeds 0,1,2`, one value."""
    joined: list[str] = []
    left = list(arguments)
    while left:
        joined.append(left.pop(0))
        if joined[-1] == "--seeds":
            numbers = []
            while left and left[0].isdigit():
                numbers.append(left.pop(0))
            joined += [",".join(numbers)] if numbers else []
    return joined


def _is_of_seeds(run: Path) -> bool:
    from ites.training.seeds import SEEDS

    return (run / SEEDS).is_file()


def run_seeds(
    text: str | None,
    only: str | None,
    config: Path | None,
    resume: Path | None,
    given: Sequence[Given],
) -> Study:
    """Train stages once per seed in this process and print the results.

    Args:
        text: the seeds, "0,1,2"; None: those of the folder to continue.
        only, config, resume, given: see `run_stages`; `resume` is the folder of all seeds.

    Raises:
        ItesError: a seed or a setting is invalid, or a seed failed; see
            `ites.training.seeds.train_seeds`.
    """
    from ites.training.seeds import read_seeds, seed_folder, train_seeds

    for spelling, stage, name, _ in given:
        if name == "seed" or (name == "out" and stage):
            raise ItesError(f"train: {spelling} has no effect with --seeds; leave one out")
    if resume is None:
        seeds = _seeds(text or "")
        chosen, why = chosen_settings(only, config, given)
    elif config is not None:
        raise ItesError("train: --resume takes the run's own settings, so leave --config out")
    else:
        held = read_seeds(resume)
        seeds = held if text is None else _seeds(text)
        if not set(seeds) <= set(held):
            raise ItesError(f"{resume}: expected seeds out of {held}, got {seeds}")
        others = [one for one in given if one[2] != "out" or Path(one[3]) != resume]
        chosen, why = settings_to_resume(only, seed_folder(resume, seeds[0]), others), ""
        chosen = [replace(one, out=str(resume)) for one in chosen]
    console = command_console()
    if why:
        print_line(console, why)
    if resume is None:
        print_findings(_implausible(chosen[0]))
    study = train_seeds(chosen, seeds, resume=resume is not None, console=console)
    for seed, results in study.results.items():
        for result in results:
            _print_result(result, console, f"seed {seed}: ")
    if study.figures:
        _show_figures(study, console)
    if study.interrupted:
        alone = f" --only {only}" if only else ""
        print_line(console, f"continue with: ites train{alone} --resume {study.out}")
    for seed, message in study.failed.items():
        count = len(study.failed)
        raise ItesError(f"train: {count} of {len(seeds)} seeds failed; seed {seed}: {message}")
    return study


def _seeds(text: str) -> list[int]:
    try:
        return [int(seed) for seed in text.split(",")]
    except ValueError:
        raise ItesError(
            f"train: --seeds: expected numbers, such as --seeds 0 1 2, got {text!r}"
        ) from None


def _show_figures(study: Study, console: Console) -> None:
    """Print each figure's mean and spread over the seeds."""
    title = "Over the seeds that completed a stage; metrics in millimetres, wrong_sign in percent"
    table = Table(box=None, title_justify="left", title=title)
    for column in ("stage", "figure"):
        table.add_column(column, no_wrap=True)
    for column in ("seeds", "mean", "deviation", "least", "most"):
        table.add_column(column, justify="right", no_wrap=True)
    for figure in study.figures:
        values = figure.values.values()
        shown = [figure.mean, figure.deviation, min(values), max(values)]
        digits = 5 if figure.name.endswith("loss") else 2
        numbers = ["-" if math.isnan(one) else f"{one:.{digits}f}" for one in shown]
        table.add_row(figure.stage, figure.name, str(len(values)), *numbers)
    console.print(table, highlight=False, markup=False)
    print_line(console, f"every seed's figures: {study.out / 'seeds.csv'}")


def _implausible(settings: Settings) -> list[dict[str, Any]]:
    """What is implausible about keypoints to train on; measured motion is not checked."""
    from ites.data.checks import check_sample
    from ites.data.findings import summarise
    from ites.data.keypoint_reader import KeypointReader
    from ites.data.store import PoseStore

    if not settings.data or not Path(settings.data).is_file():
        return []  # the training itself reports this
    with PoseStore(settings.data) as store:
        measured, split = store.has_positions, settings.split in store.splits
    if measured or not split or settings.recipe == "general":  # made, not measured
        return []
    with KeypointReader(settings.data, split=settings.split) as reader:
        return [finding.plain() for finding in summarise(check_sample(reader))]


def _write_config(
    path: Path, only: str | None, config: Path | None, given: Sequence[Given]
) -> None:
    """Write the settings that would be used, each with a comment."""
    if path.exists():
        raise ItesError(f"{path}: exists already; choose another file for --write-config")
    chosen, why = chosen_settings(only, config, given)
    head = [f"# {why}"] if why else []
    head += [f"# Train with: ites train --config {shlex.quote(str(path))}", ""]
    with atomic_write(path) as temporary:
        temporary.write_text("\n".join(head) + commented_toml(chosen), encoding="utf-8")
    say(f"{path}: {', '.join(one.stage for one in chosen)} of recipe {chosen[-1].recipe}")
    alone = f"--only {only} " if only else ""
    say(f"next: ites train {alone}--config {path}")


def _next(only: str | None, last: Settings) -> str:
    """The command to run after these stages, given the last one's settings."""
    from ites.data.store import PoseStore

    stages = stages_of(last.recipe)
    if only is not None and only != stages[-1]:
        follow = stages[stages.index(only) + 1]
        recipe = "" if last.recipe == "paper" else f"--recipe {last.recipe} "
        missing = "" if last.missing == "error" else f" --missing {last.missing}"
        return f"ites train --only {follow} {recipe}--data {last.data} --out {last.out}{missing}"
    with PoseStore(last.data) as store:
        if store.has_positions:
            return f"ites evaluate {last.out} --data {last.data}"
    return f"ites lift {last.out} {last.data} -o {Path(last.out) / 'lifted.npz'}"


def _print_result(result: Result, console: Console, label: str = "") -> None:
    word = "interrupted" if result.interrupted else "trained"
    losses = ", ".join(f"{name} {value:.5f}" for name, value in result.losses.items())
    print_line(
        console,
        f"{label}{result.stage}: {word} after {result.step:,} of {result.steps:,} steps "
        f"({result.epochs:.2f} epochs of {result.poses:,} poses) in {duration(result.seconds)}, "
        f"{result.poses_per_second:,.0f} poses/s on {result.device}, backend {result.backend}",
    )
    print_line(console, f"{label}{result.stage}: {losses}; saved in {result.run}")


def _value_of(arguments: Sequence[str], name: str) -> str | None:
    """The value of an option among arguments that are not parsed."""
    for at, argument in enumerate(arguments):
        if argument == f"--{name}" and at + 1 < len(arguments):
            return arguments[at + 1]
        if argument.startswith(f"--{name}="):
            return argument.partition("=")[2]
    return None


def _show_settings(asked: dict[str, str | None]) -> None:
    """Print the settings of the recipe that would run, with their defaults."""
    given = [
        (f"--{name}", "", name, value)
        for name, value in asked.items()
        if value is not None and name != "config"
    ]
    config = Path(asked["config"]) if asked["config"] else None
    chosen, why = chosen_settings(None, config, given)
    console = Console()
    for line in ("Settings for --set and --config, with what this command would use.", why, ""):
        print_line(console, line)
    for stage, held in tables_of(chosen).items():
        table = Table(
            title=f"{stage}.NAME" if stage else "All stages", title_justify="left", box=None
        )
        table.add_column("setting", no_wrap=True)
        table.add_column("value", no_wrap=True)
        table.add_column("meaning")
        for item, value in held:
            shown = f"{value:g}" if isinstance(value, float) else str(value)
            table.add_row(item.name, shown or '""', item.metadata["help"])
        console.print(table, highlight=False, markup=False)


add_older_spellings(app)
