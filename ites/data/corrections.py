"""Corrections of keypoints in wrong image axes: rotation, vertical flip, exchange of sides.

Each takes a clip and returns a new one; image axes are x right, y down. If the image size is
unknown, the edges are 0 and the farthest visible keypoint, so coordinates stay positive.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ites.data.clips import Clip
from ites.errors import ItesError
from ites.pose.skeleton import Skeleton

TURNS = (0, 90, 180, 270)
"""Allowed rotations of an image in degrees."""


@dataclass(frozen=True)
class Corrections:
    """Corrections of keypoints after reading, applied in this order.

    Attributes:
        flip_y: y pointed up: see `flip_y`.
        rotate: degrees clockwise: see `rotate`.
        swap_sides: left was right: see `swap_sides`.

    Raises:
        ItesError: `rotate` is none of `TURNS`.
    """

    flip_y: bool = False
    rotate: int = 0
    swap_sides: bool = False

    def __post_init__(self) -> None:
        if self.rotate not in TURNS:
            raise ItesError(f"rotate must be one of 0, 90, 180, 270 degrees, got {self.rotate}")

    def __bool__(self) -> bool:
        return self.flip_y or self.rotate != 0 or self.swap_sides

    def __call__(self, clip: Clip, skeleton: Skeleton) -> Clip:
        """The clip, corrected.

        Raises:
            ItesError: the clip has 3D poses, which match the uncorrected keypoints.
        """
        if self and (clip.positions is not None or clip.truth is not None):
            raise ItesError(f"{clip.name}: keypoints with 3D poses beside them are not turned")
        if self.flip_y:
            clip = flip_y(clip)
        if self.rotate:
            clip = rotate(clip, self.rotate)
        return swap_sides(clip, skeleton) if self.swap_sides else clip

    def lines(self) -> list[str]:
        """Descriptions of the corrections, one per line."""
        return [
            *(["y flipped: it pointed up"] if self.flip_y else []),
            *([f"image turned by {self.rotate} degrees clockwise"] if self.rotate else []),
            *(["left and right exchanged"] if self.swap_sides else []),
        ]


def flip_y(clip: Clip) -> Clip:
    """Correct a clip whose y pointed up: `y' = height - y`.

    Args:
        clip: keypoints (T, J, 2), pixels; y may be negative throughout, for example if negated.

    Returns:
        The clip; missing joints stay 0.
    """
    _, height = _edges(clip)
    x, y = clip.keypoints[..., 0], clip.keypoints[..., 1]
    negative = _seen_max(clip, 1) <= 0
    if clip.principal_point is not None and not negative:
        cx, cy = clip.principal_point
        clip = replace(clip, principal_point=(cx, height - cy))
    return _placed(clip, x, (0.0 if negative else height) - y)


def rotate(clip: Clip, degrees: int) -> Clip:
    """Rotate a clip's image clockwise, as displayed, by 90, 180 or 270 degrees.

    By 90: `(x', y') = (height - y, x)`; width and height, and fx and fy, are exchanged.

    Args:
        clip: keypoints (T, J, 2), pixels.
        degrees: one of `TURNS`.

    Raises:
        ItesError: `degrees` is another angle.
    """
    if degrees not in TURNS:
        raise ItesError(f"rotate must be one of 0, 90, 180, 270 degrees, got {degrees}")
    if degrees == 0:
        return clip
    width, height = _edges(clip)
    x, y = clip.keypoints[..., 0], clip.keypoints[..., 1]
    if clip.principal_point is not None:
        cx, cy = clip.principal_point
        moved = {90: (height - cy, cx), 180: (width - cx, height - cy), 270: (cy, width - cx)}
        clip = replace(clip, principal_point=moved[degrees])
    if degrees == 180:
        return _placed(clip, width - x, height - y)
    turned = _placed(clip, height - y, x) if degrees == 90 else _placed(clip, y, width - x)
    size, focal = clip.image_size, clip.focal_length
    return replace(
        turned,
        image_size=None if size is None else (size[1], size[0]),
        focal_length=None if focal is None else (focal[1], focal[0]),
    )


def swap_sides(clip: Clip, skeleton: Skeleton) -> Clip:
    """Exchange left and right joints of a clip: `keypoints[:, mirror]`, confidences alike."""
    order = list(skeleton.mirror)
    confidence = None if clip.confidence is None else clip.confidence[:, order]
    return replace(clip, keypoints=clip.keypoints[:, order], confidence=confidence)


def _seen(clip: Clip) -> NDArray[np.bool_]:
    seen: NDArray[np.bool_] = np.all(np.isfinite(clip.keypoints), axis=-1)
    return seen if clip.confidence is None else seen & (clip.confidence > 0)


def _seen_max(clip: Clip, axis: int) -> float:
    return float(clip.keypoints[..., axis].max(where=_seen(clip), initial=-np.inf))


def _edges(clip: Clip) -> tuple[float, float]:
    """Width and height of the image, or else the keypoints' extent."""
    if clip.image_size is not None:
        return float(clip.image_size[0]), float(clip.image_size[1])
    reach = [_seen_max(clip, axis) for axis in (0, 1)]
    return tuple(max(0.0, r) if np.isfinite(r) else 0.0 for r in reach)  # type: ignore[return-value]


def _placed(clip: Clip, x: NDArray[Any], y: NDArray[Any]) -> Clip:
    points = np.stack([x, y], axis=-1).astype(clip.keypoints.dtype)
    return replace(clip, keypoints=np.where(_seen(clip)[..., None], points, clip.keypoints))
