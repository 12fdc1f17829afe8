"""Conversion of detections to clips: missing joints, identities, and Human3.6M's joints.

A joint is missing if a coordinate is not finite, or both are exactly 0 or -1. It is missing at a
point that holds joints of many kinds, as (1, 1) or the image's middle in some files, and if its
confidence is below `min_confidence` or not above 0. It is missing if it lies impossibly far from
the image or the body. See `ites.pose.missing.impossible`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ites.data.clips import Clip
from ites.data.findings import Finding, ImplausibleError
from ites.data.readers.frames import Video, natural, videos_of
from ites.data.readers.options import ReadOptions
from ites.data.readers.recording import (
    Detections,
    Frame,
    Person,
    Recording,
    Source,
    Track,
    common_size_and_rate,
)
from ites.data.tracking import distances, exchanged, person_sizes, track
from ites.errors import ItesError, shorten
from ites.pose.layouts import BY_COUNT, LAYOUTS, body25_or_25b, convert, joints_of, recipes
from ites.pose.missing import filler_points, impossible
from ites.pose.skeleton import HUMAN36M, Skeleton

NORMALISED = 2.0
"""If all coordinates are smaller, they are not pixels."""
BRIEF, LONG = 3, 30
"""In a video of `LONG` frames or more, a person seen in fewer than `BRIEF` is omitted."""
MANY_IDS = 3
"""Track ids per person of a frame from which brief ids follow nobody."""
DOUBLE = 0.04
"""Person sizes by which detections of one person may be apart in a frame."""
MOST_DOUBLES, OF_EACH = 20, 2
"""Most detections in a frame, and most of each person, that a detector may have beside the surest
ones; more come of ids that do not tell frames apart."""
AROUND_0 = 0.5
"""Share of joints with a negative coordinate from which normalised ones begin in no corner."""
FEWEST = 3
"""Minimum number of seen joints per person."""
ROWS = 50
"""Maximum ratio of all clips' rows to the rows with a visible person."""
OVER, MOST_SURE = 1.05, 10.0
"""Confidences up to the first count as 1 without a note; those above the second are refused."""
ODD = 0.005
"""Share of joints whose confidence may be impossible."""
MOST_SWAPS = 4
"""Most notes on two people whose track ids change places, and most pairs that are named."""
MOST_LISTED = 6
"""Names that a note lists."""


def assemble(path: Path, found: Detections, options: ReadOptions) -> Recording:
    """Make clips of detections.

    Raises:
        ItesError: there are no people, no layout fits the number of joints, coordinates are not
            pixels, or the requested person is absent.
    """
    notes = list(found.notes)
    if options.min_confidence is not None and not found.scored:
        raise ItesError(
            f"{path}: min_confidence has no effect: the file holds no confidences, got "
            f"{options.min_confidence:g}"
        )
    found = replace(found, image_size=options.image_size or found.image_size)
    make = _follow if found.frames else _clean_tracks
    tracks, joints, name = make(path, found, options, notes)
    tracks = [_trimmed(one) for one in tracks]
    rows = sum(len(one.joints) for one in tracks)
    seen = sum(int((one.joints[..., 2] > 0).any(1).sum()) for one in tracks)
    if rows > 10_000 + ROWS * seen:
        raise ItesError(f"{path}: expected people in most frames, got {seen} of {rows} rows")
    tracks = _chosen(path, tracks, options.person)
    return _converted(path, found, tracks, joints, name, options, notes)


