"""Evaluate a trained model on a store with 3D: the usual protocols and ITES's side by side.

The ITES protocol counts the better of two depth signs, pose by pose. This is an oracle, because a
user of the method does not know which is better. Each such figure is shown beside the one that
leaves the sign alone, and beside the share of poses whose sign was wrong.
"""

from __future__ import annotations

import csv
import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ites.data.store import PoseStore, TurnedViews
from ites.errors import ItesError
from ites.evaluation.agreement import refuse_other_axes
from ites.models import fold_norms
from ites.models.predict import Pose, lift_points
from ites.pose.geometry import DISTANCE
from ites.pose.metrics import pose_errors
from ites.pose.skeleton import Skeleton, root_relative
from ites.runs.checkpoint import load_model
from ites.system.arguments import checked
from ites.system.files import atomic_write
from ites.system.ranks import Ranks, pick_device

SCALES = ("checkpoint", "split")


class NoTruthError(ItesError):
    """The store has no 3D, so it cannot be evaluated."""


@dataclass(frozen=True)
class Column:
    """One figure of the result.

    Attributes:
        name: its key in `ites.pose.metrics.pose_errors` and in the JSON.
        title: the metric.
        aligned: how poses are aligned to the truth before the error is computed.
        unit: "mm" or "%".
        heading: title and alignment in narrow lines, for the screen.
    """

    name: str
    title: str
    aligned: str
    unit: str
    heading: str


ROOT, SCALED, SIMILARITY = "root", "root + similarity's scale", "similarity"
ORACLE = " + oracle sign"
LENGTHS = (
    Column("mpjpe", "MPJPE", ROOT, "mm", "MPJPE\nroot"),
    Column("n_mpjpe", "N-MPJPE", "root + least-squares scale", "mm", "N-MPJPE\nroot +\nscale"),
    Column("p_mpjpe", "P-MPJPE", SIMILARITY, "mm", "P-MPJPE\nsimi-\nlarity"),
    Column("scaled_mpjpe", "ITES MPJPE", SCALED, "mm", "ITES\nMPJPE\nroot +\nP-scale"),
    Column(
        "scaled_mpjpe_oracle", "ITES MPJPE", SCALED + ORACLE, "mm",
        "ITES\nMPJPE\nroot +\nP-scale\noracle",
    ),
    Column(
        "p_mpjpe_oracle", "ITES P-MPJPE", SIMILARITY + ORACLE, "mm",
        "ITES\nP-MPJPE\nsimi-\nlarity\noracle",
    ),
    Column("wrong_sign", "wrong sign", SCALED, "%", "wrong\nsign\n%"),
)  # fmt: skip
PCK = (
    Column("pck", "PCK", SCALED, "%", "PCK\nroot +\nP-scale"),
    Column("pck_oracle", "PCK", SCALED + ORACLE, "%", "PCK\nroot +\nP-scale\noracle"),
    Column("p_pck", "P-PCK", SIMILARITY, "%", "P-PCK\nsimi-\nlarity"),
    Column("p_pck_oracle", "P-PCK", SIMILARITY + ORACLE, "%", "P-PCK\nsimi-\nlarity\noracle"),
    LENGTHS[-1],
)
AUC = (
    Column("auc", "AUC", SCALED, "%", "AUC\nroot +\nP-scale"),
    Column("auc_oracle", "AUC", SCALED + ORACLE, "%", "AUC\nroot +\nP-scale\noracle"),
    Column("p_auc", "P-AUC", SIMILARITY, "%", "P-AUC\nsimi-\nlarity"),
    Column("p_auc_oracle", "P-AUC", SIMILARITY + ORACLE, "%", "P-AUC\nsimi-\nlarity\noracle"),
    LENGTHS[-1],
)
COLUMNS = (*LENGTHS, *PCK[:-1], *AUC[:-1])

