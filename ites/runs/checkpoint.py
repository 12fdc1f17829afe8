"""Checkpoints: a model's weights with their metadata, and the state of a training.

Both are safetensors files, so nothing is unpickled. Each file carries a checksum of its whole
content, which is verified on reading. `teacher.safetensors` and `student.safetensors` hold weights;
their metadata hold the kind of model, its sizes, the skeleton, the input's scale, the settings and
the step. `<stage>.state.safetensors` holds the complete state of a training, with its own copy of
the weights, so one rename advances the state atomically.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ites.errors import ItesError
from ites.models import (
    GeneralPrior,
    GeneralTeacher,
    Prior,
    Student,
    Teacher,
    UprightStudent,
    UprightTeacher,
)
from ites.models.trust import SIGNS, Odds, Trust
from ites.pose.skeleton import Skeleton
from ites.runs.folder import RunFolder
from ites.runs.settings import current_names
from ites.system.arguments import checked
from ites.system.files import atomic_write, load_json, reading, require_file
from ites.system.ranks import Ranks, pick_device

MODELS: dict[str, type[Teacher] | type[Student] | type[Prior]] = {
    "prior": Prior,
    "teacher": Teacher,
    "student": Student,
}
UPRIGHT: dict[str, type[Teacher] | type[Student]] = {
    "teacher": UprightTeacher,
    "student": UprightStudent,
}
"""The models of recipe "upright", whose sizes hold `"upright": true`."""
GENERAL: dict[str, type[GeneralTeacher] | type[GeneralPrior]] = {
    "teacher": GeneralTeacher,
    "prior": GeneralPrior,
}
"""The models of recipe "general", whose sizes hold `"general": true`."""
MODEL_FORMAT, STATE_FORMAT, VERSION = "ites-model", "ites-training-state", 1
SPARE = 1 << 22
"""Elements of tensors that a model may have besides those in its file."""
CHECKSUM = "sha256"
"""The metadata's entry that `_checksum` fills; files of older versions lack it."""

Model = Teacher | Student
"""The models that lift poses."""


@dataclass(frozen=True)
class Metadata:
    """The metadata of a checkpoint's model.

    Attributes:
        kind: "teacher" or "student".
        skeleton: the joints of the training data.
        scale: factor from (pixels - root's pixel) / focal length to the network's input.
        step: optimiser steps taken.
        settings: the training's settings by name; empty if unknown (a converted file).
    """

    kind: str
    skeleton: Skeleton
    scale: float
    step: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)


def save_model(path: str | os.PathLike[str], model: nn.Module, metadata: Metadata) -> None:
    """Write a model's weights and metadata atomically.

    Args:
        path: a safetensors file; replaced if it exists.
        model: on any device; written in its own dtype.
        metadata: `metadata.kind` must be the model's.

    Raises:
        TypeError: the model is of another kind.
        OSError: the file cannot be written.
    """
    if not isinstance(model, MODELS[metadata.kind]):
        raise TypeError(f"save_model: expected a {metadata.kind}, got {type(model).__name__}")
    text = {
        "format": MODEL_FORMAT,
        "version": str(VERSION),
        "kind": metadata.kind,
        "sizes": json.dumps(model.sizes()),
        "skeleton": metadata.skeleton.to_json(),
        "scale": repr(float(metadata.scale)),
        "step": str(metadata.step),
        "settings": json.dumps(dict(metadata.settings)),
    }
    _write(path, model.state_dict(), text)


