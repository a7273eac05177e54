"""Kernels as Inductor launches them: floats come in float64, ones as constants."""

import pytest
import torch
import triton
import triton.language as tl

from tilebook import compile_only
from tilebook.softmax import backward, backward_long, fused, online, split


@triton.jit
def fused_kernel(x_ptr, out_ptr, n, inverse_t, BLOCK: tl.constexpr):
    fused.softmax_kernel(
        x_ptr, out_ptr, n, n, inverse_t.to(tl.float64), 1, BLOCK, False, ""
    )  # fmt: skip


@triton.jit
def online_kernel(x_ptr, out_ptr, n, inverse_t, BLOCK: tl.constexpr):
    online.softmax_kernel(
        x_ptr, out_ptr, 1, n, n, inverse_t.to(tl.float64),
        1, 8, 8, BLOCK, True, True, True, True,
    )  # fmt: skip


@triton.jit
def partial_kernel(x_ptr, out_ptr, n, inverse_t, BLOCK: tl.constexpr):
    split.partial_kernel(
        x_ptr, out_ptr, n, n, 1, 1, inverse_t.to(tl.float64), 1, 1, 1, BLOCK, True
    )  # fmt: skip


@triton.jit
def finish_kernel(x_ptr, out_ptr, n, inverse_t, BLOCK: tl.constexpr):
    split.finish_kernel(
        x_ptr, out_ptr, out_ptr, n, n, 1, 1, inverse_t.to(tl.float64),
        8, 1, BLOCK, 16, True, False,
    )  # fmt: skip


@triton.jit
def tile_kernel(x_ptr, out_ptr, n, inverse_t, BLOCK: tl.constexpr):
    backward.tile_kernel(
        x_ptr, x_ptr, out_ptr, 1, n, n, inverse_t.to(tl.float64),
        1, 1, BLOCK, 2, True, "",
    )  # fmt: skip


@triton.jit
def long_kernel(x_ptr, out_ptr, n, inverse_t, BLOCK: tl.constexpr):
    backward_long.long_kernel(
        x_ptr, x_ptr, out_ptr, 1, n, n, inverse_t.to(tl.float64),
        1, 8, BLOCK, True, True, False,
    )  # fmt: skip


@pytest.mark.parametrize(
    "kernel",
    [
        fused_kernel,
        online_kernel,
        partial_kernel,
        finish_kernel,
        tile_kernel,
        long_kernel,
    ],
    ids=lambda kernel: kernel.fn.__name__,
)
def test_a_temperature_in_float64_changes_no_type(kernel):
    x = torch.empty(4096, device="meta")
    found = compile_only.compile(kernel, x, x, x.numel(), 0.5, BLOCK=1024)
    told = [line for line in found.ttir.splitlines() if "f64" in line]
    assert all("arith.extf" in line or "arith.truncf" in line for line in told)


def test_float64_is_kept_where_elements_are():
    x = torch.empty(4096, dtype=torch.float64, device="meta")
    found = compile_only.compile(fused_kernel, x, x, x.numel(), 0.5, BLOCK=1024)
    assert "xf64>" in found.ttir
