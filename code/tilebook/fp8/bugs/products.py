"""Planted bugs of products: which scale, how long a sum, and how operands lie."""

import torch
import triton
import triton.language as tl

from tilebook import device
from tilebook.fp8.bugs import tools
from tilebook.parallel.bugs import Bug, Case, Launch

M, N, K = 16, 512, 256
E4M3 = torch.float8_e4m3fn
TERMS = tools.LENGTHS[-1]
SIDE = 128


def _luck() -> torch.Generator:
    return torch.Generator().manual_seed(20261128)


def _codes(*shape: int, low: int = -4) -> torch.Tensor:
    """Whole numbers, whose products and sums are exact."""
    x = torch.randint(low, 5, shape, generator=_luck()).float()
    return x.to(device.torch_device()).to(E4M3)


def _scales(down: int, across: int, alike: bool) -> torch.Tensor:
    powers = torch.randint(-3, 4, (down, across), generator=_luck()).float()
    return torch.exp2(powers * (not alike)).to(device.torch_device())


def _operands(k: int, alike: bool) -> tuple[torch.Tensor, ...]:
    """Codes (m, k) and (n, k), scales of 1 x 128 and of 128 x 128."""
    blocks = triton.cdiv(k, 128)
    scales = _scales(M, blocks, alike), _scales(N // 128, blocks, alike)
    return _codes(M, k), _codes(N, k), *scales


def scaled_product(
    a: torch.Tensor,
    b: torch.Tensor,
    scale_a: torch.Tensor,
    scale_b: torch.Tensor,
) -> torch.Tensor:
    """What the kernels should store.

    Args:
        a: (m, k), codes as numbers.
        b: (n, k), likewise.
        scale_a: (m, blocks of 128 terms).
        scale_b: (groups of 128 columns, blocks).

    Returns:
        (m, n), in the scales' precision.
    """
    k = a.shape[1]
    left = scale_a.repeat_interleave(128, 1)[:, :k]
    right = scale_b.repeat_interleave(128, 0).repeat_interleave(128, 1)[:, :k]
    return (a.to(left.dtype) * left) @ (b.to(right.dtype) * right).t()


def _launch_blocks(
    a: torch.Tensor,
    b: torch.Tensor,
    scale_a: torch.Tensor,
    scale_b: torch.Tensor,
) -> Launch:
    (m, k), n = a.shape, b.shape[0]
    out = torch.empty(m, n, device=a.device)
    args = (a, b, scale_a, scale_b, out, m, n, k, scale_a.shape[1])
    meta = {"BLOCK_M": 16, "BLOCK_N": 256, "BLOCK_K": 128}
    grid = (triton.cdiv(m, 16), triton.cdiv(n, 256))
    return Launch(grid, args, meta, out)


@triton.jit
def tiles_kernel(
    a_ptr, b_ptr, scale_a_ptr, scale_b_ptr, out_ptr, m, n, k, blocks,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    offs_m = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    offs_n = tl.program_id(1).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    in_m, in_n = (offs_m < m)[:, None], (offs_n < n)[None, :]
    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for block in range(blocks):
        offs_k = block * BLOCK_K + tl.arange(0, BLOCK_K)
        a_at = a_ptr + offs_m[:, None] * k + offs_k[None, :]
        b_at = b_ptr + offs_n[None, :] * k + offs_k[:, None]
        a = tl.load(a_at, mask=in_m & (offs_k < k)[None, :], other=0.0)
        b = tl.load(b_at, mask=(offs_k < k)[:, None] & in_n, other=0.0)
        left_at = scale_a_ptr + offs_m * blocks + block
        left = tl.load(left_at, mask=offs_m < m, other=0.0)  # (BLOCK_M,)
        right = tl.load(scale_b_ptr + tl.program_id(1) * blocks + block)
        acc += tl.dot(a, b) * left[:, None] * right
    out_at = out_ptr + offs_m[:, None] * n + offs_n[None, :]
    tl.store(out_at, acc, mask=in_m & in_n)


@triton.jit
def columns_kernel(
    a_ptr, b_ptr, scale_a_ptr, scale_b_ptr, out_ptr, m, n, k, blocks,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    offs_m = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    offs_n = tl.program_id(1).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    in_m, in_n = (offs_m < m)[:, None], (offs_n < n)[None, :]
    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for block in range(blocks):
        offs_k = block * BLOCK_K + tl.arange(0, BLOCK_K)
        a_at = a_ptr + offs_m[:, None] * k + offs_k[None, :]
        b_at = b_ptr + offs_n[None, :] * k + offs_k[:, None]
        a = tl.load(a_at, mask=in_m & (offs_k < k)[None, :], other=0.0)
        b = tl.load(b_at, mask=(offs_k < k)[:, None] & in_n, other=0.0)
        left_at = scale_a_ptr + offs_m * blocks + block
        left = tl.load(left_at, mask=offs_m < m, other=0.0)  # (BLOCK_M,)
        right_at = scale_b_ptr + offs_n // 128 * blocks + block
        right = tl.load(right_at, mask=offs_n < n, other=0.0)  # (BLOCK_N,)
        acc += tl.dot(a, b) * left[:, None] * right[None, :]
    out_at = out_ptr + offs_m[:, None] * n + offs_n[None, :]
    tl.store(out_at, acc, mask=in_m & in_n)


TILES_SCALE = Bug(
    name="tiles-scale",
    title="The scale of a tile that has two",
    symptom=(
        "Right for all tiles that the tuner tried, until it tried wider ones. Then "
        "the model still talks, and talks nonsense."
    ),
    source=(
        "A scale's index from the tile's number, for tiles as wide as groups. Kernels "
        "are in print whose tests give every group the same scale."
    ),
    tool=tools.SIGNED_SCALES,
    wrong=Case(tiles_kernel, _launch_blocks),
    mended=Case(columns_kernel, _launch_blocks),
    expected=scaled_product,
    friendly=lambda: _operands(K, True),
    inputs=lambda: _operands(K, False),
    length=K,
)


def pairs_launch(
    a: torch.Tensor,
    b: torch.Tensor,
    scale_a: torch.Tensor,
    scale_b: torch.Tensor,
) -> Launch:
    """Make room for scales of an even number of blocks, taken by twos.

    Args:
        a: codes (m, k).
        b: codes (n, k).
        scale_a: (m, blocks of 128 terms) float32.
        scale_b: (groups of 128 columns, blocks) float32.

    Returns:
        Grid, arguments and constants, and the result (m, n).
    """
    even = 2 * triton.cdiv(a.shape[1], 256)
    padded = []
    for scale in (scale_a, scale_b):
        found = torch.empty(scale.shape[0], even, device=scale.device)
        found[:, : scale.shape[1]] = scale
        padded.append(found)
    return _launch_blocks(a, b, *padded)


def filled_launch(
    a: torch.Tensor,
    b: torch.Tensor,
    scale_a: torch.Tensor,
    scale_b: torch.Tensor,
) -> Launch:
    """The same, with scales of zero where there is no block.

    Args:
        a: as for `pairs_launch`.
        b: likewise.
        scale_a: likewise.
        scale_b: likewise.

    Returns:
        Likewise.
    """
    even = 2 * triton.cdiv(a.shape[1], 256)
    padded = []
    for scale in (scale_a, scale_b):
        found = torch.zeros(scale.shape[0], even, device=scale.device)
        found[:, : scale.shape[1]] = scale
        padded.append(found)
    return _launch_blocks(a, b, *padded)


PADDED_SCALES = Bug(
    name="padded-scales",
    title="Zero times a scale that nobody wrote",
    symptom=(
        "Right where k is a multiple of 256. For k = 7,296 the product is NaN on some "
        "days and right on others."
    ),
    source=(
        "Buffers of scales that are padded for the copy engine or for a loop by twos, "
        "and filled as far as there are blocks."
    ),
    tool=tools.POISON,
    wrong=Case(columns_kernel, pairs_launch),
    mended=Case(columns_kernel, filled_launch),
    expected=scaled_product,
    friendly=lambda: _operands(256, False),
    inputs=lambda: _operands(384, False),
    length=384,
)


def _launch_plain(a: torch.Tensor, b: torch.Tensor) -> Launch:
    (m, k), n = a.shape, b.shape[1]
    out = torch.empty(m, n, device=a.device)
    tile = 16 if m < SIDE else SIDE
    grid = (triton.cdiv(m, tile), triton.cdiv(n, tile))
    args = (a, b, out, m, n, k, *a.stride(), *b.stride())
    meta = {"BLOCK_M": tile, "BLOCK_N": tile, "BLOCK_K": 128}
    return Launch(grid, args, meta, out)


@triton.jit
def long_kernel(
    a_ptr, b_ptr, out_ptr, m, n, k, a_m, a_k, b_k, b_n,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    offs_m = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    offs_n = tl.program_id(1).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    in_m, in_n = (offs_m < m)[:, None], (offs_n < n)[None, :]
    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, k, BLOCK_K):
        offs_k = start + tl.arange(0, BLOCK_K)
        a_at = a_ptr + offs_m[:, None] * a_m + offs_k[None, :] * a_k
        b_at = b_ptr + offs_k[:, None] * b_k + offs_n[None, :] * b_n
        a = tl.load(a_at, mask=in_m & (offs_k < k)[None, :], other=0.0)
        b = tl.load(b_at, mask=(offs_k < k)[:, None] & in_n, other=0.0)
        acc = tl.dot(a, b, acc)
    out_at = out_ptr + offs_m[:, None] * n + offs_n[None, :]
    tl.store(out_at, acc, mask=in_m & in_n)


@triton.jit
def promoted_kernel(
    a_ptr, b_ptr, out_ptr, m, n, k, a_m, a_k, b_k, b_n,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    offs_m = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    offs_n = tl.program_id(1).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    in_m, in_n = (offs_m < m)[:, None], (offs_n < n)[None, :]
    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, k, BLOCK_K):
        offs_k = start + tl.arange(0, BLOCK_K)
        a_at = a_ptr + offs_m[:, None] * a_m + offs_k[None, :] * a_k
        b_at = b_ptr + offs_k[:, None] * b_k + offs_n[None, :] * b_n
        a = tl.load(a_at, mask=in_m & (offs_k < k)[None, :], other=0.0)
        b = tl.load(b_at, mask=(offs_k < k)[:, None] & in_n, other=0.0)
        acc += tl.dot(a, b)
    out_at = out_ptr + offs_m[:, None] * n + offs_n[None, :]
    tl.store(out_at, acc, mask=in_m & in_n)


def _wide(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a.double() @ b.double()


def _narrow(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return _wide(a, b).float()


def _positive(k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Numbers from 1 to 15, whose sums grow as fast as they can."""
    luck = _luck()
    a, b = (torch.randint(1, 16, (16, k), generator=luck).float() for _ in range(2))
    where = device.torch_device()
    return a.to(where).to(E4M3), b.to(where).to(E4M3).t()


LONG_SUM = Bug(
    name="long-sum",
    title="A float32 that isn't one",
    symptom=(
        "Right on the laptop to the last digit. On a Hopper too, with small numbers "
        "or short sums. The longer the sums, the smaller the results, by per cents."
    ),
    source=(
        "tl.dot with an accumulator, the first line of every tutorial. On Hopper "
        "nothing promotes sums of eight bits unless somebody asks for it."
    ),
    tool=tools.TENSOR_CORES,
    wrong=Case(long_kernel, _launch_plain),
    mended=Case(promoted_kernel, _launch_plain),
    expected=_narrow,
    friendly=lambda: (_codes(16, 128), _codes(16, 128).t()),
    inputs=lambda: _positive(TERMS),
    length=TERMS,
)


def rows_launch(a: torch.Tensor, b: torch.Tensor) -> Launch:
    """Say how to multiply, with rows of `b` together, as `a @ b` suggests.

    Args:
        a: codes (m, k), contiguous.
        b: codes (k, n).

    Returns:
        Grid, arguments and constants, and the result (m, n).
    """
    return _launch_plain(a, b.contiguous())


def terms_launch(a: torch.Tensor, b: torch.Tensor) -> Launch:
    """Say how to multiply, with the terms of a sum together in both.

    Args:
        a: codes (m, k), contiguous.
        b: codes (k, n).

    Returns:
        Grid, arguments and constants, and the result (m, n).
    """
    return _launch_plain(a, b.t().contiguous().t())


ROWS_OF_B = Bug(
    name="rows-of-b",
    title="An operand the wrong way round",
    symptom=(
        "Right, always. In eight bits the layer is hardly faster than it was in "
        "bfloat16."
    ),
    source=(
        "A weight stored (k, n), as for a @ b. In sixteen bits Hopper's tensor cores "
        "read it either way, in eight they read along k alone."
    ),
    tool=tools.LOADS,
    wrong=Case(promoted_kernel, rows_launch),
    mended=Case(promoted_kernel, terms_launch),
    expected=_narrow,
    friendly=lambda: (_codes(SIDE, SIDE), _codes(SIDE, SIDE)),
    inputs=lambda: (_codes(SIDE, 2 * SIDE), _codes(2 * SIDE, SIDE)),
    length=2 * SIDE,
)
