"""What the quantisers' kernels share: loading, largest magnitudes, scales and codes.

Magnitudes are compared as integers. The bits of a positive float are in the order of
the floats, NaN above all others, so that one integer maximum finds the largest
magnitude, keeps NaN, and is the same in any order, with atomics too.
"""

import torch
import triton
import triton.language as tl

from tilebook.fp8 import formats, scaling


def constants(dtype: torch.dtype, rounding: str = "") -> dict[str, object]:
    """What the kernels have to know of a format, as constants.

    Args:
        dtype: of the codes, a key of `formats.BY_DTYPE`.
        rounding: of scales that are powers of two, one of `formats.ROUNDINGS`; "" for
            scales that aren't.
    """
    format = formats.BY_DTYPE[dtype]
    top = (format.largest_code >> format.mantissa) - format.bias
    return {
        "LARGEST": format.largest,
        "FLOOR": format.largest * scaling.SMALLEST,
        "TOP": top,
        "POWER": rounding,
    }


@triton.jit
def magnitude(x):
    """The bits of a float32 without its sign."""
    return x.to(tl.int32, bitcast=True) & 0x7FFFFFFF


@triton.jit
def loaded(x_ptr, up_ptr, offsets, up_offsets, mask, KEEP: tl.constexpr):
    """Load elements as float32; with `up_ptr`, silu of them times what is there. KEEP
    is what caches are told of both."""
    x = tl.load(x_ptr + offsets, mask=mask, other=0.0, eviction_policy=KEEP)
    x = x.to(tl.float32)
    if up_ptr is not None:
        up = tl.load(
            up_ptr + up_offsets, mask=mask, other=0.0, eviction_policy=KEEP
        ).to(tl.float32)
        x = x / (1.0 + tl.exp(-x)) * up
    return x


@triton.jit
def dealt(SIZE: tl.constexpr):
    """Deal out 0 to SIZE - 1 into four runs, every fourth number to the same.

    Lines of a tile that are loaded so far apart as neighbours come to the same thread,
    where a thread has one of several lines. Then their codes leave for shared memory
    four to a word, and don't take an instruction each."""
    dealt_to = tl.arange(0, SIZE)
    return dealt_to % (SIZE // 4) * 4 + dealt_to // (SIZE // 4)


@triton.jit
def gathered(x):
    """Bring the lines of a tile that was loaded as `dealt` says into their order: in
    the same threads, under other numbers."""
    lines: tl.constexpr = x.shape[0]
    size: tl.constexpr = x.shape[1]
    x = tl.permute(tl.reshape(x, (4, lines // 4, size)), (1, 0, 2))
    return tl.reshape(x, (lines, size))


@triton.jit
def scales(amax, LARGEST: tl.constexpr, FLOOR: tl.constexpr):
    """Scale and its inverse, from the bits of the largest magnitude."""
    amax = tl.maximum(amax, magnitude(tl.full((), FLOOR, tl.float32)))
    scale = tl.div_rn(
        amax.to(tl.float32, bitcast=True), tl.full((), LARGEST, tl.float32)
    )
    return scale, tl.div_rn(tl.full((), 1.0, tl.float32), scale)


@triton.jit
def powers(amax, LARGEST: tl.constexpr, TOP: tl.constexpr, POWER: tl.constexpr):
    """Scale, as an e8m0 code, and its inverse, from the bits of the largest magnitude:
    see `scaling`."""
    size = amax.to(tl.float32, bitcast=True)
    if POWER == "up":
        ratio = magnitude(tl.div_rn(size, tl.full((), LARGEST, tl.float32)))
        code = ratio >> 23
        least = (code == 0) & (ratio > (1 << 22))
        code += (least | ((code > 0) & ((ratio & 0x7FFFFF) > 0))).to(tl.int32)
    else:
        code = magnitude(size * (2.0**-TOP)) >> 23
    odd = amax >= 0x7F800000
    # 2^(127 - code), whose exponent field is 254 - code. No finite amax has a code
    # above 248, as LARGEST is 2^7 at least.
    inverse = tl.where(odd, 0x7FC00000, (254 - code) << 23)
    inverse = inverse.to(tl.float32, bitcast=True)
    return tl.where(odd, 255, code).to(tl.uint8), inverse


@triton.jit
def cut(y, LARGEST: tl.constexpr):
    """Make what is larger than the largest number that number, and leave NaN."""
    return tl.clamp(y, -LARGEST, LARGEST, propagate_nan=tl.PropagateNan.ALL)
