"""Elements farther apart than 32 bits count: rows, columns, masks, gradients.

Memory is claimed for all that lies between, but on a CPU the system gives only the
pages that a test touches.
"""

import pytest
import torch

from tilebook.softmax import log_softmax, softmax

pytestmark = pytest.mark.large

FAR = 2**31 + 16


def apart(shape, strides, device, dtype=torch.bfloat16):
    """A tensor of these strides, with numbers in it."""
    last = sum((size - 1) * step for size, step in zip(shape, strides, strict=True))
    x = torch.empty(last + 1, dtype=dtype, device=device).as_strided(shape, strides)
    x.copy_(torch.randn(shape, device=device) > 0 if dtype == torch.bool else 0)
    return x if dtype == torch.bool else x.copy_(torch.randn(shape, device=device))


def assert_same(out, x, dim=-1):
    wanted = torch.softmax(x.double(), dim)
    torch.testing.assert_close(out.double(), wanted, rtol=2**-7, atol=1e-6)


@pytest.mark.parametrize("n", [64, 2048, 2049], ids=["several", "fused", "ragged"])
def test_rows(n, device):
    x = apart((2, n), (FAR + n % 16, 1), device)
    assert_same(softmax(x), x)


def test_matrices_of_columns(device):
    x = apart((2, 8, 16), (FAR, 16, 1), device)
    assert_same(softmax(x, 1), x, 1)


def test_elements_of_a_masked_row(device):
    x = apart((2, 64), (1, FAR // 63 + 1), device)
    mask = torch.rand(2, 64, device=device) > 0.3
    assert_same(softmax(x, mask=mask), x.masked_fill(~mask, -torch.inf))


def test_elements_of_a_mask(device):
    x = torch.randn(2, 64, dtype=torch.bfloat16, device=device)
    mask = apart((2, 64), (1, FAR // 63 + 1), device, torch.bool)
    assert_same(softmax(x, mask=mask), x.masked_fill(~mask, -torch.inf))


@pytest.mark.parametrize("fn", [softmax, log_softmax])
def test_rows_of_a_gradient_that_arrives(fn, device):
    x = torch.randn(2, 64, dtype=torch.bfloat16, device=device, requires_grad=True)
    grad = apart((2, 64), (FAR, 1), device)
    (dx,) = torch.autograd.grad(fn(x), x, grad)
    (same,) = torch.autograd.grad(fn(x), x, grad.contiguous())
    assert torch.equal(dx, same)
