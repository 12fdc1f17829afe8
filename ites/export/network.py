"""Trained models for other run times: ONNX, and PyTorch's own export format.

Both hold the whole way from pixels to a pose, so that a program that loads one needs nothing of
this package.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ites.errors import ItesError
from ites.models import fold_norms
from ites.ops.backends import using
from ites.pose.skeleton import root_relative
from ites.runs.checkpoint import Metadata, Model, load_model
from ites.system.files import atomic_write

ENDINGS = (".onnx", ".pt2")
BODY_SIZE = 0.72
"""Metres from pelvis to crown that a body is taken to have; see `ites.inference.assume`."""


class PixelsToPose(nn.Module):
    """Keypoints in pixels to poses in metres.

    `points = scale * (keypoints - root keypoint) / focal_length`, lifted, root-relative, in metres:
    a batch counts as frames of one person, whose poses are given the same summed length of bones
    and a mean root-to-head distance of `BODY_SIZE`.

    Args:
        model: a trained teacher or student.
        metadata: its scale.
    """

    scale: Tensor
    bones: Tensor

    def __init__(self, model: Model, metadata: Metadata) -> None:
        super().__init__()
        skeleton = model.skeleton
        self.network = fold_norms(model.float())
        self.root = skeleton.root
        parents, joints = zip(*skeleton.bones, strict=True)
        self.register_buffer("scale", torch.tensor(metadata.scale, dtype=torch.float32))
        self.register_buffer("bones", torch.tensor([joints, parents]))
        self.head = skeleton.head

    def forward(self, keypoints: Tensor, focal_length: Tensor) -> tuple[Tensor, Tensor]:
        """Lift a batch.

        Args:
            keypoints: (B, J, 2) float32, pixels, x right, y down.
            focal_length: (2,) float32, pixels, of x and y.

        Returns:
            `positions` (B, J, 3), metres, camera axes, relative to the root joint; and
            `metres_per_unit` (B,): positions divided by it are network units.
        """
        points = root_relative(keypoints, self.root)
        pose = self.network.pose(points * (self.scale / focal_length))
        pose = root_relative(pose, self.root)
        joints, parents = self.bones
        bones = (pose[:, joints] - pose[:, parents]).norm(dim=-1).sum(1).clamp(min=1e-6)
        head = (pose[:, self.head].norm(dim=-1) / bones).mean().clamp(min=1e-6)
        factor = BODY_SIZE / head / bones
        return pose * factor[:, None, None], factor


def export_model(
    run: str | os.PathLike[str], out: str | os.PathLike[str], *, stage: str | None = None
) -> dict[str, Any]:
    """Write a trained model as ONNX (`.onnx`) or as a `torch.export` program (`.pt2`).

    Inputs `keypoints` (B, J, 2), pixels, and `focal_length` (2,), pixels; outputs `positions`
    (B, J, 3), metres, and `metres_per_unit` (B,). B is free.

    Args:
        run: a run folder or a checkpoint.
        out: the file to write; its ending chooses the format.
        stage: "teacher" or "student"; None: what the checkpoint is, of a folder its student, or
            else its teacher.

    Returns:
        `files`, the path written, and `notes`, a line each.

    Raises:
        ItesError: the ending is neither, the run holds no such model, or a package is missing.
    """
    path = Path(out)
    if path.suffix.lower() not in ENDINGS:
        raise ItesError(f"{out}: a model's name must end in {' or '.join(ENDINGS)}")
    model, metadata = load_model(run, stage)
    module = PixelsToPose(model, metadata).eval()
    joints = model.skeleton.num_joints
    example = torch.zeros(3, joints, 2), torch.tensor([1000.0, 1000.0])
    example[0].normal_(500, 100, generator=torch.Generator().manual_seed(0))
    shapes = {"keypoints": {0: torch.export.Dim("batch")}, "focal_length": None}
    with using("reference"):
        program = torch.export.export(module, example, dynamic_shapes=shapes)
    notes = [
        f"{metadata.kind} of {run}: keypoints (B, {joints}, 2) and focal_length (2), pixels, to "
        f"positions (B, {joints}, 3), metres, camera axes (x right, y down, z forward)",
        f"metres by a mean of {BODY_SIZE:g} m from root to head over a batch, assumed",
        f"joint order: {', '.join(model.skeleton.joints)}",
    ]
    with atomic_write(path) as temporary:
        if path.suffix.lower() == ".pt2":
            with temporary.open("wb") as file:
                torch.export.save(program, file)
        else:
            _write_onnx(temporary, program, notes)
    return {"files": [str(path)], "notes": notes}


def _write_onnx(path: Path, program: torch.export.ExportedProgram, notes: list[str]) -> None:
    try:
        import onnxscript  # noqa: F401 - what PyTorch's exporter is made of
    except ImportError:
        raise ItesError(
            "ONNX needs the packages onnx and onnxscript: pip install 'ites[export]'"
        ) from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        onnx = torch.onnx.export(
            program,
            input_names=["keypoints", "focal_length"],
            output_names=["positions", "metres_per_unit"],
            dynamo=True,
            verbose=False,
        )
    assert onnx is not None
    onnx.model.metadata_props["ites"] = "\n".join(notes)
    onnx.save(str(path))
