"""Pose data: the store that everything reads, and one reader for each file format."""

from ites.data.store import PoseStore, PoseStoreWriter, Sequence

__all__ = ["PoseStore", "PoseStoreWriter", "Sequence"]
