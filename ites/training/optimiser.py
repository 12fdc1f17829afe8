"""The optimisers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ites.runs.settings import Settings


def make_optimiser(
    model: nn.Module, settings: Settings, device: torch.device
) -> tuple[torch.optim.Optimizer, Tensor]:
    """Build SGD with momentum or Adam, and its learning rate: a scalar tensor on the device.

    A captured step reads the rate there. Its dtype is the one that the fused kernels require.
    """
    wide = torch.float32 if device.type == "cuda" else torch.float64
    rate = torch.tensor(settings.learning_rate, dtype=wide, device=device)
    fused, parameters = device.type in ("cpu", "cuda"), model.parameters()
    decay, momentum = settings.weight_decay, settings.momentum
    if settings.optimiser == "adam":
        betas = (momentum, 0.999)
        return torch.optim.Adam(parameters, rate, betas, weight_decay=decay, fused=fused), rate
    return torch.optim.SGD(parameters, rate, momentum, weight_decay=decay, fused=fused), rate
