"""Rotations: the exponential map, the draw, and the two ops that redraw instead of storing."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.cases import JOINTS, SAMPLES, Arguments, Case, Random, Work, measure
from ites import ops
from ites.ops import RotationDraw

POSE = 3 * JOINTS
DRAW_FLOP = 60.0  # a rotation: sine, cosine, axis, matrix; Philox's integers are not counted
ROTATE_FLOP = 15.0 * JOINTS


def _draw(random: Random, axes: str, max_angle: float) -> RotationDraw:
    return RotationDraw(torch.tensor([1, 2, 0], device=random.device), SAMPLES, axes, max_angle)


def _joints(poses: int, random: Random) -> Arguments:
    return {"joints": random(poses, JOINTS, 3), "rotations": _draw(random, "xyz", torch.pi)}


def _lifted(poses: int, random: Random) -> Arguments:
    return {
        "joints": random(poses, JOINTS, 3),
        "points": random(SAMPLES * poses, JOINTS, 2),
        "depth": random(SAMPLES * poses, JOINTS, 1),
        "rotations": _draw(random, "y", 2 * torch.pi),
    }


def _draw_rotations(arguments: Arguments, backend: str) -> tuple[Tensor, ...]:
    joints = arguments["joints"]
    return (ops.draw_rotations(arguments["rotations"], len(joints), joints, backend),)


CASES = (
    Case(
        "so3_exp",
        "so3_exp",
        lambda poses, random: {"rotation_vector": random(poses, 3)},
        lambda arguments, backend: (ops.so3_exp(**arguments, backend=backend),),
        Work(values=(3 + 9, 9 + 3 + 3), flop=(DRAW_FLOP, 2 * DRAW_FLOP)),
    ),
    Case(
        "draw_rotations",
        "draw_rotations",
        _joints,
        _draw_rotations,
        Work(values=(9 * SAMPLES, 0), flop=(DRAW_FLOP * SAMPLES, 0)),
        differentiable=False,
    ),
    Case(
        "rotate_project",
        "rotate_project",
        _joints,
        lambda arguments, backend: ops.rotate_project(**arguments, backend=backend)[:1],
        Work(
            values=(POSE + SAMPLES * 2 * JOINTS, SAMPLES * 2 * JOINTS + POSE + POSE),
            flop=(
                SAMPLES * (DRAW_FLOP + ROTATE_FLOP + 4 * JOINTS),
                SAMPLES * (DRAW_FLOP + 2 * ROTATE_FLOP + 14 * JOINTS),
            ),
        ),
    ),
    Case(
        "equivariance_distance",
        "equivariance_distance",
        _lifted,
        lambda arguments, backend: (ops.equivariance_distance(**arguments, backend=backend),),
        Work(
            values=(
                POSE + SAMPLES * (3 * JOINTS + 1),
                POSE + SAMPLES * (3 * JOINTS + 1) + POSE + SAMPLES * 3 * JOINTS,
            ),
            flop=(
                SAMPLES * (DRAW_FLOP + ROTATE_FLOP + 13 * JOINTS),
                SAMPLES * (DRAW_FLOP + 2 * ROTATE_FLOP + 30 * JOINTS),
            ),
        ),
    ),
)


def bench(row, benchmark, device, seconds):
    measure(row, benchmark, device, seconds)
