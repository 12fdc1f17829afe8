"""How a clip's camera sees the person: lines of sight, perspective, the root's path, gravity."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ites.data.clips import Clip
from ites.pose.bones import bone_lengths
from ites.pose.camera import axis_turn, turn_back, turn_points
from ites.pose.geometry import DISTANCE
from ites.pose.skeleton import Skeleton
from ites.pose.smoothing import local_polynomial, running_median

MEDIAN, PARABOLA = 0.5, 1.0
"""Windows, seconds, of the median and the parabola that smooth the root's distance."""


@dataclass(frozen=True)
class Sight:
    """The lines of sight of one clip.

    Attributes:
        turns: (T, 3, 3), from camera axes to the networks'; act on row vectors from the right.
        rays: (T, 3) the root's place at distance 1, camera axes.
        size: the networks' input is the (turned) points, at focal length 1, times it.
        exact: whether the camera is known, so that perspective and turns are its own.
    """

    turns: NDArray[np.float64]
    rays: NDArray[np.float64]
    size: float
    exact: bool

    def to_camera(self, lifted: NDArray[np.float32]) -> NDArray[np.float32]:
        """Lifted poses (T, J, 3), the networks' axes and units, in the camera's axes; see
        `ites.pose.camera.turn_back`."""
        if self.exact:
            return turn_back(lifted, self.turns, self.size, DISTANCE)
        return np.asarray(lifted @ self.turns.astype(np.float32).swapaxes(-1, -2))


def lines_of_sight(
    clip: Clip, skeleton: Skeleton, *, known: bool = False, roll: float = 0.0
) -> tuple[NDArray[np.float32], Sight]:
    """The points that the networks should see, and how to turn the poses back.

    A known camera is turned so that each frame's root is on the optical axis. Otherwise the root is
    taken to be there, `(keypoints - root keypoint) / focal_length`, as in the paper.

    Args:
        clip: with `focal_length`, all keypoints finite.
        skeleton: of the clip.
        known: whether focal length and principal point are known.
        roll: of the camera, radians, clockwise.

    Returns:
        (T, J, 2) float32 at focal length 1, and the `Sight` of size 1.
    """
    focal = np.asarray(clip.focal_length, np.float64)
    points = (clip.keypoints - np.asarray(principal_point(clip))) / focal
    root = points[:, skeleton.root]
    if known:
        turns = axis_turn(root, roll)
        rays = turns[:, :, 2]  # [0, 0, 1] @ R^T
        return turn_points(points, turns).astype(np.float32), Sight(turns, rays, 1.0, True)
    upright = axis_turn(np.zeros(2), roll)
    turns = np.broadcast_to(upright, (len(clip), 3, 3))
    rays = np.concatenate([root, np.ones_like(root[:, :1])], axis=-1)
    centred = clip.keypoints - clip.keypoints[:, skeleton.root, None]
    flat = (centred / focal.astype(np.float32)).astype(np.float32)
    if roll:
        flat = flat @ upright[:2, :2].astype(np.float32)
    return flat, Sight(turns, rays, 1.0, False)


def principal_point(clip: Clip) -> tuple[float, float]:
    """The clip's principal point, pixels: its own, the image's centre, or that of the keypoints'
    extent."""
    if clip.principal_point is not None:
        return clip.principal_point
    if clip.image_size is not None:
        return clip.image_size[0] / 2, clip.image_size[1] / 2
    x, y = (float(n) for n in clip.keypoints.reshape(-1, 2).max(axis=0, initial=0))
    return x / 2, y / 2


def root_path(
    positions: NDArray[np.float32],
    units: NDArray[np.float32],
    sight: Sight,
    skeleton: Skeleton,
    fps: float,
) -> NDArray[np.float32]:
    """The root's path in the camera's axes, from the person's size in the image.

    `root = c size / (length of bones in network units / in metres) * ray`. The bones' lengths in
    metres are their medians over the clip. The ratio is a mean over the middle half of the bones'.
    The distance is smoothed: a running median, then a local parabola, both of its logarithm.

    Args:
        positions: (T, J, 3), metres, root-relative; nan where unknown.
        units: (T), metres per network unit in each pose; nan where unknown.
        sight: of the clip.
        skeleton: of the positions.
        fps: frames per second.

    Returns:
        (T, 3) float32, metres; nan where the pose is unknown.
    """
    bones = bone_lengths(positions, skeleton)
    known = np.isfinite(bones).any(1) & np.isfinite(units)
    path = np.full((len(positions), 3), np.nan, np.float32)
    if not known.any():
        return path
    bones = bones[:, np.isfinite(bones[known]).all(0)].astype(np.float64)
    usual = np.median(bones[known], axis=0)
    ratio = np.log(np.maximum(bones, 1e-6)) - np.log(np.maximum(usual, 1e-6))
    ranked = np.sort(ratio, axis=1)
    cut = ranked.shape[1] // 4
    grown = ranked[:, cut : ranked.shape[1] - cut].mean(1)  # by how much the pose looks too large
    distance = np.full(len(positions), np.nan)
    distance[known] = np.log(DISTANCE * sight.size * units[known]) - grown[known]
    smooth = running_median(distance, fps, MEDIAN)
    smooth = local_polynomial(smooth[:, None, None], fps, PARABOLA)[:, 0, 0]
    path[known] = (np.exp(smooth)[:, None] * sight.rays)[known]
    return path


def gravity_of(elevation: NDArray[np.float32], sight: Sight) -> tuple[float, float, float] | None:
    """The direction of gravity in the camera's axes, of a camera that stands still.

    The median over frames of `[0, cos e, sin e] @ R^T`, R the turn to the networks' axes.

    Args:
        elevation: (T), radians, positive looking down; nan where unknown.
        sight: of the clip.

    Returns:
        A unit vector; None if no frame has an elevation.
    """
    down = np.stack([0 * elevation, np.cos(elevation), np.sin(elevation)], axis=-1)[:, None]
    known = np.isfinite(elevation)
    if not known.any():
        return None
    found = np.median((down @ sight.turns.swapaxes(-1, -2))[known, 0], axis=0)
    x, y, z = found / np.linalg.norm(found)
    return float(x), float(y), float(z)


def with_size(sight: Sight, size: float) -> Sight:
    """The same lines of sight for input of this size."""
    return replace(sight, size=float(size))
