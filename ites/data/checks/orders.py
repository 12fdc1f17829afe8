"""Detection of the joint order of keypoints: how well each known order fits a body.

In the right order adjacent joints are close in the image. In a wrong order bones cross the body, so
their summed relative lengths are several times larger.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache

import numpy as np
from numpy.typing import NDArray

from ites.data.checks.arrays import Floats
from ites.data.checks.group import Body, Group
from ites.data.findings import Finding
from ites.pose.layouts import LAYOUT_JOINTS
from ites.pose.skeleton import HUMAN36M, Skeleton

ORDER_MARGIN, ORDER_LIMIT = 1.15, 1.0
"""Another order fits when the misfit is this many times its own; no order fits beyond the limit.
The right order's median over a clip is at most 0.85 in 888 clips of the CMU database."""

FRAMES = 64
"""Frames that `order_error` looks at."""

# Each joint's parent and the distance to it, metres, of an adult of 1.7 m: Winter, "Biomechanics
# and Motor Control of Human Movement", 2009, figure 4.1, rounded; the face by eye.
_BODY: dict[str, tuple[str, float]] = {
    "spine": ("pelvis", 0.24),
    "thorax": ("spine", 0.25),
    "neck": ("thorax", 0.12),
    "crown": ("neck", 0.15),
    "nose": ("neck", 0.10),
    "head": ("neck", 0.10),
    "shoulder": ("thorax", 0.17),
    "elbow": ("shoulder", 0.29),
    "wrist": ("elbow", 0.25),
    "hip": ("pelvis", 0.12),
    "knee": ("hip", 0.43),
    "ankle": ("knee", 0.42),
    "eye": ("nose", 0.04),
    "ear": ("eye", 0.09),
    "heel": ("ankle", 0.08),
    "toe": ("ankle", 0.18),
}


# What the layouts' joints are called in `_BODY`.
_NAMES = {
    "head_top": "crown",
    "middle_head": "head",
    "upper_neck": "neck",
    "neck": "thorax",
    "mid_hip": "pelvis",
    "left_big_toe": "left_toe",
    "left_small_toe": "left_toe",
    "right_big_toe": "right_toe",
    "right_small_toe": "right_toe",
}
_COMMON = ("coco17", "mpi3dhp17", "body25", "coco18", "mpii16", "halpe26", "lsp14")


def body_names(skeleton: Skeleton) -> tuple[str, ...]:
    """Joints of a skeleton with Human3.6M's names, whose "head" is the crown, as in `ORDERS`."""
    return tuple("crown" if name == "head" else name for name in skeleton.joints)


def _orders() -> Iterator[tuple[str, tuple[str, ...]]]:
    yield HUMAN36M.name, body_names(HUMAN36M)
    for layout in _COMMON:
        joints = tuple(_NAMES.get(name, name) for name in LAYOUT_JOINTS[layout])
        yield layout, joints
        if layout in ("body25", "coco18"):  # OpenPose's, often cut to the number of COCO's
            yield f"{layout}, its first 17 joints", joints[:17]


ORDERS: dict[str, tuple[str, ...]] = dict(_orders())
"""Joint orders by name; "left_" and "right_" before what each side has."""


@cache
def bones_of(joints: tuple[str, ...]) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """The bones between joints of an order, by name.

    A joint that the order lacks is skipped on the way to the root. If an order has no trunk joint,
    hip and shoulder of each side are joined.

    Returns:
        (B, 2) indices (parent, joint), and (B,) usual lengths, metres.
    """
    index = {name: i for i, name in reversed(list(enumerate(joints)))}
    pairs, lengths = [], []
    for name, joint in index.items():
        side = name.split("_", 1)[0] + "_" if "_" in name else ""
        at, length = name[len(side) :], 0.0
        while at in _BODY:
            at, step = _BODY[at]
            length += step
            found = index.get(side + at, index.get(at))
            if found is not None:
                pairs.append((found, joint))
                lengths.append(length)
                break
    for side in ("left_", "right_"):
        for other in ("shoulder", "hip"):
            if side == "left_" and {"left_" + other, "right_" + other} <= index.keys():
                pairs.append((index["left_" + other], index["right_" + other]))
                lengths.append(2 * _BODY[other][1])
        if {side + "shoulder", side + "hip"} <= index.keys():
            pairs.append((index[side + "hip"], index[side + "shoulder"]))
            lengths.append(0.5)
    return np.array(pairs, np.intp).reshape(-1, 2), np.array(lengths, np.float32)