LEGEND = {
    "root": "both poses' roots moved to the origin",
    "scale": "the least-squares scale about the root",
    "similarity": "the best rotation, translation and scale, reflections excluded",
    "P-scale": "the similarity's scale alone, taken before reflections are excluded",
    "oracle": "of a pose and its depth-flipped twin the one nearer to the truth, pose by pose; PCK "
    "and AUC: joint by joint. Needs the truth, so no user can reach it",
    "wrong sign": "poses whose flipped twin has the strictly smaller ITES MPJPE",
    "PCK, AUC": "joints within 150 mm; its mean over 0, 5, ..., 150 mm; root and hips not counted",
    "depth 0": "every joint at the root's depth: the result without a model",
}


@dataclass(frozen=True)
class Row:
    """Figures by column name, in the column's unit, of some poses."""

    name: str
    poses: int
    figures: dict[str, float]


@dataclass(frozen=True)
class Evaluation:
    """The result of `evaluate`.

    Attributes:
        settings: what was evaluated, and how.
        actions: one row per action, in alphabetical order.
        subjects: one row per subject, where there are several; of MPI-INF-3DHP's test set, one per
            test sequence.
        over_actions, over_poses: the means.
        baseline: the same two means for depth 0 at every joint.
    """

    settings: dict[str, Any]
    actions: list[Row]
    over_actions: Row
    over_poses: Row
    baseline: list[Row]
    subjects: list[Row] = field(default_factory=list)

    @property
    def means(self) -> list[Row]:
        """The model's two means, then the baseline's."""
        return [self.over_actions, self.over_poses, *self.baseline]

    def show(self, console: Console | None = None) -> None:
        """Print the tables."""
        of = self.settings
        title = (
            f"{of['model']} after {of['step']} steps on {of['data']}, split {of['split']}, "
            f"{of['poses']} poses"
        )
        notes = Table.grid(padding=(0, 0, 0, 1))
        notes.add_row("unit", f"MPJPE takes one network unit as {of['unit']:g} m")
        notes.add_row("input", f"scaled by {of['scale']:.6g}, {of['scaled_as']}")
        for term, meaning in LEGEND.items():
            notes.add_row(term, meaning)
        console = console or Console()
        console.print(Text(title, "bold"))
        for unit, columns in (("mm", LENGTHS), ("%", PCK), ("%", AUC)):
            console.print(self._table(unit, columns))
        console.print(notes)

    def save(self, folder: str | os.PathLike[str]) -> tuple[Path, Path]:
        """Write `evaluation-MODEL-DATA-SPLIT.csv` and `.json`; each completely or not at all.

        Returns:
            the two paths.
        """
        of = self.settings
        stem = f"evaluation-{of['model']}-{Path(of['data']).stem}-{of['split']}"
        table, document = (Path(folder) / f"{stem}.{kind}" for kind in ("csv", "json"))
        with atomic_write(table) as path, path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            titles = (f"{c.title} ({c.aligned}) {c.unit}" for c in COLUMNS)
            writer.writerow(["row", "poses", *titles])
            for row in [*self.actions, *self.subjects, *self.means]:
                writer.writerow([row.name, row.poses, *(row.figures[c.name] for c in COLUMNS)])
        columns = [
            {"name": c.name, "title": c.title, "aligned": c.aligned, "unit": c.unit}
            for c in COLUMNS
        ]
        rows = {
            k: [asdict(row) for row in getattr(self, k)] for k in ("actions", "subjects", "means")
        }
        with atomic_write(document) as path:
            content = {"settings": of, "columns": columns, **rows}
            path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        return table, document

    def _table(self, unit: str, columns: Sequence[Column]) -> Table:
        table = Table(box=SIMPLE_HEAD, padding=(0, 0, 0, 1), pad_edge=False)
        table.add_column(f"action, {unit}", vertical="bottom", min_width=9, overflow="fold")
        table.add_column("poses", justify="right", vertical="bottom", no_wrap=True)
        for column in columns:
            table.add_column(column.heading, justify="right", vertical="bottom", no_wrap=True)
        for rows in (self.actions, self.subjects, self.means):
            for row in rows:
                figures = (f"{row.figures[column.name]:.1f}" for column in columns)
                table.add_row(row.name, str(row.poses), *figures)
            table.add_section()
        return table


