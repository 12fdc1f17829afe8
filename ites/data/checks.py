"""Plausibility checks of 2D keypoints: geometric faults that lifting does not notice.

A wrong unit or an unapplied rotation yields ordinary numbers, and a model lifts them without
complaint. `check` reports impossible keypoints (errors) and unlikely ones (warnings), with their
frames and the underlying figures. It changes nothing; `ites.data.corrections` corrects the faults.

Image axes: x right, y down. Angles are clockwise as seen in the image, 0 is upright. "Body height"
is 1.7 m times the frame's scale, pixels per metre, that its bones suggest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ites.data.array_checks import Bools, Floats, check_array, placeholders, units, zeros
from ites.data.clips import ASSUMED_FPS, Clip, Clips, cut
from ites.data.confidences import LOW, depth_correlations, is_depth
from ites.data.edges import clipped
from ites.data.findings import CODES, NO_FRAMES, Finding, Severity, ranges
from ites.data.joint_orders import (
    ORDER_LIMIT,
    ORDERS,
    better_order,
    body_names,
    bones_of,
    fits,
)
from ites.data.repeats import HELD, held, longest, repeated
from ites.data.sides import FACE, UNINFORMED, contradictions, side_votes
from ites.pose.layouts import LAYOUT_JOINTS
from ites.pose.missing import norms
from ites.pose.skeleton import HUMAN36M, Skeleton, root_relative
from ites.pose.swaps import exchanges, limbs, minority, motion_rate, share_of, sure_rate

Density = Callable[[NDArray[np.float32]], Floats]
"""Log densities (N,), nats, of 2D poses (N, J, 2), network units, root-relative."""

GROUP = 1 << 16
"""Approximate frames per batch of checks; clips stay whole."""
FEW = 5
"""With fewer frames a fault of all frames is only a note: one photograph may be unusual."""
MOST = 0.85
"""Share of the frames that counts as throughout."""
SPEED = 12.0
"""Maximum speed of a person in metres per second."""
ACCELERATION = 60.0
"""Maximum acceleration of a whole person in metres per second squared."""
SUDDEN = 0.1
"""Metres of a single step amid smaller ones that a measurement's noise does not make."""
CHANGED, OFTEN, ENOUGH_JOINTS = 0.115, 8.0, 10
"""Metres: the least step about the root, of two thirds of the joints, that is another person at the
same place. It is what the step has beyond twice the steps around it, and below `OFTEN` frames per
second beyond twice the clip's usual ones too. 444 clips of the CMU database have at most 0.094 at
25 and 40 frames per second, 0.105 at 12, 0.112 at 8 and 0.11 at 5. And the joints to be seen."""
LIMIT_OF_ORDER, ENOUGH = 12.0, 24
"""Frames per second and steps from which the order of frames shows."""
MOVING, JITTER, RANDOM = 0.06, 8.0, 0.7
"""Metres and pixels of a joint's standard deviation from which it moves; and its mean squared step
over twice its variance from which the order is random."""
LONG = 2.2
"""Ratio to its usual length above which a bone's end is misplaced."""
TOO_LONG = 1.25
"""Median over a clip of a limb bone's length over the usual one beyond which its end is shifted. In
windows of the CMU database of 12 frames and more it is at most 1.21; an elbow and a wrist that are
60 px too low give more in 89%."""
ROLL = 15.0, 50.0
"""Degrees of a standing person's lean: a camera's roll from the one on, lying beyond the other."""
ASPECT = 0.9
"""A body's usual reach along x over that along y, each in usual lengths of its bones."""
NARROW, WIDE, WIDEST, NARROWEST = 0.36, 1.35, 2.2, 0.1
"""The reach along x over that along y below or above which it is unlikely, and above or below which
no view of a body has it. In clips of the CMU database it is 0.58 to 1.15. A camera that looks down
by 60 degrees doubles it, and somebody who stands still in profile has little."""
EXPLAINED = 0.5
"""Largest logarithm of a body's remaining stretch for a correction that explains it."""
USUAL = 0.58, 1.17
"""The least and the greatest that is usual. Of 4,624 windows of 30 frames of the CMU database, 12.5
a second, 42 are beyond, and 5 of its 888 clips."""
STILL, MOVES = 0.25, 0.03
"""Standard deviation of the box around all joints over that of the joints, up to which the box
stays in place: in clips of the CMU database it is at least 0.4. And the joints' least one, in sizes
of the box."""
RATES, VIEWS = (0.5, 1000.0), (1.0, 150.0)
"""Frames per second, and degrees of the field of view, that a camera may have."""
AGAINST = 0.8
"""Minimum share of contradicting frames among those whose face shows the side."""
RARE = 0.02
"""Share of a clip's frames up to which repeated ones are only a note."""
DENSITY_FLOOR = -150.0
"""Nats: the median log density of a clip that resembles nothing a prior has learned."""
DENSITY_POSES, SHORT_CLIPS, DENSITY_BATCH = 64, 2048, 4096
"""What a prior judges: about so many poses of a clip; of clips with fewer than `FEW` frames, so
many per batch of checks; poses at a time."""