def _follow(
    path: Path,
    found: Detections,
    options: ReadOptions,
    notes: list[str],
) -> tuple[list[Track], tuple[str, ...], str]:
    """All people over time, the joint names, and the layout's name."""
    people = [person for frame in found.frames for person in frame.people]
    if not people:
        raise ItesError(f"{path}: expected keypoints of people, but nobody is in it")
    counts = sorted({len(person.joints) for person in people})
    if len(counts) > 1:
        found, options = _of_one_skeleton(path, found, counts, options, notes)
        people = [person for frame in found.frames for person in frame.people]
    joints, names, layout = _cleaned_people(path, found, options, notes)
    bodies = joints
    if names != options.skeleton.joints:
        bodies = _as_skeleton(path, joints, names, layout, options.skeleton)
    cleaned = iter(zip(joints, bodies, strict=True))
    frames = []
    for frame in found.frames:
        kept = [p._replace(joints=own, body=body) for p in frame.people
                for own, body in [next(cleaned)]]  # fmt: skip
        kept = [p for p in kept if (p.joints[:, 2] > 0).sum() >= FEWEST]
        frames.append(Frame(frame.id, kept))
    lost = len(people) - sum(len(frame.people) for frame in frames)
    if lost == len(people):
        raise _all_missing(path, np.stack([person.joints for person in people]), found, options)
    if lost:
        notes.append(f"left out: {lost} detections with fewer than {FEWEST} joints seen")
    videos = videos_of(frames, str(path))
    photographs = [video for video in videos if video.photograph]
    if photographs:
        notes.append(f"{len(photographs)} photographs, a clip of one frame per person")
    tracks, empty, total = [], 0, 0
    for video in videos:
        size = options.image_size or found.sizes.get(video.key) or found.image_size
        gaps = sum(not people for people in video.people)
        empty, total = empty + gaps, total + len(video.people)
        name = video.name if len(videos) > 1 else ""
        for label, rows in _people(video, notes, str(path)):
            array = np.zeros((len(video.people), len(names), 3), np.float32)
            for row, person in rows.items():
                array[row] = person.joints
            tracks.append(
                Track(array, name, label, np.array(video.numbers, np.int64), size, found.fps)
            )
    if empty and len(photographs) < len(videos):
        notes.append(f"nobody is seen in {empty} of {total} frames: missing frames")
    if not tracks:
        raise ItesError(f"{path}: expected keypoints of people, but no person is seen for long")
    return tracks, names, layout


def _cleaned_people(
    path: Path, found: Detections, options: ReadOptions, notes: list[str]
) -> tuple[NDArray[np.float32], tuple[str, ...], str]:
    """The joints (N, K, 3) of all people of all frames, their names, and the layout's name."""
    places = [(frame.id, person) for frame in found.frames for person in frame.people]
    joints = np.stack([person.joints for _, person in places])
    names, layout = _joints(path, found, joints, options, notes)
    sizes = [options.image_size or found.sizes.get(key) or found.image_size for key, _ in places]
    ids = [key for key, _ in places]
    joints = _clean(path, joints, sizes, ids, names, layout, options, found, notes)
    return joints, names, layout


def _of_one_skeleton(
    path: Path, found: Detections, counts: list[int], options: ReadOptions, notes: list[str]
) -> tuple[Detections, ReadOptions]:
    """People of several detectors, whose numbers of joints differ, in the skeleton's joints.

    Raises:
        ItesError: a number of joints has no known order, and no layout was asked for.
    """
    kinds: list[str] = []
    bodies: dict[int, Iterator[NDArray[np.float32]]] = {}
    for count in counts:
        frames = [
            Frame(frame.id, [person for person in frame.people if len(person.joints) == count])
            for frame in found.frames
        ]
        own = replace(
            found,
            frames=frames,
            joints=found.joints if len(found.joints or ()) == count else None,
            layout=_layout_of(found.layout, count),
        )
        mine = replace(options, layout=_layout_of(options.layout, count))
        try:
            joints, names, layout = _cleaned_people(path, own, mine, notes)
            bodies[count] = iter(_as_skeleton(path, joints, names, layout, options.skeleton))
        except ImplausibleError:
            raise
        except ItesError as error:
            if mine.layout is not None:
                raise
            if _layout_of(options.layout, *counts) is None:
                raise ItesError(
                    f"{path}: expected one number of joints per person, or those of known "
                    f"detectors, got {', '.join(map(str, counts[:5]))}; a layout reads the people "
                    "of its number",
                    code="mixed",
                ) from error
            lost = sum(len(frame.people) for frame in frames)
            notes.append(f"left out: {lost} people of {count} joints, whose order is unknown")
        else:
            kinds.append(f"{count} ({layout})")
    notes.append(f"people of {' and '.join(kinds)} joints are converted to {options.skeleton.name}")
    converted = [
        Frame(
            frame.id,
            [
                person._replace(joints=next(bodies[len(person.joints)]))
                for person in frame.people
                if len(person.joints) in bodies
            ],
        )
        for frame in found.frames
    ]
    found = replace(found, frames=converted, joints=None, layout=options.skeleton.name)
    return found, replace(options, layout=None)


def _layout_of(layout: str | None, *counts: int) -> str | None:
    """The layout if it has one of these numbers of joints; else None."""
    return layout if layout is not None and len(joints_of(layout)) in counts else None


