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
from torch import Tensor

from ites.errors import ItesError
from ites.files import replacing
from ites.models import Student, Teacher
from ites.skeleton import Skeleton

MODELS: dict[str, type[Teacher] | type[Student]] = {"teacher": Teacher, "student": Student}
MODEL_FORMAT, STATE_FORMAT, VERSION = "ites-model", "ites-training-state", 1

Model = Teacher | Student


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


def save_model(path: str | os.PathLike[str], model: Model, metadata: Metadata) -> None:
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
    path = _find(path, stage)
    tensors, text = _read(path, MODEL_FORMAT)
    kind = text.get("kind", "")
    if kind not in MODELS or stage not in (None, kind):
        raise ItesError(f"{path}: expected a {stage or 'teacher or student'}, got {kind!r}")
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
    return model.to(device).eval(), metadata


def assign(path: str | os.PathLike[str], model: Model, tensors: Mapping[str, Tensor]) -> None:
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


def save_state(
    path: str | os.PathLike[str],
    model: Model,
    optimiser: torch.optim.SGD,
    losses: Tensor,
    counters: Mapping[str, Any],
) -> None:
    """Write all that a training needs to continue; the file appears wholly or not at all.

    Args:
        path: a safetensors file; replaced if it exists.
        model: the model in training.
        optimiser: its SGD with momentum.
        losses: (steps since the last log, losses) the losses not logged yet.
        counters: plain numbers and texts, such as the step.
    """
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        momentum = optimiser.state[parameter].get("momentum_buffer")
        if momentum is not None:
            tensors[f"momentum.{name}"] = momentum
    text = {"format": STATE_FORMAT, "version": str(VERSION), "counters": json.dumps(dict(counters))}
    _write(path, tensors | {"losses": losses}, text)


def load_state(
    path: str | os.PathLike[str], model: Model, optimiser: torch.optim.SGD
) -> tuple[Tensor, dict[str, Any]]:
    """Put a training's state back into its model and optimiser, on the model's device.

    Returns:
        the losses not logged yet and the counters, as `save_state` got them.

    Raises:
        ItesError: the file is absent, damaged, no training state, or of another model.
    """
    tensors, text = _read(Path(path), STATE_FORMAT)
    groups: dict[str, dict[str, Tensor]] = {"model": {}, "momentum": {}, "losses": {}}
    for name, tensor in tensors.items():
        group, _, rest = name.partition(".")
        groups.setdefault(group, {})[rest] = tensor
    try:
        losses, counters = tensors["losses"], json.loads(text["counters"])
    except (KeyError, ValueError) as error:
        raise ItesError(f"{path}: damaged training state: {error!r}") from None
    assign(path, model, groups["model"])
    for name, parameter in model.named_parameters():
        if name in groups["momentum"]:
            buffer = groups["momentum"][name].to(parameter.device)
            optimiser.state[parameter]["momentum_buffer"] = buffer
    return losses, counters


def _find(path: str | os.PathLike[str], stage: str | None) -> Path:
    path = Path(path)
    if path.is_dir():
        stages = ("student", "teacher") if stage is None else (stage,)
        for candidate in stages:
            if weights_file(path, candidate).is_file():
                return weights_file(path, candidate)
        names = " or ".join(f"{candidate}.safetensors" for candidate in stages)
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
