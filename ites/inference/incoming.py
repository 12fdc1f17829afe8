"""Frames of a stream as a detector gives them: their joints, and whether they can be right."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import Tensor

from ites.data.checks import check
from ites.data.clips import Clip, Clips
from ites.data.findings import refuse
from ites.ops.frame import mapped_joints
from ites.pose.layouts import joints_of, recipes, to_human36m
from ites.pose.skeleton import Skeleton

CHECKED = 8, 64
"""Number of frames after which a stream is checked for the first time and for the last."""
OF_A_FRAME = {"jump", "outlier", "guessed", "swapped-sides"}
"""Codes of findings about single frames; a stream has more of these later on."""


class ToHuman36m:
    """Maps keypoints of another layout to Human3.6M's 17 joints, on a device.

    The same map as `ites.pose.layouts.convert`, for `ites.ops.frame_points`.

    Args:
        layout: see `ites.pose.layouts.joints_of`.
        device: of the keypoints.

    Raises:
        ItesError: there is no such layout.

    Attributes: `joints`, the names of the layout's joints; `weights`, see `ites.ops.frame_points`.
    """

    def __init__(self, layout: str, device: torch.device) -> None:
        self.joints = joints_of(layout)
        of_joints = recipes(self.joints, layout)
        weights = torch.zeros(max(map(len, of_joints)), len(of_joints), len(self.joints))
        for joint, choices in enumerate(of_joints):
            for rank, choice in enumerate(choices):
                for name, weight in choice.items():
                    weights[rank, joint, self.joints.index(name)] = weight
        self.weights = weights.to(device)

    def __call__(self, keypoints: Tensor) -> Tensor:
        """(B, K, 2), nan where a joint is missing, to (B, 17, 2), nan where none can be derived."""
        return mapped_joints(keypoints, self.weights)


class FirstFrames:
    """Checks the first frames of a stream by `ites.data.checks.check`.

    Args:
        skeleton: of the model.
        layout: of the frames; None: the skeleton's order.
    """

    def __init__(self, skeleton: Skeleton, layout: str | None) -> None:
        self.skeleton, self.layout = skeleton, layout
        self._frames: list[np.ndarray] = []
        self._warned: set[str] = set()
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
            if finding.severity == "warning" and finding.code not in self._warned | OF_A_FRAME:
                self._warned.add(finding.code)
                hint = "; Lifter(layout=...) names another order" if finding.code == "order" else ""
                warnings.warn(f"Lifter.lift: {finding.message}{hint}", stacklevel=4)
