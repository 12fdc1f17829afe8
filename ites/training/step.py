"""One step of training, and its recording as a CUDA graph."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ites.errors import ItesError
from ites.models.layers import BatchNormReLU
from ites.ops import RotationDraw
from ites.runs.settings import Settings
from ites.system.graphs import launch_on, record
from ites.system.ranks import Ranks
from ites.training.feed import Feed
from ites.training.schedule import StepShape
from ites.training.stages import Stage

# Running statistics need no copying: they are the same on all ranks, or rank 0's count.
_OPTIONS = inspect.signature(DistributedDataParallel.__init__).parameters
_SYNC_BUFFERS = (
    "forward_sync_buffers" if "forward_sync_buffers" in _OPTIONS else "broadcast_buffers"
)


class Clock:
    """The position of a training; it lies on the device, where each step reads and advances it.

    Attributes:
        counter: int64 (3,) of the rotations: seed, step, this rank's first pose in the batch.
        batch_index: int64 (1,): the batch's number in the chunk of the feed.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self._hands = torch.tensor([seed, 0, 0, 0], device=device)
        self._tick = torch.tensor([0, 1, 0, 1], device=device)
        self.counter, self.batch_index = self._hands[:3], self._hands[3:]
        self.step, self.first_pose = self._hands[1:2], self._hands[2:3]

    def advance(self) -> None:
        """Advance by one step."""
        self._hands.add_(self._tick)


class Step:
    """One step: gather, draw, losses, backward pass, optimiser, counters.

    Args:
        stage: model and losses.
        feed: of batches, at the clock's batch index.
        optimiser: of the model.
        clock: of the training.
        recent: (steps, losses): row `step % steps` receives the mean losses of the global batch.
        ranks: each takes its share of the batch; the gradient is that of the global batch.
    """

    def __init__(
        self,
        stage: Stage,
        feed: Feed,
        optimiser: torch.optim.Optimizer,
        clock: Clock,
        recent: Tensor,
        ranks: Ranks,
    ) -> None:
        self.feed, self.optimiser, self.clock, self.recent = feed, optimiser, clock, recent
        self.ranks, self.device, settings = ranks, recent.device, stage.settings
        self.rotations = RotationDraw(
            clock.counter, settings.samples, axes=settings.axes, max_angle=settings.max_angle
        )
        self.half = settings.precision == "bf16"
        self.grad_clip, self.weights = settings.grad_clip, list(stage.model.parameters())
        self.losses: nn.Module = stage
        if ranks.distributed:
            for module in stage.modules():
                if isinstance(module, BatchNormReLU):
                    module.synchronised = settings.batch_statistics == "global"
            options: dict[str, Any] = {"gradient_as_bucket_view": True, _SYNC_BUFFERS: False}
            self.losses = DistributedDataParallel(stage, **options)

    def __call__(self, shape: StepShape) -> None:
        """Take a step."""
        share = self.ranks.share(shape.size)
        poses = share.stop - share.start
        if self.ranks.distributed:
            self.clock.first_pose.fill_(share.start)
        batch = self.feed.batch(poses)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            losses = self.losses(batch, self.rotations, shape.early)
        total, means = losses[0], torch.stack(losses).detach()
        if self.ranks.distributed:
            part = poses / shape.size
            total = total * (part * self.ranks.count)  # the ranks' gradients are averaged
            means = means * part if poses else torch.zeros_like(means)
            dist.all_reduce(means)
        total.backward()
        if self.grad_clip:
            nn.utils.clip_grad_norm_(self.weights, self.grad_clip)
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.recent.index_copy_(0, self.clock.step % len(self.recent), means[None].to(self.recent))
        self.clock.advance()


Steps = Callable[[StepShape, int], int]
"""Takes steps of one shape, at most as many as allowed; returns their number."""


def one_by_one(step: Step) -> Steps:
    """Takes steps one by one, launched by the host."""

    def take(shape: StepShape, most: int) -> int:
        step(shape)
        return 1

    return take


def steps_for(step: Step, settings: Settings, say: Callable[[str], None]) -> Steps:
    """Choose how steps run: as CUDA graphs if enabled and possible, else one by one.

    Args:
        step: the step to run.
        settings: `capture` and `capture_steps`.
        say: prints why steps are not captured.

    Raises:
        ItesError: capture is required but not possible.
    """
    wanted, ranks = settings.capture, step.ranks
    possible = step.device.type == "cuda" and not ranks.distributed
    if wanted == "on" and not possible:
        raise ItesError(
            "capture: expected a GPU and a single process for steps as CUDA graphs, got "
            f"{step.device} and {ranks.count}",
            code="capture",
        )
    if not possible or wanted == "off":
        return one_by_one(step)
    return Captured(step, settings.capture_steps, say if wanted == "auto" else None)


class Captured:
    """Steps as CUDA graphs: the first steps of each shape run directly, the others are replayed.

    Args:
        step: the step to record.
        block: steps per graph, if that many are allowed.
        say: prints the reason if steps cannot be recorded and run one by one; None: raise an
            error instead.

    Raises:
        ItesError: steps cannot be recorded.
    """

    WARM_UP = 3  # steps per shape before recording: libraries load, buffers are allocated

    def __init__(self, step: Step, block: int, say: Callable[[str], None] | None = None) -> None:
        self.step, self.block, self.say = step, block, say
        self._refused = False
        self._launched: Counter[StepShape] = Counter()
        self._graphs: dict[tuple[StepShape, int], torch.cuda.CUDAGraph] = {}
        self._pool = torch.cuda.graph_pool_handle()
        self._side = torch.cuda.Stream(step.device)

    def __call__(self, shape: StepShape, most: int) -> int:
        """Take one step, or a block of steps if `most` allows it; return the number taken."""
        if self._refused or self._launched[shape] < self.WARM_UP:
            self._launched[shape] += 1
            self._launch(shape)
            return 1
        count = self.block if most >= self.block else 1
        if (shape, count) not in self._graphs:
            try:
                self._graphs[shape, count] = self._record(shape, count)
            except RuntimeError as error:
                self._refuse(str(error).splitlines()[0])
                return self(shape, most)
        self._graphs[shape, count].replay()
        return count

    def _launch(self, shape: StepShape) -> None:
        """Run a step on a side stream, as the later recording does."""
        launch_on(self._side, self.step.device, lambda: self.step(shape))

    def _refuse(self, reason: str) -> None:
        if self.say is None:
            raise ItesError(f"capture: steps cannot be recorded as a CUDA graph: {reason}")
        self._refused = True
        self.step.optimiser.zero_grad()
        self.say(f"steps are launched one by one: no CUDA graph could be recorded ({reason})")

    def _record(self, shape: StepShape, count: int) -> torch.cuda.CUDAGraph:
        """Record a graph of steps without running them. All graphs share one memory pool."""
        groups = self.step.optimiser.param_groups

        def steps() -> None:
            for _ in range(count):
                self.step(shape)

        for group in groups:
            group["capturable"] = True  # Adam needs the flag; its fused kernel is always capturable
        try:
            graph, _ = record(steps, pool=self._pool, stream=self._side)
        finally:
            for group in groups:
                group["capturable"] = False  # otherwise Adam warns at every uncaptured step
        return graph