def _swapped(swaps: dict[str, list[int | float | str]]) -> list[str]:
    """Notes on track ids that change places in some frames; few, however often they do."""
    told = []
    for names, frames in list(swaps.items())[:MOST_SWAPS]:
        where = [f"in frame {frame}" for frame in frames]
        if len(frames) > MOST_SWAPS:
            where = [f"{len(frames):,} times, in frames {frames[0]} to {frames[-1]}"]
        told += [
            f"track ids {names} change places {at}: each clip keeps its person" for at in where
        ]
    if len(swaps) > MOST_SWAPS:
        others = len(swaps) - MOST_SWAPS
        told.append(
            f"track ids of {others:,} other pairs change places: each clip keeps its person"
        )
    return told


def _people(video: Video, notes: list[str], where: str) -> list[tuple[str, dict[int, Person]]]:
    """People by label with their rows in a video; without ids the most prominent comes first."""
    if video.photograph:
        ranked = sorted(video.people[0], key=lambda person: -person.score)
        return _labelled([{0: person} for person in ranked])
    ids = [[person.id for person in people] for people in video.people]
    named = Counter(one for people in ids for one in people)
    known = all(named) and all(len(set(people)) == len(people) for people in ids)
    most = max(map(len, ids), default=0)
    brief = known and len(named) > MANY_IDS * most and np.median([*named.values()]) < BRIEF
    if known and not brief:
        return _by_id(video, notes)
    if brief:
        notes.append(
            f"{len(named)} track ids, most of them in fewer than {BRIEF} frames: people are "
            "tracked by position instead"
        )
    elif any(named) and most > 1 and len(named) > 1:
        notes.append("track ids are ambiguous: people are tracked by position instead")
    return _labelled(_by_position(video, notes, where))


def _labelled(everybody: list[dict[int, Person]]) -> list[tuple[str, dict[int, Person]]]:
    """People numbered from 1 on; one alone has no number."""
    if len(everybody) == 1:
        return [("", everybody[0])]
    return [(str(number), one) for number, one in enumerate(everybody, 1)]


def _by_id(video: Video, notes: list[str]) -> list[tuple[str, dict[int, Person]]]:
    """People by their track ids, with exchanges of two ids undone."""
    by_id: dict[str, dict[int, Person]] = {}
    for row, people in enumerate(video.people):
        for person in people:
            by_id.setdefault(str(person.id), {})[row] = person
    labels = sorted(by_id, key=natural)
    everybody = [by_id[label] for label in labels]
    swaps: dict[str, list[int | float | str]] = {}
    for row, pair in exchanged(everybody):
        names = " and ".join(labels[one] for one in pair)
        swaps.setdefault(names, []).append(video.numbers[row])
    notes += _swapped(swaps)
    return list(zip(labels, everybody, strict=True))


def _by_position(video: Video, notes: list[str], where: str) -> list[dict[int, Person]]:
    """People tracked from frame to frame, the most prominent first."""
    single = [_without_doubles(people) for people in video.people]
    twice = [len(one) - len(own) for one, own in zip(video.people, single, strict=True)]
    for key, doubles, own in zip(video.numbers, twice, single, strict=True):
        if doubles > max(MOST_DOUBLES, OF_EACH * len(own)):
            raise ItesError(
                f"{where}: expected ids that tell frames apart, got {doubles + len(own)} "
                f"detections in frame {key}, most of them of the same place"
            )
    if 2 * np.count_nonzero(twice) > sum(len(people) > 1 for people in video.people):
        video.people = single  # people who cross are at one place for a few frames
        notes.append(f"left out: {sum(twice)} detections of somebody found twice in a frame")
    places = track([[person.body for person in people] for people in video.people])
    everybody = [{row: video.people[row][at] for row, at in one.items()} for one in places]
    everybody.sort(key=_prominence)
    brief = [one for one in everybody if len(one) < BRIEF]
    if len(video.people) >= LONG and brief:
        everybody = [one for one in everybody if len(one) >= BRIEF]
        notes.append(f"left out: {len(brief)} people seen in fewer than {BRIEF} frames")
    steady = [one for one in everybody if 2 * len(one) >= max(one) - min(one) + 1]
    if steady and len(steady) < len(everybody):
        count = len(everybody) - len(steady)
        notes.append(
            "left out: seen in fewer than half of the frames between their first and their "
            f"last: {count} {'person' if count == 1 else 'people'}"
        )
        everybody = steady
    if len(everybody) > 1:
        notes.append(f"{len(everybody)} people distinguished by place and size, without track ids")
    return everybody


