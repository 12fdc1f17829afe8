"""Bones that are too long: joints far from the body, shifted, or of another unit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ites.data.checks.group import ENOUGH, LONG, Body, Group, medians
from ites.data.checks.orders import body_names, bones_of
from ites.data.findings import Finding, listed, ranges
from ites.pose.missing import norms
from ites.pose.skeleton import Skeleton

TOO_LONG = 1.25
"""Median over a clip of a limb bone's length over the usual one beyond which its end is shifted. In
windows of the CMU database of 12 frames and more it is at most 1.21; an elbow and a wrist that are
60 px too low give more in 89%."""
ENDS = ("knee", "ankle", "elbow", "wrist")


def far_joints(group: Group, _: Body) -> Iterator[tuple[int, Finding]]:
    """Joints at the end of bones that are far too long."""
    parents, joints = np.array(group.skeleton.bones).T
    lengths = usual_lengths(group.skeleton)
    both = group.seen[:, parents] & group.seen[:, joints]
    bones = norms(group.points[:, joints] - group.points[:, parents])
    reach = np.repeat(group.typical, [len(clip) for clip in group.clips])
    far = np.fmax(group.scale, reach)[:, None]
    with np.errstate(invalid="ignore"):
        wild = both & (bones > LONG * (lengths + 0.04) * far)
    if not wild.any():
        return
    for number, (clip, rows) in enumerate(zip(group.clips, group.rows, strict=True)):
        own = wild[rows]
        if not own.any():
            continue
        confidence = clip.confidence
        if confidence is None:
            unsure = np.zeros_like(own)
            limit = 0.0
        else:
            limit = 0.5 * float(np.median(confidence[confidence > 0]))
            unsure = own & (confidence[:, joints] < limit)
        for code, chosen in (("guessed", unsure), ("outlier", own & ~unsure)):
            if not chosen.any():
                continue
            frames = np.flatnonzero(chosen.any(1))
            names = [group.skeleton.joints[j] for j in joints[chosen.any(0)]]
            data: dict[str, Any] = {"joints": names, "frames": len(frames)}
            why = ""
            if code == "guessed" and confidence is not None:
                top = float(confidence[:, joints][chosen].max())
                data["confidence"] = top
                why = f", with a confidence of at most {top:.2g}"
            rare = code == "guessed" and len(frames) <= max(1, 0.02 * len(clip))
            yield group.found(
                number,
                code,
                "note" if rare else "warning",
                f"joints far from the body in {len(frames):,} of {len(clip):,} frames "
                f"({listed(names)}; {ranges(frames)}){why}",
                data,
                frames,
            )


def long_bones(group: Group, _: Body) -> Iterator[tuple[int, Finding]]:
    """Bones of limbs that are too long in most frames: joints of another unit, or shifted."""
    chosen = [
        (parent, joint, length)
        for (parent, joint), length in zip(
            group.skeleton.bones, usual_lengths(group.skeleton), strict=True
        )
        if group.skeleton.joints[joint].split("_")[-1] in ENDS
    ]
    parents, joints, lengths = (np.array(column) for column in zip(*chosen, strict=True))
    both = group.seen[:, parents] & group.seen[:, joints]
    bones = norms(group.points[:, joints] - group.points[:, parents])
    reach = np.repeat(group.typical, [len(clip) for clip in group.clips])
    with np.errstate(invalid="ignore", divide="ignore"):
        times = bones / (np.fmax(group.scale, reach)[:, None] * (lengths + 0.04))
    both &= np.isfinite(times)
    for number, (clip, rows) in enumerate(zip(group.clips, group.rows, strict=True)):
        usual = medians(times[rows], both[rows])
        long = (usual > TOO_LONG) & (both[rows].mean(0) > 0.5)
        if len(clip) < ENOUGH // 2 or not long.any():
            continue
        names = [group.skeleton.joints[j] for j in joints[long]]
        yield group.found(
            number,
            "outlier",
            "warning",
            f"the bones that end at {listed(names)} are "
            f"{usual.max():.1f} times as long as usual in most frames: joints that are shifted "
            "or of another unit",
            {"joints": names, "kind": "long", "times": float(usual.max())},
        )


def usual_lengths(skeleton: Skeleton) -> NDArray[np.float32]:
    """Metres of each of a skeleton's bones, of an adult; 0.3 where the names tell nothing."""
    pairs, lengths = bones_of(body_names(skeleton))
    known = {tuple(pair): length for pair, length in zip(pairs.tolist(), lengths, strict=True)}
    return np.array([known.get(bone, 0.3) for bone in skeleton.bones], np.float32)
