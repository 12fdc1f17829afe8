"""Readers of 2D keypoints: one file per format; `read` recognises a file by its content."""

from ites.data.readers.options import ReadOptions
from ites.data.readers.read import read
from ites.data.readers.recording import Recording, Source

__all__ = ["ReadOptions", "Recording", "Source", "read"]
