"""Principal components of 2D poses."""

from __future__ import annotations

import torch
from torch import Tensor


def principal_components(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The principal components of rows (N, C), N at least 2.

    Returns:
        The mean (C,); the variances (C,), ascending; the axes (C, C), one per column.
    """
    mean = rows.mean(0)
    covariance = (rows - mean).T @ (rows - mean) / (len(rows) - 1)
    variance, axes = torch.linalg.eigh(covariance)
    return mean, variance, axes