@checked("load_model")
def load_model(
    path: str | os.PathLike[str],
    stage: str | None = None,
    device: str | torch.device = "cpu",
    backend: str | None = None,
) -> tuple[Model, Metadata]:
    """Read a model, in evaluation mode.

    Example:
        >>> import ites, torch
        >>> model, about = ites.load_model("runs/mine")
        >>> points = torch.rand(8, 17, 2)  # network units, root-relative
        >>> model.pose(points - points[:, :1]).shape
        torch.Size([8, 17, 3])

    Args:
        path: a checkpoint, or a run folder.
        stage: "teacher" or "student": the required kind of a file, or the model to read from a
            folder. None accepts either kind of file; from a folder it reads the student, or else
            the teacher.
        device: the model's device.
        backend: of the model's ops; None chooses the fastest.

    Returns:
        The model, a `torch.nn.Module` whose `pose` takes (B, J, 2) to (B, J, 3) in network units,
        and what the file says of it.

    Raises:
        ItesError: the file is absent, damaged, not an ITES checkpoint, of another kind or of a
            newer version; the message names the file, the expected and the given content.
    """
    if isinstance(device, str):
        device = pick_device(device, Ranks.here())
    model, metadata = _load(path, ("student", "teacher") if stage is None else (stage,), backend)
    assert isinstance(model, Model)
    return model.to(device).eval(), metadata


def load_prior(path: str | os.PathLike[str], device: str | torch.device = "cpu") -> Prior:
    """Read a prior, in evaluation mode, from a checkpoint or a run folder.

    Raises:
        ItesError: see `load_model`.
    """
    model, _ = _load(path, ("prior",), None)
    assert isinstance(model, Prior)
    return model.to(device).eval()


def load_stage(path: str | os.PathLike[str], stage: str) -> tuple[nn.Module, Metadata]:
    """Read the model of any stage, on the CPU, from a checkpoint or a run folder.

    Raises:
        ItesError: see `load_model`.
    """
    return _load(path, (stage,), None)


def load_trust(
    run: str | os.PathLike[str], stage: str, device: torch.device | str = "cpu"
) -> Trust | None:
    """Load the judge of a stage's lifted poses from a run folder.

    Returns:
        The judge. None if the folder lacks a teacher of recipe "upright" or "general", the prior,
        or the fitted odds.

    Raises:
        ItesError: a file of the folder is damaged.
    """
    path, judges = RunFolder(run).odds(stage), load_judges(run, device)
    if judges is None or not path.is_file():
        return None
    content = load_json(path)
    try:
        odds = Odds(**content)
        odds = Odds(float(odds.bias), float(odds.slope), tuple(map(float, odds.error)))
        numbers = (odds.bias, odds.slope, *odds.error)
        if not all(map(math.isfinite, numbers)) or len(odds.error) not in (0, SIGNS):
            raise ValueError(f"{odds}")
    except (TypeError, ValueError) as error:
        raise ItesError(f"{path}: expected the odds of a sign, got others ({error})") from None
    return Trust(*judges, odds)


def load_judges(
    run: str | os.PathLike[str], device: torch.device | str
) -> tuple[UprightTeacher, Prior] | None:
    """The prior of a run folder and its teacher, of recipe "upright" or "general"; else None."""
    if not all(RunFolder(run).weights(stage).is_file() for stage in ("prior", "teacher")):
        return None
    teacher, _ = load_model(run, "teacher", device)
    return (teacher, load_prior(run, device)) if isinstance(teacher, UprightTeacher) else None


def save_odds(run: str | os.PathLike[str], stage: str, odds: Odds) -> None:
    """Write the odds of a stage's signs into a run folder."""
    with atomic_write(RunFolder(run).odds(stage)) as temporary:
        known = {name: value for name, value in odds._asdict().items() if value != ()}
        temporary.write_text(json.dumps(known) + "\n", encoding="utf-8")


def _load(
    path: str | os.PathLike[str], kinds: tuple[str, ...], backend: str | None
) -> tuple[nn.Module, Metadata]:
    path = _find(path, kinds)
    tensors, text = _read(path, MODEL_FORMAT)
    with reading(path, "an ITES checkpoint"):
        kind = text.get("kind", "")
        if kind not in kinds:
            raise ItesError(
                f"{path}: expected a {' or '.join(sorted(kinds, reverse=True))}, got {kind!r}"
            )
        metadata, sizes = _metadata(path, kind, text)
        model = build_model(kind, metadata.skeleton, sizes, tensors, str(path), backend)
        assign(path, model, tensors)
        _check_checksum(path, tensors, text)
    return model, metadata