def check(
    clips: Clips | Sequence[Clip],
    skeleton: Skeleton = HUMAN36M,
    *,
    prior: Density | None = None,
    scale: float | None = None,
    raw: Sequence[Floats | None] | None = None,
    layout: str | Sequence[str] | None = None,
) -> list[Finding]:
    """Find implausible properties of keypoints.

    Args:
        clips: of one skeleton; joints of confidence 0 are missing and do not count.
        skeleton: of the clips, if `clips` is a sequence.
        prior: the density of poses; its `floor`, or else `DENSITY_FLOOR`, is the limit of a clip's
            median. None: geometric checks only.
        scale: factor from (keypoints - root) / focal length to the network's units, for the
            prior. None, or a clip without a focal length: a factor per clip that makes the mean
            root-to-head distance 1/5.
        raw: each clip's original array, (T, J', 2), or (T, J', 3) with the confidence last,
            before its joints were mapped to the skeleton's; None if unavailable.
        layout: the assumed joint order of the raw arrays, or one per array; None: the
            skeleton's.

    Returns:
        The findings, clip by clip, errors first within a clip.
    """
    if isinstance(clips, Clips):
        skeleton, clips = clips.skeleton, clips.clips
    arrays = list(raw) if raw is not None else [None] * len(clips)
    if layout is None or isinstance(layout, str):
        layout = [layout or "human36m"] * len(clips)
    body = _Body.of(skeleton)
    found: list[Finding] = []
    for chosen in cut([len(clip) for clip in clips], GROUP):
        group = _Group(clips[chosen], arrays[chosen], skeleton, body, layout[chosen])
        found += group.findings(prior, scale)
    return found


class Reader(Protocol):
    """The part of `ites.data.keypoint_reader.KeypointReader` that is used here."""

    lengths: list[int]

    def read(self, chosen: slice) -> Clips:
        """The clips of a slice."""

    def sources(self, chosen: slice) -> list[tuple[Floats, str]]:
        """Each clip's array before mapping and its layout; empty if unknown."""


def check_reader(
    reader: Reader,
    chosen: slice = slice(None),
    prior: Density | None = None,  # noqa: B008
    clips: Clips | None = None,
) -> list[Finding]:
    """Find implausible properties of some clips of a file; see `check`.

    Args:
        reader: of the file.
        chosen: the clips.
        prior: see `check`.
        clips: those that the reader gives, with the camera and the rate that a caller states.
    """
    sources = reader.sources(chosen)
    return check(
        reader.read(chosen) if clips is None else clips,
        prior=prior,
        raw=[raw for raw, _ in sources] if sources else None,
        layout=[layout for _, layout in sources] if sources else None,
    )


def check_sample(reader: Reader, frames: int = 50_000) -> list[Finding]:
    """Find implausible properties of a sample of a file: evenly spaced clips."""
    step = max(1, sum(reader.lengths) // frames)
    found = []
    for clip in range(0, len(reader.lengths), step):
        found += check_reader(reader, slice(clip, clip + 1))
    return found


@dataclass(frozen=True)
class _Body:
    """Indices of a skeleton's joints by role."""

    hips: tuple[int, int]
    shoulders: tuple[int, int]
    legs: tuple[tuple[int, int], ...]
    arms: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, skeleton: Skeleton) -> _Body | None:
        """None unless the skeleton is a whole body with known joint names."""
        index = {name: joint for joint, name in enumerate(skeleton.joints)}

        def pairs(*parts: str) -> tuple[tuple[int, int], ...]:
            return tuple((index[f"left_{part}"], index[f"right_{part}"]) for part in parts)

        try:
            legs, arms = pairs("hip", "knee", "ankle"), pairs("shoulder", "elbow", "wrist")
        except KeyError:
            return None
        return cls(legs[0], arms[0], legs, arms)


_LIMBS = (0.44, 0.43, 0.30, 0.27)  # thigh, shank, upper arm, forearm, metres
_ENDS = ("knee", "ankle", "elbow", "wrist")
_TRUNK = 0.50  # hips to shoulders
_HIPS, _SHOULDERS = 0.22, 0.34  # from side to side


def _measured_bones(body: _Body) -> list[tuple[int, int, float]]:
    """The joints at both ends of each limb's bones and of the trunk's sides, and metres."""
    bones, sides = [], (0, 1)
    for chain, lengths in ((body.legs, _LIMBS[:2]), (body.arms, _LIMBS[2:])):
        for upper, lower, length in zip(chain, chain[1:], lengths, strict=False):
            bones += [(upper[side], lower[side], length) for side in sides]
    return bones + [(body.hips[side], body.shoulders[side], _TRUNK) for side in sides]


