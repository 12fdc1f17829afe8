"""Pose data: the pose store, and one reader per file format."""

from ites.data.store import PoseStore, PoseStoreWriter, Sequence

__all__ = ["PoseStore", "PoseStoreWriter", "Sequence"]
