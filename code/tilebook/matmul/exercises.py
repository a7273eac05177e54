"""The chapter's exercises, from counting bytes to float32 out of bfloat16."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from tilebook import compile_only
from tilebook.matmul import accuracy, solutions
from tilebook.testing import Exercise

__all__ = ["EXERCISES"]

Arrays = Mapping[str, Any]
Shape = tuple[int, ...]

# (m, n, k): whole tiles, one element, ragged each way, nothing to sum, no rows.
SHAPES = ((32, 32, 64), (1, 1, 1), (17, 40, 33), (33, 20, 70), (5, 3, 0), (0, 4, 9))
SIDES = ("BLOCK_M", "BLOCK_N", "BLOCK_K")
PARAMETERS = ("a_ptr", "b_ptr", "out_ptr", "m", "n", "k", *SIDES)
USES = (*SIDES, "tl.dot")


def blocks(m: int, n: int, k: int) -> dict[str, int]:
    """Sides of a tile at a shape, other ones beside it; `tl.dot` takes 16 and more."""
    return {"BLOCK_M": 16 << m % 2, "BLOCK_N": 32 >> n % 2, "BLOCK_K": 32 << k % 2}


def grid(m: int, n: int, tile: Mapping[str, int]) -> tuple[int, int]:
    """Rows and columns of tiles; one of each where there is nothing."""
    return max(1, -(-m // tile["BLOCK_M"])), max(1, -(-n // tile["BLOCK_N"]))


def terms(shape: Shape) -> int:
    """Roundings of a sum over a shape's last side, and of what is done to it."""
    return shape[-1] + 8


def _pair(rng: np.random.Generator, shape: Shape) -> Arrays:
    m, n, k = shape
    return {"a": rng.standard_normal((m, k)), "b": rng.standard_normal((k, n))}


def _launch(kernel: Any, out: Any, *, a: Any, b: Any, **rest: Any) -> None:
    (m, k), n = a.shape, b.shape[1]
    tile = blocks(m, n, k)
    kernel[grid(m, n, tile)](a, b, *rest.values(), out, m, n, k, **tile)


M, N, K, SIZE = 4096, 8192, 4096, 2


def _explain_traffic(got: Any) -> str | None:
    right = solutions.traffic(M, N, K, SIZE, 64, 64)
    if not isinstance(got, tuple | list) or not got:
        return None
    if got[0] * SIZE == right:
        return "These are elements, not bytes."
    if got[0] == (M * K + K * N) * SIZE:
        return "That is what is needed once. How many programs read a row of a?"
    return None


TRAFFIC = Exercise(
    name="matmul-traffic",
    statement=(
        f"A {M} by {K} and a {K} by {N} matrix of bf16 are multiplied, each tile of "
        "the result by a program of its own. Give two whole numbers: the bytes that "
        "all programs together load with tiles of 64 by 64, and with 128 by 256."
    ),
    answer=lambda: (
        solutions.traffic(M, N, K, SIZE, 64, 64),
        solutions.traffic(M, N, K, SIZE, 128, 256),
    ),
    explain=_explain_traffic,
    rtol=0.0,
    hint="What does one program load for its tile, and how many are there?",
)

TILE, WARPS, REGISTERS = (128, 128, 64), 4, 168

ROOM = Exercise(
    name="matmul-room",
    statement=(
        f"A tile of {TILE[0]} by {TILE[1]} float32 sums is shared by {WARPS} warps, "
        f"whose threads have {REGISTERS} registers each. A stage of the pipeline holds "
        f"{TILE[2]} bf16 terms of each row and column. An SM has 65,536 registers and "
        "228 KiB of shared memory, of which each program takes 1 KiB besides. Give "
        "three whole numbers: the sums of a thread, the programs whose registers fit "
        "on an SM, and the stages that each may then have."
    ),
    answer=lambda: solutions.room(*TILE, WARPS, REGISTERS, 2),
    hint="Registers decide how many programs share the shared memory.",
)


def _launch_strips(kernel: Any, out: Any, x: Any, group: int) -> None:
    tiles_m, tiles_n = x.shape
    if x.numel():
        kernel[(tiles_m * tiles_n,)](x, out, tiles_m, tiles_n, GROUP=group)


def _strips(x: np.ndarray, group: int) -> np.ndarray:
    parts = [x[:, at : at + group].ravel() for at in range(0, x.shape[1], group)]
    return np.concatenate([np.empty(0), *parts])


STRIPS = Exercise(
    name="matmul-strips",
    statement=(
        "x has an element for each tile of a product, tiles_m rows and tiles_n "
        "columns of them, contiguous. Programs take the tiles in strips of GROUP "
        "columns, and a strip row by row; the last strip may be narrower. Write a "
        "kernel whose program number i stores at out[i] the element of its tile."
    ),
    inputs=lambda rng, shape: {
        "x": rng.standard_normal(shape),
        "group": int(rng.choice([2, 3, 4])),
    },
    reference=_strips,
    shapes=((4, 12), (1, 1), (5, 7), (9, 4), (3, 11), (0, 3), (7, 2)),
    launch=_launch_strips,
    parameters=("x_ptr", "out_ptr", "tiles_m", "tiles_n", "GROUP"),
    required=("GROUP",),
    hint="How many tiles has a whole strip, and how many columns has this one?",
)