def _metadata(path: Path, kind: str, text: Mapping[str, str]) -> tuple[Metadata, dict[str, Any]]:
    try:
        sizes = json.loads(text["sizes"])
        metadata = Metadata(
            kind=kind,
            skeleton=Skeleton.from_json(text["skeleton"]),
            scale=float(text["scale"]),
            step=int(text["step"]),
            settings=_with_current_names(json.loads(text["settings"])),
        )
    except ItesError as error:
        raise ItesError(f"{path}: {error}", code=error.code) from None
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ItesError(f"{path}: damaged metadata of a checkpoint: {error!r}") from None
    if not 0 < metadata.scale < math.inf:
        raise ItesError(
            f"{path}: expected a scale that is finite and positive, got {metadata.scale}"
        )
    if metadata.step < 0 or not isinstance(metadata.settings, dict):
        raise ItesError(
            f"{path}: damaged metadata of a checkpoint: step {metadata.step}, "
            f"settings {text['settings']!r}"
        )
    if not isinstance(sizes, dict):
        raise ItesError(f"{path}: damaged metadata of a checkpoint: sizes {text['sizes']!r}")
    return metadata, sizes


def _with_current_names(settings: Any) -> Any:
    """A file's settings by their present names; what is no table of them is left as it is."""
    return current_names(settings) if isinstance(settings, dict) else settings


def build_model(
    kind: str,
    skeleton: Skeleton,
    sizes: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    who: str,
    backend: str | None = None,
) -> nn.Module:
    """Build a model whose tensors have the shapes of the given ones, without their values.

    No more memory is taken than the tensors have, so sizes from a damaged file are harmless.

    Args:
        kind: one of `MODELS`.
        skeleton: its joints.
        sizes: the result of a model's `sizes()`.
        tensors: by name.
        who: names the file in an error.
        backend: of the model's ops.

    Raises:
        ItesError: the sizes are invalid for the model, or do not fit the tensors.
    """
    most = max((size for tensor in tensors.values() for size in tensor.shape), default=0)
    for name, value in sizes.items():
        limit = len(tensors) if name == "blocks" else max(most, 1)
        if isinstance(value, int) and name != "distance":
            right = 0 <= value <= limit
        else:
            right = isinstance(value, (int, float)) and 0 < value < math.inf
        if not right:
            raise ItesError(f"{who}: {name}: expected a size that fits its tensors, got {value!r}")
    try:
        with _Within(2 * sum(tensor.numel() for tensor in tensors.values()) + SPARE):
            model = _network(kind, skeleton, sizes, backend)
    except ItesError as error:
        raise ItesError(f"{who}: {error}", code=error.code) from None
    except (TypeError, ValueError, RuntimeError) as error:
        raise ItesError(f"{who}: expected the sizes of a {kind}, got {sizes} ({error})") from None
    _check_shapes(who, model.state_dict(), tensors)
    return model


class _Within(TorchFunctionMode):
    """Refuse tensors of more elements in all than a number, before their memory is taken.

    A plan on the meta device would show the same, but imports PyTorch's compiler, which takes
    seconds.
    """

    MAKERS = (torch.empty, torch.zeros, torch.ones, torch.eye, torch.randperm)

    def __init__(self, most: int) -> None:
        super().__init__()
        self.left = most

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in self.MAKERS and args:
            shape = args if isinstance(args[0], int) else args[0]
            self.left -= math.prod(shape) ** (2 if func is torch.eye else 1)
            if self.left < 0:
                raise ValueError(f"these make tensors such as {tuple(shape)}, more than are there")
        return func(*args, **(kwargs or {}))


def _network(
    kind: str, skeleton: Skeleton, sizes: Mapping[str, Any], backend: str | None
) -> nn.Module:
    """Build a model of the class that "general" or "upright" in the sizes selects."""
    general = kind in GENERAL and sizes.get("general") is True
    upright = kind in UPRIGHT and sizes.get("upright") is True
    chosen: Mapping[str, Any] = GENERAL if general else UPRIGHT if upright else MODELS
    own = {name: size for name, size in sizes.items() if name != "upright" or kind == "prior"}
    if general:
        del own["general"]
    network: nn.Module = chosen[kind](skeleton, **own, backend=backend)
    return network