@checked("evaluate")
def evaluate(
    run: str | os.PathLike[str],
    data: str | os.PathLike[str],
    *,
    stage: str | None = None,
    split: str = "test",
    scale: str = "checkpoint",
    unit: float = 1.0,
    missing: str | None = None,
    batch_size: int | None = None,
    device: str = "auto",
    save: bool = True,
) -> Evaluation:
    """Lift a split of a store and compare with its 3D.

    For a model of recipe upright, known cameras are turned towards the person before lifting, and
    poses are turned back after it. Recipe paper takes the input as published.

    Processes that `torchrun` started share the work; all return the result, rank 0 writes it.

    Args:
        run: a run folder or a checkpoint.
        data: a pose store with 3D.
        stage: "teacher" or "student"; None: the student, or else the teacher.
        split: of the store.
        scale: of the input: "checkpoint", the training split's, or "split", chosen so that this
            split's mean root-to-head distance is 1/5, as in the paper.
        unit: metres in one network unit, for MPJPE alone: the other figures find their own scale.
        missing: what to do with poses that lack a joint: "error", "drop" or "interpolate"; None:
            as in the training, "error" where that is not known.
        batch_size: poses per batch; None: chosen by device.
        device: "cpu", "cuda", ...; "auto": a GPU where there is one.
        save: write the result into the run folder; see `Evaluation.save`.

    Returns:
        An `Evaluation`.

    Raises:
        NoTruthError: the store holds no 3D.
        ItesError: a file is invalid, an argument is out of range, or the model's
            output is not finite.

    Example:
        >>> import ites
        >>> evaluation = ites.evaluate("runs/mine", "store.h5", save=False)
        >>> evaluation.settings["poses"], sorted(row.name for row in evaluation.actions)
        (15, ['walk'])
        >>> evaluation.over_poses.figures["p_mpjpe"] > 0  # millimetres
        True
    """
    if scale not in SCALES:
        raise ItesError(f"evaluate: scale must be {' or '.join(SCALES)}, got {scale!r}")
    for name, value in (("unit", unit), ("batch_size", batch_size)):
        if value is not None and not 0 < value < float("inf"):
            raise ItesError(f"evaluate: {name} must be positive and finite, got {value}")
    ranks = Ranks.here()
    where = pick_device(device, ranks)
    model, metadata = load_model(run, stage, where)
    missing = missing or metadata.settings.get("missing", "error")
    with PoseStore(data) as store:
        if difference := metadata.skeleton.difference(store.skeleton):
            raise ItesError(
                f"{data}: expected the model's skeleton {metadata.skeleton.name}, got "
                f"{store.skeleton.name}: {difference}"
            )
        positions = truth(store, split, missing)
        refuse_other_axes(data, store.points(split, 1.0, missing)[0], positions, store.skeleton)
        given = metadata.scale if scale == "checkpoint" else None
        points, factor, views = store.input_points(split, given, missing, model.upright)
        actions, subjects = (_names(store, split, missing, n) for n in ("action", "subject"))
    settings = {
        "model": metadata.kind,
        "step": metadata.step,
        "run": str(run),
        "data": str(data),
        "split": split,
        "poses": len(points),
        "scale": factor,
        "scaled_as": "as in training" if given else "by this split itself",
        "unit": unit,
        "missing": missing,
        "device": str(where),
    }
    pose = fold_norms(model.float()).pose
    with ranks.joined(where):
        evaluation = evaluate_points(
            pose, points, positions, actions, metadata.skeleton, settings, batch_size, ranks,
            subjects, views,
        )  # fmt: skip
    ranks.leave()
    if save and ranks.is_main:
        evaluation.save(run if Path(run).is_dir() else Path(run).parent)
    return evaluation


