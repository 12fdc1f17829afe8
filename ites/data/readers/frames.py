"""Frames in order of time: videos, missing frames and photographs, derived from frame ids.

An id is a number, a time in seconds, or an image's name: "12.jpg", "cam1/frame_000012.png". Names
are alike where they differ in digits alone. In names that differ only in digits, the run of digits
that varies most is the frame number. A folder's digits count only where the files' own names do not
vary. Names that differ elsewhere belong to different videos.

Frames form a video if at least one in `GAPS` of its numbers exists, or most are consecutive. People
must also be near their positions in the previous frame. Otherwise each frame is a photograph, with
a clip of its own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from ites.data.readers.recording import Frame, Person
from ites.data.tracking import distances, person_sizes
from ites.errors import ItesError, shorten

STRIDE = 120
"""The largest step of frame numbers in a video that keeps only each n-th frame."""
GAPS = 10
"""Maximum ratio of frame numbers to existing frames in a video."""
SPARSE = 100
"""Maximum ratio of a video's frames to the frames in the file."""
ELSEWHERE = 0.5
"""Median move from frame to frame, in person sizes, from which frames are photographs."""
PARTS, RUN_ON, AT_ONE_PLACE = 3, 5, 0.15
"""Least number of parts of a video whose names differ; most frames that are absent between two; and
the move in between, in person sizes."""
FARTHEST = 2**62
"""The largest number of a frame; the number of longer ones, as of times, counts from the first."""
CROWD = 1000
"""Most people in a frame; more come of ids that do not tell frames apart."""
PAIRS = 500
"""Pairs of frames in that test, evenly spaced over the video."""


@dataclass
class Video:
    """Frames of one camera in order of time: `numbers[t]` is the id's number of row t."""

    name: str
    numbers: list[int]
    people: list[list[Person]]
    key: str | int | float
    photograph: bool = False


def videos_of(frames: list[Frame], where: str) -> list[Video]:
    """Sort frames into videos and separate photographs.

    Args:
        frames: in any order; frames of the same id are joined.
        where: the file, for the message.

    Raises:
        ItesError: the ids imply far more frames than the file contains, or a frame holds more
            than `CROWD` people.
    """
    joined: dict[int | float | str, list[Person]] = {}
    for frame in frames:
        joined.setdefault(frame.id, []).extend(frame.people)
    for key, crowd in joined.items():
        if len(crowd) > CROWD:
            raise ItesError(
                f"{where}: expected at most {CROWD:,} people in a frame, got {len(crowd):,} in "
                f"frame {shorten(key, 60)}"
            )
    groups: dict[str, dict[int, int | float | str]] = {}
    for key, (video, number) in (_times(list(joined)) or _places(list(joined))).items():
        groups.setdefault(video, {})[number] = key
    groups = _rejoined(groups, joined)
    videos = []
    for name, keys in sorted(groups.items(), key=lambda group: natural(group[0])):
        numbers = sorted(keys)
        people = [joined[keys[n]] for n in numbers]
        step = _step(numbers)
        if step is None and (counted := _counted(np.array(numbers, float))) is not None:
            keys = dict(zip(counted, (keys[n] for n in numbers), strict=True))
            numbers, step = counted, 1  # they were times, as in milliseconds
        if step is None or not _continuous(people):
            videos += [
                Video(str(keys[n]), [n], [found], keys[n], len(numbers) > 1)
                for n, found in zip(numbers, people, strict=True)
            ]
            continue
        count = (numbers[-1] - numbers[0]) // step + 1
        if count > 1000 + SPARSE * len(numbers):
            raise ItesError(
                f"{where}: expected frame numbers of a video, got {len(numbers)} frames numbered "
                f"from {numbers[0]} to {numbers[-1]}"
            )
        rows = dict(zip(numbers, people, strict=True))
        run = range(numbers[0], numbers[-1] + 1, step)
        videos.append(Video(name, list(run), [rows.get(n, []) for n in run], keys[numbers[0]]))
    return videos


