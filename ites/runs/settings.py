"""Settings of a training run: the paper's defaults, TOML files, checks.

A TOML file has settings for all stages at its top, and those of one stage in a table::

    data = "cmu.h5"
    seed = 1

    [teacher]
    steps = 4000

    [student]
    steps = 2000

Options of the command line override the file. A stage's table overrides the top.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import math
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import Field, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar

from ites.errors import ItesError
from ites.system.files import atomic_write, reading

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

RECIPES = ("paper", "upright", "general")
PRECISIONS = ("float32", "float64", "tf32", "bf16")
AXES = ("x", "y", "z", "xy", "xz", "yz", "xyz")
FORMER_NAMES = {
    "clip": "grad_clip",
    "level_weight": "start_elevation_weight",
    "level_steps": "start_elevation_steps",
}
"""Today's names of settings by those of earlier versions, which files and options may still use."""


def _setting(
    default: int | float | str,
    help: str,
    *,
    least: float | None = None,
    below: float = math.inf,
    choices: tuple[str, ...] = (),
    shared: bool = False,
    free: bool = False,
) -> Any:
    """A field of Settings.

    Args:
        default: the paper's value; its type is the setting's type.
        help: one line for the command line and the settings file.
        least: the minimum value allowed.
        below: values from here on are not allowed.
        choices: the values allowed; empty for any.
        shared: all stages of a run should have the same value.
        free: may change when a run is resumed.
    """
    metadata = {"help": help, "least": least, "below": below, "choices": choices}
    return field(default=default, metadata=metadata | {"shared": shared, "free": free})


