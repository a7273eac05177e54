"""The chapter's exercises, from counting programs to predicting a bandwidth."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tilebook.parallel import solutions
from tilebook.testing import Exercise

__all__ = ["EXERCISES"]

Arrays = Mapping[str, Any]
Shape = tuple[int, ...]

LENGTHS = ((256,), (1,), (0,), (1000,), (255,), (257,), (2053,))
# A kernel in which a block size is hard-wired may be right all the same, where it does
# more than its share: so it is looked for in the source, too.
USES_BLOCK = ("BLOCK",)


def block(n: int) -> int:
    """Elements per program at a length: a power of two from 64 to 1024.

    Another one for neighbouring lengths. Of `LENGTHS` 256 is a multiple of its block,
    255 is one short of a multiple and 257 one over; 1000 and 2053 end raggedly.
    """
    return 64 << n % 5


def _launch(kernel: Any, out: Any, **inputs: Any) -> None:
    """One program per block: inputs, then out, then n; numbers come last."""
    tensors = [v for v in inputs.values() if not isinstance(v, float)]
    numbers = [v for v in inputs.values() if isinstance(v, float)]
    n = out.numel()
    kernel[(_programs(n),)](*tensors, out, *numbers, n, BLOCK=block(n))


def _programs(n: int) -> int:
    return -(-n // block(n))


def _normal(*names: str) -> Callable[[np.random.Generator, Shape], Arrays]:
    """Makes normally distributed arrays of these names."""

    def inputs(rng: np.random.Generator, shape: Shape) -> Arrays:
        return {name: rng.standard_normal(shape) for name in names}

    return inputs


COUNTED, COUNTED_BLOCK = 1_000_003, 1024


def _explain_count(got: Any) -> str | None:
    full, rest = divmod(COUNTED, COUNTED_BLOCK)
    if not isinstance(got, tuple | list) or len(got) != 2:
        return None
    if got[0] == full:
        return f"{full} programs cover {full * COUNTED_BLOCK:,} elements only."
    if got[1] == rest:
        return "That is how many lanes of the last program have work to do."
    return None


COUNT = Exercise(
    name="parallel-count",
    statement=(
        f"A masked kernel processes n = {COUNTED:,} elements with BLOCK = "
        f"{COUNTED_BLOCK:,}. Give two whole numbers: how many programs the grid must "
        "have, and how many lanes of the last one are masked off."
    ),
    answer=lambda: solutions.count(COUNTED, COUNTED_BLOCK),
    explain=_explain_count,
    hint="Count the lanes of all programs together and take n away.",
)

AFFINE = Exercise(
    name="parallel-affine",
    statement=(
        "Write a kernel that stores a * x + b for a vector of any length n. It gets "
        "one program for every BLOCK elements."
    ),
    inputs=lambda rng, shape: {
        # All of one sign: cancelling would magnify the rounding of a * x.
        "x": np.abs(rng.standard_normal(shape)),
        # Multiples of 1/4, so that float32 holds them exactly; never 0 or 1.
        "a": float(rng.integers(6, 30)) / 4,
        "b": float(rng.integers(6, 30)) / 4,
    },
    reference=lambda x, a, b: a * x + b,
    shapes=LENGTHS,
    launch=_launch,
    parameters=("x_ptr", "out_ptr", "a", "b", "n", "BLOCK"),
    required=USES_BLOCK,
    length=2,
    hint="Only the line between load and store differs from the chapter's kernel.",
)

REVERSE = Exercise(
    name="parallel-reverse",
    statement=(
        "Write a kernel that stores the vector x back to front: out[i] = x[n - 1 - i]. "
        "It gets one program for every BLOCK elements."
    ),
    inputs=_normal("x"),
    reference=lambda x: x[::-1],
    shapes=LENGTHS,
    launch=_launch,
    parameters=("x_ptr", "out_ptr", "n", "BLOCK"),
    required=USES_BLOCK,
    hint=(
        "Keep the store as it is and change where you load. For which lanes would "
        "the load leave x?"
    ),
)


def _launch_strided(kernel: Any, out: Any, x: Any) -> None:
    n = out.numel()
    kernel[(_programs(n),)](x, out, x.stride(0), n, BLOCK=block(n))


STRIDED = Exercise(
    name="parallel-strided",
    statement=(
        "Write a kernel that stores 2 * x into a contiguous out, where the elements "
        "of x lie stride elements apart in memory. Nothing is copied beforehand."
    ),
    inputs=_normal("x"),
    reference=lambda x: 2 * x,
    shapes=LENGTHS,
    launch=_launch_strided,
    parameters=("x_ptr", "out_ptr", "stride", "n", "BLOCK"),
    required=USES_BLOCK,
    layouts=("contiguous", "strided"),
    hint="Two sets of offsets, one mask. Which of the three knows the stride?",
)


def _pixels(rng: np.random.Generator, shape: Shape) -> Arrays:
    return {"rgb": rng.integers(0, 256, (*shape, 3), dtype=np.uint8)}


def _luma(rgb: np.ndarray) -> np.ndarray:
    weighted = rgb.astype(np.int64) @ np.array([54, 183, 19])
    return ((weighted + 128) // 256).astype(np.uint8)


LUMA = Exercise(
    name="parallel-luma",
    statement=(
        "An image lies in memory as red, green, blue, red, green, blue …, one uint8 "
        "each. Write a kernel that stores the grey value of each of its n pixels, "
        "(54 r + 183 g + 19 b) / 256 rounded to the nearest integer, halves upwards, "
        "as uint8. Use integers only."
    ),
    inputs=_pixels,
    reference=_luma,
    shapes=LENGTHS,
    launch=lambda kernel, out, rgb: _launch(kernel, out, rgb=rgb),
    parameters=("rgb_ptr", "out_ptr", "n", "BLOCK"),
    required=USES_BLOCK,
    out_dtype="uint8",
    hint=(
        "What is the largest number that occurs on the way, and in which type is it "
        "computed? A byte times a Python integer is a byte."
    ),
)


def _with_specials(rng: np.random.Generator, shape: Shape) -> Arrays:
    x = 4 * rng.standard_normal(shape)
    specials = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0])
    where = rng.random(shape) < 0.2
    x[where] = rng.choice(specials, size=int(where.sum()))
    x[:1] = np.nan
    return {"x": x}


RELU6 = Exercise(
    name="parallel-relu6",
    statement=(
        "Write a kernel that clamps x to the range from 0 to 6 as torch.clamp does, "
        "NaN included: NaN stays NaN."
    ),
    inputs=_with_specials,
    reference=lambda x: np.clip(x, 0.0, 6.0),
    shapes=LENGTHS,
    launch=_launch,
    parameters=("x_ptr", "out_ptr", "n", "BLOCK"),
    required=USES_BLOCK,
    dtypes=("float32", "float16"),
    hint="Every comparison with NaN is false. Ask a question whose false is harmless.",
)


def _launch_few(kernel: Any, x: Any) -> None:
    n = x.numel()
    # One program, fewer than there are blocks, or more, by the length.
    kernel[(1 + n % 3,)](x, n, BLOCK=block(n))


GRID_STRIDE = Exercise(
    name="parallel-grid-stride",
    statement=(
        "Write a kernel that squares the n elements of x in place, whatever the "
        "number of programs it is launched with: one, fewer than there are blocks, or "
        "more."
    ),
    inputs=_normal("x"),
    reference=lambda x: x * x,
    shapes=(*LENGTHS, (4099,)),
    launch=_launch_few,
    parameters=("x_ptr", "n", "BLOCK"),
    required=USES_BLOCK,
    modifies=("x",),
    hint=(
        "Begin with the block of your own number and go on by as many blocks as "
        "there are programs; tl.num_programs(0) tells. In place, an element that is "
        "visited twice is squared twice."
    ),
)

FUSED_N, FUSED_BYTES, FUSED_GBPS = 2**26, 2, 3000.0

MICROSECONDS = Exercise(
    name="parallel-microseconds",
    statement=(
        f"x, y and z are bfloat16 vectors of 2^26 elements, in memory that moves "
        f"{FUSED_GBPS:,.0f} GB/s. What is the least time of (x + y) * z in "
        "microseconds, in one kernel that reads each input once, and in two, an "
        "addition and then a multiplication? Give both numbers, to within 1 %."
    ),
    answer=lambda: solutions.microseconds(FUSED_N, FUSED_BYTES, FUSED_GBPS),
    hint="Count the vectors that cross the memory bus, written ones included.",
)

FUSED = Exercise(
    name="parallel-fused",
    statement=(
        "Write a Python function of x, y and z that returns (x + y) * z as a new "
        "tensor and computes it in one Triton kernel: any shape, any strides, float32 "
        "and bfloat16, computed in float32 and rounded to the inputs' type at the end."
    ),
    inputs=_normal("x", "y", "z"),
    reference=lambda x, y, z: (x + y) * z,
    shapes=((64,), (1,), (0,), (1000,), (33, 65), (2, 3, 257)),
    dtypes=("float32", "bfloat16"),
    layouts=("contiguous", "offset", "strided", "sliced", "transposed"),
    length=2,
    only_triton=True,
    hint=(
        "The kernel may assume contiguous memory if the function sees to it. Which "
        "type do x + y and the product have inside the kernel?"
    ),
)

OVERHEAD_US, CARD_GBPS, FRACTION = 4.0, 3000.0, 0.9

SATURATION = Exercise(
    name="parallel-saturation",
    statement=(
        f"A copy kernel costs {OVERHEAD_US:g} microseconds however little it moves, "
        f"and moves {CARD_GBPS:,.0f} GB/s beyond that. From how many float32 elements "
        f"on does it reach {FRACTION:.0%} of that bandwidth? Give the number to within "
        "1 %. Then measure the length on your own card, and explain the difference: "
        "the model has one constant for everything that isn't bandwidth."
    ),
    answer=lambda: float(solutions.saturation(OVERHEAD_US, CARD_GBPS, 4, FRACTION)),
    hint=(
        f"At {FRACTION:.0%} the fixed cost is a tenth of the whole time. How long do "
        "the bytes take, then?"
    ),
)

EXERCISES = (
    COUNT,
    AFFINE,
    REVERSE,
    STRIDED,
    LUMA,
    RELU6,
    GRID_STRIDE,
    MICROSECONDS,
    FUSED,
    SATURATION,
)
