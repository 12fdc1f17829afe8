"""The training set: the poses of a split, their checks, and the tensors of each stage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ites.data.store import PAIRS, PoseStore, second_view
from ites.errors import ItesError
from ites.models import Denoiser, Prior, Teacher, UprightTeacher
from ites.models.mirror import mirror_image, other_sides
from ites.pose.geometry import unrolled
from ites.pose.skeleton import Skeleton
from ites.runs.checkpoint import load_model, load_prior
from ites.runs.folder import RunFolder
from ites.runs.settings import Settings, StudentSettings, TeacherSettings
from ites.training.clips import clip_lengths
from ites.training.feed import device_budget


class Needs(NamedTuple):
    """What a recipe needs of its data.

    poses: minimum number of distinct ones. directions: minimum number of principal components,
    for a density; one moving joint gives two. gravity: elevation and roll of the lines of sight.
    """

    poses: int
    directions: int = 0
    gravity: bool = False


NEEDS = {"paper": Needs(2), "upright": Needs(30, 4), "general": Needs(30, 4, gravity=True)}
"""By recipe; the others than "paper" learn the poses' density."""
SAMPLE = 4096
"""Number of checked poses, evenly spaced over the set."""
FLAT = 1e-3
"""Width over length below which the joints of a pose lie on a line. Change of a pose, over its
size, below which two poses are the same."""
TOO_LARGE = 1e3
"""A pose that is larger than the median one by this factor has a joint far outside the image."""


class SecondViews(NamedTuple):
    """People whom two cameras see at the same time, as the second one sees them.

    points: (N, J, 2), root-relative, rows as those of the first views. gravity: (N, 2) elevation
    and roll of the lines of sight, radians. How the cameras stand to each other is not known.
    """

    points: Tensor
    gravity: Tensor


class TrainingSet(NamedTuple):
    """The poses of a split, ready for training.

    array: (N, J, 2) float32, the networks' input, root-relative. points: the same in the dtype and
    on the device of the training; in main memory if they do not fit. scale: see
    `ites.runs.checkpoint.Metadata`. clips: frames per clip, N in all. stream: whether the data
    come in chunks from main memory. notes: lines on what was left out of the data. gravity:
    (N, 2) elevation and roll of the lines of sight, radians, where `points` are; for recipe
    "general" alone. second: the same people seen by another camera, where the store has such views;
    for the same recipe.
    """

    array: NDArray[np.float32]
    points: Tensor
    scale: float
    skeleton: Skeleton
    clips: list[int]
    stream: bool
    notes: list[str]
    gravity: Tensor | None = None
    second: SecondViews | None = None


def read_training_set(
    store: PoseStore, settings: Settings, device: torch.device, trainings: int = 1
) -> TrainingSet:
    """Read the split that the settings name.

    Args:
        store: the pose store.
        settings: of a stage.
        device: the training's.
        trainings: number of trainings that share the data; students have depths of their own.

    Raises:
        ItesError: the split is absent or unusable for training; see `check_poses`.
    """
    turned = settings.cameras == "turned"
    array, scale, _ = store.input_points(settings.split, missing=settings.missing, turned=turned)
    cameras = {sequence.camera for sequence in store.sequences_of(settings.split)}
    if turned and not any(store.cameras[key].known for key in cameras):
        raise ItesError(
            f"{settings.data}: cameras = turned expected cameras of known focal length and image "
            f"size in split {settings.split}, got none; leave it out"
        )
    count, notes = int(store.impossible(settings.split).sum()), []
    if count:
        notes.append(
            f"{settings.stage}: {count:,} impossible keypoints of {settings.data} count as missing"
        )
    check_poses(array, settings)
    clips = clip_lengths(store, settings.split, settings.missing)
    points = torch.as_tensor(array).to(
        torch.float64 if settings.precision == "float64" else torch.float32
    )
    depths = 0.5 * trainings if settings.stage == "student" else 0.0  # beside the points
    needed = points.nbytes * (1 + depths)
    stream = needed > device_budget(settings.device_memory, device)
    points = points if stream else points.to(device)
    gravity = second = None
    if NEEDS[settings.recipe].gravity:
        gravity = _gravity(store, settings).to(points)
        second = (
            second_views(store, settings.split, points) if settings.stage == "teacher" else None
        )
    return TrainingSet(array, points, scale, store.skeleton, clips, stream, notes, gravity, second)


