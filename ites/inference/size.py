"""Metres: a length of the body, given or assumed, sets the scale of each person.

2D cannot distinguish a small person nearby from a tall one far away. All poses of a clip get the
same summed bone length, so a person who approaches the camera does not grow. One length of the body
then gives metres: the root-to-head distance, the height, or bones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real

import numpy as np
from numpy.typing import NDArray

from ites.errors import ItesError
from ites.pose.bones import bone_lengths
from ites.pose.missing import robust_mean
from ites.pose.skeleton import Skeleton

BODY_SIZE = 0.72
"""Assumed distance from pelvis to crown, metres: the mean of 17 subjects of the CMU database."""
LARGEST_BODY = 1000.0
"""Metres from root to head."""
HEIGHTS = 0.3, 3.0
"""The range of a standing height, metres."""
LONGEST_BONE = 3.0
"""Metres."""
STATURE = {
    ("hip", "knee"): 0.245,
    ("knee", "ankle"): 0.246,
    ("pelvis", "spine"): 0.144,
    ("spine", "thorax"): 0.144,
    ("thorax", "neck"): 0.102,
    ("neck", "head"): 0.080,
}
"""Bones as shares of the standing height, crown to sole; their sum is 0.961.

Source: Drillis and Contini, 1966 (Winter, "Biomechanics and Motor Control of Human Movement"): hip
at 0.530, knee at 0.285, ankle at 0.039, shoulders at 0.818 of the height; neck stands at the nose.
"""


@dataclass(frozen=True)
class BodySize:
    """A length of the body.

    Attributes:
        words: what it is, for a note and for the file.
        metres: the distance from root to head; where `bones` are empty.
        bones: groups of bones by their ends, and the length of a group's bones, metres. A group
            holds one bone, or its left and right one.
        given: whether the length was given, not assumed.
    """

    words: str
    metres: float = BODY_SIZE
    bones: tuple[tuple[tuple[int, ...], float], ...] = ()
    given: bool = False

    @property
    def unit(self) -> str:
        """The output's unit in words."""
        return f"metre, by {self.words}, {'given' if self.given else 'assumed'}"


def body_size_of(
    skeleton: Skeleton,
    body_size: float | None = None,
    height: float | None = None,
    bone: Mapping[str, float] | None = None,
    who: str = "lift",
) -> BodySize:
    """The length of the body that a caller gives; `BODY_SIZE` without any.

    Args:
        skeleton: of the poses.
        body_size: mean distance from root to head, metres.
        height: standing height, crown to sole, metres; see `STATURE`.
        bone: lengths in metres by the bone's name: the joint at its end ("left_knee": the bone from
            the hip), without "left_" or "right_" ("knee"): the mean of both sides.
        who: names the caller, for the message.

    Raises:
        ItesError: two of them are given, one is no such length, or the skeleton lacks the bones.
    """
    options = {"body_size": body_size, "height": height, "bone": bone or None}
    names = [name for name, value in options.items() if value is not None]
    if len(names) > 1:
        raise ItesError(
            f"{who}: expected one of body_size, height and bone, got {' and '.join(names)}"
        )
    for name, value in (("body_size", body_size), ("height", height), *(bone or {}).items()):
        if value is not None and (isinstance(value, bool) or not isinstance(value, Real)):
            raise ItesError(f"{who}: {name} must be a number of metres, got {value!r}")
    if body_size is not None:
        if not 0 < body_size < math.inf:
            raise ItesError(f"{who}: body_size must be positive and finite, got {body_size}")
        if body_size > LARGEST_BODY:
            raise ItesError(f"{who}: body_size must be at most {LARGEST_BODY:g} m, got {body_size}")
        return BodySize(_root_to_head(body_size), body_size, given=True)
    if height is not None:
        return _of_height(skeleton, height, who)
    if bone:
        return _of_bones(skeleton, bone, who)
    return BodySize(_root_to_head(BODY_SIZE))


def _root_to_head(metres: float) -> str:
    return f"a mean of {metres:g} m from root to head"


def _of_height(skeleton: Skeleton, height: float, who: str) -> BodySize:
    low, high = HEIGHTS
    if not low <= height <= high:
        raise ItesError(
            f"{who}: height must lie between {low:g} and {high:g} metres, got {height:g}"
            f"{_other_unit(height, low, high)}"
        )
    groups: dict[tuple[str, str], list[int]] = {}
    for parent, joint in skeleton.bones:
        name = tuple(_plain(skeleton.joints[j]) for j in (parent, joint))
        if name in STATURE:
            groups.setdefault((name[0], name[1]), []).append(joint)
    if not groups:
        raise ItesError(
            f"{who}: height needs knees and ankles, or a trunk as human36m has; {skeleton.name} "
            "has none: give a bone's length"
        )
    bones = tuple((tuple(joints), STATURE[name] * height) for name, joints in groups.items())
    return BodySize(f"a height of {height:g} m", bones=bones, given=True)


