"""Findings of `ites.data.checks`: their codes and messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ites.errors import ItesError

Severity = Literal["note", "warning", "error"]
NO_FRAMES: NDArray[np.intp] = np.zeros(0, np.intp)


@dataclass(frozen=True, eq=False)
class Finding:
    """One thing that is unlikely or impossible.

    Attributes:
        code: names the kind of fault; `CODES` lists them.
        severity: "error": cannot be right; "warning": probably wrong; "note": worth knowing.
        message: what was found, with counts; complete without context.
        data: the figures that it is concluded from.
        clip: the clip's name.
        frames: the frames concerned, ascending; empty where it is all or none.
    """

    code: str
    severity: Severity
    message: str
    data: Mapping[str, Any] = field(default_factory=dict)
    clip: str = ""
    frames: NDArray[np.intp] = field(default_factory=lambda: NO_FRAMES)

    def plain(self) -> dict[str, Any]:
        """All of it but the frames, for JSON; `Finding(**plain)` makes it again."""
        names = ("code", "severity", "message", "data", "clip")
        return {name: getattr(self, name) for name in names}


class ImplausibleError(ItesError):
    """Keypoints that cannot be right.

    Attributes: `finding`, what is wrong with them.
    """

    def __init__(self, where: object, finding: Finding) -> None:
        super().__init__(f"{where}: {finding.message}")
        self.finding = finding


CODES = {
    "degenerate": "all keypoints of a person lie in one point or on one line",
    "depth": "the third column is no confidence",
    "confidence": "confidences that vary as a depth does, or that are low throughout",
    "normalised": "coordinates divided by the image's width and height",
    "units": "coordinates in metres, millimetres or another unit that is not pixels",
    "zeros": "joints at exactly (0, 0) or (-1, -1), which stand for joints not found",
    "order": "the joints are in another order than stated",
    "image-size": "keypoints outside the image",
    "clipped": "joints outside the image that were moved to its edge",
    "stretched": "x and y are at different scales",
    "box": "coordinates relative to a box that follows the person",
    "repeated": "frames that repeat the one before, or joints that stay while the body moves",
    "rate": "a frame rate that no camera has",
    "focal-length": "a focal length that no camera has",
    "upside-down": "the person is upside down",
    "sideways": "the person lies on the side",
    "roll": "the image is tilted",
    "swapped-sides": "left and right of some joints exchanged in some frames",
    "mirrored": "left and right exchanged throughout",
    "mirrored-limbs": "left and right of some joints exchanged throughout",
    "crossed-limbs": "limbs crossed, or left and right of some joints exchanged throughout",
    "jump": "the clip goes from one person or scene to another",
    "outlier": "a joint far from the body",
    "guessed": "a joint of low confidence far from the body",
    "density": "the poses resemble none that the model was trained on",
}
"""What each code means."""


def refuse(findings: Sequence[Finding], clips: int, where: object) -> list[Finding]:
    """Raise if no clip can be right.

    Args:
        findings: of all of them.
        clips: how many there are.
        where: the file, for the message.

    Returns:
        The findings; errors of some clips among others become warnings.

    Raises:
        ImplausibleError: every clip has an error.
    """
    wrong = [finding for finding in findings if finding.severity == "error"]
    if wrong and len({finding.clip for finding in wrong}) >= clips:
        raise ImplausibleError(where, wrong[0])
    return [replace(f, severity="warning") if f.severity == "error" else f for f in findings]


class Summary:
    """Findings of clips that come in portions, joined by code and severity.

    It keeps one finding of a kind, so it does not grow with the number of clips.
    """

    def __init__(self) -> None:
        self._kinds: dict[tuple[str, str], tuple[Finding, int]] = {}

    def add(self, findings: Sequence[Finding]) -> None:
        """Add the findings of a portion; no clip may be in two portions."""
        clips: dict[tuple[str, str], set[str]] = {}
        for finding in findings:
            kind = (str(finding.severity), finding.code)
            clips.setdefault(kind, set()).add(finding.clip)
            self._kinds.setdefault(kind, (finding, 0))
        for kind, names in clips.items():
            first, count = self._kinds[kind]
            self._kinds[kind] = first, count + len(names)

    def findings(self) -> list[Finding]:
        """One of each kind, the worst first; its message counts the other clips."""
        order = {"error": 0, "warning": 1, "note": 2}
        joined = []
        for first, count in sorted(self._kinds.values(), key=lambda item: order[item[0].severity]):
            others = count - 1
            more = f"; also in {others:,} other clip{'s' * (others > 1)}" if others else ""
            of = f"{first.clip}: " if first.clip else ""
            joined.append(replace(first, message=of + first.message + more))
        return joined


def summarise(findings: Sequence[Finding]) -> list[Finding]:
    """Join findings of one code and severity; the first one's message counts the other clips."""
    summary = Summary()
    summary.add(findings)
    return summary.findings()


def listed(names: Sequence[str], most: int = 4) -> str:
    """Names in words: "left_knee, left_ankle, ..."; at most so many."""
    return ", ".join([*names[:most], *(["..."] if len(names) > most else [])])


def ranges(frames: NDArray[np.intp], most: int = 6) -> str:
    """Frames in words: "40-45, 80-82"; at most so many ranges."""
    breaks = np.flatnonzero(np.diff(frames) > 1) + 1
    parts = [
        f"{part[0]}-{part[-1]}" if len(part) > 1 else f"{part[0]}"
        for part in np.split(frames, breaks)
        if len(part)
    ]
    return ", ".join([*parts[:most], *(["..."] if len(parts) > most else [])])