def _without_doubles(people: list[Person]) -> list[Person]:
    """The surest detection of each person in a frame."""
    if len(people) < 2:
        return people
    bodies = np.stack([person.body for person in people]).astype(float)
    apart = distances(bodies, bodies) / np.maximum(person_sizes(bodies)[:, None], 1e-6)
    kept: list[int] = []
    for one in sorted(range(len(people)), key=lambda index: -people[index].score):
        if all(apart[one, other] > DOUBLE for other in kept):
            kept.append(one)
    return [people[one] for one in sorted(kept)]


def _prominence(rows: dict[int, Person]) -> float:
    """A sort key: smaller for a person who is larger and visible longer."""
    bodies = np.stack([person.body for person in list(rows.values())[:100]])
    return -len(rows) * float(np.median(person_sizes(bodies)))


def _clean_tracks(
    path: Path,
    found: Detections,
    options: ReadOptions,
    notes: list[str],
) -> tuple[list[Track], tuple[str, ...], str]:
    """All people with missing joints marked, the joint names, and the layout's name."""
    if not any(len(one.joints) for one in found.tracks):
        raise ItesError(f"{path}: expected keypoints, got no frame")
    tracks = []
    sizes = [options.image_size or one.image_size or found.image_size for one in found.tracks]
    everything = np.concatenate([one.joints for one in found.tracks])
    each = [s for s, one in zip(sizes, found.tracks, strict=True) for _ in one.joints]
    names, layout = _joints(path, found, everything, options, notes)
    ids = [row for one in found.tracks for row in range(len(one.joints))]
    cleaned = _clean(path, everything, each, ids, names, layout, options, found, notes)
    row = 0
    for one, size in zip(found.tracks, sizes, strict=True):
        joints = cleaned[row : row + len(one.joints)]
        row += len(joints)
        if (joints[..., 2] > 0).any():
            rate = one.fps if one.fps > 0 else found.fps
            tracks.append(one._replace(joints=joints, image_size=size, fps=rate))
    if not tracks:
        raise _all_missing(path, everything, found, options)
    if len(tracks) < len(found.tracks):
        notes.append(f"left out: {len(found.tracks) - len(tracks)} clips in which nobody is seen")
    gone = sum(int((~(one.joints[..., 2] > 0).any(1)).sum()) for one in tracks)
    if gone:
        frames = sum(len(one.joints) for one in tracks)
        notes.append(f"nobody is seen in {gone} of {frames} frames: missing frames")
    return tracks, names, layout


