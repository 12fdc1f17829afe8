"""Checkpoints: a model's weights with what is needed to use them, and the state of a training.

Both are safetensors files, so nothing is unpickled. `teacher.safetensors` and `student.safetensors`
hold weights; their metadata hold the kind of model, its sizes, the skeleton, the input's scale, the
settings and the step. `<stage>.state.safetensors` holds all that a training needs to continue, its
own copy of the weights included, so that one rename takes it from one step to another.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ites.errors import ItesError
from ites.models import Prior, Student, Teacher
from ites.pose.skeleton import Skeleton
from ites.system.files import replacing

MODELS: dict[str, type[Teacher] | type[Student] | type[Prior]] = {
    "prior": Prior,
    "teacher": Teacher,
    "student": Student,
}
MODEL_FORMAT, STATE_FORMAT, VERSION = "ites-model", "ites-training-state", 1

Model = Teacher | Student
"""What lifts."""


@dataclass(frozen=True)
class Metadata:
    """What a checkpoint says of its model.

    Attributes:
        kind: "teacher" or "student".
        skeleton: the joints that it was trained on.
        scale: factor from (pixels - root's pixel) / focal length to the network's input.
        step: optimiser steps taken.
        settings: the training's settings by name; empty where it is not known (a converted file).
    """

    kind: str
    skeleton: Skeleton
    scale: float
    step: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)


def weights_file(run: str | os.PathLike[str], stage: str) -> Path:
    """Where a run folder holds a stage's weights."""
    return Path(run) / f"{stage}.safetensors"


def state_file(run: str | os.PathLike[str], stage: str) -> Path:
    """Where a run folder holds what a stage's training needs to continue."""
    return Path(run) / f"{stage}.state.safetensors"


def save_model(path: str | os.PathLike[str], model: nn.Module, metadata: Metadata) -> None:
    """Write a model's weights and metadata; the file appears wholly or not at all.

    Args:
        path: a safetensors file; replaced if it exists.
        model: on any device; written in its own dtype.
        metadata: `metadata.kind` must be the model's.
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


def load_model(
    path: str | os.PathLike[str],
    stage: str | None = None,
    device: str | torch.device = "cpu",
    backend: str | None = None,
) -> tuple[Model, Metadata]:
    """Read a model, in evaluation mode.

    Args:
        path: a checkpoint, or a run folder.
        stage: "teacher" or "student": what the file must be, or which of the folder's two to
            read. None takes what the file is; of a folder the student, or else the teacher.
        device: where the model goes.
        backend: of the model's ops; None chooses the fastest.

    Raises:
        ItesError: the file is absent, damaged, no ITES checkpoint, of another kind or a newer
            version; the message names the file, what was expected and what is there.
    """
    model, metadata = _load(path, ("student", "teacher") if stage is None else (stage,), backend)
    assert isinstance(model, Model)
    return model.to(device).eval(), metadata


def load_prior(path: str | os.PathLike[str], device: str | torch.device = "cpu") -> Prior:
    """Read a density of 2D poses, in evaluation mode, from a checkpoint or a run folder.

    Raises:
        ItesError: see `load_model`.
    """
    model, _ = _load(path, ("prior",), None)
    assert isinstance(model, Prior)
    return model.to(device).eval()


def _load(
    path: str | os.PathLike[str], kinds: tuple[str, ...], backend: str | None
) -> tuple[nn.Module, Metadata]:
    path = _find(path, kinds)
    tensors, text = _read(path, MODEL_FORMAT)
    kind = text.get("kind", "")
    if kind not in kinds:
        raise ItesError(
            f"{path}: expected a {' or '.join(sorted(kinds, reverse=True))}, got {kind!r}"
        )
    try:
        skeleton = Skeleton.from_json(text["skeleton"])
        metadata = Metadata(
            kind=kind,
            skeleton=skeleton,
            scale=float(text["scale"]),
            step=int(text["step"]),
            settings=json.loads(text["settings"]),
        )
        model = MODELS[kind](skeleton, **json.loads(text["sizes"]), backend=backend)
    except (KeyError, TypeError, ValueError) as error:
        raise ItesError(f"{path}: damaged metadata of a checkpoint: {error!r}") from None
    assign(path, model, tensors)
    return model, metadata


def assign(path: str | os.PathLike[str], model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give a model the tensors of a file, in the file's floating dtype, after checking them.

    Raises:
        ItesError: a tensor is absent, unknown or of another shape.
    """
    own = model.state_dict()
    for name in sorted(own.keys() | tensors.keys()):
        expected = tuple(own[name].shape) if name in own else "no such tensor"
        given = tuple(tensors[name].shape) if name in tensors else "no such tensor"
        if expected != given:
            raise ItesError(f"{path}: {name}: expected {expected}, got {given}")
    floating = next(tensor for tensor in tensors.values() if tensor.is_floating_point())
    model.to(floating.dtype).load_state_dict(dict(tensors))


# What an optimiser keeps of a parameter, and its name in the file.
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
    """Write all that a training needs to continue; the file appears wholly or not at all.

    Args:
        path: a safetensors file; replaced if it exists.
        model: the model in training.
        optimiser: its SGD with momentum, or Adam.
        losses: (steps since the last log, losses) the losses not logged yet.
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
    path: str | os.PathLike[str], model: nn.Module, optimiser: torch.optim.Optimizer
) -> tuple[Tensor, dict[str, Any]]:
    """Put a training's state back into its model and optimiser, on the model's device.

    Returns:
        the losses not logged yet and the counters, as `save_state` got them.

    Raises:
        ItesError: the file is absent, damaged, no training state, or of another model.
    """
    tensors, text = _read(Path(path), STATE_FORMAT)
    groups: dict[str, dict[str, Tensor]] = {"model": {}, "losses": {}}
    groups |= {group: {} for group in _BUFFERS.values()}
    for name, tensor in tensors.items():
        group, _, rest = name.partition(".")
        groups.setdefault(group, {})[rest] = tensor
    try:
        losses, counters = tensors["losses"], json.loads(text["counters"])
    except (KeyError, ValueError) as error:
        raise ItesError(f"{path}: damaged training state: {error!r}") from None
    assign(path, model, groups["model"])
    for name, parameter in model.named_parameters():
        for buffer, group in _BUFFERS.items():
            if name in groups[group]:
                value = groups[group][name].to(parameter.device)
                optimiser.state[parameter][buffer] = value
    return losses, counters


def _find(path: str | os.PathLike[str], kinds: tuple[str, ...]) -> Path:
    path = Path(path)
    if path.is_dir():
        for candidate in kinds:
            if weights_file(path, candidate).is_file():
                return weights_file(path, candidate)
        names = " or ".join(f"{candidate}.safetensors" for candidate in kinds)
        raise ItesError(f"{path}: expected a run folder with {names}; there is none")
    if not path.is_file():
        raise ItesError(f"{path}: no such checkpoint or run folder")
    return path


def _write(
    path: str | os.PathLike[str], tensors: Mapping[str, Tensor], text: dict[str, str]
) -> None:
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with replacing(path) as temporary:
        temporary.write_bytes(save(plain, metadata=text))


def _read(path: Path, expected: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    if not path.is_file():
        raise ItesError(f"{path}: no such file")
    try:
        with safe_open(path, framework="pt") as file:
            text = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ItesError(f"{path}: not a safetensors file, or a damaged one ({error})") from None
    if text.get("format") != expected:
        raise ItesError(f"{path}: expected a file of format {expected}, got {text.get('format')}")
    if not text.get("version", "").isdigit() or int(text["version"]) > VERSION:
        raise ItesError(
            f"{path}: expected version {VERSION} or older, got {text.get('version')!r}; "
            "a newer ites wrote it"
        )
    return tensors, text
