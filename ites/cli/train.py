"""`ites demo`, and `ites train` with its commands `prior`, `teacher`, `student` and `both`.

PyTorch is imported by the commands, not by their help.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import Field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from ites.cli.options import Device, say
from ites.errors import ItesError
from ites.runs.settings import STAGES, Settings, make_settings, read_toml, stages_of

if TYPE_CHECKING:
    from rich.console import Console

    from ites.train.engine import Result

app = typer.Typer(
    no_args_is_help=True,
    help="Train the prior, the teacher, the student, or all that a recipe needs.",
)

Option = tuple[str, str]  # stage or "" for both, name of a setting


def demo(
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("demo"),
    seed: Annotated[int, typer.Option(help="Of the data and the training.")] = 0,
    device: Device = None,
) -> None:
    """See the whole method work on synthetic motion, in minutes, without a download.

    Example: ites demo --out demo
    """
    from ites.workflows.demo import demo as run

    run(out, seed=seed, device=device, say=say)


def run_stages(
    stages: Iterable[str],
    config: Path | None,
    resume: Path | None,
    options: dict[str, dict[str, Any]],
) -> list[Result]:
    """Train stages one after another into one run folder and say how it went.

    Args:
        stages: "teacher", "student" or both, in that order.
        config: a TOML file, or None.
        resume: the run folder to continue, or None.
        options: settings by stage and name; None as a value means not given.

    Returns:
        what each stage did; fewer than the stages where one was interrupted.

    Raises:
        ItesError: see `ites.train.engine.train`.
    """
    from ites.runs.checkpoint import state_file
    from ites.runs.folder import refuse_to_overwrite, resumed_settings, write_settings
    from ites.system.ranks import Ranks
    from ites.train.engine import train
    from ites.train.log import quiet_console, training_console

    ranks = Ranks.here()
    stages, console = list(stages), training_console() if ranks.main else quiet_console()
    why = _choose_recipe(stages, config, options) if resume is None else ""
    if len(stages) > 1:
        stages = _of_recipe(config, resume, options)
    if resume is None:
        chosen = [make_settings(stage, config, options[stage]) for stage in stages]
        for settings in chosen:
            refuse_to_overwrite(settings.out, settings.stage)
    elif config is not None:
        raise ItesError("train: --resume takes the run's own settings, so leave --config out")
    else:
        chosen = [resumed_settings(resume, stage, options[stage]) for stage in stages]
    if why:
        _say(console, why)
    results = []
    for settings in chosen:
        started = resume is not None and state_file(settings.out, settings.stage).is_file()
        if len(stages) > 1 and ranks.main:
            write_settings(settings.out, chosen)
        result = train(settings, resume=started, console=console)
        results.append(result)
        _tell(result, console)
        if result.interrupted:
            command = stages[0] if len(stages) == 1 else "both"
            _say(console, f"continue with: ites train {command} --resume {settings.out}")
            ranks.part()
            return results
    ranks.part()
    if why:
        _say(console, why)
    _say(console, f"next: {_next(stages, chosen[-1])}")
    return results


def _next(stages: list[str], last: Settings) -> str:
    """The command that goes on from these stages, the last one's settings given."""
    from ites.data.store import PoseStore

    if stages in (["prior"], ["teacher"]):
        follow = "teacher" if stages == ["prior"] else "student"
        recipe = "" if last.recipe == "paper" else f"--recipe {last.recipe} "
        missing = "" if last.missing == "error" else f" --missing {last.missing}"
        return f"ites train {follow} {recipe}--data {last.data} --out {last.out}{missing}"
    with PoseStore(last.data) as store:
        if store.has_positions:
            return f"ites evaluate {last.out} --data {last.data}"
    return f"ites lift {last.out} {last.data} -o {Path(last.out) / 'lifted.npz'}"


def _choose_recipe(
    stages: Iterable[str], config: Path | None, options: dict[str, dict[str, Any]]
) -> str:
    """Set the recipe where nothing says it, by the data: a line that tells which, and why.

    The published figures choose each depth's sign by the 3D; where there is none, the sign must
    come from 2D.
    """
    from ites.data.store import PoseStore

    stage = list(stages)[-1]
    recipe = _given("recipe", stage, config, options)
    if stage == "prior":
        return ""
    if recipe is not None:
        return f"recipe {recipe}, as asked for"
    data = _given("data", stage, config, options)
    if data:
        with PoseStore(data) as store:
            has_positions = store.has_positions
        if not has_positions:
            for own in options.values():
                own["recipe"] = "upright"
            return (
                f"recipe upright: {data} holds no 3D, so 2D must tell the depth's sign "
                "(--recipe paper: the published method)"
            )
    return (
        "recipe paper: the published method, the default for data with 3D "
        "(--recipe upright: 2D tells the depth's sign)"
    )