def _layer(rng: np.random.Generator, shape: Shape) -> Arrays:
    return {**_pair(rng, shape), "bias": rng.standard_normal(shape[1])}


def _gelu(x: np.ndarray) -> np.ndarray:
    erf = np.vectorize(math.erf, otypes=[np.float64])
    return 0.5 * x * (1 + erf(x * math.sqrt(0.5)))


GELU = Exercise(
    name="matmul-gelu",
    statement=(
        "Write a kernel that stores gelu(a @ b + bias) in float32, a, b and bias in "
        "bf16 and contiguous, the bias one number a column, and gelu(x) = 0.5 x (1 + "
        "erf(x / sqrt(2))). Its grid has an axis for rows of tiles and one for columns."
    ),
    inputs=_layer,
    reference=lambda a, b, bias: _gelu(a @ b + bias),
    shapes=SHAPES,
    launch=_launch,
    parameters=("a_ptr", "b_ptr", "bias_ptr", *PARAMETERS[2:]),
    dtypes=("bfloat16",),
    out_dtype="float32",
    length=terms,
    # What is left of 1 + erf(x) where it cancels: some roundings of 1, times x / 2.
    atol=2.0**-20,
    required=USES,
    hint="The sum has to be whole before anything is done to it.",
)


def _span(k: int, block_k: int, parts: int) -> int:
    steps = math.ceil(k / block_k)
    return math.ceil(steps / parts) * block_k


def _cut(a: np.ndarray, b: np.ndarray, parts: int) -> np.ndarray:
    (m, k), n = a.shape, b.shape[1]
    span = max(1, _span(k, blocks(m, n, k)["BLOCK_K"], parts))
    shares = [slice(at * span, (at + 1) * span) for at in range(parts)]
    return np.stack([a[:, share] @ b[share] for share in shares])


def _launch_parts(kernel: Any, out: Any, a: Any, b: Any, parts: int) -> None:
    (m, k), n = a.shape, b.shape[1]
    tile = blocks(m, n, k)
    kernel[(*grid(m, n, tile), parts)](a, b, out, m, n, k, **tile, PARTS=parts)


PARTS = Exercise(
    name="matmul-parts",
    statement=(
        "Write the first kernel of a split sum: of the cdiv(k, BLOCK_K) blocks of "
        "terms each of PARTS parts takes the same number, rounded up, in order. The "
        "last may get fewer, or none at all. out (PARTS, m, n) is float32; out[p] is "
        "what part p has of a @ b. a and b are contiguous and bf16; the grid's third "
        "axis counts parts."
    ),
    inputs=lambda rng, shape: {
        **_pair(rng, shape),
        "parts": int(rng.choice([2, 3, 4])),
    },
    reference=_cut,
    shapes=((16, 32, 256), (1, 1, 1), (17, 20, 100), (5, 33, 161), (20, 4, 40)),
    launch=_launch_parts,
    parameters=(*PARAMETERS, "PARTS"),
    dtypes=("bfloat16",),
    out_dtype="float32",
    length=terms,
    required=(*USES, "PARTS"),
    hint="First and last block of a part; where do the blocks end, and the terms?",
)


def _bytes(rng: np.random.Generator, shape: Shape) -> Arrays:
    m, n, k = shape
    return {
        "a": rng.integers(-128, 128, (m, k), dtype=np.int8),
        "b": rng.integers(-128, 128, (k, n), dtype=np.int8),
        # Of several magnitudes: rows of activations are not alike.
        "scale_a": np.exp2(rng.uniform(-6, 0, m)),
        "scale_b": np.exp2(rng.uniform(-6, 0, n)),
    }


SCALES = Exercise(
    name="matmul-scales",
    statement=(
        "Write a kernel for a quantised layer: a and b hold int8, every row of a has "
        "a float32 scale and every column of b has one. out[i, j] = scale_a[i] * "
        "scale_b[j] * sum over k of a[i, k] * b[k, j], in float32. All are contiguous, "
        "and the sum is exact."
    ),
    inputs=_bytes,
    reference=lambda a, b, scale_a, scale_b: scale_a[:, None] * (a @ b) * scale_b,
    shapes=((32, 32, 64), (1, 1, 1), (17, 40, 33), (33, 20, 70), (0, 4, 9)),
    launch=_launch,
    parameters=("a_ptr", "b_ptr", "scale_a_ptr", "scale_b_ptr", *PARAMETERS[2:]),
    length=4,
    required=USES,
    hint="What type does tl.dot sum int8 in, and what doesn't depend on k?",
)