def _rejoined(
    groups: dict[str, dict[int, int | float | str]],
    joined: dict[int | float | str, list[Person]],
) -> dict[str, dict[int, int | float | str]]:
    """Join parts of a video: frame numbers run on while other digits change, as of a clock.

    Their people must also be at one place at the end of a part and at the beginning of the next.
    """
    alike: dict[str, list[str]] = {}
    for name in groups:
        folder, _, own = name.rpartition("/")
        alike.setdefault(f"{folder}/{re.sub('[0-9]+', '0', own)}", []).append(name)
    result = dict(groups)
    for names in alike.values():
        names.sort(key=lambda name: min(groups[name]))
        pairs = list(zip(names, names[1:], strict=False))
        ends = [(groups[a], max(groups[a]), groups[b], min(groups[b])) for a, b in pairs]
        if len(names) < PARTS or any(not 0 < start - end <= RUN_ON for _, end, _, start in ends):
            continue
        edges = [[joined[a[end]], joined[b[start]]] for a, end, b, start in ends]
        if all(all(edge) and _move(*edge) <= AT_ONE_PLACE for edge in edges):
            whole = {number: key for name in names for number, key in result.pop(name).items()}
            result[names[0]] = whole
    return result


def natural(text: object) -> list[tuple[int, int, str]]:
    """A key that sorts "10.jpg" after "9.jpg"."""
    parts = re.split(r"(\d+)", str(text))
    return [(1, int(p[:40]), p) if p.isdigit() and p.isascii() else (0, 0, p) for p in parts]


def _places(ids: list[int | float | str]) -> dict[int | float | str, tuple[str, int]]:
    """Each id's video and number; ids without a number are videos of their own."""
    alike: dict[str, list[tuple[int | float | str, list[str]]]] = {}
    for key in ids:
        text = str(int(key)) if isinstance(key, float) and key.is_integer() else str(key)
        text = _stem(text.replace("\\", "/"))
        digits = re.findall(r"[0-9]+", text)
        alike.setdefault(re.sub(r"[0-9]+", "0", text) if digits else text, []).append((key, digits))
    places: dict[int | float | str, tuple[str, int]] = {}
    if all(isinstance(key, int) for key in ids) and min(map(int, ids), default=0) < 0:
        first = min(map(int, ids))  # counted from an event; a name's "-" is no sign
        return {key: ("", min(int(key) - first, FARTHEST)) for key in ids}
    for pattern, members in alike.items():
        columns = list(zip(*(digits for _, digits in members), strict=True))
        if not columns:
            places.update({key: (pattern, 0) for key, _ in members})
            continue
        varied = [len({int(d[-40:]) for d in column}) for column in columns]
        folders = pattern.rpartition("/")[0].count("0")
        counter = max(
            range(len(columns)), key=lambda c: (c >= folders and varied[c] > 1, varied[c], c)
        )
        values = [int(d[-40:]) for d in columns[counter]]
        before = min(values) if max(values) > FARTHEST else 0
        for (key, digits), value in zip(members, values, strict=True):
            pieces = ["" if c == counter else d for c, d in enumerate(digits)]
            between = pattern.split("0")
            joined = "".join(a + b for a, b in zip(between, [*pieces, ""], strict=True))
            video = joined.strip("/_-. ")
            places[key] = (video, min(value - before, FARTHEST))
    if len(set(places.values())) < len(places):  # "1.jpg" and "01.jpg"
        places = {key: (f"{video}/{key}", number) for key, (video, number) in places.items()}
    return places