def _given(name: str, stage: str, config: Path | None, options: dict[str, dict[str, Any]]) -> Any:
    """What the options, or else a file, say of a setting of a stage; None where neither does."""
    value = options[stage].get(name)
    if value is None and config is not None:
        tables = read_toml(config)
        value = tables[stage].get(name, tables[""].get(name))
    return value


def _of_recipe(
    config: Path | None, resume: Path | None, options: dict[str, dict[str, Any]]
) -> list[str]:
    """The stages of the recipe that is asked for."""
    from ites.runs.folder import settings_file

    file = config if resume is None else settings_file(resume)
    wanted = make_settings("teacher", file, options["teacher"])
    return list(stages_of(wanted.recipe))


def _tell(result: Result, console: Console) -> None:
    from ites.train.log import clock

    word = "interrupted" if result.interrupted else "trained"
    losses = ", ".join(f"{name} {value:.5f}" for name, value in result.losses.items())
    _say(
        console,
        f"{result.stage}: {word} after {result.step:,} of {result.steps:,} steps "
        f"({result.epochs:.2f} epochs of {result.poses:,} poses) in {clock(result.seconds)}, "
        f"{result.poses_per_second:,.0f} poses/s on {result.device}, backend {result.backend}",
    )
    _say(console, f"{result.stage}: {losses}; saved in {result.run}")


def _say(console: Console, line: str) -> None:
    console.print(line, highlight=False, soft_wrap=True, markup=False)


def _command(stages: tuple[str, ...]) -> Callable[..., None]:
    """The command that trains these stages, with an option for each of their settings.

    For several stages a setting that they share has one option, any other one a stage, such as
    `--teacher-steps`.
    """
    several = len(stages) > 1
    parameters = [
        _parameter(
            "config",
            Path,
            typer.Option(None, "--config", help="TOML file of settings.", metavar="FILE"),
        ),
        _parameter(
            "resume",
            Path,
            typer.Option(None, "--resume", help="Run folder to continue.", metavar="RUN"),
        ),
    ]
    targets: dict[str, Option] = {}
    common = {item.name: item for item in fields(Settings)}
    for stage in stages:
        for item in fields(STAGES[stage]):
            own = several and not item.metadata["shared"]
            if several and not own:  # the prior's own defaults are not those of the others
                item = common[item.name]
            name = f"{stage}_{item.name}" if own else item.name
            if name in targets or (several and item.name in ("teacher", "prior")):
                continue
            targets[name] = (stage if own else "", item.name)
            option = typer.Option(
                None,
                f"--{name.replace('_', '-')}",
                help=_help(item),
                rich_help_panel=f"{stage.capitalize()} settings" if own else "Settings",
            )
            parameters.append(_parameter(name, type(item.default), option))

    def command(config: Path | None, resume: Path | None, **given: Any) -> None:
        options: dict[str, dict[str, Any]] = {stage: {} for stage in stages}
        for name, value in given.items():
            target, setting = targets[name]
            for stage in [target] if target else stages:
                options[stage][setting] = value
        if run_stages(stages, config, resume, options)[-1].interrupted:
            raise typer.Exit(130)

    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    return command


def _help(item: Field[Any]) -> str:
    """Help of a setting with its default at the end."""
    text, default = item.metadata["help"], item.default
    shown = f"{default:g}" if isinstance(default, float) else str(default)
    return f"{text.removesuffix('.')} (default {shown})." if shown else text


def _parameter(name: str, kind: type, option: Any) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=option, annotation=kind | None
    )


for _name, _stages, _text in (
    (
        "prior",
        ("prior",),
        "Learn how likely 2D poses are, for recipe upright.\n\n"
        "Example: ites train prior --data cmu.h5 --out runs/cmu",
    ),
    (
        "teacher",
        ("teacher",),
        "Train the teacher from 2D poses.\n\n"
        "Example: ites train teacher --data cmu.h5 --out runs/cmu",
    ),
    (
        "student",
        ("student",),
        "Train the student from 2D poses and a trained teacher.\n\n"
        "Example: ites train student --data cmu.h5 --out runs/cmu",
    ),
    (
        "both",
        ("prior", "teacher", "student"),
        "Train the teacher, then the student, into one run folder; the prior first, for recipe "
        "upright.\n\n"
        "Example: ites train both --data cmu.h5 --out runs/cmu --recipe upright",
    ),
):
    app.command(_name, help=_text)(_command(_stages))
