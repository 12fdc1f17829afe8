"""Frames of a stream as a detector gives them: their joints, and whether they can be right."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import Tensor

from ites.data.checks import check
from ites.data.clips import Clip, Clips
from ites.data.findings import refuse
from ites.pose.layouts import joints_of, recipes, to_human36m
from ites.pose.skeleton import Skeleton

CHECKED = 8, 64
"""Number of frames after which a stream is checked for the first time and for the last."""
OF_A_FRAME = {"jump", "outlier", "guessed", "swapped-sides"}
"""Codes of findings about single frames; a stream has more of these later on."""


class ToHuman36m:
    """Maps keypoints of another layout to Human3.6M's 17 joints, on a device.

    The same map as `ites.pose.layouts.convert`. It copies nothing from the host, so a CUDA graph
    can contain it.

    Args:
        layout: see `ites.pose.layouts.joints_of`.
        device: of the keypoints.

    Raises:
        ItesError: there is no such layout.

    Attributes: `joints`, the names of the layout's joints.
    """

    def __init__(self, layout: str, device: torch.device) -> None:
        self.joints = joints_of(layout)
        of_joints = recipes(self.joints, layout)
        self._choices: list[tuple[Tensor, Tensor]] = []
        for rank in range(max(map(len, of_joints))):
            weights = torch.zeros(len(of_joints), len(self.joints))
            for row, choices in zip(weights, of_joints, strict=True):
                for name, weight in (choices[rank] if rank < len(choices) else {}).items():
                    row[self.joints.index(name)] = weight
            needed = weights != 0
            self._choices.append((weights.to(device), needed.to(device)))

    def __call__(self, keypoints: Tensor) -> Tensor:
        """(B, K, 2), nan where a joint is missing, to (B, 17, 2), nan where none can be derived."""
        seen = keypoints.isfinite().all(-1)
        there = keypoints.where(seen[..., None], torch.zeros_like(keypoints))
        found = keypoints.new_full((len(keypoints), len(self._choices[0][0]), 2), torch.nan)
        for weights, needed in reversed(self._choices):
            whole = (seen[:, None] | ~needed).all(-1) & needed.any(-1)
            sums = (weights[..., None] * there[:, None]).sum(2)
            found = torch.where(whole[..., None], sums, found)
        return found


class FirstFrames:
    """Checks the first frames of a stream by `ites.data.checks.check`.

    Args:
        skeleton: of the model.
        layout: of the frames; None: the skeleton's order.
    """

    def __init__(self, skeleton: Skeleton, layout: str | None) -> None:
        self.skeleton, self.layout = skeleton, layout
        self._frames: list[np.ndarray] = []
        self._told: set[str] = set()
        self._due = list(CHECKED)

    @property
    def done(self) -> bool:
        """Whether no further frames are checked."""
        return not self._due

    def add(self, frames: Tensor) -> None:
        """Add frames (B, K, 2), or (B, K, 3) with the confidence; check them when enough are there.

        Raises:
            ImplausibleError: they cannot be right, whatever follows.

        Warns:
            UserWarning: they are probably wrong, once for each kind of fault.
        """
        frames = frames[: self._due[-1]].float().cpu()
        if frames.shape[-1] == 2:  # all joints are sure
            frames = torch.nn.functional.pad(frames, (0, 1), value=1.0)
        self._frames += list(frames.numpy())
        if len(self._frames) < self._due[0]:
            return
        self._due = [count for count in self._due if count > len(self._frames)]
        array = np.stack(self._frames)
        keypoints = array[..., :2]
        confidence = array[..., 2] * np.isfinite(keypoints).all(-1)
        if self.layout is not None:
            keypoints = np.nan_to_num(keypoints)
            keypoints, confidence = to_human36m(keypoints, self.layout, confidence)
        clips = Clips(self.skeleton, [Clip("", keypoints, confidence=confidence)])
        findings = check(clips, raw=[array], layout=self.layout or self.skeleton.name)
        for finding in refuse(findings, 1, "Lifter.lift"):
            if finding.severity == "warning" and finding.code not in self._told | OF_A_FRAME:
                self._told.add(finding.code)
                mend = "; Lifter(layout=...) names another order" if finding.code == "order" else ""
                warnings.warn(f"Lifter.lift: {finding.message}{mend}", stacklevel=4)