def _complex(rng: np.random.Generator, shape: Shape) -> Arrays:
    one, other = _pair(rng, shape), _pair(rng, shape)
    return {"ar": one["a"], "ai": other["a"], "br": one["b"], "bi": other["b"]}


def _product(ar: Any, ai: Any, br: Any, bi: Any) -> tuple[np.ndarray, np.ndarray]:
    return ar @ br - ai @ bi, ar @ bi + ai @ br


def _launch_complex(
    kernel: Any, re: Any, im: Any, ar: Any, ai: Any, br: Any, bi: Any
) -> None:
    (m, k), n = ar.shape, br.shape[1]
    tile = blocks(m, n, k)
    kernel[grid(m, n, tile)](ar, ai, br, bi, re, im, m, n, k, **tile)


def _compiled(kernel: Any, tensors: int, dtype: torch.dtype) -> Any:
    tile, x = dict.fromkeys(SIDES, 16), torch.empty((64, 64), dtype=dtype)
    args = *[x] * tensors, *x.shape, 64
    return compile_only.compile(kernel, *args, **tile, target="sm_90")


def _watch_complex(kernel: Any) -> str | None:
    # Products of bfloat16 compile in a fraction of the time that float32's take.
    dots = _compiled(kernel, 6, torch.bfloat16).ttir.count("tt.dot ")
    if dots > 3:
        return f"There are {dots} products of real tiles: three are enough."
    return None


COMPLEX = Exercise(
    name="matmul-complex",
    statement=(
        "Write a kernel that multiplies two complex matrices with three products of "
        "real tiles in its loop instead of four. Real and imaginary parts are "
        "contiguous float32 matrices of their own, and stay float32: input_precision "
        "is ieee."
    ),
    inputs=_complex,
    reference=_product,
    shapes=((16, 32, 32), (1, 1, 1), (17, 20, 33), (5, 33, 70)),
    launch=_launch_complex,
    parameters=(
        *("ar_ptr", "ai_ptr", "br_ptr", "bi_ptr", "re_ptr", "im_ptr"),
        *PARAMETERS[3:],
    ),
    length=lambda shape: 4 * terms(shape),
    required=USES,
    watch=_watch_complex,
    hint="(ar + ai)(br + bi) has all four products in it. Which two do you need apart?",
)


def _launch_triangle(kernel: Any, out: Any, a: Any) -> None:
    m, k = a.shape
    side = 16 << k % 2
    tiles = -(-m // side)
    if m:
        kernel[(tiles * (tiles + 1) // 2,)](a, out, m, k, BLOCK=side, BLOCK_K=32)


TRIANGLE = Exercise(
    name="matmul-triangle",
    statement=(
        "Write a kernel that stores all of a @ a.T and multiplies half of it: it gets "
        "one program for each tile of BLOCK by BLOCK on or below the diagonal, row by "
        "row of the triangle. a (m, k) is contiguous, both are bf16."
    ),
    inputs=lambda rng, shape: {"a": rng.standard_normal(shape)},
    reference=lambda a: a @ a.T,
    shapes=((48, 32), (1, 1), (33, 33), (70, 20), (100, 5), (0, 4)),
    launch=_launch_triangle,
    parameters=("a_ptr", "out_ptr", "m", "k", "BLOCK", "BLOCK_K"),
    dtypes=("bfloat16",),
    length=terms,
    invariants={"out is its own transpose": accuracy.symmetric},
    required=("BLOCK", "BLOCK_K", "tl.dot"),
    hint="Rows 0 to r - 1 of the triangle have r (r + 1) / 2 tiles.",
)


def _watch_exact(kernel: Any) -> str | None:
    artefact = _compiled(kernel, 3, torch.float32)
    if not artefact.evidence.mma:
        return "No tensor core takes part: are the operands of tl.dot bfloat16?"
    if "tf32" in artefact.ptx:
        return "Tensor cores multiply TF32 here: give tl.dot bfloat16 only."
    return None


EXACT = Exercise(
    name="matmul-exact",
    statement=(
        "Write a kernel that multiplies contiguous float32 matrices with nothing but "
        "products of bf16 tiles, and is as near to the truth as float32 itself: within "
        "4 sqrt(k) roundings of 2^-24. Then time it beside input_precision ieee and "
        "tf32x3 on your card, and find out how many products each further digit costs."
    ),
    inputs=_pair,
    reference=lambda a, b: a @ b,
    shapes=((16, 32, 32), (1, 1, 1), (17, 20, 33), (33, 17, 70), (5, 3, 0)),
    launch=_launch,
    parameters=PARAMETERS,
    length=terms,
    required=(*USES, "tl.bfloat16"),
    watch=_watch_exact,
    hint="float32 has three times the digits of bfloat16. Which of the nine count?",
)

EXERCISES = (
    *(TRAFFIC, ROOM, STRIPS),
    *(GELU, PARTS, SCALES, COMPLEX, TRIANGLE),
    EXACT,
)
