"""What the chapter's kernels multiply, and what is wanted of the product besides."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from tilebook import check, library
from tilebook._constant import constant
from tilebook.tiling.operands import check_grid, no_gradient

DTYPES = (torch.bfloat16, torch.float16, torch.float32, torch.int8)
"""The element types of operands; those of int8 give int32, all others themselves."""

PRECISIONS = ("tf32", "tf32x3", "ieee")
"""How float32 is multiplied; other types have one way."""

ACTIVATIONS = ("", "relu", "gelu", "gelu_tanh", "silu", "silu_and_mul")
"""What may be applied to a product, by name; "" is nothing."""


def compiled(kernel: Any) -> Any:
    """In place of a kernel: compiles it for its arguments, and launches nothing."""
    return _Compiled(kernel)


class _Compiled:
    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel

    def __getitem__(self, grid: Any) -> Callable[..., None]:
        def warm(*args: Any, **meta: Any) -> None:
            self.kernel.warmup(*args, grid=grid, **meta)

        return warm


def itself(kernel: Any) -> Any:
    """A kernel as it is: what a task's `wrap` makes of it by default."""
    return kernel


class Task(NamedTuple):
    """A product, and what is done to each tile of it before it is stored.

    The result is activation(scale * (a @ b) + bias) + residual, rounded once.
    """

    a: torch.Tensor
    """Matrix (m, k), any strides."""
    b: torch.Tensor
    """Matrix (k, n), any strides, of the same dtype."""
    out: torch.Tensor
    """Matrix (m, n), or (m, n // 2) with "silu_and_mul"; its elements don't overlap."""
    precision: str = "ieee"
    """One of `PRECISIONS`."""
    scale: float = 1.0
    """Of the product."""
    bias: torch.Tensor | None = None
    """Vector (n,), any stride."""
    activation: str = ""
    """One of `ACTIVATIONS`. "silu_and_mul" takes columns in pairs: of each, silu of the
    first times the second."""
    residual: torch.Tensor | None = None
    """Matrix of the result's shape, any strides."""
    wrap: Callable[[Any], Any] = itself
    """Makes of a kernel what is launched; `library.launchable` inside an operator."""

    @property
    def m(self) -> int:
        """Rows of `a`."""
        return int(self.a.shape[0])

    @property
    def n(self) -> int:
        """Columns of `b`."""
        return int(self.b.shape[1])

    @property
    def k(self) -> int:
        """Terms of a sum."""
        return int(self.a.shape[1])

    @property
    def plain(self) -> bool:
        """Whether the product is stored as it is."""
        kept = self.scale == 1.0 and not self.activation
        return kept and self.bias is None and self.residual is None


def result_dtype(dtype: torch.dtype) -> torch.dtype:
    """The element type of a product: int32 for int8, else that of the operands."""
    return torch.int32 if dtype == torch.int8 else dtype


def check_pair(a: torch.Tensor, b: torch.Tensor) -> None:
    """Check that two matrices can be multiplied by this process's kernels.

    Args:
        a: matrix (m, k).
        b: matrix (k, n).

    Raises:
        TypeError: not tensors, a dtype outside `DTYPES`, or two of them.
        ValueError: not matrices, sides that don't meet, two devices, or a tensor where
            this process's kernels can't reach it.
    """
    check.tensor(a, "a", dtype=DTYPES, ndim=2)
    check.tensor(b, "b", dtype=DTYPES, ndim=2)
    check.same_dtype(a=a, b=b)
    check.same_device(a=a, b=b)
    if a.shape[1] != b.shape[0]:
        raise ValueError(
            f"a must have as many columns as b has rows, got {a.shape[1]} and "
            f"{b.shape[0]}"
        )
    check.runs_here(a, "a")
    check.runs_here(b, "b")


def task_of(
    a: torch.Tensor, b: torch.Tensor, *, precision: str | None = None
) -> tuple[Task, bool]:
    """Check a rung's operands and make room for its result.

    Args:
        a: matrix (m, k), any strides.
        b: matrix (k, n), any strides, of the same dtype.
        precision: one of `PRECISIONS`; by default `default_precision`.

    Returns:
        The task, and whether there is anything to launch: where there are no terms,
        the result is zero already, and where there are no elements there is nothing.

    Raises:
        TypeError: as `check_pair`.
        ValueError: as `check_pair`, another precision, or an operand that takes part in
            a gradient.
        NotImplementedError: an operand carries a forward-mode derivative.
    """
    check_pair(a, b)
    a, b = alone(a, "a"), alone(b, "b")
    precision = precision_of(a.dtype, precision)
    shape = (int(a.shape[0]), int(b.shape[1]))
    empty = torch.zeros if not a.shape[1] else torch.empty
    out = empty(shape, dtype=result_dtype(a.dtype), device=a.device)
    return Task(a, b, out, precision), bool(out.numel() and a.shape[1])