@dataclass(kw_only=True)
class Settings:
    """The settings common to all stages. Each field's help text gives its meaning.

    Raises:
        ItesError: a value has the wrong type or lies outside its range.
    """

    stage: ClassVar[str] = ""

    data: str = _setting("", "Pose store to train on, from `ites prepare`.", shared=True, free=True)
    split: str = _setting("train", "Split of the store to train on.", shared=True)
    missing: str = _setting(
        "error",
        "What to do with a pose that lacks a joint: error, drop or interpolate.",
        choices=("error", "drop", "interpolate"),
        shared=True,
    )
    cameras: str = _setting(
        "seen",
        "Views to train on where the camera is known: seen, as the camera saw them; turned, as a "
        "camera that points at the person would see them, which is what lifting does.",
        choices=("seen", "turned"),
        shared=True,
    )
    out: str = _setting("run", "Folder for checkpoints and logs.", shared=True, free=True)

    recipe: str = _setting(
        "paper",
        "paper: the published method; upright: turns about the true vertical and a density of 2D "
        "poses, which determine the depth's sign; general: one model for any camera. Each "
        "has other defaults.",
        choices=RECIPES,
        shared=True,
    )
    epochs: int = _setting(50, "Epochs.", least=1, free=True)
    steps: int = _setting(0, "Stop after this many steps; 0: after the epochs.", least=0, free=True)
    batch: int = _setting(128, "Poses per step.", least=2, shared=True)
    learning_rate: float = _setting(1e-3, "Learning rate at the start.", least=0)
    halve_every: int = _setting(15, "Halve the learning rate every N epochs; 0: never.", least=0)
    decay: str = _setting(
        "halve",
        "Decay of the learning rate: halve, every halve_every epochs; cosine, to zero at the end.",
        choices=("halve", "cosine"),
    )
    optimiser: str = _setting("sgd", "sgd or adam.", choices=("sgd", "adam"))
    momentum: float = _setting(0.9, "Momentum of SGD, first decay rate of Adam.", least=0, below=1)
    weight_decay: float = _setting(5e-4, "Weight decay, on every parameter.", least=0)
    grad_clip: float = _setting(
        0.0, "Clip the gradient norm to this value; 0 disables it.", least=0
    )
    samples: int = _setting(4, "Random rotations per pose.", least=1)
    axes: str = _setting("xyz", "Axes that a random rotation's axis is drawn from.", choices=AXES)
    max_angle: float = _setting(math.pi, "Largest angle of a random rotation, radians.", least=0)

    width: int = _setting(1024, "Features per layer.", least=4)
    blocks: int = _setting(6, "Residual blocks.", least=0)
    distance: float = _setting(
        5.0, "Distance of the camera from the root joint, network units.", least=1, shared=True
    )

    start: str = _setting(
        "",
        "Run folder or checkpoint whose weights the training starts from; default: weights drawn "
        "from the seed.",
        shared=True,
        free=True,
    )
    seed: int = _setting(0, "Seed of weights, order and rotations.", least=0, shared=True)
    device: str = _setting(
        "auto", "cpu, cuda, cuda:1 ...; auto: a GPU if there is one.", shared=True, free=True
    )
    backend: str = _setting(
        "auto",
        "Backend of the ops: auto, reference, cpp, cuda or triton.",
        choices=("auto", "reference", "cpp", "cuda", "triton"),
        shared=True,
        free=True,
    )
    precision: str = _setting(
        "float32", f"Arithmetic: {', '.join(PRECISIONS)}.", choices=PRECISIONS, shared=True
    )

    capture: str = _setting(
        "auto",
        "Replay steps as CUDA graphs: on, off; auto: on a single GPU.",
        choices=("auto", "on", "off"),
        shared=True,
        free=True,
    )
    capture_steps: int = _setting(4, "Steps per CUDA graph.", least=1, shared=True, free=True)
    device_memory: float = _setting(
        0.0,
        "Megabytes of the device that the training set may take, else it streams from main "
        "memory; 0: half of the free memory.",
        least=0,
        shared=True,
        free=True,
    )
    batch_statistics: str = _setting(
        "global",
        "Mean and variance that BatchNorm uses: global, of the whole batch; local, of each "
        "process's share of it; kept, those stored in the run named by start, unchanged.",
        choices=("global", "local", "kept"),
        shared=True,
    )

    log_every: int = _setting(100, "Log the mean losses every N steps.", least=1, shared=True)
    checkpoint_every: int = _setting(
        0,
        "Checkpoint every N steps; 0: after an epoch, at most once a minute.",
        least=0,
        shared=True,
        free=True,
    )
    evaluate_every: int = _setting(
        0,
        "Evaluate every N steps on a split with 3D; 0: never. Changes no number of the training.",
        least=0,
        shared=True,
        free=True,
    )
    evaluate_split: str = _setting("test", "Split to evaluate on.", shared=True, free=True)
    evaluate_scale: str = _setting(
        "checkpoint",
        "Scale of the 2D poses when evaluating: checkpoint, the training split's; split, that of "
        "the evaluated split itself, as in the paper.",
        choices=("checkpoint", "split"),
        shared=True,
        free=True,
    )

    def __post_init__(self) -> None:
        for item in fields(self):
            setattr(self, item.name, _checked(item, getattr(self, item.name)))

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """The names of all settings, in order."""
        return tuple(item.name for item in fields(cls))

    @property
    def chosen_backend(self) -> str | None:
        """The backend of the ops; None for the fastest."""
        return None if self.backend == "auto" else self.backend

    def to_dict(self) -> dict[str, int | float | str]:
        """Settings by name."""
        return asdict(self)


@dataclass(kw_only=True)
class TeacherSettings(Settings):
    """Settings of the teacher's training; the defaults are the paper's."""

    stage: ClassVar[str] = "teacher"

    atoms: int = _setting(12, "Poses in the dictionary.", least=1)
    reprojection_weight: float = _setting(5.0, "Weight of the reprojection loss.", least=0)
    turn_weight: float = _setting(
        5.0, "Weight of the distance between a turned pose and its lift.", least=0
    )
    prior_weight: float = _setting(
        0.05, "Weight of the turned views' negative log density.", least=0
    )
    bone_weight: float = _setting(
        2.0,
        "Weight of the deviation of bone proportions from the mean.",
        least=0,
    )
    elevation_weight: float = _setting(1.0, "Weight of the elevation's error, radians.", least=0)
    pair_weight: float = _setting(
        200.0,
        "Weight of the distance between lifts of two views of one person, where "
        "the store has such views.",
        least=0,
    )
    pair_start: int = _setting(
        0,
        "Train without the pairs of views for the first N steps, then with pair_weight; recipe "
        "general: 45% of the steps by default.",
        least=0,
    )
    noise: float = _setting(1.0, "Factor of the detectors' noise that the network sees.", least=0)
    replay: str = _setting(
        "",
        "Pose store whose poses are mixed into each batch, so that a training on "
        "few poses forgets nothing; default: none.",
        free=True,
    )
    replay_share: float = _setting(
        0.5, "Share of each batch that comes from replay; below 1.", least=0, below=1
    )
    prior: str = _setting(
        "",
        "The prior's run folder or checkpoint; default: the run's own.",
        free=True,
    )
    pilot_steps: int = _setting(
        200,
        "Steps of each of three short trainings that find the camera's elevation, "
        "at most a tenth of the steps; 0: about level.",
        least=0,
    )
    start_elevation_weight: float = _setting(
        5.0,
        "Weight of the squared difference between the camera's elevation and the "
        "pilots', at the start.",
        least=0,
    )
    start_elevation_steps: int = _setting(
        1000, "The start_elevation_weight falls to 0 in the first N steps.", least=1
    )
    centre_epochs: int = _setting(
        15, "Centre the canonical pose in the cycle during the first N epochs.", least=0
    )
    centre_steps: int = _setting(
        0, "Centre it during the first N steps instead; 0: by epochs.", least=0
    )


