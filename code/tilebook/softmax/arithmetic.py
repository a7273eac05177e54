"""What all kernels of the chapter do with a row's numbers.

Sums and exponentials are kept in float32, or in float64 for float64. A power of e is
taken as a power of 2, which the hardware has an instruction for. The factor log2(e)
multiplies the difference to the row's maximum, not the elements before they are
subtracted: at x = 10,000 the product x * log2(e) is rounded by up to 5e-4, and the
power is off by a part in 3,000, where the difference of two such floats is exact.

The running maximum starts at the lowest finite number. Were it -inf, a first chunk of
nothing but -inf would make -inf - (-inf), NaN, of a row that is fine further on. As it
is, the power of such an element is 0, a row of -inf alone ends with a sum of 0 and so
as 0/0, NaN, and +inf less itself gives NaN: all as in PyTorch. A maximum drops NaN, but
each element is in the sum, too, and the sum keeps it.
"""

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
LOWEST = tl.constexpr(-3.4028234663852886e38)
LOWEST_64 = tl.constexpr(-1.7976931348623157e308)


@triton.jit
def wide(x):
    """Widen elements to the type that is computed in."""
    if x.dtype == tl.float64:
        return x
    else:
        return x.to(tl.float32)


@triton.jit
def single(number):
    """A number given at a launch, in float32: Inductor passes Python's in float64."""
    return tl.cast(number, tl.float32)


@triton.jit
def power(difference, inverse_t):
    """Raise e to a difference over the temperature."""
    inverse_t = single(inverse_t)
    if difference.dtype == tl.float64:
        return tl.exp(difference * inverse_t)
    else:
        return tl.exp2(difference * (inverse_t * LOG2E))


@triton.jit
def begin(x_ptr, LANES: tl.constexpr):
    """Maximum and sum of no elements, for each lane."""
    if x_ptr.dtype.element_ty == tl.float64:
        top = tl.full(LANES, LOWEST_64, tl.float64)
    else:
        top = tl.full(LANES, LOWEST, tl.float32)
    return top, tl.zeros_like(top)


@triton.jit
def step(top, total, x, inverse_t):
    """Take one element into each lane's maximum and sum; all have one shape."""
    difference = x - top
    # Of the two powers in the recurrence, of old - new and of x - new,
    # one is always of 0.
    part = power(-tl.abs(difference), inverse_t)
    total = tl.where(difference > 0, total * part + 1, total + part)
    return tl.maximum(top, x), total


@triton.jit
def fold(top, total, x, inverse_t):
    """Take a row of x (LANES, V) into each lane's maximum and sum (LANES,)."""
    higher = tl.maximum(top, tl.max(x, axis=1))
    parts = tl.sum(power(x - higher[:, None], inverse_t), axis=1)
    # What was summed relative to the old maximum shrinks by e^(old - new).
    return higher, total * power(top - higher, inverse_t) + parts


@triton.jit
def settle(top, total, inverse_t):
    """Merge the maxima and sums of all lanes (LANES,) into the row's one of each."""
    best = tl.max(top, axis=0)
    return best, tl.sum(total * power(top - best, inverse_t), axis=0)


@triton.jit
def merged(top, total, x, inverse_t):
    """Take further elements x (N,) into a row's maximum and sum."""
    best = tl.maximum(top, tl.max(x, axis=0))
    parts = tl.sum(power(x - best, inverse_t), axis=0)
    return best, total * power(top - best, inverse_t) + parts


@triton.jit
def finished(x, top, total, inverse_t, LOG: tl.constexpr):
    """Turn elements into results, given the maximum and the sum of their row."""
    inverse_t = single(inverse_t)
    if LOG:
        return (x - top) * inverse_t - tl.log(total)
    else:
        # One division for a row, a product for each element.
        return power(x - top, inverse_t) * (1.0 / total)
