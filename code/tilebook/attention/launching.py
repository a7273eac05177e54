"""How the chapter's kernels for Hopper are launched: refusals, descriptors, fits."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import torch
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from tilebook import check, device, library
from tilebook.attention.configs import Config, that_fits
from tilebook.hopper.launching import BARRIERS, DTYPES
from tilebook.matmul.operands import itself
from tilebook.softmax.operands import starts_aligned
from tilebook.tiling.described import LARGEST

LOG2E = math.log2(math.e)
LN2 = math.log(2)
WIDTHS = (64, 128, 256)
"""Columns of a head that kernels are compiled for; fewer are filled up with zeros."""
L2 = 32 << 20
"""Bytes of keys and values that heads worked on at a time may have, to stay in L2."""
MOST_HEADS = 16
ALIGNED = 4
"""Numbers of float32 in 16 bytes, the least that the copy engine steps over."""


class Task(NamedTuple):
    """Attention to be computed."""

    q: torch.Tensor
    """Queries (B, H, S, D)."""
    k: torch.Tensor
    """Keys (B, HK, SK, D); HK divides H."""
    v: torch.Tensor
    """Values (B, HK, SK, D)."""
    out: torch.Tensor
    """Result (B, H, S, D)."""
    lse: torch.Tensor
    """Logarithms (B, H, S) in float32, contiguous."""
    scale: float
    """Of scores."""
    left: int | None = None
    """How many keys before its own a query sees at most; None for all."""
    right: int | None = None
    """How many after its own: 0 under a causal mask, or None for all."""
    wrap: Callable[[Any], Any] = itself
    """Makes of a kernel what is launched."""


def heads_of(task: Task) -> int:
    """Count the heads of queries, in all."""
    return task.q.shape[0] * task.q.shape[1]


def width_of(task: Task) -> int:
    """Columns of a head as kernels have them."""
    return next(width for width in WIDTHS if width >= task.q.shape[3])


def ragged(task: Task, block: int) -> bool:
    """Whether a block has keys that aren't there and must be masked: a causal mask
    covers them where each query has a key of its own.

    Args:
        task: what is computed.
        block: keys of a block.
    """
    covered = task.right == 0 and task.q.shape[2] <= task.k.shape[2]
    return task.k.shape[2] % block > 0 and not covered


def unfit(x: torch.Tensor) -> str | None:
    """Say why a tensor can't be described as it is.

    Args:
        x: tensor (B, H, S, D), with elements, any strides.

    Returns:
        The first rule that is broken; None if none is.
    """
    if x.stride(3) != 1:
        return f"its last stride must be 1, got {x.stride(3)}"
    if not starts_aligned(x):
        return "it must start at a multiple of 16 bytes"
    for dim, size in enumerate(x.shape[:3]):
        apart = x.stride(dim) * x.itemsize
        if size > 1 and (apart <= 0 or apart % 16):
            return (
                f"its elements along dimension {dim} must lie a multiple of 16 bytes "
                f"apart, got {apart}"
            )
    return None


def refusal(task: Task) -> str | None:
    """Say why these kernels can't compute something.

    Args:
        task: what, with operands of shapes that go together.

    Returns:
        The first rule that is broken; None if none is.
    """
    columns = task.q.shape[3]
    if task.q.dtype not in DTYPES:
        return f"q must be of bfloat16 or float16, got {task.q.dtype}"
    if columns % 8 or columns > WIDTHS[-1]:
        return f"heads must have a multiple of 8 columns up to 256, got {columns}"
    if not 0 < task.scale < math.inf:
        return f"scale must be above 0 and finite, got {task.scale}"
    if task.right not in (None, 0):
        return f"queries see no or all later keys, got {task.right} of them"
    if task.left is not None and task.q.shape[2] > task.k.shape[2]:
        return "with a window there must be a key for each query"
    if task.k.shape != task.v.shape:
        return f"v must have the shape of k, got {tuple(task.v.shape)}"
    if heads_of(task) * task.q.shape[2] > LARGEST:
        return f"there must be at most {LARGEST} rows of queries"
    if task.k.shape[2] > LARGEST:
        return f"there must be at most {LARGEST} keys"
    for name in ("q", "k", "v", "out"):
        if reason := unfit(getattr(task, name)):
            return f"{name} can't be described: {reason}"
    return None


def described(x: torch.Tensor, rows: int, columns: int) -> TensorDescriptor:
    """Make the copy engine's description of heads, swizzled as tensor cores read them:
    of four dimensions, so that what lies past a head's last row or column comes as
    zeros and is never written. None of it is the next head's.

    Args:
        x: tensor (B, H, S, D).
        rows: of a tile.
        columns: of it.
    """
    block = [1, 1, rows, columns]
    kinds = DTYPES | {torch.float32: gl.float32}
    layout = gl.NVMMASharedLayout.get_default_for(block, kinds[x.dtype])
    return TensorDescriptor(x, [*x.shape], strides_of(x), block, layout)


def lines_of(x: torch.Tensor, block: int) -> TensorDescriptor:
    """Make the copy engine's description of a number for each row: a line a head, of
    which nothing comes that belongs to the next.

    Args:
        x: tensor (B, H, S), float32; heads a multiple of `ALIGNED` numbers apart.
        block: numbers that come at a time.
    """
    batch, heads, rows = x.shape
    layout = gl.NVMMASharedLayout(0, 32, 2)
    strides = [x.stride(1), 1]
    return TensorDescriptor(x, [batch * heads, rows], strides, [1, block], layout)


def strides_of(x: torch.Tensor) -> list[int]:
    """A tensor's strides as descriptors take them, where one element has any, too."""
    sizes = zip(x.shape, x.stride(), strict=True)
    *apart, _ = [8 if size == 1 else stride for size, stride in sizes]
    return [*apart, 1]


