"""What the chapter's kernels are told: tensors, sizes and options, checked once."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import triton

from tilebook import check, library
from tilebook.matmul.operands import default_precision

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
"""The element types that the kernels take."""
MOST = 256
"""Features of a head."""
FARTHEST = 1 << 22
"""Elements from one row to the next, above which rows are copied together."""
LONGEST = 1 << 28
"""Positions of a sequence: sums of a few still are 32-bit numbers."""


def _itself(kernel: Any) -> Any:
    return kernel


class Task(NamedTuple):
    """An attention to be computed; all tensors have four dimensions."""

    q: torch.Tensor
    """Queries (b, h, s, d), neighbours along d."""
    k: torch.Tensor
    """Keys (b, hk, sk, d), likewise; hk divides h."""
    v: torch.Tensor
    """Values (b, hk, sk, e), likewise."""
    out: torch.Tensor
    """(b, h, s, e), likewise."""
    lse: torch.Tensor
    """Logarithm of the sum of exponentials of each row (b, h, s), float32."""
    scale: float
    left: int | None = None
    """Keys before its own that a query sees; None for all."""
    right: int | None = None
    """Keys after its own; 0 for a causal attention."""
    bottom: bool = False
    """Whether the last query stands at the last key, and not the first at the first."""
    cap: float = 0.0
    """What logits tend to; 0 for no cap."""
    bias: torch.Tensor | None = None
    """(b, h, s, sk), expanded; bool: what may be seen."""
    slopes: torch.Tensor | None = None
    """(b, h), float32, expanded."""
    sinks: torch.Tensor | None = None
    """(h,), float32."""
    dropout: float = 0.0
    seed: torch.Tensor | None = None
    """One int64."""
    cu_q: torch.Tensor | None = None
    """Where packed sequences start and the last one ends, int32 (sequences + 1,)."""
    cu_k: torch.Tensor | None = None
    precision: str = "ieee"
    """Of products of float32, as `tilebook.matmul` names them."""
    described: bool = False
    """Whether loops load by descriptors where they can."""
    wrap: Callable[[Any], Any] = _itself
    """Makes of a kernel what is launched: where it is to be compiled, a recorder."""

    @property
    def packed(self) -> bool:
        """Whether sequences follow one another along s."""
        return self.cu_q is not None

    @property
    def threshold(self) -> int:
        """Of 2^24 equally probable numbers those that drop a weight."""
        return round(self.dropout * 2**24)

    @property
    def revive(self) -> float:
        """What makes up for the dropped weights; dropping all leaves nothing."""
        return 2**24 / (2**24 - self.threshold) if self.threshold < 2**24 else 0.0

    @property
    def fold(self) -> bool:
        """Whether a positive factor is all that makes logits of products."""
        options = self.bias is not None or self.slopes is not None or self.cap
        return self.scale > 0 and not options


def cover(n: int) -> int:
    """The power of two from 16 on that covers n features: `tl.dot` takes no less."""
    return max(16, triton.next_power_of_2(n))


def bias_kind(bias: torch.Tensor | None) -> str:
    """How a bias acts: "" for none, "mask", or "add"."""
    if bias is None:
        return ""
    return "mask" if bias.dtype == torch.bool else "add"


def common(task: Task, *, gradient: bool = False) -> dict[str, Any]:
    """What all general kernels are given.

    Args:
        task: the attention.
        gradient: whether a gradient is wanted, whose kernels get fewer strides.

    Returns:
        Arguments by name.
    """
    q, k, v, bias = task.q, task.k, task.v, task.bias
    kind = bias_kind(bias)
    if kind == "mask":
        bias = bias.view(torch.uint8)
    # Pointers that no kernel follows: any tensor does.
    none = task.lse
    told = {
        "q_ptr": q, "k_ptr": k, "v_ptr": v, "lse_ptr": task.lse,
        "bias_ptr": none if bias is None else bias,
        "slopes_ptr": none if task.slopes is None else task.slopes,
        "seed_ptr": none if task.seed is None else task.seed,
        "cu_q_ptr": none if task.cu_q is None else task.cu_q,
        "cu_k_ptr": none if task.cu_k is None else task.cu_k,
        **_strides("q", q, "bhm"), **_strides("k", k, "bhn"),
        **_strides("v", v, "bhn"), **_strides("lse", task.lse, "bh"),
        **_strides("bias", bias, "bhmn"), **_strides("slopes", task.slopes, "bh"),
        "sq": q.shape[2], "sk": k.shape[2], "heads": q.shape[1],
        "group": q.shape[1] // max(k.shape[1], 1),
        "scale": float(task.scale), "cap": float(task.cap),
        "left": min(task.left or 0, 2 * LONGEST),
        "right": min(task.right or 0, 2 * LONGEST),
        "threshold": task.threshold, "revive": task.revive,
        "D": q.shape[3], "E": v.shape[3],
        "BLOCK_D": cover(q.shape[3]), "BLOCK_E": cover(v.shape[3]),
        "FOLD": task.fold, "CAP": bool(task.cap), "ALIBI": task.slopes is not None,
        "BIAS": kind, "LEFT": task.left is not None, "RIGHT": task.right is not None,
        "BOTTOM": task.bottom, "DROP": task.threshold > 0, "PACKED": task.packed,
        "PRECISION": task.precision,
    }  # fmt: skip
    if not gradient:
        told |= {
            "out_ptr": task.out, **_strides("out", task.out, "bhm"),
            "sinks_ptr": none if task.sinks is None else task.sinks,
            "SINKS": task.sinks is not None,
        }  # fmt: skip
    return told


def strides(name: str, x: torch.Tensor, letters: str = "bhm") -> dict[str, int]:
    """Strides of a tensor as a kernel's arguments: "q_b", "q_h", ..."""
    return _strides(name, x, letters)


