"""Rotations: the exponential map, the draws, and the ops that redraw instead of storing."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.ops.cases import JOINTS, SAMPLES, Arguments, Case, Random, Work, measure
from ites import ops
from ites.ops import RotationDraw, TurnDraw

POSE = 3 * JOINTS
DRAW_FLOP = 60.0  # a rotation: sine, cosine, axis, matrix; Philox's integers are not counted
TURN_FLOP = 130.0  # a turn: four sines and cosines, a logarithm, the product of three matrices
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


def _turned(arguments: Arguments, random: Random) -> Arguments:
    """The arguments with a turn instead of their rotations; the elevation has a gradient."""
    rest = {name: value for name, value in arguments.items() if name != "rotations"}
    poses = len(rest["joints"] if "joints" in rest else rest["target"])
    return {
        **rest,
        "counter": torch.tensor([1, 2, 0], device=random.device),
        "elevation": random(poses),
        "spread": random(2, grad=False),
    }


def _with_turn(arguments: Arguments) -> Arguments:
    """The arguments as the op takes them."""
    rest = dict(arguments)
    parts = [rest.pop(name) for name in ("counter", "elevation", "spread")]
    return {**rest, "rotations": TurnDraw(*parts, SAMPLES)}


def _draw_rotations(arguments: Arguments, backend: str) -> tuple[Tensor, ...]:
    joints = arguments["joints"]
    return (ops.draw_rotations(arguments["rotations"], len(joints), joints, backend),)


def _rotate_project_work(draw_flop: float, elevations: int) -> Work:
    return Work(
        values=(
            POSE + SAMPLES * 2 * JOINTS + elevations,
            SAMPLES * 2 * JOINTS + POSE + POSE + 2 * elevations,
        ),
        flop=(
            SAMPLES * (draw_flop + ROTATE_FLOP + 4 * JOINTS),
            SAMPLES * (draw_flop + 2 * ROTATE_FLOP + 14 * JOINTS) + elevations * 4 * JOINTS,
        ),
    )


def _equivariance_work(draw_flop: float, elevations: int) -> Work:
    return Work(
        values=(
            POSE + SAMPLES * (3 * JOINTS + 1) + elevations,
            POSE + SAMPLES * (3 * JOINTS + 1) + POSE + SAMPLES * 3 * JOINTS + 2 * elevations,
        ),
        flop=(
            SAMPLES * (draw_flop + ROTATE_FLOP + 13 * JOINTS),
            SAMPLES * (draw_flop + 2 * ROTATE_FLOP + 30 * JOINTS) + elevations * 4 * JOINTS,
        ),
    )


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
        "draw_rotations turns",
        "draw_rotations",
        lambda poses, random: _turned(_joints(poses, random), random),
        lambda arguments, backend: _draw_rotations(_with_turn(arguments), backend),
        Work(values=(9 * SAMPLES + 1, 0), flop=(TURN_FLOP * SAMPLES, 0)),
        differentiable=False,
    ),
    Case(
        "rotate_project",
        "rotate_project",
        _joints,
        lambda arguments, backend: ops.rotate_project(**arguments, backend=backend)[:1],
        _rotate_project_work(DRAW_FLOP, 0),
    ),
    Case(
        "rotate_project turns",
        "rotate_project",
        lambda poses, random: _turned(_joints(poses, random), random),
        lambda arguments, backend: ops.rotate_project(**_with_turn(arguments), backend=backend)[:1],
        _rotate_project_work(TURN_FLOP, 1),
    ),
    Case(
        "equivariance_distance",
        "equivariance_distance",
        _lifted,
        lambda arguments, backend: (ops.equivariance_distance(**arguments, backend=backend),),
        _equivariance_work(DRAW_FLOP, 0),
    ),
    Case(
        "equivariance_distance turns",
        "equivariance_distance",
        lambda poses, random: _turned(_lifted(poses, random), random),
        lambda arguments, backend: (
            ops.equivariance_distance(**_with_turn(arguments), backend=backend),
        ),
        _equivariance_work(TURN_FLOP, 1),
    ),
)


def bench(row, benchmark, device, seconds):
    measure(row, benchmark, device, seconds)
