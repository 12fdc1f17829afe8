"""Plausibility of a person's motion: implausible frames are dropped and reported."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ites.data.store import LARGEST_POSE, SMALLEST_PERSON
from ites.errors import ItesError

SIZES = (0.1, 10.0)
"""Range of a pose's largest extent along an axis in metres."""
FARTHEST = 1000.0
"""Maximum distance in metres of a root from the clip's median root."""
PIXELS = 1e6
"""Maximum distance of a keypoint from the image's corner."""
NAMED = 5
"""Frames named in a message."""

Say = Callable[[str], None]


def sound_frames(
    where: str,
    positions: NDArray[np.floating] | None,
    keypoints: NDArray[np.floating] | None = None,
    *,
    say: Say = print,
    first: int = 0,
) -> NDArray[np.bool_]:
    """Which frames of a clip are plausible; a line names the others.

    A frame is sound when its values are finite and its largest extent lies within `SIZES`. Its root
    must lie within `FARTHEST` of the clip's median root, and its keypoints within `PIXELS`. The
    median extent of sound frames must be a person's, so that feet or centimetres are refused.

    Args:
        where: the file and the location in it.
        positions: (T, J, 3), metres, the root first; or None.
        keypoints: (T, J, 2), pixels; or None.
        say: prints a line.
        first: the number of the first frame: 0 in arrays, 1 in files that number their frames.

    Returns:
        (T,) bool.

    Raises:
        ItesError: no frame is sound, or the person has another size.
    """
    known = [array for array in (positions, keypoints) if array is not None]
    finite = np.logical_and.reduce([np.isfinite(array).all((1, 2)) for array in known])
    sound = finite.copy()
    sizes = np.zeros(0)
    with np.errstate(all="ignore"):
        if positions is not None and finite.any():
            extent = np.ptp(positions[finite].astype(np.float64), axis=1).max(-1)
            sizes = extent
            roots = positions[finite][:, 0].astype(np.float64)
            away = np.abs(roots - np.median(roots, axis=0)).max(-1)
            fits = (extent >= SIZES[0]) & (extent <= SIZES[1]) & (away <= FARTHEST)
            sound[finite] &= fits
            median = float(np.median(extent[fits])) if fits.any() else SMALLEST_PERSON
            if not SMALLEST_PERSON <= median <= LARGEST_POSE:
                raise ItesError(
                    f"{where}: expected a person of {SMALLEST_PERSON:g} to {LARGEST_POSE:g} m, got "
                    f"one of {median:.3g} m in {int(fits.sum())} frames: another unit"
                )
        if keypoints is not None:
            sound &= ~(np.abs(keypoints) > PIXELS).any((1, 2))
    if sound.all() and len(sound):
        return sound
    count = len(sound)
    if not sound.any():
        if not finite.any():
            raise ItesError(f"{where}: expected finite numbers, got none in {count} frames")
        size = f", got one of {np.median(sizes):.3g} m" if len(sizes) else ""
        raise ItesError(
            f"{where}: expected a person of {SIZES[0]:g} to {SIZES[1]:g} m within an image{size} "
            f"in {count} frames"
        )
    for bad, why in ((~finite, "not finite"), (finite & ~sound, "no place of a person")):
        if bad.any():
            frames = np.flatnonzero(bad) + first
            more = ", ..." if len(frames) > NAMED else ""
            shown = ", ".join(map(str, frames[:NAMED]))
            say(
                f"{where}: {len(frames)} of {count} frames left out, {why}: frame {shown}{more} "
                f"(the first is {first})"
            )
    return sound
