"""Evaluation of a model during training; it does not change the training."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ites.data.store import PoseStore, TurnedViews
from ites.evaluation.evaluate import figures, truth
from ites.pose.skeleton import Skeleton
from ites.runs.checkpoint import Model
from ites.runs.settings import Settings

FIGURES = (
    "scaled_mpjpe_oracle",
    "p_mpjpe_oracle",
    "scaled_mpjpe",
    "p_mpjpe",
    "n_mpjpe",
    "wrong_sign",
)
"""The metrics (see `ites.pose.metrics.pose_errors`): millimetres, and a percentage."""


class Evaluator:
    """Computes the errors of a model on one split, averaged over its poses.

    Args:
        points: (N, J, 2) the networks' input.
        positions: (N, J, 3) metres, camera frame.
        skeleton: of the poses.
        device: where the model is.
        views: how to turn lifted poses back; None: not at all.
    """

    def __init__(
        self,
        points: NDArray[np.float32],
        positions: NDArray[np.float32],
        skeleton: Skeleton,
        device: torch.device,
        views: TurnedViews | None = None,
    ) -> None:
        self.points, self.positions, self.views = points, positions, views
        self.skeleton, self.device = skeleton, device

    @classmethod
    def of(
        cls, store: PoseStore, settings: Settings, scale: float, device: torch.device
    ) -> Evaluator | None:
        """The evaluator that the settings select; None if they select none.

        Args:
            store: a pose store with 3D.
            settings: `evaluate_every`, `evaluate_split`, `evaluate_scale`, `missing`,
                `cameras`.
            scale: the training split's.
            device: where the model is.

        Raises:
            ItesError: the store has no 3D or no such split.
        """
        return cls.on(store, settings, scale, device) if settings.evaluate_every else None

    @classmethod
    def on(
        cls, store: PoseStore, settings: Settings, scale: float, device: torch.device
    ) -> Evaluator:
        """The evaluator on the split `evaluate_split`; see `of`."""
        split = settings.evaluate_split
        own = None if settings.evaluate_scale == "split" else scale
        positions = truth(store, split, settings.missing)
        turned = settings.cameras == "turned"
        points, _, views = store.input_points(split, own, settings.missing, turned)
        return cls(points, positions, store.skeleton, device, views)

    @torch.no_grad()
    def __call__(self, model: Model) -> dict[str, float]:
        """Compute the metrics by name, in millimetres and percent."""
        dtype = next(model.parameters()).dtype

        def lift(points: Tensor) -> Tensor:
            return model.pose(points.to(dtype)).float()

        training = model.training
        model.eval()
        measured = figures(
            lift, self.points, self.positions, self.skeleton, device=str(self.device),
            views=self.views,
        )  # fmt: skip
        model.train(training)
        return {name: measured[name] for name in FIGURES}