def evaluate_points(
    lifter: Pose,
    points: NDArray[np.float32],
    positions: NDArray[np.float32],
    actions: Sequence[str] | NDArray[np.str_],
    skeleton: Skeleton,
    settings: dict[str, Any],
    batch_size: int | None = None,
    ranks: Ranks = Ranks(),  # noqa: B008 - immutable
    subjects: Sequence[str] | NDArray[np.str_] = (),
    views: TurnedViews | None = None,
) -> Evaluation:
    """Lift poses in memory and compare with the truth, beside depth 0 for every joint.

    Args:
        lifter: see `ites.models.predict.Pose`; runs on `settings["device"]`.
        points: network input (N, J, 2).
        positions: truth (N, J, 3), metres, camera frame.
        actions: of each pose (N).
        skeleton: of the poses.
        settings: "device", "unit", and what the result's `settings` shall hold besides.
        batch_size: poses per batch; None: chosen by device.
        ranks: who shares the work; all of them call this with the same arguments.
        subjects: of each pose (N), or none.
        views: how to turn lifted poses back, where known cameras are turned; see
            `ites.data.store.PoseStore.turned_points`.

    Returns:
        An `Evaluation`; the seconds spent are added to its settings.

    Raises:
        ItesError: the lifter's output is not finite.
    """
    unit, own = settings["unit"], ranks.share(len(points))
    start = time.perf_counter()
    pose = lift_points(lifter, points[own], skeleton, batch_size, settings["device"])
    pose = pose if views is None else views.back(pose, own)
    lifted = time.perf_counter()
    errors = _gather(_errors(pose, positions[own], skeleton, unit), ranks)
    seconds = {
        "lifting_seconds": lifted - start,
        "metrics_seconds": time.perf_counter() - lifted,
    }
    rows, over_actions, over_poses = _rows(errors, actions)
    flat = depth_zero(points[own], skeleton)
    flat = flat if views is None else views.back(flat, own)
    flat_errors = _gather(_errors(flat, positions[own], skeleton, unit), ranks)
    _, *baseline = _rows(flat_errors, actions, "depth 0, ")
    of_subject = _rows(errors, subjects)[0] if len(set(subjects)) > 1 else []
    return Evaluation({**settings, **seconds}, rows, over_actions, over_poses, baseline, of_subject)


def _gather(errors: dict[str, NDArray[np.float64]], ranks: Ranks) -> dict[str, NDArray[np.float64]]:
    """The errors of all poses, on every rank, from each rank's own."""
    if not ranks.distributed:
        return errors
    parts: list[Any] = [None] * ranks.count
    dist.all_gather_object(parts, errors)
    return {name: np.concatenate([part[name] for part in parts]) for name in errors}


def figures(
    lifter: Pose,
    points: NDArray[np.float32],
    positions: NDArray[np.float32],
    skeleton: Skeleton,
    *,
    unit: float = 1.0,
    batch_size: int | None = None,
    device: str = "cpu",
    views: TurnedViews | None = None,
) -> dict[str, float]:
    """All figures averaged over poses, for a training's log.

    Args:
        lifter: see `ites.models.predict.Pose`; runs on `device`.
        points: network input (N, J, 2).
        positions: truth (N, J, 3), metres, camera frame.
        skeleton: of the poses.
        unit: metres in one network unit; only `mpjpe` depends on it.
        batch_size: poses per batch; None: chosen by device.
        device: of the lifter.
        views: how to turn lifted poses back, where known cameras are turned; see
            `ites.data.store.PoseStore.turned_points`.

    Returns:
        The means by column name (`COLUMNS`), in mm and %.

    Raises:
        ItesError: the lifter's output is not finite.
    """
    pose = lift_points(lifter, points, skeleton, batch_size, device)
    pose = pose if views is None else views.back(pose)
    errors = _errors(pose, positions, skeleton, unit)
    return {name: float(value.mean()) for name, value in errors.items()}


