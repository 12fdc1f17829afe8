"""What a caller may say of a file of keypoints: the ranges of these numbers."""

from __future__ import annotations

from ites.data.readers.recording import LARGEST
from ites.errors import ItesError


def check_options(
    who: str,
    image_size: tuple[int, int] | None = None,
    fps: float | None = None,
    min_confidence: float | None = None,
    focal_length: float | None = None,
) -> None:
    """Refuse numbers that no camera and no detector has.

    Args:
        who: names the caller, for the message.
        image_size: (width, height), pixels.
        fps: frames per second.
        min_confidence: 0..1.
        focal_length: pixels.

    Raises:
        ItesError: one of them is out of range.
    """
    for name, value in (("fps", fps), ("focal_length", focal_length)):
        if value is not None and not 0 < value < float("inf"):
            raise ItesError(f"{who}: {name} must be positive and finite, got {value}")
    if focal_length is not None and not 1 <= focal_length < LARGEST:
        raise ItesError(
            f"{who}: focal_length must be from 1 to {LARGEST:g} pixels, got {focal_length:g}"
        )
    if image_size is not None and not all(1 <= side < LARGEST for side in image_size):
        raise ItesError(
            f"{who}: image_size must be width and height in pixels, from 1 to {LARGEST:g}, got "
            f"{' '.join(map(str, image_size))}"
        )
    if min_confidence is not None and not 0 <= min_confidence <= 1:
        raise ItesError(f"{who}: min_confidence must lie in 0..1, got {min_confidence:g}")
