"""Follow people from frame to frame where a detector gives no track ids.

Each frame's people are assigned to the people followed so far by
`scipy.optimize.linear_sum_assignment`, at the least summed cost. The cost of a pair is the median
distance of the joints that both have, over the person's size, plus half the logarithm of the
ratio of their sizes. A person's size is 4 times the median distance of the joints from their
median: about the height of somebody who stands. Where somebody is expected is moved on by the
last frame's motion for up to `CARRIED` frames.

A pair is allowed up to a distance of `NEAR` sizes in the next frame, `GROWTH` more a frame that
the person was away, `FAR` at most, and a ratio of sizes of `RATIO`. Somebody who comes back after
`AWAY` frames, or elsewhere, is somebody new.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

NEAR, GROWTH, FAR = 0.4, 0.1, 1.0
"""Allowed distance in the next frame, its growth per frame away, and its limit; person sizes."""
RATIO = 2.0
"""Allowed ratio of a person's sizes from sight to sight."""
AWAY = 300
"""Frames after which somebody who comes back is somebody new."""
CARRIED = 3
"""Frames for which the last motion is carried on."""
_FORBIDDEN = 1e6

Person = NDArray[np.floating]
"""(K, 3): x and y, pixels, and the confidence, 0 for a missing joint."""


@dataclass
class _Followed:
    """A person on the way through a video."""

    person: Person
    frame: int
    size: float
    motion: NDArray[np.floating] = field(default_factory=lambda: np.zeros(2))
    places: dict[int, int] = field(default_factory=dict)

    def expected(self, frame: int) -> Person:
        """Where the person should be."""
        if frame - self.frame > CARRIED:
            return self.person
        moved = self.person.copy()
        moved[:, :2] += self.motion * (frame - self.frame)
        return moved

    def take(self, person: Person, frame: int, index: int) -> None:
        """Go on with what was seen in a frame."""
        both = (self.person[:, 2] > 0) & (person[:, 2] > 0)
        steps = frame - self.frame
        if both.any() and steps <= CARRIED:
            self.motion = np.median((person - self.person)[both, :2], axis=0) / steps
        else:
            self.motion = np.zeros(2)
        size = person_size(person)
        if size > 0:
            self.size = size if self.size <= 0 else 0.8 * self.size + 0.2 * size
        self.person = np.where(person[:, 2:] > 0, person, self.person)
        self.frame = frame
        self.places[frame] = index


def person_size(person: Person) -> float:
    """4 times the median distance of the seen joints from their median, pixels; 0 where unseen."""
    seen = person[person[:, 2] > 0, :2]
    if len(seen) < 2:
        return 0.0
    return float(4 * np.median(np.linalg.norm(seen - np.median(seen, axis=0), axis=-1)))


def distances(first: NDArray[np.floating], second: NDArray[np.floating]) -> NDArray[np.floating]:
    """Median distance of the joints that two people both have.

    Args:
        first: (N, K, 3), pixels and confidence.
        second: (M, K, 3).

    Returns:
        (N, M), pixels; between their middles where fewer than 3 joints are in common.
    """
    seen = (first[:, None, :, 2] > 0) & (second[None, :, :, 2] > 0)
    apart = np.linalg.norm(first[:, None, :, :2] - second[None, :, :, :2], axis=-1)
    apart = np.where(seen, apart, np.nan)
    few = seen.sum(-1) < 3
    apart[few] = 0
    result = np.nanmedian(apart, axis=-1)
    if few.any():
        middles = np.linalg.norm(_middles(first)[:, None] - _middles(second)[None], axis=-1)
        result = np.where(few, middles, result)
    return result


def _middles(people: NDArray[np.floating]) -> NDArray[np.floating]:
    weights = (people[..., 2:] > 0).astype(float)
    return (people[..., :2] * weights).sum(1) / np.maximum(weights.sum(1), 1)


def track(frames: Sequence[Sequence[Person]]) -> list[dict[int, int]]:
    """Follow people through the frames of a video.

    Args:
        frames: the people in each frame.

    Returns:
        For each person the place in each frame's list, by the frame's index; those come first who
        came first.
    """
    everybody: list[_Followed] = []
    near: list[_Followed] = []
    for frame, people in enumerate(frames):
        if not people:
            continue
        near = [one for one in near if frame - one.frame <= AWAY]
        taken = _assign(near, people, frame)
        for index, person in enumerate(people):
            one = taken.get(index)
            if one is None:
                one = _Followed(np.array(person, float), frame, person_size(person))
                one.places[frame] = index
                everybody.append(one)
                near.append(one)
            else:
                one.take(np.asarray(person, float), frame, index)
    return [one.places for one in everybody]


def _assign(near: list[_Followed], people: Sequence[Person], frame: int) -> dict[int, _Followed]:
    """Who each of a frame's people is, by their index; nobody for those that are new."""
    if not near:
        return {}
    now = np.stack([np.asarray(person, float) for person in people])
    sizes = np.array([person_size(person) for person in now])
    before = np.array([one.size for one in near])
    gaps = np.array([frame - one.frame for one in near])
    size = np.maximum(np.maximum(before[:, None], sizes[None]), 1e-6)
    smaller = np.where(
        (before[:, None] > 0) & (sizes[None] > 0), np.minimum(before[:, None], sizes[None]), size
    )
    ratio = size / smaller
    apart = distances(np.stack([one.expected(frame) for one in near]), now) / size
    limit = np.minimum(NEAR + GROWTH * (gaps - 1), FAR)[:, None]
    cost = apart + 0.5 * np.log(ratio)
    cost[(apart > limit) | (ratio > RATIO)] = _FORBIDDEN
    rows, columns = linear_sum_assignment(cost)
    return {
        int(column): near[row]
        for row, column in zip(rows, columns, strict=True)
        if cost[row, column] < _FORBIDDEN
    }
