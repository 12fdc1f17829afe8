"""What a caller of `lift` asks for, by subject: the file, its camera, the form of the poses.

Each part refuses impossible values and lists what identifies the work for `ites.system.parts`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ites.data.corrections import Corrections
from ites.data.keypoint_reader import KeypointReader
from ites.data.readers.options import check_options
from ites.errors import ItesError
from ites.inference.network import Network
from ites.pose.skeleton import Skeleton
from ites.pose.smoothing import SMOOTHERS
from ites.system.files import stamp

FARTHEST_CENTRE = 1e6
"""Pixels."""
UPS = ("camera", "gravity")


@dataclass(frozen=True)
class Source:
    """The file of keypoints, and how to read it; see `ites.inference.lift.lift`."""

    keypoints: str | os.PathLike[str]
    split: str | None
    layout: str | None
    person: str | int | None
    min_confidence: float | None
    corrections: Corrections | None
    image_size: tuple[int, int] | None

    def check(self, fps: float | None, focal_length: float | tuple[float, float] | None) -> None:
        """Refuse numbers that no camera and no detector has."""
        check_options("lift", self.image_size, fps, self.min_confidence, focal_length)

    def open(self, skeleton: Skeleton) -> KeypointReader:
        """A reader of the file.

        Raises:
            ItesError: the file is invalid, or its poses are not of the model's skeleton.
        """
        reader = KeypointReader(
            self.keypoints,
            skeleton,
            self.split,
            self.layout,
            image_size=self.image_size,
            person=self.person,
            min_confidence=self.min_confidence,
            corrections=self.corrections,
        )
        if difference := skeleton.difference(reader.skeleton):
            reader.__exit__()
            raise ItesError(
                f"{self.keypoints}: the model lifts {skeleton.name}, got {reader.skeleton.name}: "
                f"{difference}"
            )
        return reader

    def request(self) -> dict[str, Any]:
        """What identifies the file and its reading."""
        return {
            "keypoints": [str(self.keypoints), *stamp(self.keypoints)],
            "split": self.split,
            "layout": self.layout,
            "person": None if self.person is None else str(self.person),
            "min_confidence": self.min_confidence,
            "corrections": asdict(self.corrections or Corrections()),
        }


@dataclass(frozen=True)
class GivenCamera:
    """What the caller states about the camera; see `ites.inference.lift.lift`."""

    focal_length: float | tuple[float, float] | None
    field_of_view: float | None
    image_size: tuple[int, int] | None
    fps: float | None
    principal_point: tuple[float, float] | None
    roll: float | None

    def check(self) -> None:
        """Refuse angles and places that no camera has."""
        if self.roll is not None and not -180 <= self.roll <= 180:
            raise ItesError(f"lift: roll must lie between -180 and 180 degrees, got {self.roll}")
        centre = self.principal_point
        if centre is not None and not np.all(np.abs(centre) < FARTHEST_CENTRE):
            raise ItesError(f"lift: principal_point must be two numbers of pixels, got {centre}")

    def request(self, corrections: Corrections | None) -> dict[str, Any]:
        """The arguments of `ites.inference.assume.assume_camera`, after the corrections."""
        size = self.image_size
        turned = corrections is not None and corrections.rotate % 180 == 90
        return {
            "focal_length": self.focal_length,
            "field_of_view": self.field_of_view,
            "image_size": size[::-1] if size and turned else size,
            "fps": self.fps,
            "principal_point": self.principal_point,
        }


@dataclass(frozen=True)
class Form:
    """The form of the poses: axes, sequences, rating; see `ites.inference.lift.lift`."""

    up: str
    floor: bool
    temporal: bool | None
    smooth: str | None
    trust: bool

    def check_axes(self) -> None:
        """Refuse axes that no output has."""
        if self.up not in UPS:
            raise ItesError(f"lift: up must be one of {', '.join(UPS)}, got {self.up!r}")
        if self.floor and self.up != "gravity":
            raise ItesError("lift: floor needs up 'gravity', got up 'camera'")
        if self.up == "gravity" and not self.trust:
            raise ItesError("lift: up 'gravity' needs trust, which finds the camera's elevation")

    def check_smooth(self) -> None:
        """Refuse a filter that there is not."""
        if self.smooth is not None and self.smooth not in SMOOTHERS:
            raise ItesError(
                f"lift: smooth must be one of {', '.join(SMOOTHERS)}, got {self.smooth!r}"
            )

    def check_network(self, run: Path, network: Network) -> None:
        """Refuse gravity's axes where nothing finds the camera's elevation."""
        if self.up == "gravity" and network.judge is None:
            raise ItesError(
                f"{run}: up 'gravity' needs the camera's elevation: a run folder of recipe upright "
                "or general with teacher, prior and odds"
            )

    def whole(self, timed: Sequence[bool], fps: float | None) -> list[bool]:
        """Whether each clip is lifted as a whole: as asked, or where its frame rate is known."""
        if self.temporal is not None:
            return [self.temporal] * len(timed)
        return [known or fps is not None for known in timed]

    def request(self, whole: Sequence[bool]) -> dict[str, Any]:
        """What identifies axes and sequences."""
        return {
            "up": self.up,
            "floor": self.floor,
            "temporal": all(whole) if all(whole) == any(whole) else None,
            "smooth": self.smooth,
        }
