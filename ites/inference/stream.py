"""Low-latency lifting of a stream of frames."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from threading import Lock
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ites import ops
from ites.data.readers.options import as_array, check_options
from ites.errors import ItesError
from ites.inference.incoming import FirstFrames, ToHuman36m
from ites.inference.network import PRECISIONS
from ites.inference.size import body_size_of
from ites.models import fold_norms
from ites.ops.frame import robust_window_mean
from ites.pose.camera import HEAD_DISTANCE
from ites.pose.geometry import DISTANCE
from ites.pose.skeleton import HUMAN36M, root_relative
from ites.runs.checkpoint import load_model
from ites.runs.packaged import run_or_packaged
from ites.system.arguments import checked
from ites.system.arithmetic import arithmetic
from ites.system.graphs import launch_on, record
from ites.system.ranks import Ranks, pick_device

REMEMBERED = 10_000
"""Number of calls in the latency statistics."""

WINDOW = 1024
"""Number of frames in the mean size."""

Frame = TypeVar("Frame", NDArray[np.floating], Tensor)


class Lifter:
    """Lifts a stream of frames with a trained model.

        lifter = Lifter(layout="coco17", image_size=(1280, 720))    # or Lifter("runs/mine", ...)
        for keypoints in camera:                  # (17, 3), pixels and confidence
            positions = lifter.lift(keypoints)    # (17, 3), metres
        print(lifter.latency())

    `ites.inference.lift.lift` computes two values over a whole clip: the factor to metres and,
    without a focal length, the size of the person in the image. Here both are robust means over the
    last `WINDOW` frames. So the size of the first frames of a clip may differ from that of a lifted
    file. That of the last frame of a clip of at most `WINDOW` frames is within 0.5%, and within 2%
    where `bone` is given. The camera is taken as level: the roll of a clip is not searched.

    With a known camera, that is a focal length and an image size or principal point, a model of
    recipe "upright" turns each frame's lines of sight onto the optical axis and the pose back.

    The first frames are checked by `ites.data.checks`: another order of joints, units that are not
    pixels, a picture that lies on its side.

    Threads may share a lifter: their frames are lifted one after another, as of one stream. Streams
    of several people need a lifter each, because the mean size is one person's; `copy.deepcopy`
    copies one.

    On CUDA the computation per frame is one captured graph, replayed from fixed buffers.

    Args:
        run: a run folder or a checkpoint; None: the general model of the package, if it has one.
        stage: "teacher" or "student"; None: the checkpoint's own kind; from a folder the student,
            or else the teacher.
        layout: the joints of a frame and their order, one of `ites.pose.layouts.LAYOUTS` or a TOML
            file; they are mapped to Human3.6M's. None: the joints of the run's skeleton.
        min_confidence: joints with less confidence count as missing.
        focal_length: (fx, fy) or one number, pixels. None: the camera is unknown. A model of recipe
            "paper" then scales people to the training size by their mean root-to-head distance,
            as one of recipe "upright" always does.
        image_size: (width, height), pixels; its centre is the principal point.
        principal_point: (cx, cy), pixels.
        body_size, height, bone: what makes metres; see `ites.inference.lift.lift`.
        device: "cpu", "cuda", ...; None: a GPU if available.
        precision: of matrix products: "float32", "tf32" (on a GPU) or "bf16".

    Raises:
        ItesError: the checkpoint is invalid, or an argument is out of range.

    Attributes: `skeleton`, of the lifted poses; `joints`, the names of a frame's joints; `device`.
    """

    @checked("Lifter")
    def __init__(
        self,
        run: str | os.PathLike[str] | None = None,
        *,
        stage: str | None = None,
        layout: str | None = None,
        min_confidence: float = 0.1,
        focal_length: float | tuple[float, float] | None = None,
        image_size: tuple[int, int] | None = None,
        principal_point: tuple[float, float] | None = None,
        body_size: float | None = None,
        height: float | None = None,
        bone: Mapping[str, float] | None = None,
        device: str | None = None,
        precision: str = "float32",
    ) -> None:
        if principal_point is not None and not np.all(np.isfinite(principal_point)):
            raise ItesError(f"Lifter: principal_point must be finite, got {principal_point}")
        check_options(
            "Lifter", image_size, min_confidence=min_confidence, focal_length=focal_length
        )
        if precision not in PRECISIONS:
            raise ItesError(
                f"Lifter: precision must be one of {', '.join(PRECISIONS)}, got {precision!r}"
            )
        self.device = pick_device(device or "auto", Ranks.here())
        model, metadata = load_model(run_or_packaged(run), stage, self.device)
        self.skeleton = model.skeleton
        self._to_skeleton = ToHuman36m(layout, self.device) if layout is not None else None
        if layout is not None and self.skeleton != HUMAN36M:
            raise ItesError(
                f"Lifter: layout {layout} is mapped to {HUMAN36M.name}, but the model lifts "
                f"{self.skeleton.name}"
            )
        self.joints = self._to_skeleton.joints if self._to_skeleton else self.skeleton.joints
        self.min_confidence = min_confidence
        self._first = FirstFrames(self.skeleton, layout)
        self.precision = precision
        self.size = body_size_of(self.skeleton, body_size, height, bone, "Lifter")
        self._pose = fold_norms(model.float(), PRECISIONS[precision]).pose
        self._masked = model.masks
        self._factor: Tensor | None = None  # from pixels to network units
        self._camera: Tensor | None = None  # focal length and principal point, if known
        if focal_length is not None and not model.upright:
            factors = metadata.scale / np.broadcast_to(np.asarray(focal_length, np.float32), 2)
            self._factor = torch.tensor(factors, dtype=torch.float32, device=self.device)
        if image_size is not None and principal_point is None:
            principal_point = image_size[0] / 2, image_size[1] / 2
        if focal_length is not None and principal_point is not None and model.upright:
            camera = np.stack([np.broadcast_to(focal_length, 2), principal_point])
            self._camera = torch.tensor(camera, dtype=torch.float32, device=self.device)
        parents, joints = zip(*self.skeleton.bones, strict=True)
        self._bones = torch.tensor([joints, parents], device=self.device)
        self._weights = self._bone_weights()
        self._sizes = torch.full((2, WINDOW), torch.nan, device=self.device)  # newest last
        self._steps: dict[int, tuple[Tensor, Callable[[], Tensor]]] = {}
        self._lock = Lock()
        self._seconds: deque[float] = deque(maxlen=REMEMBERED)

    @torch.inference_mode()
    def lift(self, frame: Frame) -> Frame:
        """Lift one frame or a batch of frames.

        Args:
            frame: (K, 2), (K, 3), (B, K, 2) or (B, K, 3), numpy or tensor on any device; pixels, x
                right, y down, and confidence, of the joints `joints`. A frame with a missing joint
                results in nan; a model of recipe general completes it, but for a frame without any
                joint or without the root. A joint is missing if it is not finite, masked, far from
                the body, not sure enough, or exactly at (0, 0) or (-1, -1); a lone origin amid the
                others is not.

        Returns:
            (J, 3) or (B, J, 3) float32, of the same kind and on the same device: metres, camera
            axes (x right, y down, z forward), relative to the root joint of `skeleton`.

        Raises:
            ValueError: the shape is wrong.
            ImplausibleError: the first frames cannot be right.

        Warns:
            UserWarning: the first frames are probably wrong.
        """
        if isinstance(frame, Tensor):
            given = frame
        else:
            given = torch.from_numpy(as_array("Lifter.lift", frame).astype(np.float32))
        joints = len(self.joints)
        if given.ndim not in (2, 3) or given.shape[-2] != joints or given.shape[-1] not in (2, 3):
            raise ValueError(
                f"Lifter.lift: frame must have shape ({joints}, 2) or (B, {joints}, 2), with the "
                f"confidence ({joints}, 3) or (B, {joints}, 3), got {tuple(given.shape)}"
            )
        batch = given.reshape(-1, *given.shape[-2:])
        with self._lock:
            lifted = self._lifted(batch)
        lifted = lifted.to(given.device).reshape(*given.shape[:-1], 3)
        return lifted if isinstance(frame, Tensor) else lifted.numpy()

    def _lifted(self, batch: Tensor) -> Tensor:
        """Lift (B, K, 2) or (B, K, 3) to (B, J, 3), a tensor of its own."""
        if not self._first.done:
            self._first.add(batch)
        seen = ~_placeholders(batch[..., :2])
        if batch.shape[-1] == 3:
            seen &= batch[..., 2] >= max(self.min_confidence, torch.finfo(torch.float32).tiny)
        batch = batch[..., :2].where(seen[..., None], torch.nan)
        keypoints, run = self._steps.get(len(batch)) or self._prepare(len(batch))
        start = time.perf_counter()
        keypoints.copy_(batch)
        result = run()
        with torch.inference_mode(False):  # a copy that the caller owns
            lifted = result.to(batch.device, copy=True)
        if lifted.is_cuda:
            torch.cuda.synchronize(lifted.device)
        self._seconds.append(time.perf_counter() - start)
        return lifted

    def __getstate__(self) -> dict[str, Any]:
        """All but the buffers and graphs, which belong to one object: a copy makes its own."""
        return {**vars(self), "_steps": {}, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=Lock())

    def latency(self) -> dict[str, float]:
        """The latency from a frame to its pose over the last calls, milliseconds.

        Returns:
            `calls`, their number, and `p50`, `p90`, `p99`, `max`; nan before the first call. The
            setup in the first call with a new number of frames is excluded.
        """
        spent = 1e3 * np.array(self._seconds or [np.nan])
        p50, p90, p99 = (float(p) for p in np.percentile(spent, (50, 90, 99)))
        return {
            "calls": len(self._seconds),
            "p50": p50,
            "p90": p90,
            "p99": p99,
            "max": float(spent.max()),
        }

    def reset(self) -> None:
        """Discard the past frames before a new clip, whose first frames are checked again."""
        self._sizes.fill_(torch.nan)
        self._first = FirstFrames(self.skeleton, self._first.layout)

    def _step(self, keypoints: Tensor) -> Tensor:
        """(B, K, 2) pixels to (B, J, 3) metres, on the device, without synchronisation."""
        root, head = self.skeleton.root, self.skeleton.head
        layout = None if self._to_skeleton is None else self._to_skeleton.weights
        sizes, lengths = self._sizes
        if self._camera is None:
            given = {"sizes": sizes} if self._factor is None else {"factor": self._factor}
            points = ops.frame_points(
                keypoints, root, head, layout=layout, length=HEAD_DISTANCE, **given
            )
            pose = self._pose(points)
            if self._masked:  # of no joint at all, or beside an unknown root, it makes up a pose
                known = points.isfinite().flatten(1).any(1)
                pose = pose.where(known[:, None, None], torch.nan)
        else:
            keypoints = ops.frame_points(keypoints, root, head, layout=layout)
            rays = (keypoints - self._camera[1]) / self._camera[0]
            turns = _axis_turn(rays[:, root])
            points = _turn_points(rays, turns)
            factor = HEAD_DISTANCE / robust_window_mean(sizes, points[:, head].norm(dim=-1))
            pose = root_relative(self._pose(points * factor), root)
            depth = pose[..., 2:]
            away = (DISTANCE + depth / factor) / (DISTANCE + depth).clamp(min=1)
            pose = torch.cat([pose[..., :2] * away, depth], dim=-1) @ turns.mT
        return ops.frame_metres(
            pose,
            self._bones,
            self._weights,
            lengths,
            root,
            head,
            metres=sum(m for _, m in self.size.bones) if self.size.bones else self.size.metres,
        )

    def _bone_weights(self) -> Tensor | None:
        """The weight of each bone in the given length: of a group's bones their mean counts."""
        if not self.size.bones:
            return None
        order = [joint for _, joint in self.skeleton.bones]
        weights = [0.0] * len(order)
        for ends, _ in self.size.bones:
            for joint in ends:
                weights[order.index(joint)] += 1 / len(ends)
        return torch.tensor(weights, device=self.device)

    def _prepare(self, size: int) -> tuple[Tensor, Callable[[], Tensor]]:
        """A buffer for a number of frames and the function that lifts it; captured on CUDA."""
        keypoints = torch.zeros(size, len(self.joints), 2, device=self.device)
        sizes = self._sizes.clone()

        def run() -> Tensor:
            return self._step(keypoints)

        with arithmetic(self.precision):
            if self.device.type == "cuda":
                run = _captured(run, self.device)
            else:
                for _ in range(3):
                    run()
        self._sizes.copy_(sizes)
        self._steps[size] = keypoints, run
        return self._steps[size]


