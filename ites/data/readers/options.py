"""The options of reading a file of keypoints, and their ranges."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ites.data.readers.recording import LARGEST
from ites.errors import ItesError
from ites.pose.skeleton import HUMAN36M, Skeleton


@dataclass(frozen=True)
class ReadOptions:
    """What a caller states about a file of keypoints; it overrides the file.

    Attributes:
        layout: the order of the joints, one of `ites.pose.layouts.LAYOUTS`; None: derived from the
            format or the number of joints. A plain array of matching size has `skeleton`'s order.
        image_size: (width, height), pixels; required for normalised coordinates.
        fps: frames per second.
        person: the track id or number of the only person to read; None: all people.
        min_confidence: joints with less confidence count as missing; None: the detector's
            `MIN_CONFIDENCE`.
        skeleton: the skeleton of the clips if the file contains its joints.
    """

    layout: str | None = None
    image_size: tuple[int, int] | None = None
    fps: float | None = None
    person: str | int | None = None
    min_confidence: float | None = None
    skeleton: Skeleton = HUMAN36M

    def refuse_for_store(self, path: Path, skeleton: Skeleton) -> None:
        """Refuse what has no effect on a pose store of this skeleton.

        Raises:
            ItesError: an option chooses among a detector's results, or names another order of
                joints than the store's own.
        """
        for name in ("person", "min_confidence"):
            value = getattr(self, name)
            if value is not None:
                raise ItesError(
                    f"{path}: {name} chooses among a detector's results; a pose store has none, "
                    f"got {value!r}"
                )
        if self.layout is not None and self.layout != skeleton.name:
            raise ItesError(
                f"{path}: a pose store keeps its order of joints, {skeleton.name}; got layout "
                f"{self.layout}"
            )


def as_array(who: str, keypoints: object) -> NDArray[Any]:
    """Keypoints that a program gives, as an array; nan where a masked array is masked.

    Args:
        who: names the function in an error.
        keypoints: an array of numpy, also a masked one, a tensor on any device, or lists of
            numbers.

    Raises:
        ItesError: they are nothing of the kind.
    """
    if isinstance(keypoints, Tensor):
        keypoints = keypoints.detach().cpu()
        keypoints = keypoints.float() if keypoints.dtype == torch.bfloat16 else keypoints
    if isinstance(keypoints, np.ma.MaskedArray):
        keypoints = np.ma.filled(keypoints.astype(np.result_type(keypoints, np.float32)), np.nan)
    with suppress(ValueError, TypeError):
        array = np.asarray(keypoints)
        if array.ndim and array.dtype.kind in "fiu":
            return array
    of = "lists" if isinstance(keypoints, list | tuple) else type(keypoints).__name__
    raise ItesError(
        f"{who}: expected a file of keypoints or an array of numbers, (N, J, 2) or (N, J, 3), "
        f"got {of}"
    )


def check_options(
    who: str,
    image_size: tuple[int, int] | None = None,
    fps: float | None = None,
    min_confidence: float | None = None,
    focal_length: float | tuple[float, float] | None = None,
) -> None:
    """Refuse numbers that no camera and no detector has.

    Args:
        who: names the caller, for the message.
        image_size: (width, height), pixels.
        fps: frames per second.
        min_confidence: 0..1.
        focal_length: pixels, (fx, fy) or one number for both.

    Raises:
        ItesError: one of them is out of range.
    """
    focal = focal_length if isinstance(focal_length, tuple) else (focal_length,)
    for name, value in (("fps", fps), *(("focal_length", one) for one in focal)):
        if value is not None and not 0 < value < float("inf"):
            raise ItesError(f"{who}: {name} must be positive and finite, got {value}")
    if fps is not None and not 1 / LARGEST <= fps < LARGEST:
        raise ItesError(f"{who}: fps must be from {1 / LARGEST:g} to {LARGEST:g}, got {fps:g}")
    for one in focal:
        if one is not None and not 1 <= one < LARGEST:
            raise ItesError(
                f"{who}: focal_length must be from 1 to {LARGEST:g} pixels, got {one:g}"
            )
    if image_size is not None and not all(1 <= side < LARGEST for side in image_size):
        raise ItesError(
            f"{who}: image_size must be width and height in pixels, from 1 to {LARGEST:g}, got "
            f"{' '.join(map(str, image_size))}"
        )
    if min_confidence is not None and not 0 <= min_confidence <= 1:
        raise ItesError(f"{who}: min_confidence must lie in 0..1, got {min_confidence:g}")
