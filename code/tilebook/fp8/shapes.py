"""The products that the chapter measures, their operands, and the library's calls."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch

from tilebook import device
from tilebook.fp8 import public, quantizing, scaling
from tilebook.matmul.shapes import LAYERS, Shape

SCALINGS = {
    "tensor": ("tensor", "tensor"),
    "row": ("row", "row"),
    "block": ("1x128", "128x128"),
}
"""How `a` and `b` are scaled, by name."""
CODES = {name: i for i, name in enumerate(SCALINGS)}
"""What stands for a scaling in a row's shape, which holds numbers."""
SQUARES = tuple(Shape(n, n, n) for n in (2048, 4096, 8192, 16384))
ROWS = (512, 4096)
LARGE = (
    *SQUARES,
    *(Shape(m, *pair) for m in ROWS for pair in LAYERS["70B"].values()),
)
LARGE_BRIEF = SQUARES[1:2]
FEW_ROWS = (1, 2, 4, 8, 16, 32, 64, 128)
DECODING = tuple(
    Shape(m, n, k)
    for n, k in ((4096, 4096), (8192, 28672), (28672, 8192))
    for m in FEW_ROWS
)
"""The sides of the article on Hopper's copy engine, and a large layer's both ways."""
DECODING_BRIEF = DECODING[:8:7]

Operands = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def operands(shape: Shape, name: str) -> Operands:
    """Make random operands in eight bits, terms of both together.

    Args:
        shape: of the product.
        name: one of `SCALINGS`.

    Returns:
        `a` (m, k), `b` (k, n), and the scales of both, as `quantize` gives them.
    """
    where = device.torch_device()
    found = []
    for rows, granularity in zip((shape.m, shape.n), SCALINGS[name], strict=True):
        x = torch.randn(rows, shape.k, device=where).bfloat16()
        found.append(quantizing.quantize(x, granularity))
    a, b = found
    return a.codes, b.codes.t(), a.scale, b.scale.t()


def exact(
    a: torch.Tensor, b: torch.Tensor, scale_a: torch.Tensor, scale_b: torch.Tensor
) -> torch.Tensor:
    """Multiply what codes and scales stand for, in the operands' own precision.

    Args:
        a: (m, k), codes as numbers.
        b: (k, n), likewise.
        scale_a: as `scaled_matmul` takes it.
        scale_b: likewise.
    """
    return spread(scale_a, a) @ spread(scale_b.t(), b.t()).t()


def spread(scale: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Scale a matrix by the groups that its scales' shape implies."""
    for dim, size in enumerate(x.shape):
        if scale.shape[dim] not in (1, size):
            scale = scale.repeat_interleave(128, dim).narrow(dim, 0, size)
    return x * scale


def moved(shape: Shape, name: str) -> float:
    """Bytes that have to move: codes and scales once, and a result of two bytes.

    Args:
        shape: of the product.
        name: one of `SCALINGS`.
    """
    scales = sum(
        4 * down * across
        for down, across in (
            scaling.scale_shape(rows, shape.k, granularity)
            for rows, granularity in zip(
                (shape.m, shape.n), SCALINGS[name], strict=True
            )
        )
    )
    return shape.moved(1, 2) + scales


def ours(fast: bool) -> Callable[..., torch.Tensor]:
    """`scaled_matmul`, fast or precise."""
    return functools.partial(public.scaled_matmul, fast_accumulation=fast)


def theirs(name: str, fast: bool) -> Callable[..., torch.Tensor]:
    """`torch._scaled_mm`, fast or precise, for operands as `operands` makes them.

    Args:
        name: one of `SCALINGS`.
        fast: what is passed as `use_fast_accum`.

    Notes:
        Its scales of blocks of 128 by 128 lie with those along k together, padded to
        fours; they are brought into that order before, and not timed: see `prepared`.
    """

    def call(a: Any, b: Any, scale_a: Any, scale_b: Any) -> torch.Tensor:
        return torch._scaled_mm(
            a, b, scale_a, scale_b, out_dtype=torch.bfloat16, use_fast_accum=fast
        )

    return call


def prepared(name: str, found: Operands) -> Operands:
    """Bring scales into the order that `torch._scaled_mm` takes; ours take any.

    Args:
        name: one of `SCALINGS`.
        found: from `operands`.
    """
    a, b, scale_a, scale_b = found
    if name == "block":
        across, down = scale_b.shape
        wide = scale_b.new_zeros(down, -(-across // 4) * 4)
        wide[:, :across] = scale_b.t()
        scale_b = wide[:, :across].t()
    return a, b, scale_a, scale_b


def working(
    peers: Mapping[str, Callable[..., Any]], found: Operands
) -> dict[str, Callable[..., Any]]:
    """Leave out the peers that refuse a product.

    Args:
        peers: by name.
        found: operands.

    Returns:
        Those that made it.
    """
    kept = {}
    for name, peer in peers.items():
        try:
            peer(*found)
        except (RuntimeError, ValueError):
            # cuBLAS hasn't every scaling, or not for these sides.
            continue
        kept[name] = peer
    return kept