@dataclass(kw_only=True)
class StudentSettings(Settings):
    """Settings of the student's training; the defaults are the paper's."""

    stage: ClassVar[str] = "student"

    epochs: int = _setting(40, "Epochs.", least=1, free=True)
    axes: str = _setting("y", "Axes that a random rotation's axis is drawn from.", choices=AXES)
    max_angle: float = _setting(
        2 * math.pi, "Largest angle of a random rotation, radians.", least=0
    )
    width: int = _setting(128, "Features per joint.", least=2)
    blocks: int = _setting(4, "Residual blocks of two graph layers.", least=0)
    distillation_weight: float = _setting(5.0, "Weight of the distillation loss.", least=0)
    prior_weight: float = _setting(
        0.0, "Weight of the turned views' negative log density.", least=0
    )
    prior: str = _setting(
        "",
        "The prior's run folder or checkpoint; default: the run's own.",
        free=True,
    )
    vertical: str = _setting(
        "true",
        "The axis of turns: the true vertical, or the camera's.",
        choices=("true", "camera"),
    )
    temporal: str = _setting(
        "off",
        "on: learn from teacher depths that are made consistent over each clip: bones keep their "
        "lengths, and joints accelerate little.",
        choices=("off", "on"),
    )
    teacher: str = _setting(
        "", "Teacher's run folder or checkpoint; default: the run's own.", free=True
    )


@dataclass(kw_only=True)
class PriorSettings(Settings):
    """Settings of the prior's training: the density of 2D poses for "upright" and "general"."""

    stage: ClassVar[str] = "prior"

    recipe: str = _setting(
        "upright", "The recipe of this stage.", choices=("upright", "general"), shared=True
    )
    epochs: int = _setting(20, "Epochs. More overfits small data sets.", least=1, free=True)
    steps: int = _setting(
        1500, "Stop after this many steps; 0: after the epochs.", least=0, free=True
    )
    batch: int = _setting(512, "Poses per step.", least=2, shared=True)
    decay: str = _setting(
        "cosine", "Decay of the learning rate: halve or cosine.", choices=("halve", "cosine")
    )
    optimiser: str = _setting("adam", "sgd or adam.", choices=("sgd", "adam"))
    weight_decay: float = _setting(0.0, "Weight decay, on every parameter.", least=0)
    width: int = _setting(256, "Features per layer of a coupling's network.", least=1)
    blocks: int = _setting(6, "Couplings.", least=1)
    components: int = _setting(26, "Principal components of the 2D poses.", least=2)


STAGES: dict[str, type[Settings]] = {
    "prior": PriorSettings,
    "teacher": TeacherSettings,
    "student": StudentSettings,
}
"""The settings of each stage, in the order in which the stages are trained."""

UPRIGHT: dict[str, dict[str, int | float | str]] = {
    "prior": {},
    "teacher": {
        "batch": 256, "samples": 1, "optimiser": "adam", "decay": "cosine", "weight_decay": 0.0,
        "learning_rate": 5e-4, "grad_clip": 1.0, "width": 512, "blocks": 3, "atoms": 30,
    },
    "student": {
        "samples": 1, "optimiser": "adam", "decay": "cosine", "weight_decay": 0.0, "grad_clip": 1.0,
        "learning_rate": 4e-3, "width": 64, "blocks": 3,
    },
}  # fmt: skip
"""Defaults of recipe "upright" that differ from the paper's."""

