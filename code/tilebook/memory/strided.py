"""Any strides: each element of the output looks up where it comes from."""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl

from tilebook.memory.layout import Dim

BLOCK = 1024


@triton.jit(do_not_specialize=["n"])
def copy_kernel(
    x_ptr, out_ptr, n, sizes, x_strides, out_strides,
    NDIM: tl.constexpr, WIDE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    offs = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = offs < n
    # A division of 64 bits takes several times the instructions of one of 32.
    rest = offs if WIDE else offs.to(tl.int32)
    x_offs = tl.zeros((BLOCK,), tl.int64)
    out_offs = tl.zeros((BLOCK,), tl.int64)
    # Innermost dimension first, as in counting.
    for i in tl.static_range(NDIM):
        index = rest % sizes[NDIM - 1 - i]
        rest = rest // sizes[NDIM - 1 - i]
        x_offs += index.to(tl.int64) * x_strides[NDIM - 1 - i]
        out_offs += index.to(tl.int64) * out_strides[NDIM - 1 - i]
    x = tl.load(x_ptr + x_offs, mask=mask, other=0)  # (BLOCK,)
    tl.store(out_ptr + out_offs, x, mask=mask)


def launch(
    kernel, x: torch.Tensor, out: torch.Tensor, n: int, dims: Sequence[Dim]
) -> None:
    """Copy elements one by one, in the order of the output.

    Args:
        kernel: `copy_kernel`, or a stand-in that notes how it is launched.
        x: integers of the elements' size, any strides.
        out: the same, another place for each element.
        n: how many elements, at least one.
        dims: as `layout.merged` gives them.
    """
    sizes, x_strides, out_strides = zip(*dims, strict=True)
    kernel[(triton.cdiv(n, BLOCK),)](
        x, out, n, sizes, x_strides, out_strides,
        NDIM=len(dims), WIDE=n > 2**31 - BLOCK, BLOCK=BLOCK,
    )  # fmt: skip
