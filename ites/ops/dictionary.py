"""The pose dictionary: from coefficients to a posed, projected, compared skeleton in one pass."""

from __future__ import annotations

import torch
from torch import Tensor

from ites.ops._registry import (
    define,
    differentiate,
    expect,
    expect_alike,
    expect_finite,
    expect_multiple,
    full_precision,
)
from ites.ops.backends import choose
from ites.pose import geometry


def _reconstruct(coefficients: Tensor, dictionary: Tensor, mean: Tensor) -> Tensor:
    with torch.autocast(coefficients.device.type, enabled=False):
        return torch.addmm(mean, coefficients, dictionary).unflatten(-1, (-1, 3))


def _expect_dictionary(op: str, coefficients: Tensor, dictionary: Tensor, mean: Tensor) -> None:
    expect(op, "coefficients", coefficients, "B", "K")
    expect(op, "dictionary", dictionary, coefficients.shape[1], "3 J")
    expect(op, "mean", mean, dictionary.shape[1])
    if dictionary.shape[1] % 3 or not dictionary.shape[1]:
        raise ValueError(f"{op}: dictionary must be (K, 3 J), got {tuple(dictionary.shape)}")


def dictionary_reprojection(
    coefficients: Tensor,
    dictionary: Tensor,
    mean: Tensor,
    rotation_vector: Tensor,
    target: Tensor,
    distance: float = geometry.DISTANCE,
    backend: str | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Poses from a dictionary, turned to the camera, projected and compared, in one pass.

    canonical `S = coefficients @ dictionary + mean`; camera frame `C = S @ so3_exp(w)`;
    error `mean over joints of |project(C) - target|`.

    Args:
        coefficients: (B, K), a.
        dictionary: (K, 3 J), joint-major: columns 3 j + (0, 1, 2) are joint j.
        mean: (3 J,), the mean pose.
        rotation_vector: (B, 3), w, radians.
        target: (B, J, 2), the centred 2D input; a constant.
        distance: c of `ites.pose.geometry.project`.
        backend: see `ites.ops.backends`.

    Returns:
        error (B,), canonical pose (B, J, 3), camera-frame pose (B, J, 3), network units. The mean
        of `error` is the reprojection loss.

    Raises:
        ValueError, TypeError: a shape or dtype does not fit, or the target wants a gradient.

    Source: docs/method.md, 3.2.
    """
    op = "dictionary_reprojection"
    coefficients, dictionary, mean, rotation_vector, target = full_precision(
        coefficients, dictionary, mean, rotation_vector, target
    )
    _expect_dictionary(op, coefficients, dictionary, mean)
    expect(op, "rotation_vector", rotation_vector, coefficients.shape[0], 3)
    expect(op, "target", target, coefficients.shape[0], len(mean) // 3, 2)
    expect_alike(
        op,
        coefficients=coefficients,
        dictionary=dictionary,
        mean=mean,
        rotation_vector=rotation_vector,
        target=target,
    )
    expect_finite(op, "distance", distance)
    if target.requires_grad:
        raise ValueError(f"{op}: target is a constant and takes no gradient; detach it")
    chosen = choose(op, coefficients.device.type, coefficients.dtype, backend)
    if chosen == "reference":
        canonical = _reconstruct(coefficients, dictionary, mean)
        camera = canonical @ geometry.so3_exp(rotation_vector)
        offset = geometry.project(camera, distance) - target
        return torch.linalg.vector_norm(offset, dim=-1).mean(-1), canonical, camera
    return _dictionary_reprojection(
        coefficients.contiguous(),
        dictionary.contiguous(),
        mean.contiguous(),
        rotation_vector.contiguous(),
        target.contiguous(),
        distance,
        chosen,
    )


_dictionary_reprojection = define(
    "dictionary",
    "dictionary_reprojection(Tensor coefficients, Tensor dictionary, Tensor mean, "
    "Tensor rotation_vector, Tensor target, float distance) -> (Tensor, Tensor, Tensor)",
    lambda coefficients, dictionary, mean, rotation_vector, target, distance: (
        target.new_empty(target.shape[0]),
        target.new_empty(target.shape[0], target.shape[1], 3),
        target.new_empty(target.shape[0], target.shape[1], 3),
    ),
)
_dictionary_reprojection_backward = define(
    "dictionary",
    "dictionary_reprojection_backward(Tensor? grad_error, Tensor? grad_canonical, "
    "Tensor? grad_camera, Tensor coefficients, Tensor dictionary, Tensor mean, "
    "Tensor rotation_vector, Tensor target, float distance) -> (Tensor, Tensor, Tensor, Tensor)",
    lambda grad_error, grad_canonical, grad_camera, *inputs: tuple(
        tensor.new_empty(tensor.shape) for tensor in inputs[:4]
    ),
)
differentiate(
    "dictionary_reprojection",
    lambda inputs, output: (list(inputs[:5]), inputs[5:]),
    lambda saved, constants, *grads: (
        *_dictionary_reprojection_backward(
            *(None if g is None else g.contiguous() for g in grads), *saved, *constants
        ),
        None,
        None,
    ),
)


def invariance_distance(
    coefficients: Tensor,
    dictionary: Tensor,
    mean: Tensor,
    canonical: Tensor,
    backend: str | None = None,
) -> Tensor:
    """Distance between the canonical poses of rotated views and the original canonical pose.

    `mean over joints of |coefficients @ dictionary + mean - canonical[b]|`, the reconstructed
    poses never written to memory.

    Args:
        coefficients: (n * B, K), of the rotated views, sample-major.
        dictionary: (K, 3 J).
        mean: (3 J,).
        canonical: (B, J, 3), network units.
        backend: see `ites.ops.backends`.

    Returns:
        (n * B,), network units. Its mean is the cycle loss.

    Raises:
        ValueError, TypeError: a shape or dtype does not fit.

    Source: docs/method.md, 3.3.
    """
    op = "invariance_distance"
    coefficients, dictionary, mean, canonical = full_precision(
        coefficients, dictionary, mean, canonical
    )
    _expect_dictionary(op, coefficients, dictionary, mean)
    expect(op, "canonical", canonical, "B", len(mean) // 3, 3)
    expect_alike(
        op, coefficients=coefficients, dictionary=dictionary, mean=mean, canonical=canonical
    )
    poses = len(canonical)
    expect_multiple(op, "coefficients", coefficients, poses)
    chosen = choose(op, coefficients.device.type, coefficients.dtype, backend)
    if chosen == "reference":
        again = _reconstruct(coefficients, dictionary, mean)
        offset = again - canonical.repeat(len(again) // max(poses, 1), 1, 1)
        return torch.linalg.vector_norm(offset, dim=-1).mean(-1)
    return _invariance_distance(
        coefficients.contiguous(),
        dictionary.contiguous(),
        mean.contiguous(),
        canonical.contiguous(),
        chosen,
    )


_invariance_distance = define(
    "dictionary",
    "invariance_distance(Tensor coefficients, Tensor dictionary, Tensor mean, Tensor canonical) "
    "-> Tensor",
    lambda coefficients, *_: coefficients.new_empty(coefficients.shape[0]),
)
_invariance_distance_backward = define(
    "dictionary",
    "invariance_distance_backward(Tensor grad, Tensor coefficients, Tensor dictionary, "
    "Tensor mean, Tensor canonical) -> (Tensor, Tensor, Tensor, Tensor)",
    lambda grad, *inputs: tuple(tensor.new_empty(tensor.shape) for tensor in inputs),
)
differentiate(
    "invariance_distance",
    lambda inputs, output: (list(inputs[:4]), inputs[4]),
    lambda saved, backend, grad: _invariance_distance_backward(grad.contiguous(), *saved, backend),
)
