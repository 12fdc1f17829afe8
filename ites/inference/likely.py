"""How likely 2D poses are by a run's prior, for `ites.data.checks`."""

from __future__ import annotations

import os

import numpy as np
import torch
from numpy.typing import NDArray

from ites.data.checks import DENSITY_FLOOR, Density
from ites.errors import ItesError
from ites.models import GeneralPrior, Prior
from ites.pose.skeleton import Skeleton
from ites.runs.checkpoint import load_prior
from ites.runs.folder import RunFolder
from ites.runs.packaged import FOLDER

GENERAL_FLOOR = -90.0
"""Nats, for a prior of recipe general: clips of CMU with 10 px of noise have -85 or more."""


class PriorDensity:
    """The log density (N,), nats, of 2D poses (N, J, 2), network units, by a prior.

    Attributes:
        floor: nats; a clip whose median is less resembles nothing that the prior has learned.
    """

    def __init__(self, prior: Prior, device: torch.device | str = "cpu") -> None:
        self.prior, self.device = prior, device
        self.floor = GENERAL_FLOOR if isinstance(prior, GeneralPrior) else DENSITY_FLOOR

    @torch.inference_mode()
    def __call__(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(-self.prior(torch.from_numpy(points).to(self.device)).cpu().numpy())


def density_by(prior: Prior, device: torch.device | str = "cpu") -> PriorDensity:
    """The log density of 2D poses by a prior."""
    return PriorDensity(prior, device)


def density_of(
    run: str | os.PathLike[str] | None = None, skeleton: Skeleton | None = None
) -> Density | None:
    """The density by the prior of a run.

    Args:
        run: a run folder or the file of a prior; None: the general model of the package.
        skeleton: of the poses; None: any.

    Returns:
        The density. None if no run is given, and the package has no prior of this skeleton.

    Raises:
        ItesError: the run has no prior, or its skeleton is another.
    """
    if run is None and not RunFolder(FOLDER).weights("prior").is_file():
        return None
    prior = load_prior(FOLDER if run is None else run).float()
    if skeleton is not None and (difference := skeleton.difference(prior.skeleton)):
        if run is None:
            return None
        raise ItesError(
            f"{run}: expected a prior of {skeleton.name}, got one of {prior.skeleton.name}: "
            f"{difference}"
        )
    return density_by(prior)
