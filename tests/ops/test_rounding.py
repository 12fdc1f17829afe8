"""The stand-in for a GPU's coarser products."""

from __future__ import annotations

import pytest
import torch

from benchmarks.accuracy.rounding import RoundedProducts, bf16, tf32
from ites import ops


def test_tf32_keeps_ten_bits() -> None:
    exact = torch.tensor([1.0, 1 + 2**-10, -3.0, 0.0, 2.0**100])
    assert torch.equal(tf32(exact), exact)
    assert tf32(torch.tensor(1 + 2**-11)) == 1 + 2**-10  # a half goes away from zero
    assert tf32(torch.tensor(1 + 2**-11 - 2**-20)) == 1
    assert tf32(torch.tensor(-1 - 2**-11)) == -1 - 2**-10


@pytest.mark.parametrize(("precision", "rounded"), [("tf32", tf32), ("bf16", bf16)])
def test_products_are_rounded_forward_and_backward(precision: str, rounded) -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(5, 5, generator=generator) for _ in range(2))
    x = a.clone().requires_grad_()
    with RoundedProducts(precision):
        y = x @ b
        y.backward(torch.ones(5, 5))
    after = rounded if precision == "bf16" else lambda product: product
    torch.testing.assert_close(y.detach(), after(rounded(a) @ rounded(b)), rtol=1e-7, atol=1e-7)
    assert not torch.equal(y.detach(), a @ b)
    gradient = after(torch.ones(5, 5) @ rounded(b).T)
    torch.testing.assert_close(x.grad, gradient, rtol=1e-7, atol=1e-7)


def test_our_own_products_are_rounded_too() -> None:
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(*shape, generator=generator) for shape in ((40, 5), (3, 5)))
    x.requires_grad_()
    with RoundedProducts("tf32"):
        y = ops.linear(x, weight)
        y.backward(torch.ones(40, 3))
    torch.testing.assert_close(y.detach(), tf32(x.detach()) @ tf32(weight).T)
    assert not torch.equal(y.detach(), ops.linear(x.detach(), weight))
    torch.testing.assert_close(x.grad, torch.ones(40, 3) @ tf32(weight))


def test_what_is_no_float32_product_is_left_alone() -> None:
    a = torch.arange(4.0, dtype=torch.float64).reshape(2, 2) / 3
    with RoundedProducts("bf16"):
        assert torch.equal(a @ a, torch.mm(a, a)) and torch.equal((a + a), 2 * a)
        product = a @ a
    assert torch.equal(product, a @ a)
