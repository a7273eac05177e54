"""A kernel that says what it does: while it is compiled, and while it runs."""

import triton
import triton.language as tl


@triton.jit
def told_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    tl.static_assert(BLOCK >= 16, "BLOCK must be 16 at least")
    offs = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offs, mask=offs < n, other=0.0)
    tl.static_print("x is", x.shape, x.dtype)
    total = tl.sum(x, axis=0)
    tl.device_print("the total is ", total)
    tl.device_assert(total == total, "a NaN among the inputs")
    tl.store(out_ptr + tl.program_id(0), total)
