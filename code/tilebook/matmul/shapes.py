"""The products that the chapter measures."""

import functools
from typing import NamedTuple

import torch

from tilebook import device


class Shape(NamedTuple):
    """Sides of a product (m, k) @ (k, n)."""

    m: int
    n: int
    k: int

    @property
    def flops(self) -> float:
        """Multiplications and additions."""
        return 2.0 * self.m * self.n * self.k

    def moved(self, itemsize: int, out_itemsize: int | None = None) -> float:
        """Bytes that have to move: operands read once, the result written once."""
        read = itemsize * (self.m * self.k + self.k * self.n)
        return float(read + (out_itemsize or itemsize) * self.m * self.n)


SQUARES = tuple(Shape(n, n, n) for n in (512, 1024, 2048, 4096, 8192, 16384))
SHORT = tuple(Shape(8192, 8192, k) for k in (512, 1024, 2048))
"""Sums so short that beginning and end of a tile count."""
ROWS = (1, 16, 64, 128, 512, 4096)
"""Tokens that a language model's layer is given at a time."""
LAYERS = {
    "7B": {
        "qkv": (12288, 4096),
        "out": (4096, 4096),
        "up": (22016, 4096),
        "down": (4096, 11008),
    },
    "70B": {
        "qkv": (10240, 8192),
        "out": (8192, 8192),
        "up": (57344, 8192),
        "down": (8192, 28672),
    },
}
"""By model and layer, outputs and inputs: Llama 2's, gate and up projection in one."""
ODD = (Shape(1000, 1000, 1000), Shape(4095, 4097, 1023))
LAYOUTS = ("NN", "NT", "TN")
"""Whether rows of `a` and of `b` lie together (N) or columns (T)."""


def layers(rows: tuple[int, ...] = ROWS) -> tuple[Shape, ...]:
    """The layers' products.

    Args:
        rows: tokens at a time.
    """
    sides = [pair for model in LAYERS.values() for pair in model.values()]
    return tuple(Shape(m, n, k) for m in rows for n, k in sides)


def cases() -> tuple[tuple[Shape, str], ...]:
    """All products with the layouts they are measured in: a layer's weight is stored
    as (outputs, inputs), which makes it NT."""
    found = (
        *((shape, layout) for shape in SQUARES for layout in LAYOUTS),
        *((shape, "NN") for shape in SHORT),
        *((shape, "NT") for shape in layers()),
        *((shape, layout) for shape in ODD for layout in LAYOUTS),
    )
    # A layer may be a square.
    return tuple(dict.fromkeys(found))


def operands(
    shape: Shape, layout: str, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """Make random operands.

    Args:
        shape: of the product.
        layout: one of `LAYOUTS`.
        dtype: of both; small integers for int8, else normal.

    Returns:
        `a` (m, k) and `b` (k, n).
    """
    made = functools.partial(_made, dtype)
    m, n, k = shape
    a = made(k, m).t() if layout[0] == "T" else made(m, k)
    b = made(n, k).t() if layout[1] == "T" else made(k, n)
    return a, b


def _made(dtype: torch.dtype, rows: int, columns: int) -> torch.Tensor:
    where = device.torch_device()
    if dtype == torch.int8:
        return torch.randint(-128, 128, (rows, columns), dtype=dtype, device=where)
    return torch.randn(rows, columns, device=where).to(dtype)