GENERAL: dict[str, dict[str, int | float | str]] = {
    "prior": {"steps": 3500, "epochs": 1000, "width": 192, "components": 30},
    "teacher": {
        "batch": 128, "samples": 1, "optimiser": "adam", "decay": "cosine", "weight_decay": 0.0,
        "learning_rate": 1e-3, "grad_clip": 1.0, "width": 512, "blocks": 3, "atoms": 40,
        "epochs": 1000, "steps": 40000, "pair_start": 18000,
    },
    "student": {},
}  # fmt: skip
"""Defaults of recipe "general" that differ from the paper's."""
PAIR_START = 0.45
"""The share of a training's steps before pairs of views count, by default in recipe "general"."""
_DEFAULTS = {"upright": UPRIGHT, "general": GENERAL}


def stages_of(recipe: str) -> tuple[str, ...]:
    """The stages of a recipe, in order."""
    return {"upright": tuple(STAGES), "general": ("prior", "teacher")}.get(
        recipe, ("teacher", "student")
    )


def make_settings(
    stage: str,
    file: str | os.PathLike[str] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Settings:
    """Make the settings of one stage: defaults, then a file's top, its table, and options.

    Args:
        stage: "prior", "teacher" or "student".
        file: a TOML file, or None.
        options: settings by name that override the file; the value None means not given.

    Raises:
        ItesError: the file is absent or no TOML, a setting is unknown (the nearest known one is
            named), or a value has the wrong type or lies outside its range.
    """
    kind = STAGES[stage]
    chosen: dict[str, Any] = {}
    options = current_names(options or {})
    if file is not None:
        tables = read_toml(file)
        chosen = {k: v for k, v in tables[""].items() if k in kind.names()} | tables[stage]
        with reading(file, "settings in TOML"):
            kind(**chosen)
    given = {name: value for name, value in options.items() if value is not None}
    for name in given:
        _known(name, kind.names(), "settings")
    chosen |= given
    defaults = dict(_DEFAULTS.get(str(chosen.get("recipe")), {}).get(stage, {}))
    if "pair_start" in defaults and type(chosen.get("steps")) is int:
        defaults["pair_start"] = int(PAIR_START * chosen["steps"])
    return kind(**(defaults | chosen))


def read_toml(path: str | os.PathLike[str]) -> dict[str, dict[str, Any]]:
    """Read a settings file's tables, with "" for its top; names are checked, and are today's.

    Raises:
        ItesError: the file is absent or not TOML, a name is unknown, or a setting is given by its
            present and its former name.
    """
    with reading(path, "settings in TOML"):
        try:
            content = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise ItesError(f"{path}: cannot read the settings: {error.strerror}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ItesError(f"{path}: not a TOML file: {error}") from None
    content = current_names(content, str(path))
    tables: dict[str, dict[str, Any]] = {"": {}}
    for stage in STAGES:
        table = content.pop(stage, {})
        if not isinstance(table, dict):
            raise ItesError(f"{path}: expected a table [{stage}], got {stage} = {table!r}")
        for name in table:
            _known(name, STAGES[stage].names(), f"{path}: [{stage}]")
        tables[stage] = table
    everything = {name: None for kind in STAGES.values() for name in kind.names()}
    for name, value in content.items():
        _known(name, [*everything, *STAGES] if isinstance(value, dict) else everything, str(path))
    tables[""] = content
    return tables


def write_toml(path: str | os.PathLike[str], settings: Iterable[Settings]) -> None:
    """Write settings, one table per stage, as `make_settings` reads them."""
    lines = []
    for stage in settings:
        lines.append(f"[{stage.stage}]")
        lines += [f"{name} = {_toml(value)}" for name, value in stage.to_dict().items()]
        lines.append("")
    with atomic_write(path) as temporary:
        temporary.write_text("\n".join(lines), encoding="utf-8")


def _toml(value: int | float | str) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def current_names(settings: Mapping[str, Any], where: str = "settings") -> dict[str, Any]:
    """Settings, and those in tables of stages, by their present names.

    Args:
        settings: values by name, or by stage and name.
        where: names the source in an error.

    Raises:
        ItesError: a setting is given by its present and its former name.
    """
    current = _with_current_names(settings, where)
    for name, value in current.items():
        if isinstance(value, Mapping):
            current[name] = _with_current_names(value, where)
    return current


def _with_current_names(table: Mapping[str, Any], where: str) -> dict[str, Any]:
    for former, name in FORMER_NAMES.items():
        if former in table and name in table:
            raise ItesError(f"{where}: {former} is the former name of {name}; leave one out")
    return {FORMER_NAMES.get(name, name): value for name, value in table.items()}


def _known(name: str, known: Iterable[str], where: str) -> None:
    known = list(known)
    if name not in known:
        nearest = nearest_name(name, known)
        raise ItesError(f"{where}: unknown setting '{name}'; the nearest known one is '{nearest}'")


def nearest_name(name: str, known: Iterable[str]) -> str:
    """The known name with the most similar spelling."""
    return difflib.get_close_matches(name, list(known), n=1, cutoff=0)[0]


def _checked(item: Field[Any], value: Any) -> int | float | str:
    """Convert the value to the setting's type, or raise an error with the expected type."""
    kind: Any = type(item.default)
    expected = {int: "a whole number", float: "a number", str: "a text"}[kind]
    right = isinstance(value, (int, float) if kind is float else kind)
    if not right or isinstance(value, bool):
        raise ItesError(f"{item.name}: expected {expected}, got {value!r}")
    if kind is int and value >= 2**63:
        raise ItesError(f"{item.name}: expected a whole number below 2^63, got {value}")
    value = kind(value)
    least, below = item.metadata["least"], item.metadata["below"]
    choices = item.metadata["choices"]
    if least is not None and not least <= value < math.inf:
        raise ItesError(f"{item.name}: expected {expected} of at least {least}, got {value!r}")
    if least is not None and not value < below:
        raise ItesError(f"{item.name}: expected {expected} below {below:g}, got {value!r}")
    if choices and value not in choices:
        raise ItesError(f"{item.name}: expected one of {', '.join(choices)}, got {value!r}")
    return value


_WITHOUT_EFFECT: dict[tuple[str, str], tuple[str, ...]] = {
    ("prior", "upright"): (
        "samples", "axes", "max_angle", "distance", "evaluate_every", "evaluate_split",
        "evaluate_scale",
    ),
    ("teacher", "paper"): (
        "cameras", "turn_weight", "prior_weight", "bone_weight", "prior", "pilot_steps",
        "start_elevation_weight", "start_elevation_steps", "elevation_weight", "pair_weight",
        "pair_start", "noise", "replay", "replay_share",
    ),
    ("teacher", "upright"): (
        "axes", "max_angle", "centre_epochs", "centre_steps", "elevation_weight", "pair_weight",
        "pair_start", "noise", "replay", "replay_share",
    ),
    ("prior", "general"): (
        "cameras", "samples", "axes", "max_angle", "distance", "evaluate_every", "evaluate_split",
        "evaluate_scale",
    ),
    ("teacher", "general"): (
        "cameras", "axes", "max_angle", "centre_epochs", "centre_steps", "samples", "pilot_steps",
        "start_elevation_weight", "start_elevation_steps",
    ),
    ("student", "paper"): ("cameras", "prior_weight", "prior", "vertical"),
}  # fmt: skip

_CONDITIONS: dict[tuple[str, str], tuple[str, tuple[Any, ...]]] = {
    ("", "halve_every"): ("decay", ("halve",)),
    ("", "evaluate_split"): ("evaluate_every", ()),
    ("", "evaluate_scale"): ("evaluate_every", ()),
    ("", "capture_steps"): ("capture", ("auto", "on")),
    ("teacher general", "replay_share"): ("replay", ()),
    ("teacher general", "pair_start"): ("pair_weight", ()),
    ("student upright", "axes"): ("vertical", ("camera",)),
    ("student upright", "max_angle"): ("vertical", ("camera",)),
    ("student upright", "prior"): ("prior_weight", ()),
}
"""The setting on which another one depends, and its values; none: any that is not 0."""


def in_recipe(stage: str, name: str, recipe: str) -> bool:
    """Whether a stage's setting has an effect with this recipe."""
    return name in STAGES[stage].names() and name not in _WITHOUT_EFFECT.get((stage, recipe), ())


def why_without_effect(settings: Settings, name: str) -> str:
    """Why a setting has no effect beside these settings; "" if it has one."""
    stage, recipe = settings.stage, settings.recipe
    if not in_recipe(stage, name, recipe):
        return f"the {stage} of recipe {recipe} does not use it"
    for place in ("", f"{stage} {recipe}"):
        if (place, name) in _CONDITIONS:
            other, values = _CONDITIONS[place, name]
            value = getattr(settings, other)
            if value not in values if values else not value:
                needed = " or ".join(f"{other} = {v}" for v in values) or f"{other} above 0"
                return f"it needs {needed}, and {other} is {value}"
    return ""


def refuse_without_effect(
    chosen: Iterable[Settings], given: Iterable[tuple[str, str, str]]
) -> None:
    """Refuse a given setting that has no effect on any trained stage.

    Args:
        chosen: the settings of each trained stage.
        given: of each setting its spelling for the error, its stage or "" for all, and its name.

    Raises:
        ItesError: there is such a setting.
    """
    chosen = list(chosen)
    for spelling, of_stage, name in given:
        targets = [one for one in chosen if name in one.names() and of_stage in ("", one.stage)]
        reasons = [why_without_effect(one, name) for one in targets]
        if reasons and all(reasons):
            raise ItesError(f"train: {spelling} has no effect: {reasons[-1]}")


def refuse_in_file(config: str | os.PathLike[str], recipe: str) -> None:
    """Refuse a file that changes a setting which its recipe does not use.

    A value that is the default is no mistake: a run's own settings file holds them all.

    Raises:
        ItesError: there is such a setting.
    """
    tables = read_toml(config)
    stages = stages_of(recipe)
    used = {stage: make_settings(stage, config, {"recipe": recipe}) for stage in stages}
    default = {stage: make_settings(stage, None, {"recipe": recipe}) for stage in stages}
    for table, held in tables.items():
        for name in held:
            targets = [s for s in stages if s == (table or s) and name in used[s].names()]
            changed = [s for s in targets if getattr(used[s], name) != getattr(default[s], name)]
            reasons = [why_without_effect(used[stage], name) for stage in changed]
            if reasons and all(reasons):
                place = f"{table}.{name}" if table else name
                raise ItesError(f"{config}: {place} has no effect: {reasons[-1]}")


def parse_setting(stage: str, name: str, text: str) -> int | float | str:
    """Parse the text of a setting into the setting's type.

    Raises:
        ItesError: the stage has no such setting (the nearest is named), or the text is not a
            value of its type or is outside its range.
    """
    _known(name, STAGES[stage].names(), f"[{stage}]")
    item = next(item for item in fields(STAGES[stage]) if item.name == name)
    kind: Any = type(item.default)
    value: Any = text
    if kind is not str:
        with contextlib.suppress(ValueError):
            value = kind(text)
    return _checked(item, value)


def tables_of(settings: Sequence[Settings]) -> dict[str, list[tuple[Field[Any], Any]]]:
    """The settings that a recipe uses, with their values, by table of a settings file.

    Args:
        settings: of each trained stage of one recipe.

    Returns:
        the fields and values of the top, "", which hold for all stages, then of each stage.
    """
    of_stage = {
        one.stage: {
            item.name: (item, getattr(one, item.name))
            for item in fields(one)
            if in_recipe(one.stage, item.name, one.recipe)
        }
        for one in settings
    }
    common = {item.name: item for item in fields(Settings)}
    top = []
    for name, item in common.items():
        held = [own[name][1] for own in of_stage.values() if name in own]
        if held and item.metadata["shared"] and all(value == held[0] for value in held):
            top.append((item, held[0]))
            for own in of_stage.values():
                own.pop(name, None)
    return {"": top} | {stage: list(own.values()) for stage, own in of_stage.items()}


def commented_toml(settings: Sequence[Settings]) -> str:
    """A settings file with a comment beside each value, as `make_settings` reads it.

    Args:
        settings: of each trained stage of one recipe.
    """
    lines = []
    for stage, held in tables_of(settings).items():
        lines += ["", f"[{stage}]"] if stage else []
        for item, value in held:
            text, choices = item.metadata["help"], item.metadata["choices"]
            if choices and not all(choice in text for choice in choices):
                text = f"{text} One of: {', '.join(choices)}."
            lines.append(f"{f'{item.name} = {_toml(value)}':<32}  # {text}")
    return "\n".join(lines) + "\n"
