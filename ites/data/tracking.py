"""Tracking of people from frame to frame, for detectors without track ids.

`scipy.optimize.linear_sum_assignment` assigns each frame's people to the tracks at the least summed
cost. The cost of a pair is the median distance of their common joints, divided by the person's
size, plus half the logarithm of their size ratio. A person's size is 4 times the median distance of
the joints from their median: about the standing height. The expected position continues the last
frame's motion for up to `CARRIED` frames.

A pair may be `NEAR` sizes apart in the next frame, `GROWTH` more per frame of absence, and at most
`FAR`. Its sizes may differ by the factor `RATIO`. A person who reappears after `AWAY` frames, or
elsewhere, starts a new track.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

NEAR, GROWTH, FAR = 0.4, 0.1, 1.0
"""Allowed distance in the next frame, its growth per absent frame, and its limit; person sizes."""
RATIO = 2.0
"""Allowed ratio of a person's sizes between detections."""
AWAY = 300
"""Frames of absence after which a person starts a new track."""
CARRIED = 3
"""Frames for which the last motion is extrapolated."""
OWN, OTHERS = 0.1, 0.3
"""Person sizes by which two people who exchange their ids are away from their own places; and the
share of it by which they are from each other's."""
AT_ONCE = 1 << 20
"""Distances of joints that are compared at once."""
_FORBIDDEN = 1e6


Person = NDArray[np.floating]
"""(K, 3): x and y, pixels, and the confidence, 0 for a missing joint."""


class HasBody(Protocol):
    """Somebody in a frame."""

    @property
    def body(self) -> NDArray[np.float32]:
        """(K, 3): pixels and confidence."""


T = TypeVar("T", bound=HasBody)


