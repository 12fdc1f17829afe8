"""Assumptions in lifting: the quantities that 2D keypoints leave undetermined.

These are the camera if it is not given, the person's size in the image, which must match the
training, the metric scale, and missing joints. Every assumption is reported.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ites.data.clips import ASSUMED_FPS, Clip, Clips, drop_impossible, fill_missing, seen_joints
from ites.data.findings import Finding, Summary
from ites.errors import ItesError
from ites.inference.sight import Sight, lines_of_sight, with_size
from ites.pose.camera import FIELD_OF_VIEW, HEAD_DISTANCE, focal_length_of
from ites.pose.missing import briefly_missing, impossible, robust_mean, unknown
from ites.pose.skeleton import Skeleton
from ites.pose.swaps import brief_swaps

NOTED_ROLL = 5.0
"""Smallest roll that a note reports, degrees."""
MOST_NOTES = 100
"""Notes of one subject that are kept; of more clips only their number."""
SCALES = ("auto", "checkpoint", "clip")


class Note(NamedTuple):
    """An assumption, a finding or an omission.

    Attributes:
        code: the subject, from which a program can derive the option that changes it.
        text: one line.
    """

    code: str
    text: str


@dataclass
class Assumed:
    """The assumptions about some clips.

    Attributes:
        notes: see `Note`.
        sizes: how many times as large as in training the people of a clip look, where that counts.
        filled: missing joints that were filled.
        findings: what is implausible, each as `ites.data.findings.Finding.plain` gives it.
    """

    notes: list[Note] = field(default_factory=list)
    sizes: list[float] = field(default_factory=list)
    filled: int = 0
    findings: list[dict[str, Any]] = field(default_factory=list)


class AllAssumed:
    """The assumptions about clips that come in portions.

    Of a subject it keeps `MOST_NOTES` notes, and of findings one of a kind. So it does not grow
    with the number of clips, but for a number each.
    """

    def __init__(self) -> None:
        self._notes: dict[Note, None] = {}
        self._per_code: Counter[str] = Counter()
        self._sizes: list[float] = []
        self._filled = 0
        self._findings = Summary()

    def add(self, portion: Assumed) -> None:
        """Add the assumptions about other clips."""
        for note in portion.notes:
            if note in self._notes:
                continue
            self._per_code[note.code] += 1
            if self._per_code[note.code] <= MOST_NOTES:
                self._notes[note] = None
        self._sizes += portion.sizes
        self._filled += portion.filled
        self._findings.add([Finding(**finding) for finding in portion.findings])

    def findings(self) -> list[Finding]:
        """One of each kind."""
        return self._findings.findings()

    def all_notes(self) -> list[Note]:
        """The notes, each line once."""
        notes = list(self._notes)
        for code, count in self._per_code.items():
            if count > MOST_NOTES:
                notes.append(Note(code, f"{count - MOST_NOTES:,} more notes of {code}, left out"))
        if self._filled:
            words = f"{self._filled} missing joints filled in, linearly in time"
            notes.append(Note("filled", words))
        if self._sizes and not 2 / 3 < np.median(self._sizes) < 3 / 2:
            words = (
                f"people look {np.median(self._sizes):.2g} times as large as those trained on: "
                "each clip's own scale may serve better"
            )
            notes.append(Note("other-size", words))
        return notes


def assume_camera(
    clips: Clips,
    focal_length: float | tuple[float, float] | None = None,
    field_of_view: float | None = None,
    image_size: tuple[int, int] | None = None,
    fps: float | None = None,
    principal_point: tuple[float, float] | None = None,
) -> tuple[Clips, list[Note]]:
    """Replace the file's camera by the caller's.

    `focal_length = width / (2 tan(field_of_view / 2))`. An unknown width is assumed to extend
    from 0 to the rightmost keypoint.

    Args:
        clips: as read.
        focal_length: pixels, (fx, fy) or one number for both; None keeps the clip's own.
        field_of_view: horizontal, degrees; in place of `focal_length`.
        image_size: (width, height) in pixels; None keeps the clip's own.
        fps: frames per second; None keeps the clip's own, or else 25.
        principal_point: (cx, cy) in pixels; None keeps the clip's own, or else the image's centre.

    Returns:
        The clips and the assumptions.

    Raises:
        ItesError: both a focal length and a field of view are given, or one is out of range.
    """
    if focal_length is not None and field_of_view is not None:
        raise ItesError("lift: give a focal length or a field of view, not both")
    if field_of_view is not None and not 0 < field_of_view < 180:
        raise ItesError(f"lift: field_of_view must lie between 0 and 180, got {field_of_view}")
    given, notes = [], []
    for clip in clips.clips:
        size, centre = image_size or clip.image_size, principal_point or clip.principal_point
        if size != clip.image_size and principal_point is None:
            centre = None  # that of another image
        focal = focal_length or clip.focal_length
        if isinstance(focal, float | int):
            focal = (focal, focal)
        if field_of_view is not None:
            focal, width = from_field_of_view(
                field_of_view, size, clip.keypoints, seen_joints(clip)
            )
            words = f"focal length {focal[0]:.0f} px: {field_of_view:g} degrees over {width}"
            notes.append(Note("focal-length", words))
        rate = fps or clip.fps
        if not rate > 0:
            rate = ASSUMED_FPS
            notes.append(Note("fps-assumed", f"{ASSUMED_FPS:g} frames per second, assumed"))
        given.append(
            replace(clip, focal_length=focal, image_size=size, principal_point=centre, fps=rate)
        )
    return replace(clips, clips=given), list(dict.fromkeys(notes))


def from_field_of_view(
    degrees: float,
    image_size: tuple[int, int] | None,
    keypoints: NDArray[np.floating],
    seen: NDArray[np.bool_] | None = None,
) -> tuple[tuple[float, float], str]:
    """(fx, fy) in pixels, and a description of the width used.

    Without an image size the width extends from 0 to the rightmost of the keypoints (T, J, 2) that
    are `seen` (T, J) and possible.
    """
    if image_size is not None:
        width, words = image_size[0], f"{image_size[0]} px of image"
    else:
        good = ~impossible(keypoints, seen) if seen is None else seen & ~impossible(keypoints, seen)
        width = max(1, math.ceil(keypoints[..., 0].max(where=good, initial=1)))
        words = f"{width} px, the keypoints' extent"
    focal = focal_length_of(degrees, width)
    return (focal, focal), words


class NetworkInput(NamedTuple):
    """What `network_input` makes of clips.

    Attributes:
        clips: with `keypoints` filled, `confidence` 0 for unseen joints, and `focal_length`.
        points: (N, J, 2) of all clips, network units.
        assumed: the assumptions.
        sights: how each clip's camera sees the person.
    """

    clips: Clips
    points: NDArray[np.float32]
    assumed: Assumed
    sights: list[Sight]


def network_input(
    clips: Clips,
    training_scale: float,
    scale: str = "auto",
    exchange: bool | Sequence[bool] = False,
    *,
    turned: bool = False,
    roll: float | Callable[[NDArray[np.float32]], float] = 0.0,
    masked: bool = False,
) -> NetworkInput:
    """Make the network's input of clips.

    `points = scale * (keypoints - root keypoint) / focal_length`; of a known camera that is
    `turned`, see `ites.inference.sight.lines_of_sight`. Impossible keypoints
    (`ites.pose.missing.impossible`) become missing; missing keypoints are filled first.

    Args:
        clips: each with `focal_length` if it is known.
        training_scale: the factor stored in the checkpoint.
        scale: see `ites.inference.lift.lift`.
        exchange: exchange limbs that swap sides and back, in all clips or in some; False only
            reports them.
        turned: turn known cameras towards the person, as recipe upright does.
        roll: of the cameras, radians, clockwise; or what finds it for a clip from points (T, J, 2),
            root-relative, nan where a joint is missing.
        masked: leave joints that are missing for longer (`ites.pose.missing.briefly_missing`) as
            nan, for a network whose input marks missing joints.

    Raises:
        ItesError: `scale` is not one of `SCALES`.
    """
    if scale not in SCALES:
        raise ItesError(f"lift: scale must be one of {', '.join(SCALES)}, got {scale!r}")
    assumed, ready, points, sights = Assumed(), [], [], []
    exchanges = [exchange] * len(clips.clips) if isinstance(exchange, bool) else exchange
    for clip, exchanged in zip(clips.clips, exchanges, strict=True):
        clip, words = drop_impossible(clip, clips.skeleton)
        assumed.notes += [Note("impossible", line) for line in words]
        seen = seen_joints(clip)
        clip, missing = fill_missing(clip, clips.skeleton)
        clip, note = _swaps_noted(clip, seen, clips.skeleton, exchanged)
        assumed.notes += note
        nothing = unknown(seen, clip.fps)
        _note_unknown(clip.name, seen, nothing, clips.skeleton, assumed)
        given = seen | briefly_missing(seen, clip.fps) & ~nothing
        filled = np.count_nonzero(given & ~seen) if masked else missing - np.count_nonzero(nothing)
        assumed.filled += int(filled)
        # A person's size in the image varies with the distance, and a model may know only one.
        # A known camera gives the distance otherwise: see `ites.pose.camera.turn_back`.
        own = scale == "clip" or (scale == "auto" and (turned or clip.focal_length is None))
        known = turned and _knows_camera(clip, assumed)
        if clip.focal_length is None:
            focal, width = from_field_of_view(FIELD_OF_VIEW, clip.image_size, clip.keypoints, seen)
            clip = replace(clip, focal_length=focal, focal_assumed=True)
            line = (
                f"focal length {focal[0]:.0f} px, assumed: {FIELD_OF_VIEW:g} degrees over {width}"
            )
            assumed.notes.append(Note("focal-length-assumed", line))
        angle = (
            roll
            if isinstance(roll, float)
            else _found_roll(clip, clips.skeleton, seen, known, roll, assumed)
        )
        flat, sight = lines_of_sight(clip, clips.skeleton, known=known, roll=angle)
        unit = _unit(flat, seen, clips.skeleton) or training_scale
        if own:
            line = "size by each clip's own mean root-to-head distance"
            assumed.notes.append(Note("size", line))
        else:
            line = f"size by the training split's scale, {training_scale:.4g}"
            assumed.notes.append(Note("size", line))
            assumed.sizes.append(float(training_scale / unit))
        size = unit if own else training_scale
        ready.append(clip)
        flat = flat * np.float32(size)
        points.append(_with_unseen_as_nan(flat, given) if masked else flat)
        sights.append(with_size(sight, size))
    assumed.notes = list(dict.fromkeys(assumed.notes))
    return NetworkInput(replace(clips, clips=ready), np.concatenate(points), assumed, sights)


def _found_roll(
    clip: Clip,
    skeleton: Skeleton,
    seen: NDArray[np.bool_],
    known: bool,
    find: Callable[[NDArray[np.float32]], float],
    assumed: Assumed,
) -> float:
    """The roll of a clip's camera, radians, found from its poses; adds a note where it is large."""
    flat, _ = lines_of_sight(clip, skeleton, known=known)
    angle = find(_with_unseen_as_nan(flat, seen))
    if abs(math.degrees(angle)) >= NOTED_ROLL:
        words = f"{abs(math.degrees(angle)):.0f} degrees {'' if angle > 0 else 'counter'}clockwise"
        line = f"{clip.name}: camera rolled by about {words}, found from the poses"
        assumed.notes.append(Note("roll-found", line))
    return angle