def shared_bytes(config: Config, width: int) -> int:
    """Count the shared memory of a program.

    Args:
        config: how it is launched.
        width: columns of a head.
    """
    rows = config.part * config.parts
    places = rows * config.q_stages + rows // config.pieces
    return 2 * width * (places + 2 * config.stages * config.block_n) + BARRIERS


def config_for(task: Task, configs: Mapping[int, Iterable[Config]]) -> Config:
    """Choose how to launch a kernel: the first that this process's GPU has room for.

    Args:
        task: what is computed.
        configs: to choose from, by columns of a head.

    Raises:
        ValueError: there is room for none.
    """
    width = width_of(task)
    return that_fits(configs[width], lambda config: shared_bytes(config, width))


def heads_at_a_time(task: Task) -> int:
    """How many heads' tiles are mixed, so that their keys and values stay in L2.

    Args:
        task: what is computed.
    """
    if task.right is None:
        return 1
    each = 4 * task.k.shape[2] * task.k.shape[3] * task.k.shape[1] // task.q.shape[1]
    group = 1
    while group < MOST_HEADS and 2 * group * each <= L2 and 2 * group <= heads_of(task):
        group *= 2
    return group


def arguments(task: Task, config: Config) -> tuple[list[Any], dict[str, Any]]:
    """What every kernel gets: arguments, then constants and options.

    Args:
        task: what is computed.
        config: how.
    """
    (_, heads, rows, _), (kv_heads, keys) = task.q.shape, task.k.shape[1:3]
    width, block_n = width_of(task), config.block_n
    args = [
        described(task.q, config.part, width),
        described(task.k, block_n, width),
        described(task.v, block_n, width),
        described(task.out, config.part, width // config.pieces),
        *(task.lse, heads_of(task), heads, heads // kv_heads, rows, keys),
        *(task.left or 0, task.scale * LOG2E),
    ]
    meta = {
        "PARTS": config.parts, "STAGES": config.stages, "GROUP": heads_at_a_time(task),
        "CAUSAL": task.right == 0, "RAGGED": ragged(task, block_n),
        "WINDOW": task.left is not None, "num_warps": 4,
    }  # fmt: skip
    return args, meta


def tiles(task: Task, config: Config) -> int:
    """Count the tiles."""
    return -(-task.q.shape[2] // (config.part * config.parts)) * heads_of(task)


def launch(
    kernel: Any,
    task: Task,
    config: Config | None,
    configs: Mapping[int, Iterable[Config]],
) -> None:
    """Describe the tensors and launch a program for each tile.

    Args:
        kernel: the kernel.
        task: what is computed, nothing that `refusal` refuses.
        config: how.
        configs: to choose from where that is None.

    Raises:
        ValueError: it is refused.
    """
    if reason := refusal(task):
        raise ValueError(reason)
    config = config or config_for(task, configs)
    args, meta = arguments(task, config)
    task.wrap(kernel)[(tiles(task, config),)](*args, **meta)


def task_of(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    causal: bool,
    window: int | None,
    scale: float | None,
) -> Task:
    """Check operands, and make room for what is computed.

    What can't be described is copied. See `attended` for arguments and errors.
    """
    for name, x in (("q", q), ("k", k), ("v", v)):
        check.tensor(x, name, dtype=DTYPES, ndim=4)
    check.same_dtype(q=q, k=k, v=v)
    check.same_device(q=q, k=k, v=v)
    check.same_shape(k=k, v=v)
    if (q.shape[0], q.shape[3]) != (k.shape[0], k.shape[3]):
        raise ValueError(
            f"k must have the batches and columns of q, {q.shape[0]} and {q.shape[3]}, "
            f"got {k.shape[0]} and {k.shape[3]}"
        )
    if k.shape[1] == 0 or q.shape[1] % k.shape[1]:
        raise ValueError(
            f"the heads of k must divide those of q, got {k.shape[1]} and {q.shape[1]}"
        )
    if window is not None:
        check.natural_number(window, "window")
    scale = q.shape[3] ** -0.5 if scale is None else check.number(scale, "scale")
    check.runs_here(q, "q")
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    lse = torch.empty(q.shape[:3], dtype=torch.float32, device=q.device)
    if q.numel() and k.numel():
        q, k, v = (x.contiguous() if unfit(x) else x for x in (q, k, v))
    return Task(q, k, v, out, lse, scale, window, 0 if causal else None)


def attended(
    launch: Callable[[Task], None],
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    causal: bool,
    window: int | None,
    scale: float | None,
    needs: str | None = "wgmma",
) -> tuple[torch.Tensor, torch.Tensor]:
    """What every rung does: check, make room, launch if there is anything to do.

    Args:
        launch: the rung's.
        q: queries (B, H, S, D) in bfloat16 or float16; D a multiple of 8 up to 256.
        k: keys (B, HK, SK, D) of the same dtype; HK divides H.
        v: values (B, HK, SK, D) of the same dtype.
        causal: whether query i sees keys up to i only.
        window: how many keys before its own a query sees at most; None for all.
        scale: of scores, above 0; 1 / sqrt(D) by default.
        needs: what the GPU must have.

    Returns:
        The result (B, H, S, D), contiguous, and of each row of scores the natural
        logarithm of its sum of exponentials (B, H, S) in float32.

    Raises:
        HardwareError: this GPU has no such tensor cores.
        TypeError: not tensors, another dtype, or two of them.
        ValueError: shapes that don't go together, heads too wide, a scale that isn't
            above 0, a window where queries have no key of their own, or a tensor where
            this process's kernels can't reach it.
    """
    task = task_of(q, k, v, causal, window, scale)
    if not task.k.numel():
        # No keys: sums of nothing.
        task.out.zero_()
        task.lse.fill_(-math.inf)
    elif task.out.numel():
        if reason := refusal(task):
            raise ValueError(reason)
        if needs:
            device.require(needs)
        with library.on(q):
            launch(task)
    return task.out, task.lse
