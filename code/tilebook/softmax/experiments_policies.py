"""What it is worth to ask L2 to keep what is read once, and what it costs others."""

import functools

import torch

from tilebook import device, measure
from tilebook.measure import Bench, Provider, Row
from tilebook.softmax import backward, cases, conclusions_policies, fused

__all__ = ["conclusions_policies", "softmax_policies"]

POLICIES = {"normal": "", "first": "evict_first", "last": "evict_last"}
"""What loads may ask for, by the name that rows give it."""
SHAPE = (16384, 4096)
AFTERWARDS = (0, 8, 16, 24, 32)
AFTERWARDS_BRIEF = (0, 24)
"""MiB that the next kernel reads, twice."""
OPS = ("softmax", "softmax_backward")
DTYPES = (torch.bfloat16, torch.float32)
DTYPES_BRIEF = DTYPES[:1]


def forward(asking: str, x: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
    """A softmax by `fused`, and then two readings of other tensors.

    Args:
        asking: the policy of the softmax's loads.
        x: matrix (m, n).
        *others: read twice.

    Returns:
        The softmax.
    """
    out = torch.empty_like(x)
    fused.launch_as(fused.config_for(x.shape[1], x.itemsize), x, out, asking=asking)
    for other in (*others, *others):
        other.sum()
    return out


def gradient(asking: str, y: torch.Tensor, grad: torch.Tensor) -> torch.Tensor:
    """The gradient by a tile per program, with a policy of its loads."""
    dx = torch.empty_like(y)
    config = backward.config_for(y.shape[1], y.itemsize)
    backward.launch_as(config, y, grad, dx, asking=asking)
    return dx


def operands(op: str, mib: int, dtype: torch.dtype) -> list[torch.Tensor]:
    """An operation's operands, and what is read after it."""
    if op == OPS[1]:
        return cases.operands_of_gradient(SHAPE, dtype)
    guests = [torch.randn(mib * 2**18, device=device.torch_device())] if mib else []
    return [*cases.matrix(SHAPE, dtype), *guests]


def _softmax(x: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
    return cases.softmax_rows(x)


@measure.experiment(
    "softmax-policies",
    question="What is it worth to ask L2 to keep what is read, and what does it cost?",
    op="softmax",
    modules=("softmax.fused", "softmax.backward"),
)
def softmax_policies(bench: Bench) -> list[Row]:
    m, n = SHAPE
    for dtype in bench.choose(DTYPES, DTYPES_BRIEF):
        for op in OPS:
            back = op == OPS[1]
            fn, reference = (
                (gradient, cases.gradient_formula) if back else (forward, _softmax)
            )
            # The gradient alone: what comes after it fares as after softmax.
            sizes = bench.choose(AFTERWARDS, AFTERWARDS_BRIEF)
            for mib in (0,) if back else sizes:
                bench.compare(
                    op=op,
                    shape={"m": m, "n": n, "after": mib},
                    dtype=dtype,
                    providers={
                        name: Provider(functools.partial(fn, asking), ours=True)
                        for name, asking in POLICIES.items()
                    },
                    make_inputs=functools.partial(operands, op, mib, dtype),
                    reference=reference,
                    bytes=(2 + back) * m * n * dtype.itemsize + mib * 2**21,
                    length=(16 if back else 1) * n,
                    along=0,
                    regimes=("cold",),
                )
    return bench.rows