def _with_unseen_as_nan(
    points: NDArray[np.float32], seen: NDArray[np.bool_]
) -> NDArray[np.float32]:
    return np.where(seen[..., None], points, np.float32(np.nan))


def _knows_camera(clip: Clip, assumed: Assumed) -> bool:
    """Whether focal length and principal point are known; adds a note."""
    if clip.focal_length is None:
        return False
    if clip.image_size is None and clip.principal_point is None:
        line = "image size unknown: people are taken to be on the optical axis"
        assumed.notes.append(Note("no-image-size", line))
        return False
    line = "known camera: lines of sight are turned onto the optical axis, poses turned back"
    assumed.notes.append(Note("known-camera", line))
    return True


def _swaps_noted(
    clip: Clip, seen: NDArray[np.bool_], skeleton: Skeleton, exchange: bool
) -> tuple[Clip, list[Note]]:
    """The clip with swapped limbs exchanged, if enabled, and a line about them."""
    found = brief_swaps(clip.keypoints, skeleton, clip.fps, seen)
    if not found:
        return clip, []
    keypoints, frames = clip.keypoints.copy(), np.unique(np.concatenate([f for *_, f in found]))
    for left, right, at in found:
        both, other = np.array([*left, *right]), np.array([*right, *left])
        keypoints[np.ix_(at, both)] = clip.keypoints[np.ix_(at, other)]
    ends = ", ".join(skeleton.joints[left[-1]] for left, *_ in found)
    what = "exchanged" if exchange else "not corrected"
    line = (
        f"{clip.name}: left and right look swapped in {len(frames):,} frames from {frames[0]} on "
        f"({ends}): {what}"
    )
    return (replace(clip, keypoints=keypoints) if exchange else clip), [
        Note("swapped" if exchange else "swapped-kept", line)
    ]