def _times(ids: list[int | float | str]) -> dict[int | float | str, tuple[str, int]]:
    """The numbers of frames whose ids are times in seconds; none if they are not times.

    Times are numbers with a fraction, or times of one day. Text must be of about equal steps.
    """
    plain = all(isinstance(key, (int, float)) for key in ids)
    if len(ids) < 3:
        return {}
    if plain or all(_DECIMAL.fullmatch(str(key)) for key in ids):
        times = np.array([float(key) for key in ids])
    else:
        clocks = [clock for key in ids if (clock := _CLOCK.fullmatch(str(key)))]
        if len(clocks) < len(ids) or len({clock["day"] for clock in clocks}) > 1:
            return {}
        times = np.array([_seconds(clock) for clock in clocks])
    if not np.isfinite(times).all() or (times % 1 == 0).all() or len(set(times)) < len(ids):
        return {}
    order = np.argsort(times)
    numbers = _counted(times[order]) or (list(range(len(ids))) if plain else [])
    return {ids[at]: ("", number) for at, number in zip(order, numbers, strict=bool(numbers))}


def _counted(times: NDArray[np.float64]) -> list[int] | None:
    """Frame numbers of ascending times of about equal steps, or multiples; None for others."""
    steps = np.diff(times)
    step = float(np.median(steps)) if len(steps) > 1 else 0.0
    if not step > 0:
        return None
    multiples = steps / step
    # The mean step, since the median of rounded ones, as of 33 and 34 milliseconds, is too small.
    step = (times[-1] - times[0]) / max(1.0, np.round(multiples).sum())
    numbers = np.round((times - times[0]) / step)
    regular = np.mean(np.abs(multiples - np.round(multiples)) < 0.25) > 0.8
    if not regular or (np.diff(numbers) < 1).any() or numbers[-1] > GAPS * len(times):
        return None
    return [int(number) for number in numbers]


_DECIMAL = re.compile(r"[0-9]{1,9}\.[0-9]{1,9}")
_CLOCK = re.compile(
    r"(?P<day>[0-9-]{8,10}[T ])?(?:(?P<h>[0-9]{1,2}):)?(?P<m>[0-9]{1,2}):"
    r"(?P<s>[0-9]{2}[.,][0-9]{1,9})(?:Z|[+-][0-9]{2}:?[0-9]{2})?"
)


def _seconds(clock: re.Match[str]) -> float:
    """Seconds of a time of day, as 12:30:05.125."""
    hours, minutes = int(clock["h"] or 0), int(clock["m"])
    return 3600 * hours + 60 * minutes + float(clock["s"].replace(",", "."))


def _stem(name: str) -> str:
    path = PurePosixPath(name)
    return name[: -len(path.suffix)] if re.fullmatch(r"\.[A-Za-z]\w{0,4}", path.suffix) else name


def _step(numbers: list[int]) -> int | None:
    """The step of a video's frame numbers; None if they do not form a video."""
    if len(numbers) == 1:
        return 1
    steps = np.diff(np.array(numbers, object))
    step = int(np.gcd.reduce(steps))
    count = (numbers[-1] - numbers[0]) // step + 1
    follow = sorted(steps)[len(steps) // 2] == step
    return step if step <= STRIDE and (follow or count <= GAPS * len(numbers)) else None


def _continuous(people: list[list[Person]]) -> bool:
    """Whether most people are near a person's position in the previous frame."""
    moves: list[float] = []
    pairs = [t for t in range(len(people) - 1) if people[t] and people[t + 1]]
    for t in pairs[:: len(pairs) // PAIRS + 1]:
        moves += _moves(*people[t : t + 2])
    return not moves or float(np.median(moves)) <= ELSEWHERE


def _moves(before: list[Person], after: list[Person]) -> list[float]:
    """How far each person is from the nearest one before, in person sizes."""
    a, b = (np.stack([p.body for p in frame[:20]]) for frame in (before, after))
    moves: list[float] = (distances(a, b).min(axis=0) / np.maximum(person_sizes(b), 1e-6)).tolist()
    return moves


def _move(before: list[Person], after: list[Person]) -> float:
    return float(np.median(_moves(before, after)))