def _of_bones(skeleton: Skeleton, bone: Mapping[str, float], who: str) -> BodySize:
    groups: list[tuple[tuple[int, ...], float]] = []
    words = []
    ends = [joint for _, joint in skeleton.bones]
    for name, metres in bone.items():
        joints = [j for j in ends if name in (skeleton.joints[j], _plain(skeleton.joints[j]))]
        if not joints:
            root = skeleton.joints[skeleton.root]
            known = ", ".join(dict.fromkeys(_plain(skeleton.joints[j]) for j in ends))
            raise ItesError(
                f"{who}: bone must be the joint at a bone's end, {known[:160]}; got {name[:40]!r}"
                + (", which has no bone above it" if name == root else "")
            )
        if not 0 < metres <= LONGEST_BONE:
            raise ItesError(
                f"{who}: bone {name} must be longer than 0 and at most {LONGEST_BONE:g} metres, "
                f"got {metres:g}{_other_unit(metres, 0.01, LONGEST_BONE)}"
            )
        twice = [j for j in joints if any(j in others for others, _ in groups)]
        if twice:
            raise ItesError(
                f"{who}: bone must give each length once, got {', '.join(map(str, bone))}, of "
                f"which two are {skeleton.joints[twice[0]]}'s"
            )
        groups.append((tuple(joints), float(metres)))
        words.append(f"{name} {metres:g} m")
    return BodySize(f"bone lengths: {', '.join(words)}", bones=tuple(groups), given=True)


def _plain(name: str) -> str:
    return name.removeprefix("left_").removeprefix("right_")


def _other_unit(value: float, low: float, high: float) -> str:
    for factor, unit in ((100, "centimetres"), (1000, "millimetres")):
        if low <= value / factor <= high:
            return f"; is that {unit}?"
    return ""


def unseen_bones(size: BodySize, seen: NDArray[np.bool_], skeleton: Skeleton) -> list[str]:
    """Names of the groups of bones that set the scale but are never seen: (T, J) bool."""
    there = _there(size, np.asarray(seen.any(0)), skeleton)
    names = [_plain(skeleton.joints[joints[0]]) for joints, _ in size.bones]
    return [name for (joints, _), name in zip(there, names, strict=True) if not joints]


def _there(
    size: BodySize, known: NDArray[np.bool_], skeleton: Skeleton
) -> list[tuple[list[int], float]]:
    return [
        ([j for j in joints if known[j] and known[skeleton.parents[j]]], metres)
        for joints, metres in size.bones
    ]


def metres_per_unit(
    positions: NDArray[np.float32],
    skeleton: Skeleton,
    size: BodySize | float = BODY_SIZE,
    seen: NDArray[np.bool_] | None = None,
    empty: NDArray[np.bool_] | None = None,
) -> NDArray[np.float32]:
    """The factor per pose from network units to metres.

    `factor[t] = scale / sum of bone lengths[t]`. The scale gives the clip its `size`: a robust mean
    of the root-to-head distance, or `sum of metres / sum of lengths` over the groups of bones, a
    length being its median over the clip and the sides. A few wrong poses do not affect it.

    Args:
        positions: (T, J, 3), network units, root-relative, one clip.
        skeleton: of the positions.
        size: or the distance from root to head, metres.
        seen: (T, J), which joints a detector saw; bones that are never seen do not count, unless
            none is. None: all.
        empty: (T,), frames that show nobody and do not count, unless all do. None: none.

    Returns:
        (T,) float32.
    """
    size = size if isinstance(size, BodySize) else BodySize("", size)
    bones = bone_lengths(positions, skeleton)
    factors = 1 / np.maximum(bones.sum(-1), 1e-6)
    counted = slice(None) if empty is None or empty.all() else ~empty
    if not size.bones:
        heads = (np.linalg.norm(positions[:, skeleton.head], axis=-1) * factors)[counted]
        return factors * np.float32(size.metres / max(robust_mean(heads), 1e-6))
    usual = np.median((bones * factors[:, None])[counted], axis=0)
    column = {int(joint): index for index, (_, joint) in enumerate(skeleton.bones)}
    known = np.asarray(np.ones(len(skeleton.joints), bool) if seen is None else seen.any(0))
    groups = [group for group in _there(size, known, skeleton) if group[0]]
    groups = groups or [(list(ends), metres) for ends, metres in size.bones]
    length = sum(float(np.mean([usual[column[j]] for j in ends])) for ends, _ in groups)
    return factors * np.float32(sum(metres for _, metres in groups) / max(length, 1e-6))