class _Group:
    """Concatenated clips of one skeleton, with the quantities that the checks share.

    Attributes: `points` (N, J, 2), `seen` (N, J), `rows` (one slice per clip), `scale` (N,) pixels
    per metre, nan if too few joints are seen.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        raw: Sequence[Floats | None],
        skeleton: Skeleton,
        body: _Body | None,
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

    def findings(self, prior: Density | None, scale: float | None) -> list[Finding]:
        """All findings, clip by clip."""
        found: list[list[Finding]] = [[] for _ in self.clips]
        for number, (clip, raw) in enumerate(zip(self.clips, self.raw, strict=True)):
            if raw is not None:
                found[number] += [
                    finding
                    for finding in check_array(raw, clip.name)
                    if finding.data.get("kind") != "negative" or self._is_negative(number)
                ]
            else:
                rows = self.rows[number]
                found[number] += list(units(self.points[rows], self.seen[rows], clip.name))
                found[number] += list(zeros(self.placeholder[rows], clip.name))
            found[number] += list(_camera(clip, self.points[self.rows[number]]))
        if self.body is not None:
            self._measure(self.body)
            for search in (
                self._order, self._image_size, self._clipped, self._aspect, self._box,
                self._confidence, self._upright, self._sides, self._face, self._limbs, self._jumps,
                self._repeats, self._outliers, self._long,
            ):  # fmt: skip
                for number, finding in search(self.body):
                    found[number].append(finding)
        if prior is not None:
            for number, finding in self._density(prior, scale):
                found[number].append(finding)
        rank = {"error": 0, "warning": 1, "note": 2}
        result = []
        for clip, own in zip(self.clips, found, strict=True):
            codes = {finding.code for finding in own}
            codes |= {f"{finding.code}, {finding.data.get('kind')}" for finding in own}
            most = {f.code for f in own if not len(f.frames) or 2 * len(f.frames) >= len(clip)}
            result += sorted(
                (
                    finding
                    for finding in own
                    if not _EXPLAINED_BY.get(finding.code, frozenset())
                    & (most if finding.code == "density" else codes)  # a median is of most frames
                ),
                key=lambda finding: rank[finding.severity],
            )
        return result

    def _is_negative(self, number: int) -> bool:
        """Whether a clip has coordinates below 0, after corrections such as of y."""
        own, seen = self.points[self.rows[number]], self.seen[self.rows[number]]
        return bool((own[seen] < 0).any(-1).mean() > 0.3)

    def _measure(self, body: _Body) -> None:
        """Scale, and the directions of trunk and legs."""
        bones = _measured_bones(body)
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

    def _middle(self, joints: Sequence[int]) -> tuple[Floats, Bools]:
        """The mean (N, 2) of some joints, and the frames (N,) in which all are seen."""
        chosen = list(joints)
        return self.points[:, chosen].mean(1), np.all(self.seen[:, chosen], axis=1)

    def _found(
        self,
        number: int,
        code: str,
        severity: Severity,
        message: str,
        data: Mapping[str, Any],
        frames: NDArray[np.intp] = NO_FRAMES,
    ) -> tuple[int, Finding]:
        return number, Finding(code, severity, message, data, self.clips[number].name, frames)

    def _order(self, body: _Body) -> Iterator[tuple[int, Finding]]:
        for number, (clip, rows, raw) in enumerate(
            zip(self.clips, self.rows, self.raw, strict=True)
        ):
            step = max(1, len(clip) // 64)  # a sample tells
            mine = self.layouts[number]
            if raw is not None and raw.ndim == 3 and mine in ORDERS:
                points = np.asarray(raw[::step, :, :2], np.float32)
                seen = np.isfinite(points).all(-1) & (points != 0).any(-1)
                if raw.shape[-1] == 3:
                    seen &= raw[::step, :, 2] > 0
                points = np.where(seen[..., None], points, 0)
                said = mine
            elif raw is None and len(self.skeleton.joints) == len(ORDERS["human36m"]):
                points, seen = self.points[rows][::step], self.seen[rows][::step]
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
                yield self._found(
                    number,
                    "order",
                    "warning",
                    f"the joints make a body in the order {best}, not in the order {said} "
                    f"that they were taken to be in (bones {found[said] / found[best]:.1f} "
                    "times as long)",
                    data,
                )
            elif found[said] > ORDER_LIMIT and whole:
                yield self._found(
                    number,
                    "order",
                    "warning",
                    f"the joint order fits no body: bones are {found[said] / 0.65:.1f} times as "
                    f"long as in the order {said}",
                    data,
                )

    def _image_size(self, _: _Body) -> Iterator[tuple[int, Finding]]:
        for number, (clip, rows) in enumerate(zip(self.clips, self.rows, strict=True)):
            if clip.image_size is None:
                continue
            points, seen = self.points[rows], self.seen[rows]
            size = np.array(clip.image_size, np.float32)
            margin = 0.05 * size
            outside = seen & ((points > size + margin) | (points < -margin)).any(-1)
            share = outside.sum() / max(1, seen.sum())
            if share <= 0.2:
                continue
            turned = seen & ((points > size[::-1] + margin) | (points < -margin)).any(-1)
            exchanged = turned.sum() < 0.1 * outside.sum()
            words = "; with width and height exchanged they lie inside" if exchanged else ""
            frames = np.flatnonzero(outside.any(1))
            yield self._found(
                number,
                "image-size",
                "warning",
                f"{share:.0%} of the joints lie outside the image of {clip.image_size[0]} x "
                f"{clip.image_size[1]} px{words}",
                {"share": float(share), "exchanged": bool(exchanged)},
                frames,
            )

    def _clipped(self, _: _Body) -> Iterator[tuple[int, Finding]]:
        """Joints at the image's edge: they lie outside the image, and were moved to it."""
        bones = np.array(self.skeleton.bones)
        for number, (clip, rows) in enumerate(zip(self.clips, self.rows, strict=True)):
            on, edges = clipped(self.points[rows], self.seen[rows], bones, clip.image_size)
            if not edges:
                continue
            frames = np.flatnonzero(on.any(1))
            names = [self.skeleton.joints[j] for j in np.flatnonzero(on.any(0))]
            words = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
            yield self._found(
                number,
                "clipped",
                "warning",
                f"joints lie exactly on an edge, {' and '.join(edges)}, in {len(frames):,} of "
                f"{len(clip):,} frames ({words}): they are outside the image, and were moved to it",
                {"joints": names, "frames": len(frames), "edges": edges},
                frames,
            )

    def _aspect(self, body: _Body) -> Iterator[tuple[int, Finding]]:
        """Bodies that are far too wide or too narrow: x and y at different scales."""
        bones = _measured_bones(body)
        bones += [(*body.hips, _HIPS), (*body.shoulders, _SHOULDERS)]
        a, b, lengths = (np.array(column) for column in zip(*bones, strict=True))
        both = self.seen[:, a] & self.seen[:, b]
        reach = np.abs(self.points[:, a] - self.points[:, b]) / lengths[:, None]
        long = norms(reach)
        for number, (clip, rows) in enumerate(zip(self.clips, self.rows, strict=True)):
            usual = _medians(long[rows], both[rows])
            wild = long[rows] > LONG * np.fmax(usual, self.typical[number])  # misplaced joints
            own = reach[rows][both[rows] & ~wild]
            if len(clip) < FEW or len(own) < 0.5 * len(clip) * len(bones):
                continue
            along = np.quantile(own, 0.98, axis=0)
            if not along.min() > 0:
                continue
            ratio = float(along[0] / along[1])
            times = max(ratio / ASPECT, ASPECT / ratio)
            width, height = clip.image_size or (1, 1)
            left = {
                "": abs(np.log(ratio / ASPECT)),
                "exchanged": abs(np.log(ratio / ASPECT * (height / width) ** 2)),
                "by width": abs(np.log(ratio / ASPECT * height / width)),
            }
            best = min(left, key=lambda name: left[name])
            best = best if left[best] < EXPLAINED else ""
            likely = NARROW if best == "exchanged" else NARROWEST
            if likely <= ratio <= WIDE:
                if len(clip) >= ENOUGH and not USUAL[0] <= ratio <= USUAL[1]:
                    wide = ratio > 1
                    view = "a camera that looks down" if wide else "a person seen from the side"
                    yield self._found(
                        number,
                        "stretched",
                        "note",
                        f"the person is about {times:.1f} times too "
                        f"{'wide' if wide else 'narrow'}: {view}, or x and y at different "
                        "scales, as of an image that was resized to another shape",
                        {"ratio": ratio},
                    )
                continue
            words = {
                "": "x and y are at different scales",
                "exchanged": f"width and height of {width} x {height} px may be exchanged",
                "by width": "x and y may both have been divided by the width",
            }[best]
            yield self._found(
                number,
                "stretched",
                "error" if ratio > WIDEST else "warning",
                f"the person is about {times:.1f} times too {'wide' if ratio > 1 else 'narrow'}: "
                f"{words}",
                {"ratio": ratio, "cause": best, "size": [width, height]},
            )

    def _box(self, _: _Body) -> Iterator[tuple[int, Finding]]:
        """Clips in which the box around the joints stays in place although they move."""
        for number, rows in enumerate(self.rows):
            whole = np.flatnonzero(self.seen[rows].mean(1) > 0.8)
            if len(whole) < ENOUGH:
                continue
            points, seen = self.points[rows][whole], self.seen[rows][whole]
            shown = seen[..., None]
            low = np.where(shown, points, np.inf).min(1)
            high = np.where(shown, points, -np.inf).max(1)
            size = float(np.median(norms(high - low)))
            there = seen.any(0)
            joints = np.nanvar(np.where(shown, points, np.nan)[:, there], axis=0).sum(-1) ** 0.5
            moves = float(np.median(joints))
            if not moves > MOVES * size:
                continue
            for name, corner in (("corner", low), ("corner", high), ("middle", (low + high) / 2)):
                still = float(corner.var(0).sum() ** 0.5)
                if still < STILL * moves:
                    yield self._found(
                        number,
                        "box",
                        "warning",
                        f"the {name} of the box around the joints stays in place while they move "
                        f"({still:.1f} px beside {moves:.1f}): coordinates relative to a box that "
                        "follows the person",
                        {"still": still, "moves": moves},
                    )
                    break

    def _confidence(self, body: _Body) -> Iterator[tuple[int, Finding]]:
        """Confidences that vary as a depth does, or that are low throughout."""
        bones = _measured_bones(body)
        bones += [(*body.hips, _HIPS), (*body.shoulders, _SHOULDERS)]
        for number, (clip, rows) in enumerate(zip(self.clips, self.rows, strict=True)):
            if clip.confidence is None or len(clip) < FEW:
                continue
            sure = np.where(self.seen[rows], clip.confidence, 0)
            told = depth_correlations(self.points[rows], sure, self.scale[rows], bones)
            known = sure[sure > 0]
            if told is not None and is_depth(*told):
                yield self._found(
                    number,
                    "confidence",
                    "warning",
                    "the confidences vary as a depth does: the more they differ along a bone, the "
                    f"shorter it is in the image (correlations {told[0]:.2f} and {told[1]:.2f})",
                    {"kind": "depth", "within": told[0], "across": told[1]},
                )
            elif len(known) and (middle := float(np.median(known))) < LOW:
                yield self._found(
                    number,
                    "confidence",
                    "warning",
                    f"the confidences are low throughout (median {middle:.2g}): a detector that is "
                    "sure of nothing, or numbers where 0 means sure",
                    {"kind": "low", "median": middle},
                )

    def _repeats(self, _: _Body) -> Iterator[tuple[int, Finding]]:
        """Frames that repeat the one before, and joints that stay while the body moves."""
        for number, (clip, rows) in enumerate(zip(self.clips, self.rows, strict=True)):
            points, seen = self.points[rows], self.seen[rows]
            again = repeated(points, seen)
            count, frames = int(again.sum()), len(clip)
            if count:
                where, named = np.flatnonzero(again), ranges(np.flatnonzero(again))
                rate, held_on = clip.fps * (1 - count / frames), longest(again)
                why = "the video has fewer frames per second"
                why += f", about {rate:.3g}" if rate > 0 else ""
                if held_on >= HELD:
                    why, rate = "a recording or a tracker that stood still", math.nan
                yield self._found(
                    number,
                    "repeated",
                    "warning" if count >= max(2, RARE * frames) else "note",
                    f"{count:,} of {frames:,} frames repeat the one before ({named}): {why}",
                    {"frames": count, "fps": rate, "longest": held_on},
                    where,
                )
            stays = held(points[~again], seen[~again], float(self.typical[number]))
            if stays.any():
                where = np.flatnonzero(~again)[stays.any(1)]
                names = [self.skeleton.joints[j] for j in np.flatnonzero(stays.any(0))]
                words = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
                yield self._found(
                    number,
                    "repeated",
                    "warning",
                    f"joints stay in exactly one place while the body moves ({words}; "
                    f"{ranges(where)}): a tracker that lost them and holds the last place",
                    {"joints": names, "frames": len(where)},
                    where,
                )

    def _upright(self, body: _Body) -> Iterator[tuple[int, Finding]]:
        """The lean of each frame's trunk and legs, and their common value over most frames."""
        hips, has_hips = self._middle(body.hips)
        shoulders, has_shoulders = self._middle(body.shoulders)
        lower, has_lower = self._middle([*body.legs[-1]])
        knees, has_knees = self._middle([*body.legs[-2]])
        lower = np.where(has_lower[:, None], lower, knees)
        has_lower |= has_knees
        trunk, legs = shoulders - hips, hips - lower
        has_trunk, has_legs = has_hips & has_shoulders, has_hips & has_lower
        reach = np.repeat(self.typical, [len(clip) for clip in self.clips])
        with np.errstate(invalid="ignore"):
            has_trunk &= np.linalg.norm(trunk, axis=-1) > 0.4 * _TRUNK * reach
            has_legs &= np.linalg.norm(legs, axis=-1) > 0.25 * 0.87 * reach
        lean = np.degrees(np.arctan2(trunk[:, 0], -trunk[:, 1]))
        stand = np.degrees(np.arctan2(legs[:, 0], -legs[:, 1]))
        whole = np.degrees(np.arctan2(*((trunk + legs) * [1, -1]).T))
        for number, (clip, rows) in enumerate(zip(self.clips, self.rows, strict=True)):
            own = has_trunk[rows]
            if own.sum() < max(1, 0.3 * len(clip)):
                continue
            angle, leg, has_leg = lean[rows], stand[rows], has_legs[rows] & own
            severity: Severity = "warning" if len(clip) >= FEW else "note"
            down = own & (np.abs(angle) > 130) & (~has_leg | (np.abs(leg) > 120))
            along = (np.abs(np.abs(leg) - 90) < 60) & (np.sign(leg) == np.sign(angle))
            side = own & (np.abs(np.abs(angle) - 90) < 50) & (~has_leg | along)
            side &= np.sign(angle) == np.sign(np.median(angle[own]))
            count = own.sum()
            if down.sum() >= MOST * count:
                yield self._found(
                    number,
                    "upside-down",
                    severity,
                    f"the person is upside down in {down.sum():,} of {count:,} frames: y "
                    "points up, or the image is turned by 180 degrees",
                    {"frames": int(down.sum())},
                    np.flatnonzero(down),
                )
            elif side.sum() >= MOST * count:
                right = bool(np.median(angle[own]) > 0)
                to = "right" if right else "left"
                yield self._found(
                    number,
                    "sideways",
                    severity,
                    f"the person lies on the side, head to the {to}, in {side.sum():,} of "
                    f"{count:,} frames: the video's rotation was not applied, or somebody lies",
                    {"frames": int(side.sum()), "head": to, "rotate": 270 if right else 90},
                    np.flatnonzero(side),
                )
            elif has_leg.sum() >= max(FEW, 0.5 * len(clip)):
                roll = whole[rows][has_leg]
                middle = float(np.median(roll))
                spread = float(np.median(np.abs(roll - middle)))
                if ROLL[0] <= abs(middle) <= ROLL[1] and spread < 0.4 * abs(middle):
                    yield self._found(
                        number,
                        "roll",
                        "note",
                        f"the person leans by {abs(middle):.0f} degrees to the "
                        f"{'right' if middle > 0 else 'left'} throughout: a rolled camera, "
                        "if the person stands upright",
                        {"roll": middle, "spread": spread},
                    )

    def _sides(self, body: _Body) -> Iterator[tuple[int, Finding]]:
        """Frames in which left and right of legs, arms or both swap temporarily."""
        changed = [self._exchanges(body.legs), self._exchanges(body.arms)]
        for number, (clip, rows) in enumerate(zip(self.clips, self.rows, strict=True)):
            legs, arms = (minority(event[rows]) for event in changed)
            for what, frames in (
                ("legs and arms", legs & arms),
                ("legs", legs & ~arms),
                ("arms", arms & ~legs),
            ):
                if frames.any():
                    where = np.flatnonzero(frames)
                    yield self._found(
                        number,
                        "swapped-sides",
                        "warning",
                        f"left and right {what} change places in {len(where):,} of "
                        f"{len(clip):,} frames: {ranges(where)}",
                        {"what": what, "frames": len(where)},
                        where,
                    )

    def _exchanges(self, pairs: Sequence[tuple[int, int]]) -> Bools:
        """The frames (N,) before which left and right of some joints are exchanged."""
        left, right = (list(side) for side in zip(*pairs, strict=True))
        rates = [
            sure_rate(clip.fps, motion)
            for clip, motion in zip(self.clips, self.motion, strict=True)
        ]
        shares = np.array([share_of(rate) for rate in rates])
        return exchanges(
            self.points[:, left],
            self.points[:, right],
            self.seen[:, left] & self.seen[:, right],
            self.typical[self.clip_of],
            shares[self.clip_of],
            self.clip_of,
        )

    def _face(self, body: _Body) -> Iterator[tuple[int, Finding]]:
        """Left and right throughout, by the confidences of nose, eyes and ears."""
        for number, (clip, rows, raw) in enumerate(
            zip(self.clips, self.rows, self.raw, strict=True)
        ):
            names = LAYOUT_JOINTS.get(self.layouts[number], ())
            if raw is None or raw.ndim != 3 or raw.shape[1:] != (len(names), 3):
                continue
            if not set(FACE) <= set(names) or self.layouts[number] in UNINFORMED:
                continue
            face = raw[:, [names.index(name) for name in FACE]]
            wide = np.zeros(len(clip))  # 1: left is on the image's right; -1: on its left
            for side in (1, -1):
                apart = np.array([
                    side * (self.points[rows][:, left, 0] - self.points[rows][:, right, 0])
                    for left, right in (body.shoulders, body.hips)
                ])  # fmt: skip
                both = self.seen[rows][:, [*body.shoulders, *body.hips]].all(1)
                wide[(apart > 0.10 * self.typical[number]).all(0) & both] = side
            sure = raw[..., 2][raw[..., 2] > 0]
            usual = float(np.median(sure)) if len(sure) else 0.0
            votes = side_votes(face, wide, usual, float(self.typical[number]))
            against, told = np.flatnonzero(votes < 0), np.count_nonzero(votes)
            if len(against) >= FEW and len(against) > AGAINST * told:
                yield self._found(
                    number,
                    "mirrored",
                    "warning",
                    f"left and right are exchanged: the confidences of eyes and ears show the "
                    f"side in {told:,} frames, and it is the other in {len(against):,}",
                    {"frames": len(against), "told": int(told)},
                    against,
                )

    def _limbs(self, _: _Body) -> Iterator[tuple[int, Finding]]:
        """Left and right of some joints exchanged throughout, and of others not."""
        for number, (clip, rows) in enumerate(zip(self.clips, self.rows, strict=True)):
            found = contradictions(
                self.points[rows],
                self.seen[rows],
                self.skeleton.joints,
                float(self.typical[number]),
            )
            if not found:
                continue
            frames = np.unique(np.concatenate(list(found.values())))
            pairs = [f"{one}s and {other}s" for one, other in found]
            yield self._found(
                number,
                "mirrored",
                "warning",
                f"left and right of some joints are exchanged: those of {'; '.join(pairs)} are on "
                f"opposite sides in {len(frames):,} of {len(clip):,} frames",
                {"kind": "limbs", "pairs": pairs, "frames": len(frames)},
                frames,
            )

    def _jumps(self, _: _Body) -> Iterator[tuple[int, Finding]]:
        """Frames to which the whole body moves impossibly, or changes its size; and disorder."""
        rows = np.flatnonzero(self.seen.sum(1) >= 4)  # a gap in between makes no jump
        before, after = rows[:-1], rows[1:]
        same = self.clip_of[before] == self.clip_of[after]
        before, after = before[same], after[same]
        both = self.seen[before] & self.seen[after]
        moved = norms(self.points[after] - self.points[before])
        moved[~both] = np.inf
        count = both.sum(1)
        ordered = np.sort(moved, axis=1)
        middle = np.take_along_axis(ordered, np.maximum((count - 1) // 4, 0)[:, None], 1)[:, 0]
        middle = np.where(count >= 4, middle, 0)  # a quarter of the joints moved less
        shape = self._shape_steps(before, after)
        scales = np.maximum(self.scale[after], 1e-9), np.maximum(self.scale[before], 1e-9)
        ratio = np.abs(np.log(scales[0] / scales[1]))
        starts = np.searchsorted(self.clip_of[after], np.arange(len(self.clips) + 1))
        for number, (clip, own) in enumerate(zip(self.clips, self.rows, strict=True)):
            steps = slice(int(starts[number]), int(starts[number + 1]))
            if steps.start == steps.stop:
                continue
            known = clip.fps if clip.fps > 0 else ASSUMED_FPS
            rate = clip.fps if clip.fps > 0 else self.motion[number]
            gap = after[steps] - before[steps]
            scale = np.fmax(self.scale[after[steps]], self.scale[before[steps]])
            far = np.fmax(scale, self.typical[number])
            with np.errstate(invalid="ignore"):
                fast = middle[steps] > far * np.maximum(0.4, SPEED / rate * gap)
                other = (ratio[steps] > 0.6) & (middle[steps] > 0.25 * far)
                moves = middle[steps] / far
                sudden = moves - 2 * _around(moves) > max(SUDDEN, ACCELERATION / rate**2)
                turned = shape[steps] / far
                changed = turned - 2 * _around(turned) > CHANGED
                if rate < OFTEN:
                    changed &= turned - 2 * np.quantile(np.nan_to_num(turned), 0.9) > CHANGED
                sudden |= changed
                sudden &= gap == 1
            jumps = after[steps][fast | other | sudden] - own.start
            told = {"jumps": len(jumps)}
            if len(jumps):
                yield self._found(
                    number,
                    "jump",
                    "warning",
                    f"the whole body jumps before {len(jumps):,} of {len(clip):,} frames "
                    f"({ranges(jumps)}): another person, another scene or frames out of order",
                    told,
                    jumps,
                )
            elif known > LIMIT_OF_ORDER and self._disordered(before[steps], after[steps], number):
                yield self._found(
                    number,
                    "jump",
                    "warning",
                    "the frames look out of order: one differs from the next as much as from any "
                    "other",
                    {**told, "disordered": True},
                )

    def _shape_steps(self, before: NDArray[np.intp], after: NDArray[np.intp]) -> Floats:
        """How far two thirds of the joints move about the root, pixels; 0 where few are seen.

        Sides of a limb that a detector exchanges do not count.
        """
        root = self.skeleton.root
        about = self.points - self.points[:, [root]]
        both = self.seen[before] & self.seen[after]
        both &= both[:, [root]]
        one, other = about[before], about[after]
        moved = norms(other - one)
        for left, right in limbs(self.skeleton):
            sides, exchanged = [*left, *right], [*right, *left]
            crossed = norms(other[:, exchanged] - one[:, sides])
            swap = both[:, sides].all(1) & (crossed.sum(1) < moved[:, sides].sum(1))
            moved[:, sides] = np.where(swap[:, None], crossed, moved[:, sides])
        count = both.sum(1)
        ordered = np.sort(np.where(both, moved, np.inf), axis=1)
        most = np.take_along_axis(ordered, np.maximum(2 * count // 3, 0)[:, None], 1)
        return np.where(count >= ENOUGH_JOINTS, most[:, 0], 0)

    def _disordered(self, before: NDArray[np.intp], after: NDArray[np.intp], number: int) -> bool:
        """Whether joints that move far move as if a clip's frames were in a random order.

        The mean squared step, over twice the variance, is 1 in a random order (von Neumann).
        """
        if len(after) < ENOUGH:
            return False
        seen = self.seen[after] & self.seen[before]
        joints = np.flatnonzero(seen.mean(0) > 0.8)
        step = (self.points[after] - self.points[before])[:, joints]
        place = self.points[after][:, joints]
        step, place = (np.where(seen[:, joints, None], one, np.nan) for one in (step, place))
        spread = np.nanvar(place, axis=0)
        moving = spread > max(MOVING * self.typical[number], JITTER) ** 2
        if moving.sum() < 8:
            return False
        share = np.nanmean(step**2, axis=0)[moving] / (2 * spread[moving])
        return bool(np.quantile(share, 0.25) > RANDOM)

    def _outliers(self, _: _Body) -> Iterator[tuple[int, Finding]]:
        """Joints at the end of bones that are far too long."""
        parents, joints = np.array(self.skeleton.bones).T
        lengths = _usual_lengths(self.skeleton)
        both = self.seen[:, parents] & self.seen[:, joints]
        bones = norms(self.points[:, joints] - self.points[:, parents])
        reach = np.repeat(self.typical, [len(clip) for clip in self.clips])
        far = np.fmax(self.scale, reach)[:, None]
        with np.errstate(invalid="ignore"):
            wild = both & (bones > LONG * (lengths + 0.04) * far)
        if not wild.any():
            return
        for number, (clip, rows) in enumerate(zip(self.clips, self.rows, strict=True)):
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
                names = [self.skeleton.joints[j] for j in joints[chosen.any(0)]]
                words = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
                data: dict[str, Any] = {"joints": names, "frames": len(frames)}
                why = ""
                if code == "guessed" and confidence is not None:
                    top = float(confidence[:, joints][chosen].max())
                    data["confidence"] = top
                    why = f", with a confidence of at most {top:.2g}"
                rare = code == "guessed" and len(frames) <= max(1, 0.02 * len(clip))
                yield self._found(
                    number,
                    code,
                    "note" if rare else "warning",
                    f"joints far from the body in {len(frames):,} of {len(clip):,} frames "
                    f"({words}; {ranges(frames)}){why}",
                    data,
                    frames,
                )

    def _long(self, _: _Body) -> Iterator[tuple[int, Finding]]:
        """Bones of limbs that are too long in most frames: joints of another unit, or shifted."""
        chosen = [
            (parent, joint, length)
            for (parent, joint), length in zip(
                self.skeleton.bones, _usual_lengths(self.skeleton), strict=True
            )
            if self.skeleton.joints[joint].split("_")[-1] in _ENDS
        ]
        parents, joints, lengths = (np.array(column) for column in zip(*chosen, strict=True))
        both = self.seen[:, parents] & self.seen[:, joints]
        bones = norms(self.points[:, joints] - self.points[:, parents])
        reach = np.repeat(self.typical, [len(clip) for clip in self.clips])
        with np.errstate(invalid="ignore", divide="ignore"):
            times = bones / (np.fmax(self.scale, reach)[:, None] * (lengths + 0.04))
        both &= np.isfinite(times)
        for number, (clip, rows) in enumerate(zip(self.clips, self.rows, strict=True)):
            usual = _medians(times[rows], both[rows])
            long = (usual > TOO_LONG) & (both[rows].mean(0) > 0.5)
            if len(clip) < ENOUGH // 2 or not long.any():
                continue
            names = [self.skeleton.joints[j] for j in joints[long]]
            yield self._found(
                number,
                "outlier",
                "warning",
                f"the bones that end at {', '.join(names[:4])}{', ...' * (len(names) > 4)} are "
                f"{usual.max():.1f} times as long as usual in most frames: joints that are shifted "
                "or of another unit",
                {"joints": names, "kind": "long", "times": float(usual.max())},
            )

    def _density(self, prior: Density, scale: float | None) -> Iterator[tuple[int, Finding]]:
        some = [
            self._judged(clip, rows, scale)
            for clip, rows in zip(self.clips, self.rows, strict=True)
        ]
        short = [n for n, clip in enumerate(self.clips) if len(clip) < FEW and len(some[n])]
        left_out = set(short) - set(short[:: 1 + len(short) // SHORT_CLIPS])
        numbers = [n for n, points in enumerate(some) if len(points) and n not in left_out]
        if not numbers:
            return
        poses = np.concatenate([some[n] for n in numbers])
        parts = range(0, len(poses), DENSITY_BATCH)
        found = np.concatenate([prior(poses[start : start + DENSITY_BATCH]) for start in parts])
        ends = np.cumsum([len(some[n]) for n in numbers])[:-1]
        floor: float = getattr(prior, "floor", DENSITY_FLOOR)
        for number, own in zip(numbers, np.split(found, ends), strict=True):
            middle = float(np.median(own))
            if middle < floor:
                yield self._found(
                    number,
                    "density",
                    "warning" if len(self.clips[number]) >= FEW else "note",
                    f"the poses resemble none that the model was trained on (median log "
                    f"density {middle:.0f})",
                    {"log_density": middle},
                )

    def _judged(self, clip: Clip, rows: slice, scale: float | None) -> NDArray[np.float32]:
        """The poses of a clip that a prior judges, network units: evenly spaced complete ones."""
        nothing = np.zeros((0, *self.points.shape[1:]), np.float32)
        complete = np.flatnonzero(self.seen[rows].all(1))
        chosen = complete[:: max(1, len(complete) // DENSITY_POSES)]
        if not len(chosen):
            return nothing
        points = root_relative(self.points[rows][chosen], self.skeleton.root)
        heads = np.linalg.norm(points[:, self.skeleton.head], axis=-1).mean()
        if not heads > 0:
            return nothing
        if scale is None or clip.focal_length is None:
            points = points * np.float32(0.2 / heads)
        else:
            points = points * np.float32(scale) / np.asarray(clip.focal_length, np.float32)
        return np.asarray(points, np.float32)


def _camera(clip: Clip, points: Floats) -> Iterator[Finding]:
    """A frame rate or a focal length that no camera has."""
    if clip.fps > 0 and not RATES[0] <= clip.fps <= RATES[1]:
        yield Finding(
            "rate",
            "warning",
            f"{clip.fps:.4g} frames per second: a time per frame, or another unit",
            {"fps": clip.fps},
            clip.name,
        )
    if clip.focal_length is not None and not clip.focal_assumed:
        width = clip.image_size[0] if clip.image_size else float(points[..., 0].max(initial=1))
        degrees = math.degrees(2 * math.atan(width / (2 * clip.focal_length[0])))
        if not VIEWS[0] <= degrees <= VIEWS[1]:
            yield Finding(
                "focal-length",
                "warning",
                f"a focal length of {clip.focal_length[0]:.4g} sees {degrees:.3g} degrees of "
                f"{width:.0f} px: pixels are expected, not millimetres",
                {"degrees": degrees},
                clip.name,
            )


def _medians(values: Floats, there: Bools) -> Floats:
    """The medians (K,) of the columns of (T, K), of what is there; 0 where nothing is."""
    ordered = np.sort(np.where(there, values, np.inf), axis=0)
    at = np.maximum((there.sum(0) - 1) // 2, 0)
    return np.where(there.any(0), np.take_along_axis(ordered, at[None], 0)[0], 0)


def _around(steps: Floats) -> Floats:
    """The largest of the three steps before and the three after each; 0 beyond the ends."""
    padded = np.pad(np.nan_to_num(steps), 3)
    sides = [padded[k : k + len(steps)] for k in (0, 1, 2, 4, 5, 6)]
    return np.max(sides, axis=0)


_FATAL = frozenset({"degenerate", "depth", "normalised"})
# Findings that another finding of the clip explains: a wrong order has long bones, and so on.
_EXPLAINED_BY: dict[str, frozenset[str]] = {
    **{code: _FATAL | {"order"} for code in ("outlier", "guessed", "swapped-sides", "roll")},
    "mirrored": _FATAL | {"order", "confidence"},
    "jump": _FATAL,
    "upside-down": _FATAL | {"order"},
    "sideways": _FATAL | {"order"},
    "image-size": _FATAL | {"units"},
    "stretched": _FATAL | {"units", "order", "sideways", "mirrored, limbs"},
    "order": _FATAL,
    "box": _FATAL | {"units", "order"},
    "clipped": _FATAL,
    "confidence": _FATAL,
    "repeated": _FATAL,
    "density": frozenset(CODES)
    - {"density", "roll", "zeros", "swapped-sides", "jump", "rate", "focal-length"}
    - {"confidence", "repeated"},
}


def _usual_lengths(skeleton: Skeleton) -> NDArray[np.float32]:
    """Metres of each of a skeleton's bones, of an adult; 0.3 where the names tell nothing."""
    pairs, lengths = bones_of(body_names(skeleton))
    known = {tuple(pair): length for pair, length in zip(pairs.tolist(), lengths, strict=True)}
    return np.array([known.get(bone, 0.3) for bone in skeleton.bones], np.float32)