def _check_shapes(who: str, own: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    for name in sorted(own.keys() | tensors.keys()):
        expected = tuple(own[name].shape) if name in own else "no such tensor"
        given = tuple(tensors[name].shape) if name in tensors else "no such tensor"
        if expected != given:
            raise ItesError(f"{who}: {name}: expected {expected}, got {given}")


def step_of(path: str | os.PathLike[str]) -> int | None:
    """The step of the weights in a file; None without a complete checkpoint."""
    try:
        _, text = _read(Path(path), MODEL_FORMAT)
        return int(text["step"])
    except (ItesError, KeyError, ValueError):
        return None


def assign(path: str | os.PathLike[str], model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Check a file's tensors and load them into a model, in the file's floating dtype.

    Raises:
        ItesError: a tensor is absent, unknown, of another shape or dtype, or not finite.
    """
    own = model.state_dict()
    _check_shapes(str(path), own, tensors)
    floating = [tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()]
    for name, tensor in tensors.items():
        wanted = floating[0] if own[name].is_floating_point() and floating else own[name].dtype
        if tensor.dtype != wanted or wanted not in DTYPES:
            raise ItesError(f"{path}: {name}: expected {wanted}, got {tensor.dtype}")
        _check_finite(path, name, tensor)
    if isinstance(model, Prior):
        _check_order(path, tensors["order"])
    model.to(floating[0] if floating else None).load_state_dict(dict(tensors))


DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32)
"""Allowed dtypes of the tensors in a file."""


def _check_finite(path: str | os.PathLike[str], name: str, tensor: Tensor) -> None:
    if tensor.is_floating_point() and not tensor.isfinite().all():
        count = tensor.numel() - int(tensor.isfinite().sum())
        raise ItesError(f"{path}: {name}: expected finite numbers, got {count} that are not")


def _check_order(path: str | os.PathLike[str], order: Tensor) -> None:
    """Raise if a row is not a permutation: it would cause out-of-bounds reads."""
    if order.numel() and not order.sort(1).values.equal(
        torch.arange(order.shape[1]).expand_as(order)
    ):
        raise ItesError(f"{path}: order: expected permutations in its rows, got others")


# An optimiser's buffers per parameter, and their names in the file.
_BUFFERS = {
    "momentum_buffer": "momentum",
    "exp_avg": "mean",
    "exp_avg_sq": "square",
    "step": "step",
}


def save_state(
    path: str | os.PathLike[str],
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    losses: Tensor,
    counters: Mapping[str, Any],
) -> None:
    """Write the complete state of a training atomically.

    Args:
        path: a safetensors file; replaced if it exists.
        model: the model in training.
        optimiser: its SGD with momentum, or Adam.
        losses: (steps since the last log, losses), the losses not logged yet.
        counters: plain numbers and texts, such as the step.
    """
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        for buffer, group in _BUFFERS.items():
            value = optimiser.state[parameter].get(buffer)
            if value is not None:
                tensors[f"{group}.{name}"] = value
    text = {"format": STATE_FORMAT, "version": str(VERSION), "counters": json.dumps(dict(counters))}
    _write(path, tensors | {"losses": losses}, text)


def load_state(
    path: str | os.PathLike[str],
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    expected: Collection[str] = (),
) -> tuple[Tensor, dict[str, Any]]:
    """Restore a training's state into its model and optimiser, on the model's device.

    Args:
        path: the file.
        model: of the same kind and sizes.
        optimiser: of the same kind, for the model's parameters.
        expected: names of the required counters.

    Returns:
        the losses not logged yet and the counters, as passed to `save_state`.

    Raises:
        ItesError: the file is absent, damaged, not a training state, or of another model.
    """
    tensors, text = _read(Path(path), STATE_FORMAT)
    with reading(path, "a training's state"):
        return _load_state(path, model, optimiser, expected, tensors, text)


def load_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """A model's tensors by name, on the CPU, from the state of its training.

    Raises:
        ItesError: the file is absent, damaged or not a training state.
    """
    tensors, _ = _read(Path(path), STATE_FORMAT)
    of_model = "model."
    return {
        name.removeprefix(of_model): tensor
        for name, tensor in tensors.items()
        if name.startswith(of_model)
    }


def _load_state(
    path: str | os.PathLike[str],
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    expected: Collection[str],
    tensors: Mapping[str, Tensor],
    text: Mapping[str, str],
) -> tuple[Tensor, dict[str, Any]]:
    groups: dict[str, dict[str, Tensor]] = {"model": {}, "losses": {}}
    groups |= {group: {} for group in _BUFFERS.values()}
    for name, tensor in tensors.items():
        group, _, rest = name.partition(".")
        groups.setdefault(group, {})[rest] = tensor
    try:
        losses, counters = tensors["losses"], json.loads(text["counters"])
    except (KeyError, ValueError, RecursionError) as error:
        raise ItesError(f"{path}: damaged training state: {error!r}") from None
    if "settings" in counters:
        counters["settings"] = _with_current_names(counters["settings"])
    missing = set(expected) - counters.keys()
    if missing:
        raise ItesError(f"{path}: expected the counters {', '.join(sorted(missing))}, got none")
    for name, tensor in tensors.items():
        _check_finite(path, name, tensor)
    _check_checksum(Path(path), tensors, text)
    assign(path, model, groups["model"])
    for name, parameter in model.named_parameters():
        for buffer, group in _BUFFERS.items():
            if name in groups[group]:
                value = groups[group][name].to(parameter.device)
                shape = () if buffer == "step" else parameter.shape
                if value.shape != shape:
                    raise ItesError(
                        f"{path}: {group}.{name}: expected {tuple(shape)}, got {tuple(value.shape)}"
                    )
                optimiser.state[parameter][buffer] = value
    return losses, counters


def _find(path: str | os.PathLike[str], kinds: tuple[str, ...]) -> Path:
    path = Path(path)
    if path.is_dir():
        for candidate in kinds:
            if RunFolder(path).weights(candidate).is_file():
                return RunFolder(path).weights(candidate)
        names = " or ".join(f"{candidate}.safetensors" for candidate in kinds)
        raise ItesError(f"{path}: expected a run folder with {names}; there is none")
    if not path.is_file():
        raise ItesError(f"{path}: no such checkpoint or run folder")
    return path


def _write(
    path: str | os.PathLike[str], tensors: Mapping[str, Tensor], text: dict[str, str]
) -> None:
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = {**text, CHECKSUM: _checksum(plain, text)}
    with atomic_write(path) as temporary:
        temporary.write_bytes(save(plain, metadata=text))


def _checksum(tensors: Mapping[str, Tensor], text: Mapping[str, str]) -> str:
    """SHA-256 of all metadata and tensors, with names, dtypes and shapes."""
    rest = {name: value for name, value in text.items() if name != CHECKSUM}
    digest = hashlib.sha256(json.dumps(rest, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _check_checksum(path: Path, tensors: Mapping[str, Tensor], text: Mapping[str, str]) -> None:
    expected = text.get(CHECKSUM)
    if expected is not None and expected != _checksum(tensors, text):
        raise ItesError(
            f"{path}: expected the numbers that were written, got others (checksum): damaged or "
            "changed since"
        )


def _read(path: Path, expected: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    require_file(path)
    with reading(path, "an ITES checkpoint"):
        try:
            with safe_open(path, framework="pt") as file:
                text = file.metadata() or {}
                # Copies: the tensors lie in a map of the file, which Windows then cannot replace.
                names = file.keys()
                tensors = {name: file.get_tensor(name).clone() for name in names}
        except SafetensorError as error:
            raise ItesError(
                f"{path}: expected an ITES checkpoint, got what is not a safetensors file, or a "
                f"damaged one ({error})"
            ) from None
    if text.get("format") != expected:
        raise ItesError(f"{path}: expected a file of format {expected}, got {text.get('format')}")
    if not text.get("version", "").isdecimal() or int(text["version"][:9]) > VERSION:
        raise ItesError(
            f"{path}: expected version {VERSION} or older, got {text.get('version')!r}; "
            "a newer ites wrote it"
        )
    return tensors, text
