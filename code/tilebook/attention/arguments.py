"""What the public functions check before anything is computed."""

import math
from typing import Any

import torch

from tilebook import check
from tilebook.attention.operands import DTYPES, scale_for

EVERY = (*DTYPES, torch.float64)
"""The element types that the public functions take."""
ALIGNMENTS = ("top-left", "bottom-right")
Window = tuple[int | None, int | None]


def options_of(
    q: torch.Tensor,
    causal: bool,
    align: str,
    window: Window | None,
    scale: float | None,
    softcap: float | None,
    slopes: torch.Tensor | None,
    sinks: torch.Tensor | None,
    dropout: float,
    seed: int | torch.Tensor | None,
    dropout_name: str = "dropout",
) -> dict[str, Any]:
    """Check all options but a bias, and name them as `operands.Task` does."""
    batch, heads = q.shape[:2]
    check.one_of(causal, "causal", (False, True))
    check.one_of(align, "align", ALIGNMENTS)
    left, right = window_of(window)
    if causal:
        right = 0
    if scale is not None and not math.isfinite(check.number(scale, "scale")):
        raise ValueError(f"scale must be finite, got {scale}")
    if softcap is not None:
        cap = check.number(softcap, "softcap")
        if not 0 < cap < math.inf:
            raise ValueError(f"softcap must be positive and finite, got {softcap}")
    for name, x in (("slopes", slopes), ("sinks", sinks)):
        if x is not None:
            check.tensor(x, name, dtype=EVERY, ndim=(1, 2) if x is slopes else 1)
            check.same_device(q=q, **{name: x})
            wide = x.ndim == 2
            check.tensor(x, name, shape=(batch, heads) if wide else (heads,))
    if not 0 <= check.number(dropout, dropout_name) <= 1:
        raise ValueError(f"{dropout_name} must be from 0 to 1, got {dropout}")
    return {
        "scale": float(scale_for(q, scale)), "left": left, "right": right,
        "bottom": align == ALIGNMENTS[1], "cap": 0.0 if softcap is None else cap,
        "slopes": slopes, "sinks": sinks, "dropout": float(dropout),
        "seed": seed_of(seed, q, dropout),
    }  # fmt: skip


def window_of(window: Window | None) -> Window:
    """Check a window; None on both sides if there is none."""
    if window is None:
        return None, None
    if not isinstance(window, tuple | list) or len(window) != 2:
        raise TypeError(f"window must be a pair of int or None, got {window!r}")
    left, right = (
        None if side is None else check.natural_number(side, "window")
        for side in window
    )
    return left, right


def seed_of(
    seed: int | torch.Tensor | None, q: torch.Tensor, dropout: float
) -> torch.Tensor | None:
    """The seed as one int64 on the device of the queries; None without dropout."""
    if isinstance(seed, torch.Tensor):
        check.tensor(seed, "seed", dtype=torch.int64, shape=())
        check.same_device(q=q, seed=seed)
    elif seed is not None:
        if isinstance(seed, bool) or not isinstance(seed, int):
            kind = type(seed).__name__
            raise TypeError(f"seed must be an int or a torch.Tensor, got {kind}")
        if not -(2**63) <= seed < 2**63:
            raise ValueError(f"seed must fit into 64 bits, got {seed}")
    if not dropout:
        return None
    if seed is None:
        return torch.randint(2**63 - 1, (), device=q.device)
    if isinstance(seed, torch.Tensor):
        return seed
    return torch.full((), seed, dtype=torch.int64, device=q.device)


def bias_of(
    bias: torch.Tensor, name: str, q: torch.Tensor, k: torch.Tensor
) -> torch.Tensor:
    """A bias with four dimensions, each 1 or that of the scores."""
    check.tensor(bias, name, dtype=(torch.bool, q.dtype, torch.float32))
    check.same_device(q=q, **{name: bias})
    wanted = (*q.shape[:3], k.shape[2])
    sizes = (1,) * (4 - bias.ndim) + tuple(bias.shape)
    fits = len(sizes) == 4 and all(
        size in (1, full) for size, full in zip(sizes, wanted, strict=True)
    )
    if not fits:
        raise ValueError(
            f"{name} must broadcast to {wanted}, got shape {tuple(bias.shape)}"
        )
    return bias.reshape(sizes)
