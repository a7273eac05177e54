"""A product as one writes it for Hopper first, and ways of writing it that are mended.

Rows of `b` are columns of the product's second operand, as a layer's weight is stored.
ptxas may find that something else than `wgmma` writes to the sums while a `wgmma` is
under way. It says so in a remark, C7515, and makes each wait for the one before.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor


class Config(NamedTuple):
    """How a kernel is launched."""

    block_m: int = 128
    """Rows of a tile of the product."""
    block_n: int = 128
    """Columns of it."""
    block_k: int = 64
    """Terms that are loaded at a time."""
    num_warps: int = 8
    num_stages: int = 3


@triton.jit
def natural_kernel(
    a_desc, b_desc, out_desc, m, n, k, PEELED: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    tiles_n = tl.cdiv(n, BLOCK_N)
    start_m = tl.program_id(0) // tiles_n * BLOCK_M
    start_n = tl.program_id(0) % tiles_n * BLOCK_N
    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    first = 0
    if PEELED:
        a = a_desc.load([start_m, 0]).to(b_desc.dtype)  # (BLOCK_M, BLOCK_K)
        b = b_desc.load([start_n, 0])  # (BLOCK_N, BLOCK_K)
        acc = tl.dot(a, b.T)
        first = 1
    for step in range(first, tl.cdiv(k, BLOCK_K)):
        a = a_desc.load([start_m, step * BLOCK_K]).to(b_desc.dtype)
        b = b_desc.load([start_n, step * BLOCK_K])
        acc = tl.dot(a, b.T, acc)
    out_desc.store([start_m, start_n], acc.to(out_desc.dtype))


@triton.jit
def walking_kernel(
    a_desc, b_desc, out_desc, m, n, k, PEELED: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    tiles_n = tl.cdiv(n, BLOCK_N)
    tiles = tl.cdiv(m, BLOCK_M) * tiles_n
    for tile in tl.range(tl.program_id(0), tiles, tl.num_programs(0)):
        start_m, start_n = tile // tiles_n * BLOCK_M, tile % tiles_n * BLOCK_N
        acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
        for step in range(tl.cdiv(k, BLOCK_K)):
            a = a_desc.load([start_m, step * BLOCK_K]).to(b_desc.dtype)
            b = b_desc.load([start_n, step * BLOCK_K])
            acc = tl.dot(a, b.T, acc)
        out_desc.store([start_m, start_n], acc.to(out_desc.dtype))


class Form(NamedTuple):
    """A way of writing the product."""

    kernel: Any = natural_kernel
    peeled: bool = False
    """Whether the first step along k is before the loop."""
    config: Config = Config()


FORMS: Mapping[str, Form] = {
    "as one writes it": Form(),
    "the first step before the loop": Form(peeled=True),
    "BLOCK_K = 128": Form(config=Config(block_k=128, num_stages=2)),
    "four warps": Form(config=Config(num_warps=4)),
    "a loop over tiles around it": Form(walking_kernel),
}
"""The natural form and four that a mend was hoped of, one change in each."""


def launch(
    form: Form,
    a: torch.Tensor,
    b: torch.Tensor,
    out: torch.Tensor,
    wrap: Callable[[Any], Any] | None = None,
) -> None:
    """Launch a form.

    Args:
        form: one of `FORMS`, or another.
        a: matrix (m, k), contiguous; converted to the dtype of `b` after it is loaded.
        b: matrix (n, k), contiguous, of bfloat16 or float16.
        out: matrix (m, n), contiguous.
        wrap: makes of the kernel what is launched.
    """
    block_m, block_n, block_k, num_warps, num_stages = form.config
    (m, k), n = a.shape, b.shape[0]
    kernel = wrap(form.kernel) if wrap else form.kernel
    tiles = triton.cdiv(m, block_m) * triton.cdiv(n, block_n)
    kernel[(tiles,)](
        TensorDescriptor.from_tensor(a, [block_m, block_k]),
        TensorDescriptor.from_tensor(b, [block_n, block_k]),
        TensorDescriptor.from_tensor(out, [block_m, block_n]),
        m, n, k, PEELED=form.peeled,
        BLOCK_M=block_m, BLOCK_N=block_n, BLOCK_K=block_k,
        num_warps=num_warps, num_stages=num_stages,
    )  # fmt: skip