@dataclass
class _Followed:
    """A person's track through a video."""

    person: Person
    frame: int
    size: float
    motion: NDArray[np.floating] = field(default_factory=lambda: np.zeros(2))
    places: dict[int, int] = field(default_factory=dict)

    def expected(self, frame: int) -> Person:
        """The person's expected position."""
        if frame - self.frame > CARRIED:
            return self.person
        moved = self.person.copy()
        moved[:, :2] += self.motion * (frame - self.frame)
        return moved

    def take(self, person: Person, size: float, frame: int, index: int) -> None:
        """Extend the track by a detection."""
        steps, here = frame - self.frame, person[:, 2] > 0
        both = here & (self.person[:, 2] > 0)
        if steps <= CARRIED and both.any():
            moves = np.sort((person - self.person)[both, :2], axis=0)
            self.motion = moves[len(moves) // 2] / steps
        else:
            self.motion = np.zeros(2)
        if size > 0:
            self.size = size if self.size <= 0 else 0.8 * self.size + 0.2 * size
        self.person = person if here.all() else np.where(here[:, None], person, self.person)
        self.frame = frame
        self.places[frame] = index


def person_sizes(people: NDArray[np.floating]) -> NDArray[np.floating]:
    """4 times the median distance of the seen joints from their median, pixels; 0 if unseen.

    Args:
        people: (N, K, 3), pixels and confidence.

    Returns:
        (N,).
    """
    seen = people[..., 2] > 0
    middles = np.stack([_medians(people[..., axis], seen) for axis in range(2)], axis=-1)
    away = np.linalg.norm(people[..., :2] - middles[:, None], axis=-1)
    return np.where(seen.sum(-1) > 1, 4 * _medians(away, seen), 0.0)


def distances(first: NDArray[np.floating], second: NDArray[np.floating]) -> NDArray[np.floating]:
    """Median distance of the joints that two people have in common.

    Args:
        first: (N, K, 3), pixels and confidence.
        second: (M, K, 3).

    Returns:
        (N, M), pixels; between their centres if fewer than 3 joints are in common.
    """
    step = max(1, AT_ONCE // max(1, second[..., 0].size))
    if len(first) > step:  # a crowd
        parts = [distances(first[i : i + step], second) for i in range(0, len(first), step)]
        return np.concatenate(parts)
    seen = (first[:, None, :, 2] > 0) & (second[None, :, :, 2] > 0)
    apart = np.hypot(*(first[:, None, :, axis] - second[None, :, :, axis] for axis in range(2)))
    result = _medians(apart, seen)
    few = seen.sum(-1) < 3
    if few.any():
        middles = np.linalg.norm(_middles(first)[:, None] - _middles(second)[None], axis=-1)
        result = np.where(few, middles, result)
    return result


def _medians(values: NDArray[np.floating], seen: NDArray[np.bool_]) -> NDArray[np.floating]:
    """Medians of the seen values along the last axis; 0 without any."""
    if seen.all():  # mostly
        ordered, last = np.sort(values, axis=-1), values.shape[-1] - 1
        return (ordered[..., last // 2] + ordered[..., (last + 1) // 2]) / 2
    ordered = np.sort(np.where(seen, values, np.inf), axis=-1)
    count = np.maximum(seen.sum(-1, keepdims=True), 1)
    ends = [np.take_along_axis(ordered, index, -1) for index in ((count - 1) // 2, count // 2)]
    median = (ends[0] + ends[1])[..., 0] / 2
    return np.where(np.isfinite(median), median, 0.0)


def _middles(people: NDArray[np.floating]) -> NDArray[np.floating]:
    weights = (people[..., 2:] > 0).astype(float)
    return (people[..., :2] * weights).sum(1) / np.maximum(weights.sum(1), 1)


def track(frames: Sequence[Sequence[Person]]) -> list[dict[int, int]]:
    """Track people through the frames of a video.

    Args:
        frames: the people in each frame.

    Returns:
        For each person the index in each frame's list, by frame index; ordered by first
        appearance.
    """
    everybody: list[_Followed] = []
    near: list[_Followed] = []
    all_people = [person for people in frames for person in people]
    all_sizes = person_sizes(np.stack(all_people)) if all_people else np.zeros(0)
    done = 0
    for frame, people in enumerate(frames):
        if not people:
            continue
        now = np.array(people, float)
        sizes = all_sizes[done : done + len(now)]
        done += len(now)
        near = [one for one in near if frame - one.frame <= AWAY]
        taken = _assign(near, now, sizes, frame)
        for index, person in enumerate(now):
            one = taken.get(index)
            if one is None:
                one = _Followed(person, frame, float(sizes[index]))
                one.places[frame] = index
                everybody.append(one)
                near.append(one)
            else:
                one.take(person, float(sizes[index]), frame, index)
    return [one.places for one in everybody]


def exchanged(
    everybody: Sequence[dict[int, T]],
) -> list[tuple[int, tuple[int, int]]]:
    """Undo exchanges of the ids of two people by a tracker, in place.

    Two people exchange their ids in a frame if both are then far from their own places in the frame
    before, and near each other's: `OWN` person sizes at least, and `OTHERS` at most of that.

    Args:
        everybody: each id's person, whose `body` is (K, 3), by frame index.

    Returns:
        The frame index and the two ids' positions in `everybody`, for each exchange.
    """
    found = []
    frames = sorted({frame for one in everybody for frame in one})
    before: dict[int, T] = {}
    for frame in frames:
        here = [number for number, one in enumerate(everybody) if frame in one]
        known = [number for number in here if number in before]
        if len(known) > 1 and frame > 0:
            now = np.stack([everybody[number][frame].body for number in known]).astype(float)
            then = np.stack([before[number].body for number in known]).astype(float)
            size = np.maximum(np.minimum(person_sizes(now), person_sizes(then)), 1e-6)
            apart = distances(then, now) / size
            own, cross = np.diag(apart), np.maximum(apart, apart.T)
            limit = OTHERS * np.minimum.outer(own, own)
            for a, b in np.argwhere(np.triu(cross < limit, 1)):
                if min(own[a], own[b]) > OWN:
                    first, second = known[a], known[b]
                    _exchange(everybody[first], everybody[second], frame)
                    found.append((frame, (first, second)))
                    break
        before = {
            number: one[frame] if frame in one else before[number]
            for number, one in enumerate(everybody)
            if frame in one or number in before
        }
    return found


def _exchange(first: dict[int, T], second: dict[int, T], frame: int) -> None:
    """Exchange two people's tracks from a frame on."""
    later = [{f: one.pop(f) for f in [f for f in one if f >= frame]} for one in (first, second)]
    first.update(later[1])
    second.update(later[0])


def _assign(
    near: list[_Followed], now: NDArray[np.floating], sizes: NDArray[np.floating], frame: int
) -> dict[int, _Followed]:
    """The track of each person in a frame, by index; new people have none."""
    if not near:
        return {}
    before = np.array([one.size for one in near])[:, None]
    gaps = np.array([frame - one.frame for one in near])
    larger = np.maximum(np.maximum(before, sizes), 1e-6)
    smaller = np.where((before > 0) & (sizes > 0), np.minimum(before, sizes), larger)
    ratio = larger / smaller
    apart = distances(np.stack([one.expected(frame) for one in near]), now) / larger
    limit = np.minimum(NEAR + GROWTH * (gaps - 1), FAR)[:, None]
    cost = apart + 0.5 * np.log(ratio)
    cost[(apart > limit) | (ratio > RATIO)] = _FORBIDDEN
    if cost.shape == (1, 1):
        return {0: near[0]} if cost[0, 0] < _FORBIDDEN else {}
    from scipy.optimize import linear_sum_assignment  # slow to import, and rarely needed

    rows, columns = linear_sum_assignment(cost)
    return {
        int(column): near[row]
        for row, column in zip(rows, columns, strict=True)
        if cost[row, column] < _FORBIDDEN
    }