def second_views(store: PoseStore, split: str, first: Tensor) -> SecondViews | None:
    """Other views of the people of a split, in the dtype and on the device of the `first` views
    (N, J, 2); None where the store has none.

    Raises:
        ItesError: the views do not fit together row by row, or lack joints or elevations.
    """
    name = second_view(split)
    if name not in store.splits:
        return None
    points, _ = store.points(name, scale=1.0)
    degrees = store.gravity(name)
    if degrees is None or len(points) != len(first):
        raise ItesError(
            f"{store.path}: expected {len(first):,} poses with elevations in split {name}, as many "
            f"as in {split}, got {len(points):,}{'' if degrees is not None else ' without'}"
        )
    return SecondViews(
        torch.from_numpy(points).to(first), torch.from_numpy(np.radians(degrees)).to(first)
    )


def _gravity(store: PoseStore, settings: Settings) -> Tensor:
    degrees = store.gravity(settings.split)
    if degrees is None:
        raise ItesError(
            f"{settings.data}: recipe {settings.recipe} expected the elevation of each line of "
            "sight, as `ites prepare field` writes it, got a store without"
        )
    if settings.missing == "drop":
        degrees = degrees[store.complete(settings.split)]
    return torch.from_numpy(np.radians(degrees))


def read_pairs(data: str) -> tuple[Tensor, Tensor] | None:
    """Two views (M, J, 2) each of some people, at focal length 1 and level; None without any."""
    with PoseStore(data) as store:
        if not set(PAIRS) <= set(store.splits):
            return None
        views = [store.points(split, scale=1.0)[0] for split in PAIRS]
        angles = [store.gravity(split) for split in PAIRS]
    if len(views[0]) != len(views[1]):
        return None
    found = [
        unrolled(torch.from_numpy(points), torch.from_numpy(np.radians(gravity[:, 1])))
        for points, gravity in zip(views, angles, strict=True)
        if gravity is not None
    ]
    if len(found) < len(PAIRS):
        return None
    return found[0], found[1]