def _strides(name: str, x: torch.Tensor | None, letters: str) -> dict[str, int]:
    found = (0,) * len(letters) if x is None else x.stride()
    return {f"{name}_{letter}": int(found[i]) for i, letter in enumerate(letters)}


def programs(
    task: Task, side: str, block: int
) -> tuple[dict[str, Any], tuple[int, ...]]:
    """How many programs share tiles of one side, and what tells them which.

    Args:
        task: the attention.
        side: "q" or "k".
        block: positions of a tile.

    Returns:
        Arguments by name, and the grid. Of packed sequences it has a program for each
        tile that there may be: nothing is read here, so nothing waits for the GPU.

    Raises:
        ValueError: there are more tiles than a grid takes.
    """
    x, cu = (task.q, task.cu_q) if side == "q" else (task.k, task.cu_k)
    batch, heads, length, _ = x.shape
    tiles, sequences, ends = triton.cdiv(length, block), 0, task.lse
    if cu is not None:
        sequences = cu.numel() - 1
        tiles += sequences
        inside = cu.clamp(0, length)
        # What isn't in order is empty, as the kernels see it.
        lengths = (inside[1:] - inside[:-1]).clamp(min=0)
        ends = ((lengths + block - 1) // block).cumsum(0, dtype=torch.int32)
    count = batch * heads * tiles
    if count >= 1 << 31:
        raise ValueError(f"q must need fewer than 2**31 tiles, got {count}")
    told = {"ends_ptr": ends, "tiles": tiles, "sequences": sequences}
    return told, (count,)


def plain(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float | None = None
) -> Task:
    """Check what a rung gets, and make room for its result.

    Args:
        q: queries (b, h, s, d) of a type in `DTYPES`, any strides.
        k: keys (b, hk, sk, d), where hk divides h.
        v: values (b, hk, sk, e).
        scale: 1 / sqrt(d) by default.

    Returns:
        A task without options.

    Raises:
        TypeError: not tensors, another dtype, or several.
        ValueError: shapes that don't meet, or a tensor where this process's kernels
            can't reach it.
    """
    check_heads(q, k, v)
    q, k, v = aligned(q), aligned(k), aligned(v)
    out, lse = room(q, v)
    return Task(q, k, v, out, lse, scale_for(q, scale), precision=precision_of(q))


def check_heads(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> None:
    """Check shapes, dtypes and devices of queries, keys and values; see `plain`."""
    for name, x in (("q", q), ("k", k), ("v", v)):
        check.tensor(x, name, dtype=DTYPES, ndim=4)
    check_meeting(q, k, v)
    for name, x in (("q", q), ("k", k), ("v", v)):
        check.runs_here(x, name)


def check_meeting(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, names: tuple = ("q", "k", "v")
) -> None:
    """Check that queries, keys and values with four dimensions fit together."""
    queries, keys, values = names
    check.same_dtype(**dict(zip(names, (q, k, v), strict=True)))
    check.same_device(**dict(zip(names, (q, k, v), strict=True)))
    batch, heads, _, d = q.shape
    check.tensor(k, keys, shape=(batch, None, None, d))
    check.tensor(v, values, shape=(*k.shape[:3], None))
    if heads % max(k.shape[1], 1) or (heads and not k.shape[1]):
        raise ValueError(
            f"{keys} must have heads that divide the {heads} of {queries}, "
            f"got {k.shape[1]}"
        )
    for name, x in zip(names, (q, v), strict=False):
        name = values if x is v else name
        if not 1 <= x.shape[3] <= MOST:
            raise ValueError(
                f"{name} must have from 1 to {MOST} features, got {x.shape[3]}"
            )
    for name, x in ((queries, q), (keys, k)):
        if x.shape[2] > LONGEST:
            raise ValueError(f"{name} must have at most 2**28 rows, got {x.shape[2]}")


def aligned(x: torch.Tensor) -> torch.Tensor:
    """A tensor whose features are neighbours, and rows not far: itself, or a copy.

    A tile has at most 256 rows, whose distances are 32-bit numbers in a kernel.
    """
    near = x.stride(-2) < FARTHEST or x.shape[-2] == 1
    return x if near and (x.stride(-1) == 1 or x.shape[-1] == 1) else _copy(x)


def near(bias: torch.Tensor) -> torch.Tensor:
    """A bias whose rows and columns a tile's offsets reach: itself, or a copy."""
    far = any(
        size > 1 and step >= FARTHEST
        for size, step in zip(bias.shape[2:], bias.stride()[2:], strict=True)
    )
    return _copy(bias) if far else bias


def _copy(x: torch.Tensor) -> torch.Tensor:
    return x.clone(memory_format=torch.contiguous_format)


def scale_for(q: torch.Tensor, scale: float | None) -> float:
    """The given scale, or 1 / sqrt(d)."""
    return 1 / math.sqrt(q.shape[-1]) if scale is None else scale


def precision_of(q: torch.Tensor) -> str:
    """How products are taken.

    Of float32 in TF32 where PyTorch is set to that. Else three products of it take the
    place of each, but for a few units in the last place as good as one: the units that
    multiply float32 as it is would need more registers than there are.
    """
    if q.dtype != torch.float32:
        return "ieee"
    found = default_precision()
    return "tf32x3" if found == "ieee" and not torch.version.hip else found


def room(q: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Memory for a result, ordered as the queries are, and for its logarithms."""
    batch, heads, length, d = q.shape
    if v.shape[3] == d:
        out = torch.empty_like(q)
    else:
        shape = (batch, heads, length, v.shape[3])
        out = torch.empty(shape, dtype=q.dtype, device=q.device)
    if not out.numel() or out.stride(3) != 1:
        out = torch.empty(out.shape, dtype=q.dtype, device=q.device)
    lse = torch.empty(q.shape[:3], dtype=torch.float32, device=q.device)
    return out, lse


def attended(
    launch: Callable[[Task], None],
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale: float | None,
    *,
    positive: bool = False,
    **options: Any,
) -> torch.Tensor:
    """Check operands, launch a rung and return what it wrote; see `plain`.

    Args:
        launch: the rung's.
        q: as for `plain`.
        k: likewise.
        v: likewise.
        scale: likewise.
        positive: whether no other scale will do.
        options: fields of `Task`.

    Returns:
        The task's `out`.

    Raises:
        TypeError: as `plain`.
        ValueError: likewise, or a scale that isn't positive.
    """
    task = plain(q, k, v, scale)._replace(**options)
    if positive and not task.scale > 0:
        raise ValueError(f"scale must be positive, got {scale}")
    if task.out.numel():
        with library.on(q):
            launch(task)
    return task.out
