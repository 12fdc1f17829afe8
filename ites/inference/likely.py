"""How likely 2D poses are by a run's prior, for `ites.data.checks`."""

from __future__ import annotations

import os

import numpy as np
import torch
from numpy.typing import NDArray

from ites.data.checks import Density
from ites.errors import ItesError
from ites.models import Prior
from ites.pose.skeleton import Skeleton
from ites.runs.checkpoint import load_prior
from ites.runs.folder import RunFolder
from ites.runs.packaged import FOLDER


def density_by(prior: Prior, device: torch.device | str = "cpu") -> Density:
    """The log density (N,), nats, of 2D poses (N, J, 2), network units, by a prior."""

    @torch.inference_mode()
    def density(points: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(-prior(torch.from_numpy(points).to(device)).cpu().numpy())

    return density


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
    if skeleton is not None and prior.skeleton.parents != skeleton.parents:
        if run is None:
            return None
        raise ItesError(
            f"{run}: expected a prior of {skeleton.name}, got one of {prior.skeleton.name}"
        )
    return density_by(prior)
