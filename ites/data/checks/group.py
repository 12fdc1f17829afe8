"""Clips side by side, with the quantities that the checks share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ites.data.checks.arrays import Bools, Floats, placeholders
from ites.data.clips import Clip
from ites.data.findings import NO_FRAMES, Finding, Severity
from ites.pose.missing import norms
from ites.pose.skeleton import Skeleton
from ites.pose.swaps import motion_rate

FEW = 5
"""With fewer frames a fault of all frames is only a note: one photograph may be unusual."""
ENOUGH = 24
"""Frames from which a clip tells of its motion."""
LONG = 2.2
"""Ratio to its usual length above which a bone's end is misplaced."""


LIMBS = (0.44, 0.43, 0.30, 0.27)  # thigh, shank, upper arm, forearm, metres
TRUNK = 0.50  # hips to shoulders
HIPS, SHOULDERS = 0.22, 0.34  # from side to side


@dataclass(frozen=True)
class Body:
    """Indices of a skeleton's joints by role."""

    hips: tuple[int, int]
    shoulders: tuple[int, int]
    legs: tuple[tuple[int, int], ...]
    arms: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, skeleton: Skeleton) -> Body | None:
        """None unless the skeleton is a whole body with known joint names."""
        index = {name: joint for joint, name in enumerate(skeleton.joints)}

        def pairs(*parts: str) -> tuple[tuple[int, int], ...]:
            return tuple((index[f"left_{part}"], index[f"right_{part}"]) for part in parts)

        try:
            legs, arms = pairs("hip", "knee", "ankle"), pairs("shoulder", "elbow", "wrist")
        except KeyError:
            return None
        return cls(legs[0], arms[0], legs, arms)


def measured_bones(body: Body) -> list[tuple[int, int, float]]:
    """The joints at both ends of each limb's bones and of the trunk's sides, and metres."""
    bones, sides = [], (0, 1)
    for chain, lengths in ((body.legs, LIMBS[:2]), (body.arms, LIMBS[2:])):
        for upper, lower, length in zip(chain, chain[1:], lengths, strict=False):
            bones += [(upper[side], lower[side], length) for side in sides]
    return bones + [(body.hips[side], body.shoulders[side], TRUNK) for side in sides]


class Group:
    """Concatenated clips of one skeleton, with the quantities that the checks share.

    Attributes: `points` (N, J, 2), `seen` (N, J), `rows` (one slice per clip), `scale` (N,) pixels
    per metre, nan if too few joints are seen.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        raw: Sequence[Floats | None],
        skeleton: Skeleton,
        body: Body | None,
        layouts: Sequence[str],
    ) -> None:
        self.clips, self.raw, self.skeleton, self.body = clips, raw, skeleton, body
        self.layouts = layouts
        ends = np.cumsum([len(clip) for clip in clips])
        self.rows = [
            slice(int(end) - len(clip), int(end)) for clip, end in zip(clips, ends, strict=True)
        ]
        self.points = np.concatenate([clip.keypoints for clip in clips]).astype(np.float32)
        self.seen: Bools = np.all(np.isfinite(self.points), axis=-1)
        for rows, clip in zip(self.rows, clips, strict=True):
            if clip.confidence is not None:
                self.seen[rows] &= clip.confidence > 0
        self.placeholder = self.seen & placeholders(self.points)
        self.seen &= ~self.placeholder
        self.points = np.where(self.seen[..., None], self.points, 0)
        self.clip_of = np.repeat(np.arange(len(clips)), [len(clip) for clip in clips])
        if body is not None:
            self.measure(body)

    def measure(self, body: Body) -> None:
        """Each frame's scale, each clip's usual one, and the rate of its motion."""
        bones = measured_bones(body)
        a, b = np.array([bone[0] for bone in bones]), np.array([bone[1] for bone in bones])
        both = self.seen[:, a] & self.seen[:, b]
        ratio = norms(self.points[:, a] - self.points[:, b])
        ratio /= np.array([bone[2] for bone in bones], np.float32)
        ratio[~both] = np.nan
        # Foreshortening makes most bones look short, and a wild joint makes two of them long. A
        # scale that a quarter of the bones exceeds is near the true one.
        count = both.sum(1)
        rank = np.maximum(np.ceil(0.75 * count).astype(np.intp) - 1, 0)
        ordered = np.sort(ratio, axis=1)  # nan last
        scale = np.take_along_axis(ordered, rank[:, None], 1)[:, 0]
        self.scale = np.where(count >= 3, scale, np.nan)
        self.typical = np.full(len(self.clips), np.nan, np.float32)
        for number, rows in enumerate(self.rows):
            own = self.scale[rows]
            own = own[own > 0]
            if len(own):
                self.typical[number] = np.median(own)
        self.motion = [
            motion_rate(self.points[rows], self.seen[rows], self.skeleton, float(metre))
            for rows, metre in zip(self.rows, self.typical, strict=True)
        ]

    def middle(self, joints: Sequence[int]) -> tuple[Floats, Bools]:
        """The mean (N, 2) of some joints, and the frames (N,) in which all are seen."""
        chosen = list(joints)
        return self.points[:, chosen].mean(1), np.all(self.seen[:, chosen], axis=1)

    def found(
        self,
        number: int,
        code: str,
        severity: Severity,
        message: str,
        data: Mapping[str, Any],
        frames: NDArray[np.intp] = NO_FRAMES,
    ) -> tuple[int, Finding]:
        return number, Finding(code, severity, message, data, self.clips[number].name, frames)


def medians(values: Floats, there: Bools) -> Floats:
    """The medians (K,) of the columns of (T, K), of what is there; 0 where nothing is."""
    ordered = np.sort(np.where(there, values, np.inf), axis=0)
    at = np.maximum((there.sum(0) - 1) // 2, 0)
    return np.where(there.any(0), np.take_along_axis(ordered, at[None], 0)[0], 0)