def truth(store: PoseStore, split: str, missing: str = "error") -> NDArray[np.float32]:
    """The 3D of a split, for the poses that `store.points(split, missing=missing)` gives.

    Returns:
        (N, J, 3) float32, metres, camera frame.

    Raises:
        NoTruthError: the store holds none.
        ItesError: there is no such split, or a joint stands at (0, 0, 0), the camera's centre: a
            filler where the truth is unknown.
    """
    positions = store.positions(split)
    if positions is None:
        raise NoTruthError(
            f"{store.path}: holds no 3D positions to compare with, so evaluation is left out"
        )
    if missing == "drop":
        positions = positions[store.complete(split)]
    filler = np.all(positions == 0, axis=-1)
    filler[:, store.skeleton.root] = False  # of poses that are relative to it
    if filler.any():
        poses, joint = np.count_nonzero(filler.any(1)), np.flatnonzero(filler.any(0))[0]
        raise ItesError(
            f"{store.path}: positions: expected the truth of every joint, got (0, 0, 0), the "
            f"camera's centre, in {poses:,} poses, such as of {store.skeleton.joints[joint]}; "
            "--missing drop leaves out poses with a joint of confidence 0"
        )
    return positions


def depth_zero(points: NDArray[np.float32], skeleton: Skeleton) -> NDArray[np.float32]:
    """The baseline: points (N, J, 2), root-relative, at depth 0 for every joint (N, J, 3).

    In network units up to a factor common to all joints, which the scaled figures ignore;
    MPJPE takes the networks' distance of 5.
    """
    flat = np.zeros((*points.shape[:2], 3), np.float32)
    flat[..., :2] = DISTANCE * root_relative(points, skeleton.root)
    return flat


def counted_joints(skeleton: Skeleton) -> tuple[int, ...]:
    """The joints that PCK and AUC count: all but the root and the hips, its children on a side.

    For the Human3.6M skeleton these are `ites.pose.metrics.PCK_JOINTS`.
    """
    sides = {*skeleton.left, *skeleton.right}
    root = skeleton.root
    return tuple(
        joint
        for joint, parent in enumerate(skeleton.parents)
        if joint != root and not (parent == root and joint in sides)
    )


def _errors(
    pose: NDArray[np.float32], positions: NDArray[np.float32], skeleton: Skeleton, unit: float
) -> dict[str, NDArray[np.float64]]:
    errors = pose_errors(
        torch.from_numpy(pose),
        torch.from_numpy(positions),
        unit=unit,
        joints=counted_joints(skeleton),
        root=skeleton.root,
    )
    factors = {"mm": 1000, "%": 100}
    return {c.name: errors[c.name].numpy() * factors[c.unit] for c in COLUMNS}


def _rows(
    errors: dict[str, NDArray[np.float64]],
    actions: Sequence[str] | NDArray[np.str_],
    prefix: str = "",
) -> tuple[list[Row], Row, Row]:
    """One row per action, their mean, and the mean over poses."""
    names, index = np.unique(np.asarray(actions), return_inverse=True)
    counts = np.bincount(index)
    of_action = {name: np.bincount(index, error) / counts for name, error in errors.items()}
    rows = [
        Row(str(action), int(count), {name: float(mean[i]) for name, mean in of_action.items()})
        for i, (action, count) in enumerate(zip(names, counts, strict=True))
    ]
    over_actions = {name: float(mean.mean()) for name, mean in of_action.items()}
    over_poses = {name: float(error.mean()) for name, error in errors.items()}
    return (
        rows,
        Row(f"{prefix}mean over actions", len(index), over_actions),
        Row(f"{prefix}mean over poses", len(index), over_poses),
    )


def _names(store: PoseStore, split: str, missing: str, name: str) -> NDArray[np.str_]:
    """The action or subject of each pose."""
    sequences = store.sequences_of(split)
    values = [getattr(sequence, name) or "unnamed" for sequence in sequences]
    names = np.repeat(values, [sequence.length for sequence in sequences])
    return names[store.complete(split)] if missing == "drop" else names
