"""Plausibility checks of 2D keypoints: geometric faults that lifting does not notice.

A wrong unit or an unapplied rotation yields ordinary numbers, and a model lifts them without
complaint. `check` reports impossible keypoints (errors) and unlikely ones (warnings), with their
frames and the underlying figures. It changes nothing; `ites.data.corrections` corrects the faults.

Image axes: x right, y down. Angles are clockwise as seen in the image, 0 is upright. "Body height"
is 1.7 m times the frame's scale, pixels per metre, that its bones suggest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ites.data.checks.arrays import Floats, check_array, units, zeros
from ites.data.checks.bones import far_joints, long_bones
from ites.data.checks.confidences import confidence
from ites.data.checks.density import Density, density
from ites.data.checks.edges import moved_to_edge
from ites.data.checks.group import Body, Group
from ites.data.checks.image import aspect, image_size, moving_box, rate_and_view
from ites.data.checks.jumps import jumps
from ites.data.checks.lean import lean
from ites.data.checks.orders import joint_order
from ites.data.checks.repeats import repeats
from ites.data.checks.sides import exchanged_limbs, exchanged_sides, mirrored
from ites.data.clips import Clip, Clips, cut
from ites.data.findings import CODES, Finding
from ites.pose.skeleton import HUMAN36M, Skeleton

GROUP = 1 << 16
"""Approximate frames per batch of checks; clips stay whole."""


SEARCHES = (
    joint_order,
    image_size,
    moved_to_edge,
    aspect,
    moving_box,
    confidence,
    lean,
    exchanged_sides,
    mirrored,
    exchanged_limbs,
    jumps,
    repeats,
    far_joints,
    long_bones,
)
"""What is looked for in whole bodies; each gives a clip's number and what it found there."""


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
    body = Body.of(skeleton)
    found: list[Finding] = []
    for chosen in cut([len(clip) for clip in clips], GROUP):
        group = Group(clips[chosen], arrays[chosen], skeleton, body, layout[chosen])
        found += _findings(group, prior, scale)
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


_FATAL = frozenset({"degenerate", "depth", "normalised"})
# Findings that another finding of the clip explains: a wrong order has long bones, and so on.
EXPLAINED_BY: dict[str, frozenset[str]] = {
    **{code: _FATAL | {"order"} for code in ("outlier", "guessed", "swapped-sides", "roll")},
    "mirrored": _FATAL | {"order", "confidence"},
    "mirrored-limbs": _FATAL | {"order", "confidence"},
    "crossed-limbs": _FATAL | {"order", "confidence"},
    "jump": _FATAL,
    "upside-down": _FATAL | {"order"},
    "sideways": _FATAL | {"order"},
    "image-size": _FATAL | {"units"},
    "stretched": _FATAL | {"units", "order", "sideways", "mirrored-limbs"},
    "order": _FATAL,
    "box": _FATAL | {"units", "order"},
    "clipped": _FATAL,
    "confidence": _FATAL,
    "repeated": _FATAL,
    "density": frozenset(CODES)
    - {"density", "roll", "zeros", "swapped-sides", "jump", "rate", "focal-length"}
    - {"confidence", "repeated"},
}


def _findings(group: Group, prior: Density | None, scale: float | None) -> list[Finding]:
    """All findings, clip by clip."""
    found: list[list[Finding]] = [[] for _ in group.clips]
    for number, (clip, raw) in enumerate(zip(group.clips, group.raw, strict=True)):
        if raw is not None:
            found[number] += [
                finding
                for finding in check_array(raw, clip.name)
                if finding.data.get("kind") != "negative" or _is_negative(group, number)
            ]
        else:
            rows = group.rows[number]
            found[number] += list(units(group.points[rows], group.seen[rows], clip.name))
            found[number] += list(zeros(group.placeholder[rows], clip.name))
        found[number] += list(rate_and_view(clip, group.points[group.rows[number]]))
    if group.body is not None:
        for search in SEARCHES:
            for number, finding in search(group, group.body):
                found[number].append(finding)
    if prior is not None:
        for number, finding in density(group, prior, scale):
            found[number].append(finding)
    rank = {"error": 0, "warning": 1, "note": 2}
    result = []
    for clip, own in zip(group.clips, found, strict=True):
        codes = {finding.code for finding in own}
        most = {f.code for f in own if not len(f.frames) or 2 * len(f.frames) >= len(clip)}
        result += sorted(
            (
                finding
                for finding in own
                if not EXPLAINED_BY.get(finding.code, frozenset())
                & (most if finding.code == "density" else codes)  # a median is of most frames
            ),
            key=lambda finding: rank[finding.severity],
        )
    return result


def _is_negative(group: Group, number: int) -> bool:
    """Whether a clip has coordinates below 0, after corrections such as of y."""
    own, seen = group.points[group.rows[number]], group.seen[group.rows[number]]
    return bool((own[seen] < 0).any(-1).mean() > 0.3)
