"""Read the released program's checkpoints: its names and layouts to ours.

The released teacher's 1x1 convolutions are linear layers here; its translation head, which nothing
uses, is dropped. See docs/method.md, 6.
"""

from __future__ import annotations

import math
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ites.errors import ItesError
from ites.pose.skeleton import HUMAN36M, Skeleton
from ites.runs.checkpoint import Metadata, Model, assign, build_model, save_model
from ites.system.files import check_expansion, kind_of, load_npz, reading

_TEACHER = (
    (r"fe_net\.0\.conv1\.", "input."),
    (r"fe_net\.0\.bn1\.", "input_norm."),
    (r"fe_net\.(\d+)\.conv(\d)\.", lambda m: f"blocks.{int(m[1]) - 1}.linear{m[2]}."),
    (r"fe_net\.(\d+)\.bn(\d)\.", lambda m: f"blocks.{int(m[1]) - 1}.norm{m[2]}."),
    (r"alpha_layer\.", "coefficients."),
    (r"rot_layer\.", "rotation_vector."),
    (r"shape_layer\.weight$", "dictionary"),
    (r"shape_layer\.bias$", "mean_pose"),
)
_STUDENT = (
    (r"gconv_input\.0\.bn\.", "input_norm."),
    (r"gconv_input\.0\.gconv\.", "input."),
    (r"gconv_output\.", "output."),
    (r"gconv_layers\.(\d+)\.gconv(\d)\.bn\.", r"blocks.\1.layer\2.norm."),
    (r"gconv_layers\.(\d+)\.gconv(\d)\.gconv\.", r"blocks.\1.layer\2.conv."),
    (r"gconv_layers\.(\d+)\.gconv(\d)\.non_local\.non_local\.", r"blocks.\1.layer\2.non_local."),
    (r"\.(g|phi)\.0\.", r".\1."),
    (r"\.concat_project\.0\.weight$", ".affinity"),
    (r"\.W\.0\.", ".out."),
    (r"\.W\.1\.", ".norm."),
    (r"\.e$", ".logits"),
    (r"\.W$", ".weight"),
)
_UNUSED = re.compile(r"(^|\.)(trans_layer\.(weight|bias)|num_batches_tracked)$")


def convert_tensors(released: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A released state dict, or gradients under its names, under our names and layouts.

    Args:
        released: tensors by the released program's names, of one model.

    Returns:
        Tensors by our names, sharing memory where the layout allows; what has no counterpart here
        (the translation head, counts of batches) is left out.
    """
    converted = {}
    for name, tensor in released.items():
        if _UNUSED.search(name):
            continue
        ours = name.removeprefix("module.")
        for pattern, replacement in _TEACHER if _is_teacher(released) else _STUDENT:
            ours = re.sub(pattern, replacement, ours)
        if ours == "dictionary":
            tensor = tensor.flatten(1).T  # (3 J, K, 1, 1) to (K, 3 J)
        elif ours.endswith(".affinity"):
            tensor = tensor.reshape(2, -1)  # (1, C, 1, 1), u first
        elif ours.endswith(".logits"):
            tensor = tensor.reshape(-1)  # (1, E)
        elif tensor.ndim >= 3 and not name.endswith(".W"):
            tensor = tensor.flatten(1)  # 1x1 convolution to linear
        converted[ours] = tensor
    return converted


def convert_model(released: Mapping[str, Tensor], skeleton: Skeleton = HUMAN36M) -> Model:
    """The teacher or student that a released state dict holds, in its dtype and training mode.

    Args:
        released: tensors by the released program's names.
        skeleton: of the data it was trained on.

    Raises:
        ItesError: the tensors are not those of a released teacher or student.
    """
    tensors = convert_tensors(released)
    try:
        sizes = {"blocks": _blocks(tensors)}
        if _is_teacher(released):
            sizes["width"] = tensors["input.weight"].shape[0]
            sizes["atoms"] = tensors["dictionary"].shape[0]
            model = build_model("teacher", skeleton, sizes, tensors, "tensors")
        else:
            sizes["width"] = tensors["input.bias"].shape[0]
            model = build_model("student", skeleton, sizes, tensors, "tensors")
        assign("tensors", model, tensors)
        assert isinstance(model, Model)
    except (KeyError, IndexError, RuntimeError, ItesError) as error:
        reason = " ".join(str(error).split())
        raise ItesError(
            f"convert: expected a released ITES teacher or student of {skeleton.num_joints} "
            f"joints, got other tensors: {reason}"
        ) from error
    return model


def convert(source: Path, out: Path, scale: float, skeleton: Skeleton = HUMAN36M) -> Model:
    """Convert a released checkpoint file to ours.

    Args:
        source: a PyTorch checkpoint (`torch.save`; read without executing anything in it), bare
            or under "state_dict" or "model", or an npz of arrays by the released names.
        out: the safetensors file to write.
        scale: factor of the networks' input on the split it was trained on; the released program
            does not store it.
        skeleton: of the data it was trained on.

    Raises:
        ItesError: the file cannot be read, or holds something else.
    """
    if not 0 < scale < math.inf:
        raise ItesError(f"scale: expected a number that is finite and positive, got {scale}")
    source = Path(source)
    with reading(source, "a checkpoint of the released program"):
        model = convert_model(_read(source), skeleton)
    save_model(out, model, Metadata(model.kind, skeleton, scale))
    return model


def _read(source: Path) -> dict[str, Tensor]:
    if not source.is_file():
        raise ItesError(f"{source}: expected a checkpoint of the released program, got no file")
    if source.suffix.lower() == ".npz":
        return {name: torch.from_numpy(array) for name, array in load_npz(source).items()}
    state = _load(source)
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(t, Tensor) for t in state.values()):
        raise ItesError(f"{source}: expected a dictionary of tensors, got {type(state).__name__}")
    check_expansion(source, sum(t.numel() * t.element_size() for t in state.values()))
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def _load(source: Path) -> Any:
    """The content of a PyTorch checkpoint; nothing in it is executed."""
    expected = f"{source}: expected a PyTorch checkpoint of tensors alone, or an npz of arrays"
    if zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as archive:
            check_expansion(source, sum(info.file_size for info in archive.infolist()))
    try:
        with warnings.catch_warnings():  # more lines, of what is refused anyway
            warnings.simplefilter("ignore")
            return torch.load(source, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # PyTorch's own words advise to load the file unsafely.
        found = re.search(r"GLOBAL (\S+)", str(error))
        what = f"one that asks for {found[1]}" if found else kind_of(source)
        raise ItesError(f"{expected}, got {what}") from None
    except Exception as error:
        raise ItesError(f"{expected}, got {kind_of(source)} ({type(error).__name__})") from None


def _is_teacher(released: Mapping[str, Tensor]) -> bool:
    return any(name.startswith(("fe_net.", "module.fe_net.")) for name in released)


def _blocks(tensors: Mapping[str, Tensor]) -> int:
    numbers = [int(name.split(".")[1]) for name in tensors if name.startswith("blocks.")]
    return 1 + max(numbers, default=-1)
