"""The pose dictionary: reprojection and the lift-and-compare loss of the teacher's cycle."""

from __future__ import annotations

from benchmarks.ops.cases import ATOMS, JOINTS, SAMPLES, Arguments, Case, Random, Work, measure
from ites import ops

POSE = 3 * JOINTS
COMBINE_FLOP = 2.0 * ATOMS * POSE
TURN_FLOP = 60.0 + 15.0 * JOINTS


def _reprojection(poses: int, random: Random) -> Arguments:
    return {
        "coefficients": random(poses, ATOMS),
        "dictionary": random(ATOMS, POSE),
        "mean": random(POSE),
        "rotation_vector": random(poses, 3),
        "target": random(poses, JOINTS, 2, grad=False),
    }


def _invariance(poses: int, random: Random) -> Arguments:
    return {
        "coefficients": random(SAMPLES * poses, ATOMS),
        "dictionary": random(ATOMS, POSE),
        "mean": random(POSE),
        "canonical": random(poses, JOINTS, 3),
    }


READ = ATOMS + 3 + 2 * JOINTS
CASES = (
    Case(
        "dictionary_reprojection",
        "dictionary_reprojection",
        _reprojection,
        # The teacher's losses use the error and the canonical pose, not the camera's.
        lambda arguments, backend: ops.dictionary_reprojection(**arguments, backend=backend)[:2],
        Work(
            values=(READ + 2 * POSE + 1, READ + 1 + POSE + ATOMS + 3),
            flop=(
                COMBINE_FLOP + TURN_FLOP + 10 * JOINTS,
                3 * COMBINE_FLOP + 3 * TURN_FLOP + 30 * JOINTS,
            ),
        ),
    ),
    Case(
        "invariance_distance",
        "invariance_distance",
        _invariance,
        lambda arguments, backend: (ops.invariance_distance(**arguments, backend=backend),),
        Work(
            values=(SAMPLES * (ATOMS + 1) + POSE, SAMPLES * (2 * ATOMS + 1) + 2 * POSE),
            flop=(
                SAMPLES * (COMBINE_FLOP + 9 * JOINTS),
                SAMPLES * (3 * COMBINE_FLOP + 15 * JOINTS),
            ),
        ),
    ),
)


def bench(row, benchmark, device, seconds):
    measure(row, benchmark, device, seconds)
