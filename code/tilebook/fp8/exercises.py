"""The chapter's exercises, from reading a code to bfloat16 out of eight bits."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from tilebook.fp8 import formats, scaling, solutions
from tilebook.fp8.exercises_products import BLOCKS, PROMOTED, SPLIT
from tilebook.testing import Exercise

__all__ = ["EXERCISES"]

Arrays = Mapping[str, Any]
Shape = tuple[int, ...]

E4M3 = torch.float8_e4m3fn
EIGHT = ("tl.float8e4nv", "tl.float8e5", "tl.float8e4b8", "tl.float8e4b15")

CODE = 0x5B


def _explain_codes(got: Any) -> str | None:
    right = (*solutions.codes(CODE), 0x78)
    if not isinstance(got, tuple | list) or len(got) != 3:
        return None
    if got[0] in (right[0] * 2, right[0] / 2):
        return "The bias of e4m3fn is 7: a code of 0x38 stands for 1."
    if got[0] == right[0] - 16:
        return "A normal number has a bit that isn't written, before the mantissa."
    if got[2] == 0x79:
        return "Between 240 and 256 there is nothing, and 256 is above 250."
    return None


CODES = Exercise(
    name="fp8-codes",
    statement=(
        f"Give three numbers: what the code {CODE:#x} stands for in e4m3fn, what it "
        "stands for in e5m2, and the code of the smallest number above 250 in e4m3fn."
    ),
    answer=lambda: (*solutions.codes(CODE), 0x78),
    explain=_explain_codes,
    rtol=0.0,
    hint="Write the code in binary, and cut it behind the sign and the exponent.",
)

RANGES = Exercise(
    name="fp8-ranges",
    statement=(
        "A group's scale takes its largest magnitude to the format's largest number. "
        "Give three ratios of the largest magnitude to another one: from which on that "
        "is a subnormal number of e4m3fn, from which on it is rounded to zero, and "
        "from which on int8, with -127 to 127, rounds it to zero."
    ),
    answer=solutions.ranges,
    explain=lambda got: (
        "A number in the middle of zero and the smallest one goes to zero; the "
        "smallest one itself doesn't."
        if isinstance(got, tuple | list)
        and len(got) == 3
        and got[1] == solutions.ranges()[1] / 2
        else None
    ),
    rtol=0.001,
    hint="What are the smallest normal number, the smallest number, and half of it?",
)

M, N, K, GBPS, TFLOPS = 16, 8192, 28672, 3000, 1979

FLOOR = Exercise(
    name="fp8-floor",
    statement=(
        f"{M} rows with scales by 1 x 128 are multiplied with a weight of n = {N:,} "
        f"columns and k = {K:,} terms, with scales by 128 x 128; scales are float32, "
        "the result is bfloat16. "
        f"Memory delivers {GBPS:,} GB/s, tensor cores do {TFLOPS:,} TFLOP/s. Give "
        "three numbers: the bytes that have to move, the microseconds that they take, "
        "and the least number of rows at which the operations take longer than the "
        "bytes."
    ),
    answer=lambda: solutions.floor(M, N, K, GBPS, TFLOPS),
    rtol=0.0005,
    hint="How many scales has each operand? Which bytes grow with the rows?",
)


def _rounding(rng: np.random.Generator, shape: Shape) -> Arrays:
    """Numbers of all magnitudes, ties, and what is no number."""
    (n,) = shape
    steps = formats.table(formats.E4M3)[:0x7F].double().numpy()
    ties = (steps[1:] + steps[:-1]) / 2
    some = np.exp2(rng.uniform(-12, 10, n))
    kinds = rng.integers(0, 4, n)
    x = np.where(kinds == 0, rng.choice(ties, n), some)
    x = np.where(kinds == 1, rng.choice(steps, n), x) * rng.choice([-1, 1], n)
    odd = rng.choice([np.nan, np.inf, -np.inf, 448.0, 464.0, 465.0, 0.0], n)
    return {"x": np.where(rng.random(n) < 0.1, odd, x)}


def _codes(x: np.ndarray) -> np.ndarray:
    single = torch.from_numpy(np.ascontiguousarray(x)).float()
    code = formats.encode(single, formats.E4M3)
    # A NaN's sign is nobody's business.
    return torch.where(single.isnan(), 0x7F, code).numpy()


def _launch_round(kernel: Any, out: Any, x: Any) -> None:
    n = x.numel()
    kernel[(max(1, -(-n // 256)),)](x, out, n, BLOCK=256)


ROUND = Exercise(
    name="fp8-round",
    statement=(
        "Write a kernel that rounds float32 to codes of e4m3fn, as uint8, without any "
        "8-bit type: to nearest, ties to the even code, subnormal numbers too. What is "
        "too large, infinity included, becomes 448 with its sign, NaN becomes 0x7F."
    ),
    inputs=_rounding,
    reference=_codes,
    shapes=((256,), (1,), (1000,), (0,), (257,)),
    launch=_launch_round,
    parameters=("x_ptr", "out_ptr", "n", "BLOCK"),
    scales=(1.0,),
    required=("BLOCK",),
    forbidden=EIGHT,
    hint=(
        "Of a normal number cut 20 bits off, after adding nearly half a step. For a "
        "subnormal one find a float32 whose neighbours are 2^-9 away."
    ),
)


def _grouped(rng: np.random.Generator, shape: Shape) -> Arrays:
    """Groups of 32 of many sizes, powers of two and what is just below among them."""
    m, k = shape
    groups = -(-k // 32)
    x = rng.standard_normal((m, groups, 32))
    x = np.clip(x, -1, 1) * np.exp2(rng.integers(-130, 120, (m, groups, 1)))
    power = np.exp2(rng.integers(-120, 127, (m, groups)))
    below = np.nextafter(power.astype(np.float32), np.float32(0))
    kind = rng.integers(0, 5, (m, groups))
    single = np.where(kind == 0, power, np.where(kind == 1, below, 0.0))
    x[..., 0] = np.where(kind <= 2, single, x[..., 0])
    x[..., 1:] = np.where((kind <= 2)[..., None], 0.0, x[..., 1:])
    x[..., 1] = np.where(kind == 3, rng.choice([np.nan, np.inf, 1.0]), x[..., 1])
    return {"x": x.reshape(m, groups * 32)[:, :k]}


def _power_codes(x: np.ndarray) -> np.ndarray:
    m, k = x.shape
    groups = -(-k // 32)
    wide = np.zeros((m, groups * 32))
    wide[:, :k] = np.abs(x)
    amax = wide.reshape(m, groups, 32).max(2)
    # frexp's significand is from 1/2 on: its exponent is one more.
    exponent = np.frexp(np.where(np.isfinite(amax), amax, 1.0))[1] - 1
    code = np.where(amax > 0, np.maximum(exponent - 8 + 127, 0), 0)
    return np.where(np.isfinite(amax), code, 255).astype(np.uint8)


def _launch_powers(kernel: Any, out: Any, x: Any) -> None:
    m, k = x.shape
    if out.numel():
        block = max(32, 1 << (k - 1).bit_length())
        kernel[(m,)](x, out, m, k, out.shape[1], BLOCK=block)


POWERS = Exercise(
    name="fp8-powers",
    statement=(
        "Write a kernel that stores the e8m0 codes, as uint8, of the scales of an MX "
        "format: x (m, k) is contiguous float32, 32 of a row share a scale, the last "
        "may be fewer. The scale is the power of two below the largest magnitude, or "
        "equal to it, divided by 2^8. Its code is its exponent plus 127; what is less "
        "than 2^-127 has the code 0, as 2^-127 has, and a group with NaN or an "
        "infinity has 255. `groups` is cdiv(k, 32). A program has a whole row: BLOCK "
        "is a power of two from k on."
    ),
    inputs=_grouped,
    reference=_power_codes,
    shapes=((4, 128), (1, 1), (7, 33), (9, 250), (3, 31), (0, 40), (2, 96)),
    launch=_launch_powers,
    parameters=("x_ptr", "out_ptr", "m", "k", "groups", "BLOCK"),
    scales=(1.0,),
    required=("BLOCK",),
    hint="A float32's exponent field has the power already. What does 8 do to it?",
)


def _matrix(rng: np.random.Generator, shape: Shape) -> Arrays:
    size = np.exp2(rng.uniform(-8, 8, (1, shape[1])))
    x = rng.standard_normal(shape) * size
    if shape[1] > 1:
        x[:, 1] = 0
    return {"x": x}


def _turned(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    single = torch.from_numpy(np.ascontiguousarray(x.T)).float()
    found = scaling.reference(single, "1x128")
    return found.codes.view(torch.uint8).numpy(), found.scale.numpy()


def _launch_turned(kernel: Any, codes: Any, scale: Any, x: Any) -> None:
    m, k = x.shape
    width = 16 << m % 2
    if codes.numel():
        grid = (-(-m // 128), -(-k // width))
        kernel[grid](x, codes.view(E4M3), scale, m, k, BLOCK_K=width)


TURNED = Exercise(
    name="fp8-turned",
    statement=(
        "Write a kernel that quantises the transpose of x (m, k), contiguous float32, "
        "by 1 x 128, reading x along its rows: codes (k, m) of e4m3fn and scales (k, "
        "cdiv(m, 128)) of float32, both contiguous. A group's scale is max(amax, 448 * "
        "2^-120) / 448, codes are x times 1 / scale, each operation correctly rounded; "
        "no element is NaN or infinite. Program (i, j) has 128 rows of x and BLOCK_K "
        "columns."
    ),
    inputs=_matrix,
    reference=_turned,
    shapes=((128, 32), (1, 1), (200, 17), (129, 40), (3, 50), (0, 4)),
    launch=_launch_turned,
    parameters=("x_ptr", "codes_ptr", "scale_ptr", "m", "k", "BLOCK_K"),
    out_dtype=("uint8", "float32"),
    required=("BLOCK_K",),
    hint="Along which axis does a group of the transpose lie in the tile of x?",
)

EXERCISES = (
    *(CODES, RANGES, FLOOR),
    *(ROUND, POWERS, TURNED, BLOCKS, PROMOTED),
    SPLIT,
)