def _clean(
    path: Path,
    joints: NDArray[np.float32],
    sizes: Sequence[tuple[int, int] | None],
    ids: Sequence[int | float | str],
    names: tuple[str, ...],
    layout: str,
    options: ReadOptions,
    found: Detections,
    notes: list[str],
) -> NDArray[np.float32]:
    """Pixels with confidences in 0..1, 0 where missing: (N, K, 3)."""
    least = found.min_confidence if options.min_confidence is None else options.min_confidence
    joints = joints.astype(np.float32)
    places, sure = joints[..., :2], np.where(np.isfinite(joints[..., 2]), joints[..., 2], 0)
    finite = np.asarray(np.isfinite(places).all(-1))
    _check_confidence(path, joints[..., 2][finite])
    corner = finite & (places == 0).all(-1) & ~_centred(places, finite)
    outside = finite & (places == -1).all(-1) & (not found.signed)
    for where, holders in (("(0, 0)", corner), ("(-1, -1)", outside)):
        count = int((holders & (sure > 0)).sum())
        if count:
            notes.append(f"{count} joints at exactly {where} count as missing")
    corner = corner | outside
    for point, holders in filler_points(places, finite & ~corner & (sure > 0)):
        x, y = point
        notes.append(
            f"{int(holders.sum())} joints of many kinds at exactly ({x:.6g}, {y:.6g}) count as "
            "missing"
        )
        corner |= holders
    flat = _flat(places, finite & ~corner & (sure > 0))
    if flat.any() and not flat.all():
        notes.append(f"left out: {int(flat.sum())} poses whose joints are all at one point")
        corner |= flat[:, None]
    unknown = int((finite & ~np.isfinite(joints[..., 2])).sum())
    if unknown:
        notes.append(f"{unknown} joints have a confidence that is no number and count as missing")
    weak = finite & ~corner & (sure > 0) & (sure < least)
    seen = finite & ~corner & (sure > 0) & ~weak
    if weak.any():
        share = f"{int(weak.sum())} of {int((finite & (sure > 0)).sum())} joints"
        notes.append(f"{share} have a confidence below {least:g} and count as missing")
    extent = np.array([size or (0, 0) for size in sizes], np.float32)[:, None]
    if seen.any() and np.abs(places[seen]).max() <= NORMALISED:
        places = _pixels(path, places, seen, extent, found.signed, notes)
    sources = {name for choices in recipes(names, layout) for recipe in choices for name in recipe}
    body = [index for index, name in enumerate(names) if name in sources]
    top = float(sure[finite].max(initial=0))
    if top > OVER and (sure[finite] % 1).any():  # else the flags of annotations
        notes.append(f"confidences above 1, up to {top:.3g}, count as 1")
    bad = _impossible(places, seen, extent, body or list(range(len(names))))
    if bad.any():
        row, joint = np.argwhere(bad)[0]
        x, y = places[row, joint]
        notes.append(
            f"{path.stem}: {int(bad.sum()):,} impossible keypoints count as missing, the first "
            f"in frame {shorten(ids[row], 40)}: {shorten(names[joint], 40)} at ({x:.6g}, {y:.6g})"
        )
        seen &= ~bad
    sure = np.where(seen, np.clip(sure, 0, 1), 0)
    return np.concatenate(
        [np.where(seen[..., None], places, 0), sure[..., None]], axis=-1, dtype=np.float32
    )