def misfit(keypoints: Floats, seen: NDArray[np.bool_], joints: tuple[str, ...]) -> Floats:
    """How badly keypoints (T, J, 2) in a joint order fit a body.

    `mean over bones of |bone| / (usual length + 5 cm)`, divided by the root mean square distance of
    the frame's keypoints from their mean. It is independent of scale, position and rotation in the
    image.

    Args:
        keypoints: (T, J, 2), any unit.
        seen: (T, J), the joints that count.
        joints: names, one of `ORDERS`.

    Returns:
        (T,), about 1 in the right order; nan in frames of fewer than 5 bones.
    """
    pairs, lengths = bones_of(joints)
    both = seen[:, pairs[:, 0]] & seen[:, pairs[:, 1]]
    bones = keypoints[:, pairs[:, 0]] - keypoints[:, pairs[:, 1]]
    bones = np.sqrt(bones[..., 0] ** 2 + bones[..., 1] ** 2)
    count = both.sum(1)
    share = np.where(both, bones / (lengths + 0.05), 0).sum(1) / np.maximum(count, 1)
    weight = seen[..., None] / np.maximum(seen.sum(1), 1)[:, None, None]
    centred = keypoints - (keypoints * weight).sum(1, keepdims=True)
    spread = np.sqrt((centred**2 * weight).sum((1, 2)))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where((count >= 5) & (spread > 0), 0.45 * share / spread, np.nan)


def order_error(keypoints: Floats, order: str) -> str:
    """Why keypoints (T, J, 2) are not in a joint order: they make a body in another one; or ""."""
    points = keypoints[:: max(1, len(keypoints) // FRAMES)].astype(np.float32)
    seen = np.asarray(np.isfinite(points).all(-1))
    best = better_order(fits(np.where(seen[..., None], points, 0), seen), order)
    return f"expected joints in the order {order}, got a body in the order {best}" if best else ""


def fits(keypoints: Floats, seen: NDArray[np.bool_]) -> dict[str, float]:
    """The median `misfit` of each of `ORDERS` with this number of joints, where frames tell it.

    Args:
        keypoints: (T, J, 2), any unit.
        seen: (T, J), the joints that count.
    """
    found = {}
    for name, joints in ORDERS.items():
        if len(joints) == keypoints.shape[1]:
            values = misfit(keypoints, seen, joints)
            values = values[np.isfinite(values)]
            if len(values):
                found[name] = float(np.median(values))
    return found


def better_order(found: Mapping[str, float], said: str) -> str | None:
    """The order that fits a body clearly better than the stated one, by `fits`; else None."""
    best = min(found, key=lambda name: found[name], default=said)
    clear = found.get(said, np.inf) > ORDER_MARGIN * found.get(best, np.inf)
    return best if clear and found[best] < ORDER_LIMIT else None


def joint_order(group: Group, body: Body) -> Iterator[tuple[int, Finding]]:
    for number, (clip, rows, raw) in enumerate(
        zip(group.clips, group.rows, group.raw, strict=True)
    ):
        step = max(1, len(clip) // 64)  # a sample tells
        mine = group.layouts[number]
        if raw is not None and raw.ndim == 3 and mine in ORDERS:
            points = np.asarray(raw[::step, :, :2], np.float32)
            seen = np.isfinite(points).all(-1) & (points != 0).any(-1)
            if raw.shape[-1] == 3:
                seen &= raw[::step, :, 2] > 0
            points = np.where(seen[..., None], points, 0)
            said = mine
        elif raw is None and len(group.skeleton.joints) == len(ORDERS["human36m"]):
            points, seen = group.points[rows][::step], group.seen[rows][::step]
            said = "human36m"
        else:
            continue
        if points.shape[1] != len(ORDERS[said]):
            continue
        found = fits(points, seen)
        if said not in found:
            continue
        best = better_order(found, said)
        whole = seen.mean() > 0.8  # parts of a body are closer together
        data = {"said": said, "misfit": found, "best": best}
        if best is not None:
            yield group.found(
                number,
                "order",
                "warning",
                f"the joints make a body in the order {best}, not in the order {said} "
                f"that they were taken to be in (bones {found[said] / found[best]:.1f} "
                "times as long)",
                data,
            )
        elif found[said] > ORDER_LIMIT and whole:
            yield group.found(
                number,
                "order",
                "warning",
                f"the joint order fits no body: bones are {found[said] / 0.65:.1f} times as "
                f"long as in the order {said}",
                data,
            )