def _placeholders(points: Tensor) -> Tensor:
    """Joints (B, K) of frames (B, K, 2) that stand for joints not found; see `lift`."""
    zero = (points == 0).all(-1)
    around = points.where(points.isfinite(), 0)
    amid = ((around.amin(1) < 0) & (around.amax(1) > 0)).all(-1) & (zero.sum(1) == 1)
    return zero & ~amid[:, None] | (points == -1).all(-1)


# The next two functions repeat `ites.pose.camera` in torch. Those are float64 numpy, once per clip.
# These are float32 on the device, where a CUDA graph captures them. The bits differ.
def _axis_turn(points: Tensor) -> Tensor:
    """`ites.pose.camera.axis_turn` of lines of sight (B, 2): (B, 3, 3), on their device."""
    x, y = points.unbind(-1)
    pan, tilt = x.atan(), torch.atan2(y, (1 + x.square()).sqrt())
    cx, sx, cy, sy = pan.cos(), pan.sin(), tilt.cos(), tilt.sin()
    rows = [cx, -sx * sy, sx * cy, 0 * x, cy, sy, -sx, -cx * sy, cx * cy]
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))


def _turn_points(points: Tensor, turns: Tensor) -> Tensor:
    """`ites.pose.camera.turn_points` of (B, J, 2) on their device."""
    rays = torch.nn.functional.pad(points, (0, 1), value=1.0) @ turns
    limit = 0.1 * rays.norm(dim=-1, keepdim=True)
    return rays[..., :2] / torch.maximum(rays[..., 2:], limit)


def _captured(function: Callable[[], Tensor], device: torch.device) -> Callable[[], Tensor]:
    """Capture the function as a CUDA graph; every call returns the same tensor."""
    with torch.cuda.device(device):
        stream = torch.cuda.Stream()
        for _ in range(3):
            launch_on(stream, device, function)
        graph, result = record(function)

    def replay() -> Tensor:
        graph.replay()
        return result

    return replay
