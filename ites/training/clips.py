"""The clips of a training split: which of its rows are frames of one."""

from __future__ import annotations

from ites.data.store import PoseStore


def clip_lengths(store: PoseStore, split: str, missing: str) -> list[int]:
    """Frames of each clip among the rows that `store.points(split, missing=missing)` gives."""
    clips = store.sequences_of(split)
    if missing != "drop":
        return [clip.length for clip in clips]
    kept = store.complete(split)
    return [count for clip in clips if (count := int(kept[clip.rows].sum()))]