def _flat(places: NDArray[np.float32], seen: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The people (N,) whose joints (N, K, 2) are all at one point."""
    shown = seen[..., None]
    low = np.where(shown, places, np.inf).min(1)
    high = np.where(shown, places, -np.inf).max(1)
    flat: NDArray[np.bool_] = (seen.sum(1) >= FEWEST) & (low == high).all(1)
    return flat


def _all_missing(
    path: Path, joints: NDArray[np.float32], found: Detections, options: ReadOptions
) -> ItesError:
    """The error of a file without a joint that counts as seen; joints (N, K, 3)."""
    message = f"{path}: expected keypoints of people, but all joints are missing"
    least = found.min_confidence if options.min_confidence is None else options.min_confidence
    sure = joints[np.isfinite(joints).all(-1), 2]
    if not len(sure) and np.isfinite(joints[..., :2]).all(-1).any():
        return ItesError(f"{message}: no confidence is a number; leave out the confidences")
    if not len(sure) or not sure.max() < least:
        return ItesError(message)
    if not sure.max() > 0:
        return ItesError(f"{message}: no confidence is above 0; leave out the confidences")
    return ItesError(
        f"{message}: no confidence reaches {least:g}, got {sure.max():.2g}", code="weak"
    )


def _check_confidence(path: Path, sure: NDArray[np.float32]) -> None:
    """Refuse a third number that is a depth or a percentage, unless it is so in a few joints.

    -1 stands for no confidence in some files, and RTMPose's scores may exceed 1.
    """
    sure = sure[np.isfinite(sure)]
    odd = ((sure < -0.05) & (sure != -1)) | (sure > MOST_SURE)
    if sure.size and odd.mean() > ODD:
        message = (
            f"confidence must lie in 0..1, got {sure.min():.3g} to {sure.max():.3g}; a third "
            "number that is a depth or a percentage must be left out"
        )
        raise ImplausibleError(path, Finding("depth", "error", message))


def _centred(places: NDArray[np.float32], finite: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Joints that are the origin of relative coordinates: always 0, between the other joints."""
    zero = ((places == 0).all(-1) | ~finite).all(0)
    others = places[finite]
    amid = len(places) > 0 and len(others) > 0 and (others.min(0) < 0).all()
    return np.broadcast_to(zero & (zero.sum() == 1) & amid, finite.shape)


def _pixels(
    path: Path,
    places: NDArray[np.float32],
    seen: NDArray[np.bool_],
    extent: NDArray[np.float32],
    signed: bool,
    notes: list[str],
) -> NDArray[np.float32]:
    """Convert coordinates normalised by the image's width and height to pixels."""
    low, high = np.percentile(places[seen], (1, 99))
    halves = signed and low < -0.2
    about_0 = not halves and (places[seen] < 0).any(-1).mean() > AROUND_0
    if low < (-1.2 if halves else -0.2) or high > 1.2 or about_0:
        message = (
            "expected keypoints in pixels, or x / width and y / height in 0..1; got numbers "
            f"from {low:.3g} to {high:.3g}"
        )
        raise ImplausibleError(path, Finding("units", "error", message))
    if not (extent > 0).all():
        message = (
            f"keypoints are normalised (from {low:.3g} to {high:.3g}, x / width and y / height): "
            "the image size (width, height) in pixels is needed"
        )
        raise ImplausibleError(path, Finding("normalised", "error", message))
    width, height = extent[0, 0]
    notes.append(f"normalised coordinates, times the image size {width:.0f} x {height:.0f}")
    pixels = (places + 1) / 2 * extent if halves else places * extent
    return pixels.astype(np.float32, copy=False)


def _impossible(
    places: NDArray[np.float32],
    seen: NDArray[np.bool_],
    extent: NDArray[np.float32],
    body: list[int],
) -> NDArray[np.bool_]:
    """Impossible keypoints by `ites.pose.missing.impossible`, judged by body joints alone.

    The many joints of face and hands would bias the body's size.
    """
    bad = np.zeros(seen.shape, bool)
    for size in np.unique(extent[:, 0], axis=0):
        rows = np.flatnonzero((extent[:, 0] == size).all(-1))
        known = (int(size[0]), int(size[1])) if size.all() else None
        own = np.ix_(rows, np.array(body, np.intp))
        bad[own] = impossible(places[own], seen[own], known)
    return bad


def _trimmed(one: Track) -> Track:
    """Trim a person seen in fewer than half of the frames to their first and last frame.

    Other people keep all frames, so row k is the video's frame k.
    """
    seen = np.flatnonzero((one.joints[..., 2] > 0).any(1))
    if 2 * len(seen) >= len(one.joints):
        return one
    rows = slice(int(seen[0]), int(seen[-1]) + 1)
    numbers = np.arange(len(one.joints)) if one.numbers is None else one.numbers
    return one._replace(joints=one.joints[rows], numbers=numbers[rows], first=rows.start)


def _chosen(path: Path, tracks: list[Track], person: str | int | None) -> list[Track]:
    if person is None:
        return tracks
    chosen = [one for one in tracks if (one.label or "1") == str(person)]
    if not chosen:
        labels = sorted({one.label or "1" for one in tracks}, key=natural)
        raise ItesError(
            f"{path}: person must be one of {', '.join(labels[:20])}, got {str(person)!r}"
        )
    return chosen


def _joints(
    path: Path,
    found: Detections,
    sample: NDArray[np.float32],
    options: ReadOptions,
    notes: list[str],
) -> tuple[tuple[str, ...], str]:
    """The names of the joints (N, K, 3), and the layout's name."""
    count, layout, skeleton = sample.shape[1], options.layout, options.skeleton
    if layout is not None:
        joints = joints_of(layout)
        if len(joints) != count:
            raise ItesError(
                f"{path}: {layout} keypoints have {len(joints)} joints per person, got {count}"
            )
        return joints, layout
    if found.joints is not None:
        return found.joints, "named"
    if skeleton != HUMAN36M and count == skeleton.num_joints:
        return skeleton.joints, skeleton.name
    name = found.layout
    if name is None and found.plain and count == skeleton.num_joints:
        return skeleton.joints, skeleton.name
    if name is None and count == 25:
        name = body25_or_25b(sample[..., :2], sample[..., 2])
    elif name is None and not (found.plain and count in (16, 17)):
        name = BY_COUNT.get(count)
    if name is None or len(joints_of(name)) != count:
        fitting = [one for one in LAYOUTS if len(joints_of(one)) == count]
        raise ItesError(
            f"{path}: expected {skeleton.num_joints} joints per frame ({skeleton.name}), got "
            f"{count}; a layout to convert from is one of {', '.join(fitting or LAYOUTS)}",
            code="layout",
        )
    if found.plain and found.layout is None:
        notes.append(f"{count} joints per frame are taken to be in the order {name}")
    return joints_of(name), name


def _converted(
    path: Path,
    found: Detections,
    tracks: list[Track],
    joints: tuple[str, ...],
    layout: str,
    options: ReadOptions,
    notes: list[str],
) -> Recording:
    """The clips in the skeleton's joints."""
    skeleton = options.skeleton
    everything = np.concatenate([one.joints for one in tracks])
    places, sure = everything[..., :2], everything[..., 2]
    if joints == skeleton.joints:
        converted, confidence = places, sure
    else:
        mapped = _as_skeleton(path, everything, joints, layout, skeleton)
        converted, confidence = mapped[..., :2], mapped[..., 2]
        if skeleton == HUMAN36M:
            _note_derived(joints, layout, sure, notes)
    ends = np.cumsum([len(one.joints) for one in tracks])
    bodies = [bool((own > 0).any()) for own in np.split(confidence, ends[:-1])]
    never = [skeleton.joints[j] for j in np.flatnonzero(~(confidence > 0).any(0))]
    if len(never) == skeleton.num_joints:
        raise ItesError(f"{path}: joints {_listed(joints)} make no joint of {skeleton.name}")
    if never:
        notes.append(f"in no frame: {_listed(never)}")
    clips, sources, row = [], [], 0
    several = len({one.label for one in tracks}) > 1
    for one, is_body in zip(tracks, bodies, strict=True):
        own = slice(row, row + len(one.joints))
        row = own.stop
        if not is_body:  # as DeepLabCut's "single", which may be a ball
            notes.append(f"left out: {_name(path, one, several)}, no joint of {skeleton.name}")
            continue
        scored = found.scored or bool((confidence[own] == 0).any())
        clips.append(
            Clip(
                name=_name(path, one, several),
                keypoints=np.ascontiguousarray(converted[own], np.float32),
                fps=options.fps or one.fps,
                confidence=np.ascontiguousarray(confidence[own], np.float32) if scored else None,
                focal_length=one.focal_length,
                image_size=one.image_size,
                first_frame=one.first,
            )
        )
        numbers = np.arange(len(one.joints)) if one.numbers is None else one.numbers
        sources.append(Source(places[own], sure[own], joints, numbers))
    image_size, fps = common_size_and_rate(clips)
    return Recording(
        format=found.format,
        layout=layout,
        clips=clips,
        source=sources,
        notes=list(dict.fromkeys(notes)),
        image_size=image_size,
        fps=fps,
        skeleton=skeleton,
    )


def _as_skeleton(
    path: Path,
    joints: NDArray[np.float32],
    names: tuple[str, ...],
    layout: str,
    skeleton: Skeleton,
) -> NDArray[np.float32]:
    """Map joints (N, K, 3) to a skeleton (N, J, 3): by a map to Human3.6M, or by name."""
    if skeleton == HUMAN36M:
        places, sure = convert(joints[..., :2], names, joints[..., 2], layout)
        return np.concatenate([places, np.asarray(sure)[..., None]], axis=-1)
    lacking = [name for name in skeleton.joints if name not in names]
    if lacking:
        raise ItesError(
            f"{path}: expected the {skeleton.num_joints} joints of {skeleton.name}, got "
            f"{len(names)} without {_listed(lacking)}"
        )
    return joints[:, [names.index(name) for name in skeleton.joints]]


def _note_derived(
    joints: tuple[str, ...], layout: str, sure: NDArray[np.float32], notes: list[str]
) -> None:
    """Name the joints that are derived from others because they are never seen."""
    seen = {
        name for name, there in zip(joints, np.asarray((sure > 0).any(0)), strict=True) if there
    }
    for name, choices in zip(HUMAN36M.joints, recipes(joints, layout), strict=True):
        usable = [recipe for recipe in choices if seen >= set(recipe)]
        if usable and usable[0] is not choices[0]:
            lacking = sorted(set(choices[0]) - seen)
            notes.append(f"{name} from {_listed(list(usable[0]))}: {_listed(lacking)} in no frame")


def _listed(names: list[str] | tuple[str, ...]) -> str:
    more = f" and {len(names) - MOST_LISTED} more" if len(names) > MOST_LISTED else ""
    return ", ".join(names[:MOST_LISTED]) + more


def _name(path: Path, one: Track, several: bool) -> str:
    video = f"/{one.video}" if one.video else ""
    return f"{path.stem}{video}" + (f"#{one.label}" if one.label and several else "")
