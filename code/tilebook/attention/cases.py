"""What the chapter measures attention on, how much that is, and what is exact."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch

from tilebook import device
from tilebook.attention import reference

TOKENS = 16384
"""Positions of all sequences together."""
FEATURES = 2048
"""Of all heads of queries together."""
AT_ONCE = 1 << 27
"""Scores of a reference that lie in memory together: a gigabyte of float64."""
GRADIENTS = 2.5
"""Products of the gradients over those of the result: five, where that has two."""


class Case(NamedTuple):
    """An attention to be measured."""

    d: int
    """Features of a head."""
    s: int
    """Queries of a sequence, and its keys."""
    causal: bool
    shared: int = 1
    """Heads of queries to one of keys."""
    window: int | None = None
    """Keys before its own that a query sees; None for all."""

    @property
    def batch(self) -> int:
        """Sequences: as many as have about `TOKENS` positions."""
        return max(1, round(TOKENS / self.s))

    @property
    def heads(self) -> int:
        """Heads of queries: as many as have `FEATURES`, but no fewer than share one."""
        return max(self.shared, FEATURES // self.d)

    @property
    def shape(self) -> dict[str, int]:
        """The case as a record's row has it."""
        told = {"b": self.batch, "h": self.heads, "hk": self.heads // self.shared}
        told |= {"s": self.s, "sk": self.s, "d": self.d, "causal": int(self.causal)}
        return told | ({} if self.window is None else {"window": self.window})

    @property
    def pairs(self) -> float:
        """Pairs of a query and a key that it sees, of one head; half of all of them
        under a causal mask, as everybody counts, though its diagonal makes them more.
        """
        if self.window is not None:
            # The first queries have fewer keys before their own.
            width = min(self.window, self.s - 1)
            return (width + 1) * (self.s - width / 2)
        return self.s**2 / (2 if self.causal else 1)

    @property
    def flops(self) -> float:
        """Multiplications and additions of the two products."""
        return 4.0 * self.batch * self.heads * self.pairs * self.d

    @property
    def moved(self) -> float:
        """Bytes of queries, keys, values and result in two-byte types."""
        heads = 2 * self.heads + 2 * (self.heads // self.shared)
        return 2.0 * self.batch * heads * self.s * self.d


LENGTHS = (512, 1024, 2048, 4096, 8192, 16384)
BOTH = (False, True)
PLAIN = tuple(Case(d, s, c) for d in (64, 128) for c in BOTH for s in LENGTHS)
WIDE = tuple(Case(256, s, c) for c in BOTH for s in (1024, 4096, 16384))
GROUPED = tuple(Case(d, 4096, c, shared=8) for d in (64, 128) for c in BOTH)
ODD = tuple(Case(d, s, c) for d in (64, 128) for c in BOTH for s in (1000, 4097))
NARROW = tuple(Case(d, s, True, window=1024) for d in (64, 128) for s in (4096, 16384))
FORWARD = (*PLAIN, *WIDE, *GROUPED, *ODD, *NARROW)
BACKWARD = (*PLAIN, *WIDE[1::3], *GROUPED, *ODD[1::2], *NARROW[::2])
QUOTED = (Case(128, 4096, True), Case(128, 4096, False), Case(64, 4096, True))
"""Those that a live build measures: the text speaks of them."""
LADDER = tuple(Case(d, s, c) for d in (64, 128) for c in BOTH for s in (1024, 4096))
SEARCHED = (*QUOTED[:2], Case(128, 16384, True, window=1024))
"""Where torch.compile is a peer of the result: it takes its time."""
SEARCHED_BACKWARD = QUOTED[:1]


def operands(
    case: Case, dtype: torch.dtype = torch.bfloat16, *, gradient: bool = False
) -> tuple[torch.Tensor, ...]:
    """Draw queries, keys and values.

    Args:
        case: their sizes.
        dtype: theirs.
        gradient: whether to draw what arrives for the result, too.

    Returns:
        Contiguous (b, h, s, d) and (b, hk, s, d), normal numbers.
    """
    few = case.heads // case.shared
    heads = (case.heads, few, few, *([case.heads] if gradient else []))
    return tuple(
        torch.randn(
            case.batch, h, case.s, case.d, device=device.torch_device(), dtype=dtype
        )
        for h in heads
    )


def exact(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, **options: Any
) -> torch.Tensor:
    """Attend by the definition, a few heads at a time.

    Args:
        q: queries (b, h, s, d), float64.
        k: keys (b, hk, sk, d).
        v: values (b, hk, sk, e).
        options: as `reference.attention` names them, none a tensor; without `scale`.
    """
    parts = [_attended(*part, **options) for part in _parts(q, k, v)]
    return torch.cat(parts).view(*q.shape[:3], v.shape[3])


def exact_gradients(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    grad: torch.Tensor,
    **options: Any,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of queries, keys and values; see `exact`.

    Args:
        q: as for `exact`.
        k: likewise.
        v: likewise.
        grad: what arrives for the result.
        options: likewise.
    """
    found: tuple[list[torch.Tensor], ...] = ([], [], [])
    with torch.enable_grad():
        for *part, g in _parts(q, k, v, grad):
            leaves = [x.detach().requires_grad_() for x in part]
            out = _attended(*leaves, **options)
            each = torch.autograd.grad(out, leaves, g)
            for kept, x in zip(found, each, strict=True):
                kept.append(x)
    dq, dk, dv = (
        torch.cat(kept).view(x.shape) for kept, x in zip(found, (q, k, v), strict=True)
    )
    return dq, dk, dv


def _attended(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, **options: Any
) -> torch.Tensor:
    return reference.attention(q, k, v, scale=q.shape[3] ** -0.5, **options)[0]


def _parts(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *more: torch.Tensor
) -> Iterator[list[torch.Tensor]]:
    """Cut heads of keys, each with its heads of queries, into a few at a time."""
    batch, kv_heads, keys, _ = k.shape
    sizes = (q.shape[1] // kv_heads, 1, 1, *(q.shape[1] // kv_heads for _ in more))
    flat = [
        x.reshape(batch * kv_heads, size, *x.shape[2:])
        for x, size in zip((q, k, v, *more), sizes, strict=True)
    ]
    step = max(1, AT_ONCE // (sizes[0] * q.shape[2] * keys))
    for start in range(0, batch * kv_heads, step):
        yield [x[start : start + step] for x in flat]


def remembered(fn: Callable[..., Any], most: int = 2) -> Callable[..., Any]:
    """Compute a reference once for all implementations that get the same inputs.

    Args:
        fn: of tensors.
        most: inputs that are remembered, the latest ones.

    Returns:
        The same function.
    """
    kept: list[tuple[tuple[torch.Tensor, ...], Any]] = []

    def call(*inputs: torch.Tensor) -> Any:
        for before, result in kept:
            if all(torch.equal(*pair) for pair in zip(before, inputs, strict=True)):
                return result
        result = fn(*inputs)
        kept.append((inputs, result))
        del kept[:-most]
        return result

    return call
