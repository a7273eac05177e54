"""The chapter's exercises, from counting sectors to a checksum of all programs."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from tilebook import compile_only, microscope
from tilebook.memory import coalescing, solutions, streams
from tilebook.testing import Exercise

__all__ = ["EXERCISES", "widths"]

Arrays = Mapping[str, Any]
Shape = tuple[int, ...]

LENGTHS = ((256,), (1,), (0,), (1000,), (255,), (257,), (2053,))
USES_BLOCK = ("BLOCK",)


def block(n: int) -> int:
    """Elements per program at a length: another power of two for its neighbours."""
    return 64 << n % 5


def _programs(n: int) -> int:
    return -(-n // block(n))


FLIGHT_GBPS, FLIGHT_NS, FLIGHT_SMS, FLIGHT_THREADS = 3350.0, 800.0, 132, 1024

FLIGHT = Exercise(
    name="memory-flight",
    statement=(
        f"A card moves {FLIGHT_GBPS:,.0f} GB/s, a load takes {FLIGHT_NS:.0f} ns, and "
        f"on each of {FLIGHT_SMS} SMs {FLIGHT_THREADS:,} threads live. How many bytes "
        "must each thread have on their way, if the kernel only reads? Give the number "
        "to within 1 %."
    ),
    answer=lambda: solutions.flight(FLIGHT_GBPS, FLIGHT_NS, FLIGHT_SMS, FLIGHT_THREADS),
    hint="Little's law gives the bytes of the whole card; share them out.",
)


def _explain_sectors(got: Any) -> str | None:
    if isinstance(got, tuple | list) and len(got) == 3 and got[0] == 1:
        return "A sector has 32 bytes. How many do 32 numbers of 4 bytes fill?"
    return None


SECTORS = Exercise(
    name="memory-sectors",
    statement=(
        "A warp of 32 threads loads one fp32 number each, the first from an address "
        "that is a multiple of 32 bytes, at strides of 1, 3 and 16 elements. How many "
        "sectors of 32 bytes does the memory hand out in each case? Give three whole "
        "numbers."
    ),
    answer=lambda: tuple(solutions.sectors(32, stride, 4) for stride in (1, 3, 16)),
    explain=_explain_sectors,
    hint="Write down the byte address of each lane and divide by 32.",
)

BOUND = Exercise(
    name="memory-bound",
    statement=(
        "A card moves 3,000 GB/s and does 60 TFLOP/s in fp32. A kernel reads one fp32 "
        "number and writes one for each element. Up to how many operations an element "
        "does memory set its time? Give the number to within 1 %."
    ),
    answer=lambda: solutions.bound(3000, 60, 4, 4),
    hint="Below the ridge of the roofline memory is the limit.",
)

CYCLES = Exercise(
    name="memory-cycles",
    statement=(
        "A warp reads 32 words of 4 bytes from shared memory, at strides of 1, 2, 12, "
        "32 and 33 words. How many cycles does each take? Give five whole numbers."
    ),
    answer=lambda: tuple(map(solutions.cycles, (1, 2, 12, 32, 33))),
    hint="Threads i and j share a bank if (i - j) * stride is a multiple of 32.",
)


ASKED = ("x[1:]", "x.bfloat16()", "x")


def widths() -> dict[str, str]:
    """The evidence lines of one kernel on three vectors, under letters.

    Returns:
        By letter; the vectors are those of the exercise, in another order.
    """
    x = torch.empty(2**16)
    vectors = {"a": x[:-1024], "b": x[1:-1023], "c": x[:-1024].bfloat16()}
    return {
        letter: compile_only.compile(
            streams.triad_kernel,
            *(vector, vector, torch.empty_like(vector), 2.0, vector.numel()),
            BLOCK=streams.BLOCK,
            num_warps=streams.NUM_WARPS,
            target="sm_90",
        ).evidence.line()
        for letter, vector in vectors.items()
    }


WIDTHS = Exercise(
    name="memory-widths",
    statement=(
        "The three lines labelled a, b and c are of one kernel, launched once on an "
        f"fp32 vector x, once on x[1:], once on x.bfloat16(). Which is {ASKED[0]}, "
        f"which {ASKED[1]}, which {ASKED[2]}? Give three letters."
    ),
    answer=lambda: solutions.WIDTHS,
    hint="A wide load needs an aligned start. How many bytes has each thread to load?",
)


def _seen(launch: Any, kernel: Any, out: torch.Tensor, *inputs: Any) -> microscope.Look:
    """Look at a launch as an exercise makes it."""

    class Caught:
        def __getitem__(self, grid: Any) -> Any:
            def look(*args: Any, **meta: Any) -> None:
                self.look = microscope.look(
                    kernel, grid, *args, raise_error=True, **meta
                )

            return look

    caught = Caught()
    launch(caught, out, *inputs)
    return caught.look


def _launch_rows(kernel: Any, out: Any, x: Any) -> None:
    m, n = x.shape
    rows, columns = (4, 128) if m % 2 else (16, 64)
    grid = (-(-m // rows), -(-n // columns))
    if m and n:
        kernel[grid](x, out, m, n, x.stride(0), BLOCK_M=rows, BLOCK_N=columns)


ROWS = Exercise(
    name="memory-rows",
    statement=(
        "Write a kernel that copies a matrix x of m rows and n columns, whose rows "
        "start stride elements apart and whose columns are neighbours, into a "
        "contiguous out. Program (i, j) gets the tile of BLOCK_M rows and BLOCK_N "
        "columns."
    ),
    inputs=lambda rng, shape: {"x": rng.standard_normal(shape)},
    reference=lambda x: x,
    shapes=((16, 64), (1, 1), (0, 5), (33, 65), (17, 300), (5, 1)),
    launch=_launch_rows,
    parameters=("x_ptr", "out_ptr", "m", "n", "stride", "BLOCK_M", "BLOCK_N"),
    layouts=("contiguous", "sliced"),
    required=("BLOCK_M", "BLOCK_N"),
    hint="Two ranges, one a column of offsets and one a row, and a mask from both.",
)


def _launch_pairs(kernel: Any, out: Any, x: Any, y: Any) -> None:
    n = x.numel()
    kernel[(_programs(n),)](x, y, out, n, BLOCK=block(n))


def _watch_pairs(kernel: Any) -> str | None:
    look = _seen(_launch_pairs, kernel, torch.empty(512), *torch.randn(2, 256))
    seen = coalescing.traffic(look, "out_ptr")
    if seen.sectors > seen.least:
        return (
            f"The stores touch {seen.sectors} sectors where {seen.least} would do: the "
            "lanes of a store aren't neighbours in memory."
        )
    return None


INTERLEAVE = Exercise(
    name="memory-interleave",
    statement=(
        "Write a kernel that interleaves two vectors of n elements: out[2 i] = x[i] "
        "and out[2 i + 1] = y[i]. It gets one program for every BLOCK elements of x. "
        "The lanes of each store must be neighbours in memory: two stores with gaps "
        "touch every sector twice."
    ),
    inputs=lambda rng, shape: {
        "x": rng.standard_normal(shape),
        "y": rng.standard_normal(shape),
    },
    reference=lambda x, y: np.stack([x, y], -1).reshape(-1),
    shapes=LENGTHS,
    launch=_launch_pairs,
    parameters=("x_ptr", "y_ptr", "out_ptr", "n", "BLOCK"),
    required=USES_BLOCK,
    watch=_watch_pairs,
    hint="tl.interleave joins two tiles in this order.",
)


def _launch_planes(kernel: Any, out: Any, rgb: Any) -> None:
    n = rgb.shape[0]
    kernel[(_programs(n),)](rgb, out, n, BLOCK=block(n))


PLANES = Exercise(
    name="memory-planes",
    statement=(
        "An image of n pixels lies in memory as red, green, blue, red, green, blue …, "
        "one uint8 each. Write a kernel that stores it as three planes: all reds, then "
        "all greens, then all blues."
    ),
    inputs=lambda rng, shape: {
        "rgb": rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    },
    reference=lambda rgb: rgb.T.copy(),
    shapes=LENGTHS,
    launch=_launch_planes,
    parameters=("rgb_ptr", "out_ptr", "n", "BLOCK"),
    out_dtype="uint8",
    required=USES_BLOCK,
    hint="Loads with gaps of three touch the same sectors three times; only the first "
    "waits for memory.",
)


def _launch_roll(kernel: Any, out: Any, x: Any, shift: int) -> None:
    n = x.numel()
    kernel[(_programs(n),)](x, out, shift, n, BLOCK=block(n))


ROLL = Exercise(
    name="memory-roll",
    statement=(
        "Write a kernel that rolls a vector as torch.roll does: out[(i + shift) mod n] "
        "= x[i]. The shift is an integer of either sign and may exceed n."
    ),
    inputs=lambda rng, shape: {
        "x": rng.standard_normal(shape),
        "shift": int(rng.integers(2, 4000)) * int(rng.choice([-1, 1])),
    },
    reference=lambda x, shift: np.roll(x, shift),
    shapes=LENGTHS,
    launch=_launch_roll,
    parameters=("x_ptr", "out_ptr", "shift", "n", "BLOCK"),
    required=USES_BLOCK,
    hint="Store in order and look up where each element comes from. What does % give "
    "for a negative number?",
)


def _launch_checksum(kernel: Any, out: Any, x: Any) -> None:
    n = x.numel()
    kernel[(_programs(n),)](x, out, n, BLOCK=block(n))


def _watch_checksum(kernel: Any) -> str | None:
    x = torch.arange(1000, dtype=torch.int32)
    look = _seen(_launch_checksum, kernel, torch.zeros(1, dtype=torch.int32), x)
    if races := look.races():
        return f"Programs run at the same time, and here two meet: {races[0]}."
    adds = sum(np.sum(access.mask) for access in look.accesses if access.op == "atomic")
    if adds > _programs(1000):
        return (
            f"{adds} atomics from {_programs(1000)} programs: reduce within the "
            "program first, then one will do."
        )
    return None


CHECKSUM = Exercise(
    name="memory-checksum",
    statement=(
        "Write a kernel that computes the exclusive or of n int32 numbers into out, a "
        "single int32 that holds 0 before the launch. It gets one program for every "
        "BLOCK elements, and they run at the same time. One atomic for each program "
        "is enough."
    ),
    inputs=lambda rng, shape: {
        "x": rng.integers(-(2**31), 2**31, shape, dtype=np.int64).astype(np.int32)
    },
    reference=lambda x: np.bitwise_xor.reduce(x, initial=0).reshape(1),
    shapes=LENGTHS,
    launch=_launch_checksum,
    parameters=("x_ptr", "out_ptr", "n", "BLOCK"),
    initial=0,
    out_dtype="int32",
    required=USES_BLOCK,
    watch=_watch_checksum,
    hint="Reduce within the program first. Then all want to change one place: an "
    "atomic.",
)

EXERCISES = (
    FLIGHT,
    SECTORS,
    WIDTHS,
    ROWS,
    INTERLEAVE,
    PLANES,
    ROLL,
    CYCLES,
    BOUND,
    CHECKSUM,
)
