"""People are followed from frame to frame: the arithmetic, and its limits."""

import numpy as np
import pytest
from people import scored, walk

from ites.data import tracking
from ites.data.readers.frames import CROWD, natural, videos_of
from ites.data.readers.recording import Frame, Person
from ites.data.tracking import distances, person_sizes, track
from ites.errors import ItesError


def test_natural_order():
    names = ["10.jpg", "9.jpg", "a2", "a10", "a1", "b"]
    assert sorted(names, key=natural) == ["9.jpg", "10.jpg", "a1", "a2", "a10", "b"]


def test_size_and_distance():
    person = scored(walk(frames=1))[0]
    far = person.copy()
    far[0, :2] = 1e5  # one misplaced joint changes neither much
    sizes = person_sizes(np.stack([person, far]))
    assert 380 < sizes[0] < 520 and abs(sizes[1] / sizes[0] - 1) < 0.1
    moved = person + np.float32([3, 4, 0])
    np.testing.assert_allclose(distances(person[None], moved[None]), [[5]], rtol=1e-5)
    moved[5:, 2] = 0
    moved[:5, :2] += 100 * (moved[:5, 2:] > 0)
    np.testing.assert_allclose(
        distances(person[None], moved[None]), [[np.hypot(103, 104)]], rtol=1e-5
    )
    hidden = person.copy()
    hidden[:15, 2] = 0
    middle = np.linalg.norm(hidden[15:, :2].mean(0) - person[:, :2].mean(0))
    np.testing.assert_allclose(distances(hidden[None], person[None]), [[middle]], rtol=1e-5)
    assert person_sizes(np.zeros((1, 17, 3))).tolist() == [0]


def test_distances_in_a_crowd_are_taken_in_parts(monkeypatch):
    people = scored(walk(frames=40))
    whole = distances(people, people[:7])
    monkeypatch.setattr(tracking, "AT_ONCE", 3 * 7 * people.shape[1])
    np.testing.assert_array_equal(distances(people, people[:7]), whole)


def test_one_person_is_followed_over_gaps():
    people = scored(walk(frames=60))
    frames = [[p] if t not in range(20, 30) else [] for t, p in enumerate(people)]
    (one,) = track(frames)
    assert sorted(one) == [t for t in range(60) if t not in range(20, 30)]


def test_somebody_elsewhere_or_of_another_size_is_somebody_else():
    person = scored(walk(frames=40))
    elsewhere = scored(walk(frames=40, start=(1500.0, 500.0)))
    assert len(track([[p] for p in [*person[:20], *elsewhere[20:]]])) == 2
    small = scored(walk(frames=40, height=150.0))
    assert len(track([[p] for p in [*person[:20], *small[20:]]])) == 2


def test_somebody_who_was_away_for_long_is_somebody_new():
    person = scored(walk(frames=1))[0]
    empty = [[] for _ in range(tracking.AWAY)]
    assert len(track([[person], *empty[1:], [person]])) == 1
    assert len(track([[person], *empty, [person]])) == 2


def frame(key, points):
    joints = scored(points)
    return Frame(key, [Person(joints, body=joints)])


def test_ids_that_collide_are_kept_apart():
    points = walk(frames=2)
    videos = videos_of([frame("1.jpg", points[0]), frame("01.jpg", points[1])], "f")
    assert [len(video.people) for video in videos] == [1, 1]


def test_a_frame_of_more_people_than_a_crowd_is_refused():
    """As of a file whose ids do not tell frames apart; comparing all of them takes 1.4 GB."""
    points = walk(frames=1)[0]
    crowd = [frame("0.jpg", points) for _ in range(CROWD)]
    (one,) = videos_of(crowd, "f")
    assert len(one.people[0]) == CROWD
    expected = "f: expected at most 1,000 people in a frame, got 1,001 in frame 0.jpg"
    with pytest.raises(ItesError, match=expected):
        videos_of([*crowd, frame("0.jpg", points)], "f")


def test_timestamps_in_names_are_photographs():
    points = walk(frames=4)
    names = [f"IMG_20230101_1205{s}.jpg" for s in ("01", "09", "37", "58")]
    far = [walk(frames=1, start=(200.0 * k, 300.0), height=100.0)[0] for k in range(4)]
    videos = videos_of([frame(n, p) for n, p in zip(names, far, strict=True)], "f")
    assert [video.photograph for video in videos] == [True] * 4
    same_place = videos_of([frame(k, p) for k, p in enumerate(points)], "f")
    assert [len(video.people) for video in same_place] == [4]


def test_videos_of_few_frames_in_folders_are_not_mixed():
    points = walk(frames=3)
    names = [f"vid{v}/{t}.png" for v in range(40) for t in range(3)]
    videos = videos_of([frame(n, points[int(n[-5])]) for n in names], "f")
    assert [(video.name, video.numbers) for video in videos] == [
        (f"vid{v}", [0, 1, 2]) for v in range(40)
    ]
    (one,) = videos_of([frame(f"frames/{t}/img.png", p) for t, p in enumerate(points)], "f")
    assert one.numbers == [0, 1, 2]


def test_numbers_of_times_longer_than_64_bits_count_from_the_first():
    points = walk(frames=4)
    for digits in (18, 19, 20, 30, 60):
        names = [f"{10**digits + t}.jpg" for t in (0, 1, 3)]
        (one,) = videos_of(
            [frame(n, points[t]) for n, t in zip(names, (0, 1, 3), strict=True)], "f"
        )
        assert [len(people) for people in one.people] == [1, 1, 0, 1]
        assert max(one.numbers) < 2**63
