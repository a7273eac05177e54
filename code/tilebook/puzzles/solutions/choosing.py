"""Our solutions to puzzles 22 to 24."""

import triton
import triton.language as tl


@triton.jit
def top_k_kernel(x_ptr, v_ptr, i_ptr, n, k, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    offs = tl.arange(0, BLOCK)
    at = x_ptr + row * n + offs
    x = tl.load(at, mask=offs < n, other=float("-inf"))  # (BLOCK,)
    for turn in range(k):
        top = tl.max(x, axis=0)
        place = tl.min(tl.where(x == top, offs, BLOCK), axis=0)
        tl.store(v_ptr + row * k + turn, top)
        tl.store(i_ptr + row * k + turn, place)
        # By place: equal elements stay for the next turns.
        x = tl.where(offs == place, float("-inf"), x)


@triton.jit
def bitonic_kernel(x_ptr, z_ptr, n, LOG: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * n
    offs = tl.arange(0, 1 << LOG)
    at = x_ptr + row + offs
    x = tl.load(at, mask=offs < n, other=float("inf"))  # (2**LOG,)
    for stage in tl.static_range(LOG):
        rising = (offs >> (stage + 1)) % 2 == 0
        for turn in tl.static_range(stage + 1):
            # The partner's number differs in one bit.
            other = tl.gather(x, offs ^ (1 << (stage - turn)), axis=0)
            smaller = ((offs >> (stage - turn)) % 2 == 0) == rising
            x = tl.where(smaller, tl.minimum(x, other), tl.maximum(x, other))
    tl.store(z_ptr + row + offs, x, mask=offs < n)


@triton.jit
def argmax_kernel(x_ptr, z_ptr, n, BLOCK: tl.constexpr):
    offs = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offs, mask=offs < n, other=float("-inf"))  # (BLOCK,)
    bits = x.to(tl.int32, bitcast=True)
    # All bits of a negative number but its sign are flipped.
    order = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    key = (order.to(tl.int64) << 32) | (0x7FFFFFFF - offs).to(tl.int64)
    tl.atomic_max(z_ptr, tl.max(key, axis=0))
