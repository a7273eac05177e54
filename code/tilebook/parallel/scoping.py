"""Names in a kernel: which Python the compiler takes, and which only runs interpreted.

A compiled kernel's variables need one type and one shape each, known at every line;
Python's don't. The kernels here break that rule, one way each.
"""

import pandas as pd
import torch
import triton
import triton.language as tl

from tilebook import compile_only, microscope

BLOCK = 16


@triton.jit
def born_in_branch_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    offs = tl.arange(0, BLOCK)
    if n > 0:
        scale = 2.0
    x = tl.load(x_ptr + offs)
    tl.store(out_ptr + offs, x * scale)


@triton.jit
def born_in_loop_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    offs = tl.arange(0, BLOCK)
    for i in range(n):
        last = tl.load(x_ptr + offs) * i
    tl.store(out_ptr + offs, last)


@triton.jit
def retyped_in_loop_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    offs = tl.arange(0, BLOCK)
    total = 0
    for i in range(n):
        total += 0.5 * i
    tl.store(out_ptr + offs, tl.load(x_ptr + offs) + total)


@triton.jit
def reshaped_in_branch_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    offs = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offs)
    if n > 0:
        x = tl.sum(x, axis=0)
    tl.store(out_ptr + offs, x)


@triton.jit
def constant_branch_kernel(x_ptr, out_ptr, n: tl.constexpr, BLOCK: tl.constexpr):
    offs = tl.arange(0, BLOCK)
    # n is a constant: the branch is decided while compiling.
    if n > 0:
        scale = 2.0
    x = tl.load(x_ptr + offs)
    tl.store(out_ptr + offs, x * scale)


@triton.jit
def born_before_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    offs = tl.arange(0, BLOCK)
    scale = 1.0
    if n > 0:
        scale = 2.0
    x = tl.load(x_ptr + offs)
    tl.store(out_ptr + offs, x * scale)


CASES = {
    "born in a branch": born_in_branch_kernel,
    "born in a loop": born_in_loop_kernel,
    "int becomes float in a loop": retyped_in_loop_kernel,
    "tile becomes scalar in a branch": reshaped_in_branch_kernel,
    "born in a constant branch": constant_branch_kernel,
    "born before the branch": born_before_kernel,
}
"""What each kernel does with a name, the last two as it should be done."""


def compiler_says(case: str, target: str = "sm_90") -> str:
    """Compile one of the kernels for a GPU, needing none.

    Args:
        case: a key of `CASES`.
        target: as for `compile_only.compile`.

    Returns:
        "compiles", or what the compiler says: the last line of its message.
    """
    x = torch.empty(BLOCK, device="meta")
    try:
        compile_only.compile(CASES[case], x, x.clone(), n=3, BLOCK=BLOCK, target=target)
    except triton.CompilationError as error:
        lines = [line for line in str(error).splitlines() if line.strip(" ^")]
        return lines[-1].strip()
    return "compiles"


def interpreter_says(case: str) -> str:
    """Run one of the kernels in the interpreter, on any machine.

    Args:
        case: a key of `CASES`.

    Returns:
        "runs", or the error.
    """
    x = torch.ones(BLOCK)
    look = microscope.look(CASES[case], (1,), x, torch.empty(BLOCK), n=3, BLOCK=BLOCK)
    return look.error or "runs"


def table(target: str = "sm_90") -> pd.DataFrame:
    """Give every kernel to the compiler and to the interpreter.

    Args:
        target: the GPU to compile for.

    Returns:
        One row per kernel: "case", "compiler", "interpreter".
    """
    rows = [
        (case, compiler_says(case, target), interpreter_says(case)) for case in CASES
    ]
    return pd.DataFrame(rows, columns=["case", "compiler", "interpreter"])