def check_poses(points: NDArray[np.float32], settings: Settings) -> None:
    """Reject a training set that is unusable.

    Args:
        points: (N, J, 2), the networks' input, root-relative.
        settings: of the training: the data's name, the split, the recipe.

    Raises:
        ItesError: poses are too few, not finite, all alike, points or lines, or one is far larger
            than the others.
    """
    name = f"{settings.data}, split {settings.split}"
    needs, count = NEEDS[settings.recipe], len(points)
    if count < needs.poses:
        raise ItesError(_too_few(name, needs.poses, count, settings.recipe))
    sizes = np.sqrt(np.square(points, dtype=np.float64).sum((1, 2)))  # [N]
    if not np.isfinite(sizes).all():
        raise ItesError(
            f"{name}: expected finite keypoints, got others in pose {np.argmin(np.isfinite(sizes))}"
        )
    median, largest = float(np.median(sizes)), float(sizes.max())
    if largest > TOO_LARGE * median > 0:
        raise ItesError(
            f"{name}: expected poses of like size, got pose {sizes.argmax()}, "
            f"{largest / median:.0e} times as large as the median one; "
            "remove keypoints far outside the image"
        )
    collapsed = sizes <= FLAT * median
    if collapsed.any():
        raise ItesError(
            f"{name}: expected poses of {points.shape[1]} joints, got all joints at one place in "
            f"{int(collapsed.sum()):,} of {count:,} poses, the first of them pose "
            f"{collapsed.argmax()}; mark joints that were not found as missing"
        )
    sample = points[:: max(1, count // SAMPLE)].astype(np.float64)
    spread = np.linalg.svd(sample - sample.mean(1, keepdims=True), compute_uv=False)  # [n, 2]
    if np.median(spread[:, 1] / spread[:, 0].clip(min=1e-30)) < FLAT:
        raise ItesError(
            f"{name}: expected poses in two dimensions, got joints that lie on a line; "
            "are both coordinates there?"
        )
    rows = sample.reshape(len(sample), -1)
    different = _different(rows, FLAT * median, needs.poses)
    if different < needs.poses:
        raise ItesError(_too_few(name, needs.poses, different, settings.recipe, of=count))
    if needs.directions:
        deviation = np.linalg.svd(rows - rows.mean(0), compute_uv=False) / len(rows) ** 0.5
        moves = int((deviation > FLAT * median).sum())
        if moves < needs.directions:
            raise ItesError(
                f"{name}: recipe {settings.recipe} expected poses that vary in at least "
                f"{needs.directions} independent directions, got {moves}"
            )


def _too_few(name: str, least: int, got: int, recipe: str, of: int = 0) -> str:
    among = f" among {of:,}" if of else ""
    different = "different " if of else ""
    return f"{name}: recipe {recipe} expected at least {least} {different}poses, got {got}{among}"


def _different(rows: NDArray[np.float64], distance: float, enough: int) -> int:
    """Count rows (N, C) that are farther than `distance` from each other, up to `enough`."""
    found = 0
    while len(rows) and found < enough:
        found += 1
        rows = rows[np.square(rows - rows[0]).sum(1) > distance**2]
    return found


def with_mirror_images(points: Tensor, skeleton: Skeleton) -> Tensor:
    """2D poses (N, J, 2) followed by their mirror images: (2N, J, 2)."""
    return torch.cat([points, mirror_image(points, skeleton)])


def denoised(points: Tensor, denoiser: Denoiser) -> Tensor:
    """Fit a denoiser to 2D poses (B, J, 2) and return the denoised poses."""
    denoiser.to(points)
    denoiser.fit(points)
    return torch.cat([denoiser(part) for part in points.split(8192)])


def load_teacher(settings: StudentSettings, skeleton: Skeleton, device: torch.device) -> Teacher:
    """Load the trained teacher of a student, in evaluation mode.

    Raises:
        ItesError: the teacher is absent, or its skeleton or recipe differs.
    """
    path = Path(settings.teacher or RunFolder(settings.out).weights("teacher"))
    if not path.exists():
        raise ItesError(f"{path}: expected a trained teacher", code="no-teacher")
    teacher, metadata = load_model(path, "teacher", device, settings.chosen_backend)
    _expect_skeleton(path, "teacher", metadata.skeleton, skeleton, settings)
    assert isinstance(teacher, Teacher)
    if teacher.recipe != settings.recipe:
        raise ItesError(
            f"{path}: expected a teacher of recipe {settings.recipe!r}, got the other's"
        )
    return teacher


def load_own_prior(settings: TeacherSettings | StudentSettings, skeleton: Skeleton) -> Prior:
    """Load the trained prior of recipe "upright" or "general", with its weights frozen.

    Raises:
        ItesError: the prior is absent, or its skeleton differs.
    """
    path = Path(settings.prior or RunFolder(settings.out).weights("prior"))
    if not path.exists():
        raise ItesError(f"{path}: expected a trained prior", code="no-prior")
    prior = load_prior(path)
    _expect_skeleton(path, "prior", prior.skeleton, skeleton, settings)
    return prior.requires_grad_(False)


def _expect_skeleton(
    path: Path, what: str, got: Skeleton, expected: Skeleton, settings: Settings
) -> None:
    if got != expected:
        raise ItesError(
            f"{path}: the {what}'s skeleton {got.name!r} differs from {expected.name!r}, that of "
            f"{settings.data}"
        )


@torch.no_grad()
def teacher_labels(
    settings: StudentSettings, skeleton: Skeleton, points: Tensor, device: torch.device
) -> tuple[Tensor, ...]:
    """The trained teacher's labels of poses (N, J, 2): depths (N, J, 1), where `points` are.

    The labels are computed on `device`, in evaluation mode.
    """
    teacher = load_teacher(settings, skeleton, device).to(points.dtype)
    return (_in_parts(teacher.depth, points, device),)


@torch.no_grad()
def upright_teacher_labels(
    settings: StudentSettings, skeleton: Skeleton, points: Tensor, device: torch.device
) -> tuple[Tensor, ...]:
    """Labels of a teacher of recipe "upright": depths (N, J, 1) and the camera's elevations (N,).

    Args: see `teacher_labels`; the second half of the points are the mirror images of the first.
    """
    teacher = load_teacher(settings, skeleton, device).to(points.dtype)
    assert isinstance(teacher, UprightTeacher)
    asked = points[: len(points) // 2]
    depth = _in_parts(teacher.depth, asked, device)
    elevation = _in_parts(teacher.elevation, asked, device)
    return torch.cat([depth, other_sides(depth, skeleton)]), elevation.repeat(2)


def _in_parts(predict: Callable[[Tensor], Tensor], points: Tensor, device: torch.device) -> Tensor:
    parts = points.split(8192)
    return torch.cat([predict(part.to(device)).to(points.device) for part in parts])
