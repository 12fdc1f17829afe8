"""The joined weights of graph layers."""

from __future__ import annotations

import pytest
import torch
from op_contract import device_of, relative_error, require

from ites import ops

C, M = 12, 6
SHAPES = ((2, C, C), (C,), (M, C), (M,), (M, C), (M,), (M, C), (M,), (2, M))


def layers(count, dtype, device):
    generator = torch.Generator().manual_seed(2)
    return [
        [
            torch.randn(shape, generator=generator, dtype=torch.float64)
            .to(device, dtype)
            .requires_grad_()
            for shape in SHAPES
        ]
        for _ in range(count)
    ]


def differentiated(given, backend):
    """The joined tensors, and the gradients of their sum weighted by fixed numbers."""
    joined = [t for layer in ops.join_graph_layers(given, backend) for t in layer]
    generator = torch.Generator().manual_seed(5)
    weights = [torch.randn(t.shape, generator=generator).to(t) for t in joined]
    total = sum((t * w).sum() for t, w in zip(joined, weights, strict=True))
    return joined, torch.autograd.grad(total, [t for layer in given for t in layer])


@pytest.mark.parametrize("backend", ("cpp", "cuda", "triton"))
@pytest.mark.parametrize("count", (1, 3, 17))
def test_matches_reference(backend, count):
    require(backend, "join_graph_layers")
    ours = differentiated(layers(count, torch.float32, device_of(backend)), backend)
    exact = differentiated(layers(count, torch.float64, "cpu"), "reference")
    for left, right in zip(ours, exact, strict=True):
        for a, b in zip(left, right, strict=True):
            assert relative_error(a, b) < 1e-5


def test_columns_of_the_projection():
    ((weight, bias, g, g_bias, theta, theta_bias, phi, phi_bias, affinity),) = layers(
        1, torch.float64, "cpu"
    )
    projection, joined, v = ops.join_graph_layers(
        [(weight, bias, g, g_bias, theta, theta_bias, phi, phi_bias, affinity)], "reference"
    )[0]
    assert projection.shape == (C, 40)  # 37 columns, rounded up
    x = torch.randn(5, C, dtype=torch.float64)
    columns = x @ projection
    u = affinity[0]
    expected = [x @ weight[0], x @ weight[1], x @ g.T, x @ phi.T, (x @ theta.T @ u)[:, None]]
    torch.testing.assert_close(columns[:, :37], torch.cat(expected, 1))
    assert not columns[:, 37:].any()
    kappa = u @ theta_bias + affinity[1] @ phi_bias
    torch.testing.assert_close(joined, torch.cat([bias, g_bias, kappa[None]]))
    assert torch.equal(v, affinity[1])


def test_refusals():
    (layer,) = layers(1, torch.float32, "cpu")
    assert ops.join_graph_layers([]) == []
    with pytest.raises(ValueError, match=r"theta_weight must have shape \(6, 12\), got \(12, 12\)"):
        ops.join_graph_layers([[*layer[:4], layer[0][0], *layer[5:]]])
    with pytest.raises(ValueError, match="expected conv_weight, .*, affinity of a layer, got 8"):
        ops.join_graph_layers([layer[:8]])
    with pytest.raises(TypeError, match="affinity must be torch.float32 on cpu like conv_weight"):
        ops.join_graph_layers([[*layer[:8], layer[8].double()]])
