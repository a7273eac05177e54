"""The chapter's exercises on products: whose scale, how long a sum, how many bits."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from tilebook import compile_only
from tilebook.fp8 import emulated, formats
from tilebook.testing import Exercise

__all__ = ["BLOCKS", "PRECISE", "PROMOTED", "SPLIT"]

Arrays = Mapping[str, Any]
Shape = tuple[int, ...]

E4M3 = torch.float8_e4m3fn
SIDES = ("BLOCK_M", "BLOCK_N", "BLOCK_K")
PARAMETERS = ("a_ptr", "b_ptr", "out_ptr", "m", "n", "k", *SIDES)
USES = (*SIDES, "tl.dot")


def _tile(m: int, n: int, k: int) -> dict[str, int]:
    """Sides of a tile at a shape, other ones beside it."""
    return {"BLOCK_M": 16 << m % 2, "BLOCK_N": 64 << n % 3, "BLOCK_K": 128 >> k % 3}


def _grid(m: int, n: int, tile: Mapping[str, int]) -> tuple[int, int]:
    return max(1, -(-m // tile["BLOCK_M"])), max(1, -(-n // tile["BLOCK_N"]))


def _launch(kernel: Any, out: Any, *, a: Any, b: Any, **rest: Any) -> None:
    (m, k), n = a.shape, b.shape[0]
    tile = _tile(m, n, k)
    a, b = a.to(E4M3), b.to(E4M3)
    kernel[_grid(m, n, tile)](a, b, *rest.values(), out, m, n, k, **tile)


def _blocks(rng: np.random.Generator, shape: Shape) -> Arrays:
    m, n, k = shape
    blocks = -(-k // 128)
    return {
        "a": formats.table(formats.E4M3)[rng.integers(0, 127, (m, k))].numpy(),
        "b": formats.table(formats.E4M3)[rng.integers(0, 127, (n, k))].numpy(),
        "scale_a": np.exp2(rng.uniform(-4, 4, (m, blocks))),
        "scale_b": np.exp2(rng.uniform(-4, 4, (-(-n // 128), blocks))),
    }


def _block_product(a: Any, b: Any, scale_a: Any, scale_b: Any) -> np.ndarray:
    n, k = b.shape
    right = np.repeat(np.repeat(scale_b, 128, 0)[:n], 128, 1)[:, :k]
    return (a * np.repeat(scale_a, 128, 1)[:, :k]) @ (b * right).T


BLOCKS = Exercise(
    name="fp8-blocks",
    statement=(
        "Write a kernel that stores a @ b.T in float32: a (m, k) and b (n, k) are "
        "codes of e4m3fn, scale_a (m, cdiv(k, 128)) has a scale for 128 terms of a "
        "row, scale_b (cdiv(n, 128), cdiv(k, 128)) one for 128 by 128 of b. All are "
        "contiguous. BLOCK_K is 32, 64 or 128, BLOCK_N is 64, 128 or 256. Program "
        "(i, j) has the tile of rows i and columns j; no side need be a multiple of "
        "anything."
    ),
    inputs=_blocks,
    reference=_block_product,
    shapes=((16, 128, 256), (1, 1, 1), (17, 130, 200), (5, 257, 300), (3, 129, 131)),
    extra_shape=lambda rng: tuple(rng.integers(1, (20, 300, 300))),
    launch=_launch,
    parameters=(*PARAMETERS[:2], "scale_a_ptr", "scale_b_ptr", *PARAMETERS[2:]),
    scales=(1.0,),
    length=lambda shape: shape[-1] + 8,
    required=USES,
    hint="To which block do the terms of a step belong, to which group a column?",
)

PRECISE = 4 * 33 * 2.0**-13
"""What 128 positive terms lose at most where tensor cores keep 13 bits."""


def _positive(rng: np.random.Generator, shape: Shape) -> Arrays:
    m, n, k = shape
    return {
        "a": rng.integers(1, 16, (m, k)).astype(np.float64),
        "b": rng.integers(1, 16, (n, k)).astype(np.float64),
    }


def _launch_promoted(kernel: Any, out: Any, a: Any, b: Any) -> None:
    (m, k), n = a.shape, b.shape[0]
    tile = {"BLOCK_M": 16, "BLOCK_N": 16, "BLOCK_K": 128 >> m % 2}
    a, b = a.to(E4M3), b.to(E4M3)
    emulated.run(kernel, _grid(m, n, tile), a, b, out, m, n, k, **tile)


def _close(out: Any, a: Any, b: Any) -> bool:
    exact = a @ b.T
    return bool((np.abs(out - exact) <= PRECISE * exact).all())


PROMOTED = Exercise(
    name="fp8-promoted",
    statement=(
        "Write a kernel that stores a @ b.T in float32, a (m, k) and b (n, k) codes of "
        "e4m3fn, contiguous, and each element is off by less than 1.7 % of the sum of "
        "its terms' magnitudes on tensor cores that keep 13 bits of a sum, however "
        "long it is. Program (i, j) has the tile of rows i and columns j. The checker "
        "runs it on such a sum. "
        "BLOCK_K is 64 or 128."
    ),
    inputs=_positive,
    reference=lambda a, b: a @ b.T,
    shapes=((16, 16, 4096), (1, 1, 1), (17, 5, 2500), (3, 16, 3000)),
    extra_shape=None,
    launch=_launch_promoted,
    parameters=PARAMETERS,
    scales=(1.0,),
    # The sentence below is the bound; this one lets all pass that it does.
    factor=64.0,
    length=1 << 22,
    invariants={"each element is off by less than 1.7 %": _close},
    required=USES,
    hint="From which number does tl.dot begin, and who adds what it returns?",
)


def _narrow(rng: np.random.Generator, shape: Shape) -> Arrays:
    m, n, k = shape

    def drawn(shape: Shape, most: int) -> np.ndarray:
        return np.exp2(rng.uniform(-5, most, shape)) * rng.choice([-1, 1], shape)

    return {"a": drawn((m, k), 2), "b": drawn((n, k), -3)}


def _launch_split(kernel: Any, out: Any, a: Any, b: Any) -> None:
    (m, k), n = a.shape, b.shape[0]
    tile = _tile(m, n, k) | {"BLOCK_N": 32}
    kernel[_grid(m, n, tile)](a, b, out, m, n, k, **tile)


def _watch_split(kernel: Any) -> str | None:
    x, out = torch.empty(64, 128, dtype=torch.bfloat16), torch.empty(64, 64)
    tile = {"BLOCK_M": 64, "BLOCK_N": 64, "BLOCK_K": 64}
    made = compile_only.compile(kernel, x, x, out, 64, 64, 128, **tile, target="sm_90")
    if "e4m3.e4m3" not in made.ptx:
        return "No tensor core multiplies e4m3 here: give tl.dot operands of 8 bits."
    if "bf16.bf16" in made.ptx or "tf32" in made.ptx or ".f16.f16" in made.ptx:
        return "Tensor cores multiply something wider than 8 bits here."
    dots = made.ttir.count("tt.dot ")
    if dots > 3:
        return f"There are {dots} products of tiles: three are enough."
    return None


SPLIT = Exercise(
    name="fp8-split",
    statement=(
        "Write a kernel that multiplies bfloat16, a (m, k) and b (n, k), contiguous, "
        "with nothing but three products of e4m3fn, and stores a @ b.T in float32, as "
        "near to the truth as if each factor were off by 2^-8 of itself. Magnitudes "
        "are from 1/32 to 4 in a and from 1/32 to 1/8 in b. Then count what it costs "
        "beside one product of bfloat16, on tensor cores and in bytes."
    ),
    inputs=_narrow,
    reference=lambda a, b: a @ b.T,
    shapes=((16, 32, 128), (1, 1, 1), (17, 40, 100), (33, 17, 200), (5, 3, 0)),
    launch=_launch_split,
    parameters=PARAMETERS,
    dtypes=("bfloat16",),
    out_dtype="float32",
    scales=(1.0,),
    operand="bfloat16",
    length=1,
    required=USES,
    watch=_watch_split,
    hint=(
        "What is left of a number after it was rounded to e4m3fn, and where do its "
        "bits lie? Mind the smallest numbers of the format."
    ),
)
