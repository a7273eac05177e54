"""Who is compared: `attention`, PyTorch's own by back end, and flex_attention."""

import dataclasses
import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch._functorch.config
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from tilebook import device
from tilebook.attention import public
from tilebook.attention.cases import Case
from tilebook.measure import Provider

Function = Callable[..., Any]
BACKENDS = {
    "SDPA": None,
    "SDPA, cuDNN": SDPBackend.CUDNN_ATTENTION,
    "SDPA, FlashAttention": SDPBackend.FLASH_ATTENTION,
}
"""By name, what is forced; None for what PyTorch chooses."""
FLEX = "flex_attention"

_log = logging.getLogger(__name__)


def ours(case: Case, **options: Any) -> Callable[..., torch.Tensor]:
    """`attention` as a case asks for it.

    Args:
        case: which keys are seen.
        options: of `attention`, besides.
    """
    window = None if case.window is None else (case.window, None)
    return functools.partial(
        public.attention, causal=case.causal, window=window, **options
    )


def sdpa(case: Case, backend: SDPBackend | None) -> Function:
    """PyTorch's scaled_dot_product_attention, by one of its back ends.

    Args:
        case: what it is called for, without a window: it has none.
        backend: which; None leaves it the choice.
    """
    told = {"is_causal": case.causal, "enable_gqa": case.shared > 1}

    def call(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        attend = torch.nn.functional.scaled_dot_product_attention
        if backend is None:
            return attend(q, k, v, **told)
        with sdpa_kernel(backend):
            return attend(q, k, v, **told)

    return call


def flex(
    case: Case, *, seen: Function | None, score: Function | None = None
) -> Function:
    """What torch.compile makes of PyTorch's flex_attention.

    Args:
        case: what it is called for.
        seen: flex_attention's mask_mod; None for all keys.
        score: its score_mod.

    Returns:
        A function of queries, keys and values, compiled when it is called.
    """
    blocks = None
    if seen is not None:
        where = device.torch_device().type
        blocks = create_block_mask(seen, None, None, case.s, case.s, device=where)
    compiled = torch.compile(flex_attention, dynamic=False, fullgraph=True)

    def call(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return compiled(
            q, k, v, score_mod=score, block_mask=blocks, enable_gqa=case.shared > 1
        )

    return call


def causal(b: Any, h: Any, row: Any, column: Any) -> Any:
    """flex_attention's mask of keys up to the query's own position."""
    return column <= row


def windowed(width: int) -> Function:
    """The same of keys no further than a width before it.

    Args:
        width: how far.
    """

    def seen(b: Any, h: Any, row: Any, column: Any) -> Any:
        return (column <= row) & (row - column <= width)

    return seen


def flex_for(case: Case, score: Function | None = None) -> Function:
    """`flex` for a case.

    Args:
        case: with or without a mask or a window.
        score: as for `flex`.
    """
    seen = causal if case.causal else None
    if case.window is not None:
        seen = windowed(case.window)
    return flex(case, seen=seen, score=score)


def forward(
    case: Case, inputs: Sequence[torch.Tensor], *, searched: bool
) -> dict[str, Provider]:
    """The peers of a result.

    Args:
        case: what is computed.
        inputs: one set of operands, with which peers are tried.
        searched: whether flex_attention is among them.

    Returns:
        Those that take the case; what was left out is logged, with the reason.
    """
    peers = {}
    if case.window is None:
        peers = {name: sdpa(case, each) for name, each in BACKENDS.items()}
    found = {name: Provider(fn) for name, fn in working(peers, inputs[:3]).items()}
    if searched:
        found[FLEX] = Provider(build=functools.partial(flex_for, case))
    return found


def backward(
    case: Case, inputs: Sequence[torch.Tensor], *, searched: bool
) -> dict[str, Provider]:
    """The peers of gradients; see `forward`.

    Args:
        case: what is computed.
        inputs: operands, and what arrives for the result.
        searched: whether flex_attention is among them.
    """
    forced = {}
    if case.window is None:
        forced = {name: sdpa(case, each) for name, each in BACKENDS.items() if each}
    # What a trial leaves behind isn't for the timing: that gets functions of its own.
    tried = working({name: gradients(fn) for name, fn in forced.items()}, inputs)
    found = {
        name: Provider(
            gradients(forced[name]),
            nondeterministic="parts of sums are added in any order",
        )
        for name in tried
    }

    def build() -> Function:
        return gradients(flex_for(case), compiled=True)

    if searched:
        found[FLEX] = Provider(build=build)
    return found


def gradients(forward: Function, *, compiled: bool = False) -> Function:
    """Make of an attention a function that only computes its gradients.

    Args:
        forward: of queries, keys and values.
        compiled: whether torch.compile's code must learn that what it saved for a
            gradient is asked for again.

    Returns:
        A function of queries, keys, values and what arrives for the result. It attends
        at the first call with some queries, and remembers what that leaves.
    """
    held: dict[int, tuple[list[torch.Tensor], torch.Tensor]] = {}

    def call(
        q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, grad: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        with torch.enable_grad():
            if q.data_ptr() not in held:
                leaves = [x.detach().requires_grad_() for x in (q, k, v)]
                held[q.data_ptr()] = leaves, forward(*leaves)
            leaves, out = held[q.data_ptr()]
            return torch.autograd.grad(out, leaves, grad, retain_graph=True)

    def again(*inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        with torch._functorch.config.patch(donated_buffer=False):
            return call(*inputs)

    return again if compiled else call


def working(
    peers: Mapping[str, Function], inputs: Sequence[torch.Tensor]
) -> dict[str, Function]:
    """Leave out the peers that refuse a case, and log why.

    Args:
        peers: by name.
        inputs: one set.

    Returns:
        Those that took it.
    """
    kept = {}
    for name, peer in peers.items():
        try:
            peer(*inputs)
        except (RuntimeError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            _log.warning("%s is left out: %s", name, reason)
            continue
        kept[name] = peer
    return kept


def bounded(providers: Mapping[str, Provider], bound: float) -> dict[str, Provider]:
    """Give implementations a bound.

    Args:
        providers: by name.
        bound: of their relative errors.
    """
    return {
        name: dataclasses.replace(each, bound=bound) for name, each in providers.items()
    }