def placed(
    a: torch.Tensor,
    b: torch.Tensor,
    *,
    out_dtype: torch.dtype | None = None,
    **ends: Any,
) -> Task:
    """Make room for a product, whatever it ends in; nothing is checked.

    Args:
        a: matrix (m, k).
        b: matrix (k, n), of the same dtype.
        out_dtype: the result's; by default `result_dtype` of the operands'.
        **ends: other fields of a `Task`.

    Returns:
        The task, its result contiguous and not yet written.
    """
    wide = b.shape[1] // 2 if ends.get("activation") == "silu_and_mul" else b.shape[1]
    out = a.new_empty(a.shape[0], wide, dtype=out_dtype or result_dtype(a.dtype))
    return Task(a, b, out, **ends)


def precision_of(dtype: torch.dtype, precision: str | None) -> str:
    """How operands are multiplied: what is asked for, or what PyTorch is set to.

    Args:
        dtype: of the operands.
        precision: one of `PRECISIONS`; None asks PyTorch.

    Returns:
        One of `PRECISIONS`; "ieee" for all but float32, which have one way.

    Raises:
        ValueError: another precision.
    """
    if precision is not None:
        check.one_of(precision, "precision", PRECISIONS)
    if dtype != torch.float32:
        return "ieee"
    return default_precision() if precision is None else precision


def alone(x: torch.Tensor, name: str) -> torch.Tensor:
    """Refuse an operand whose derivative would get lost; of others, hold the values.

    Args:
        x: the operand.
        name: what the caller calls it.

    Returns:
        The tensor, or a copy of a lazily negated view.

    Raises:
        ValueError: it takes part in a gradient.
        NotImplementedError: it carries a forward-mode derivative.
    """
    no_gradient(x, name)
    library.no_tangent(x)
    return x.resolve_neg()


def multiplied(
    launch: Callable[[Task], None],
    a: torch.Tensor,
    b: torch.Tensor,
    precision: str | None,
) -> torch.Tensor:
    """What every rung does: check, make room, launch if there is anything to do.

    Args:
        launch: the rung's.
        a: matrix (m, k), any strides.
        b: matrix (k, n), any strides, of the same dtype.
        precision: as for `task_of`, whose errors these are, too.

    Returns:
        The product (m, n), contiguous.
    """
    task, any_work = task_of(a, b, precision=precision)
    if any_work:
        with library.on(a):
            launch(task)
    return task.out


@constant
def default_precision() -> str:
    """What PyTorch is set to for float32: "tf32" where it allows that, else "ieee"."""
    # The switch that the older ones set too, and that doesn't fail beside them.
    return "tf32" if torch.backends.cuda.matmul.fp32_precision == "tf32" else "ieee"


def tiles(task: Task, block_m: int, block_n: int) -> int:
    """Count the tiles of a result, as a grid that Triton can launch.

    Args:
        task: the product.
        block_m: rows of a tile.
        block_n: columns of it.

    Returns:
        Their number.

    Raises:
        ValueError: there are more than a grid has programs.
    """
    count = -(-task.m // block_m) * -(-task.n // block_n)
    return check_grid(count, "tiles", "the product")


def divisor(x: torch.Tensor) -> tuple[int, int]:
    """What divides a matrix's strides, in elements, up to 16 bytes.

    Args:
        x: matrix, any strides.

    Returns:
        For rows and for columns the largest power of two that divides the distance
        between neighbours and that a load of 16 bytes holds. A dimension of one
        element has no neighbours, and whatever divides it.
    """
    return _divisors(x.itemsize, tuple(x.shape), x.stride())


@functools.lru_cache(maxsize=4096)
def _divisors(
    itemsize: int, shape: tuple[int, ...], strides: tuple[int, ...]
) -> tuple[int, int]:
    most = 16 // itemsize
    found = []
    for size, stride in zip(shape, strides, strict=True):
        factor = most
        while size > 1 and stride % factor:
            factor //= 2
        found.append(factor)
    return found[0], found[1]


def factors(task: Task) -> tuple[int, ...]:
    """What divides m, n, k and the strides of a task's operands, up to 16 bytes.

    Args:
        task: the product.

    Returns:
        Seven numbers, for kernels to multiply with what `divided` gives them: so the
        compiler knows how many neighbours a load may take at once.
    """
    most = 16 // task.a.itemsize
    sides = (math.gcd(side, most) for side in (task.m, task.n, task.k))
    return *sides, *divisor(task.a), *divisor(task.b)


def divided(task: Task) -> tuple[int, ...]:
    """m, n, k and the strides of a task's operands, by `factors`."""
    values = (task.m, task.n, task.k, *task.a.stride(), *task.b.stride())
    return tuple(x // by for x, by in zip(values, factors(task), strict=True))


def narrow(task: Task) -> bool:
    """Whether an operand can't be copied past the registers, 4 bytes at a time."""
    found = []
    for x in (task.a, task.b):
        along = 1 if x.stride(1) == 1 else 0
        neighbours = math.gcd(x.shape[along], divisor(x)[1 - along], 16 // x.itemsize)
        found.append(neighbours * x.itemsize if 1 in x.stride() else 0)
    return min(found) < 4
