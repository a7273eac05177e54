"""How large the cache is: the same bytes read again and again, then more of them."""

import torch
import triton
import triton.language as tl

from tilebook import check, device

BLOCK = 2048
NUM_WARPS = 4
PER_SM = 4


@triton.jit(do_not_specialize=["passes"])
def sweep_kernel(x_ptr, out_ptr, n, passes, BLOCK: tl.constexpr):
    pid = tl.program_id(0)
    step = tl.num_programs(0) * BLOCK
    total = tl.zeros((BLOCK,), tl.int32)
    for _ in range(passes):
        for start in range(pid * BLOCK, n, step):
            offs = start + tl.arange(0, BLOCK)
            # Volatile, or the compiler would read once and keep the values.
            total += tl.load(x_ptr + offs, mask=offs < n, other=0, volatile=True)
    tl.store(out_ptr + pid, tl.sum(total, 0))


def sweep(x: torch.Tensor, passes: int, *, programs: int | None = None) -> torch.Tensor:
    """Read a vector several times over, each program its own share.

    Args:
        x: (n,) int32, contiguous, at most 2^30 elements.
        passes: how often.
        programs: how many share the vector; by default `PER_SM` on each SM.

    Returns:
        (programs,) int32: the sum of what each program read, modulo 2^32.

    Raises:
        TypeError: `x` isn't an int32 tensor, or a number isn't an integer.
        ValueError: not contiguous, another rank, too long, or a number below 1.
    """
    check.tensor(x, "x", dtype=torch.int32, ndim=1, contiguous=True)
    check.runs_here(x, "x", current=True)
    check.positive_int(passes, "passes")
    if programs is None:
        programs = PER_SM * (device.current().sms or 1)
    check.positive_int(programs, "programs")
    if x.numel() > 2**30:
        raise ValueError(f"x must have at most 2^30 elements, got {x.numel()}")
    if programs * BLOCK > 2**30:
        raise ValueError(f"programs must be at most {2**30 // BLOCK}, got {programs}")
    out = x.new_empty(programs)
    sweep_kernel[(programs,)](
        x, out, x.numel(), passes, BLOCK=BLOCK, num_warps=NUM_WARPS
    )
    return out


def shares(x: torch.Tensor, passes: int, programs: int) -> torch.Tensor:
    """What `sweep` returns, in PyTorch.

    Args:
        x: see `sweep`.
        passes: see `sweep`.
        programs: see `sweep`.

    Returns:
        (programs,) int32.
    """
    padded = torch.zeros(
        -(-x.numel() // (programs * BLOCK)) * programs * BLOCK,
        dtype=torch.int64,
        device=x.device,
    )
    padded[: x.numel()] = x
    total = passes * padded.view(-1, programs, BLOCK).sum((0, 2))
    # To 32 bits as the kernel's sums wrap round.
    return ((total + 2**31) % 2**32 - 2**31).to(torch.int32)
