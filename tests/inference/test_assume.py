"""What is kept of the assumptions about many portions of clips."""

import pickle

from ites.data.findings import Finding
from ites.inference.assume import MOST_NOTES, AllAssumed, Assumed, Note


def of_portion(number: int) -> Assumed:
    """Notes and a finding of one clip, and a note that every clip has."""
    notes = [Note("size", "size by the clip"), Note("swapped", f"clip {number}: sides swapped")]
    finding = Finding("jump", "warning", "jumps", {"jumps": 8}, f"clip {number}")
    return Assumed(notes, filled=2, findings=[finding.plain()])


def assumed_of(portions: int) -> AllAssumed:
    assumed = AllAssumed()
    for number in range(portions):
        assumed.add(of_portion(number))
    return assumed


def test_few_clips_keep_all_notes_and_findings() -> None:
    assumed = assumed_of(3)
    texts = [note.text for note in assumed.all_notes()]
    swapped = [f"clip {number}: sides swapped" for number in range(3)]
    filled = "6 missing joints filled in, linearly in time"
    assert texts == ["size by the clip", *swapped, filled]
    (finding,) = assumed.findings()
    assert finding.message == "clip 0: jumps; also in 2 other clips"


def test_of_many_clips_the_number_is_reported_and_memory_does_not_grow() -> None:
    assumed = assumed_of(1000)
    notes = assumed.all_notes()
    assert sum(note.code == "swapped" for note in notes) == MOST_NOTES + 1
    assert f"{1000 - MOST_NOTES} more notes of swapped, left out" in [note.text for note in notes]
    (finding,) = assumed.findings()
    assert finding.message == "clip 0: jumps; also in 999 other clips"
    sizes = {count: len(pickle.dumps(vars(assumed_of(count)))) for count in (1000, 9000)}
    assert sizes[9000] - sizes[1000] < 20
