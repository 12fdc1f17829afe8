"""The clips of a training split: the number of frames per clip."""

from __future__ import annotations

from ites.data.store import PoseStore


def clip_lengths(store: PoseStore, split: str, missing: str) -> list[int]:
    """Frames per clip among the rows that `store.points(split, missing=missing)` returns."""
    clips = store.sequences_of(split)
    if missing != "drop":
        return [clip.length for clip in clips]
    kept = store.complete(split)
    return [count for clip in clips if (count := int(kept[clip.rows].sum()))]
