"""One kernel, to see whether kernels run and compile at all; for the doctor."""

import torch
import triton
import triton.language as tl

from tilebook import compile_only, device


@triton.jit
def pulse_kernel(x, out, n, BLOCK: tl.constexpr):
    offs = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = offs < n
    value = tl.load(x + offs, mask=mask, other=0)  # (BLOCK,)
    tl.store(out + offs, value + value, mask=mask)


def run() -> None:
    """Launch the kernel where kernels run, in bfloat16.

    Raises:
        RuntimeError: the answer is wrong. What the launch itself raises comes through.
    """
    x = torch.arange(100, device=device.torch_device()).to(torch.bfloat16)
    out = torch.full_like(x, torch.nan)
    pulse_kernel[(2,)](x, out, x.numel(), BLOCK=64)
    if not torch.equal(out, x + x):
        raise RuntimeError("a kernel that doubles 100 numbers got them wrong")


def compile_for(target: str) -> str:
    """Compile the kernel for an architecture and return its evidence line."""
    x = torch.empty(100, dtype=torch.bfloat16, device="meta")
    artefact = compile_only.compile(pulse_kernel, x, x, 100, BLOCK=64, target=target)
    return artefact.evidence.line()