def _note_unknown(
    name: str,
    seen: NDArray[np.bool_],
    nothing: NDArray[np.bool_],
    skeleton: Skeleton,
    assumed: Assumed,
) -> None:
    never, empty = np.flatnonzero(~seen.any(0)), int(np.count_nonzero(nothing.all(1)))
    if not seen.any():
        assumed.notes.append(Note("nobody", f"{name}: nobody is seen in it: nan in the output"))
        return
    if len(never):
        names = ", ".join(skeleton.joints[joint] for joint in never)
        line = (
            f"{name}: never seen, nan in the output: {names}; for the network the missing joints "
            "are placed as in a standing body"
        )
        assumed.notes.append(Note("never-seen", line))
    if empty:
        line = f"{name}: {empty:,} frames without a joint: nan in the output"
        assumed.notes.append(Note("empty-frames", line))


def _unit(points: NDArray[np.float32], seen: NDArray[np.bool_], skeleton: Skeleton) -> float:
    """The clip's own scale, a robust mean over the frames with root and head; 0 without any.

    Args:
        points: (T, J, 2), normalised with scale 1.
        seen: (T, J).
        skeleton: of the joints.
    """
    heads = np.linalg.norm(points[:, skeleton.head] - points[:, skeleton.root], axis=-1)
    both = seen[:, skeleton.head] & seen[:, skeleton.root]
    mean = robust_mean(heads[both] if both.any() else heads)
    return HEAD_DISTANCE / mean if mean > 0 else 0.0
