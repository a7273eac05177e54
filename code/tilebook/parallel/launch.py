"""What a launch costs: empty kernels, descriptors, graphs, dependent launch."""

from collections.abc import Callable, Sequence

import torch
import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait
from triton.tools.tensor_descriptor import TensorDescriptor

from tilebook import check, device
from tilebook.parallel.operands import (
    DTYPES,
    check_int32_offsets,
    check_operands,
)

BLOCK = 1024


@triton.jit
def empty_kernel():
    pass


@triton.jit
def four_kernel(x_ptr, y_ptr, out_ptr, n):
    pass


@triton.jit
def sixteen_kernel(
    a_ptr, b_ptr, c_ptr, d_ptr, e_ptr, f_ptr, g_ptr, h_ptr,
    i_ptr, j_ptr, k_ptr, l_ptr, m, n, o, p,
):  # fmt: skip
    pass


@triton.jit
def descriptor_kernel(x_desc, y_desc, out_desc, BLOCK: tl.constexpr):
    # The descriptor knows the vector's length: no offsets, no mask.
    start = tl.program_id(0) * BLOCK
    x = x_desc.load([start])  # (BLOCK,)
    y = y_desc.load([start])  # (BLOCK,)
    out_desc.store([start], x + y)


def describe_vectors(*vectors: torch.Tensor) -> tuple[TensorDescriptor, ...]:
    """Make a host descriptor for each vector, with tiles of `BLOCK` elements.

    Args:
        vectors: contiguous tensors of rank 1 whose data starts at a multiple of 16
            bytes, as every fresh allocation of torch's does.

    Returns:
        One `TensorDescriptor` per vector.
    """
    return tuple(TensorDescriptor.from_tensor(v, [BLOCK]) for v in vectors)


def add_described(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Add two vectors through tensor descriptors made for this one call.

    Args:
        x: contiguous tensor (n,) of any type in `operands.DTYPES`, n at most 2^31.
        y: the same shape, dtype and device as `x`.

    Returns:
        `x + y`, a new tensor.

    Raises:
        TypeError: an operand isn't a tensor, or its dtype isn't supported.
        ValueError: shapes, dtypes or devices differ, an operand isn't contiguous, has
            another rank than 1 or starts off a multiple of 16 bytes, or there are too
            many elements for 32-bit offsets.

    Notes:
        On GPUs without a tensor memory accelerator Triton turns the descriptors back
        into pointers and masks.
    """
    check_operands(x, y)
    check.tensor(x, "x", ndim=1)
    for name, operand in (("x", x), ("y", y)):
        if operand.data_ptr() % 16:
            raise ValueError(
                f"{name} must start at a multiple of 16 bytes for a descriptor, got "
                f"{operand.data_ptr() % 16} bytes past one"
            )
    check_int32_offsets(x, BLOCK)
    n = x.numel()
    # The copy engine writes 16 bytes at a time, past the end if need be: give it room.
    room = triton.cdiv(n * x.element_size(), 16) * 16 // x.element_size()
    out = x.new_empty(room)[:n]
    if n:
        grid = (triton.cdiv(n, BLOCK),)
        descriptor_kernel[grid](*describe_vectors(x, y, out), BLOCK=BLOCK)
    return out


@triton.jit
def link_kernel(
    total_ptr, term_ptr, out_ptr, n, BLOCK: tl.constexpr, DEPENDENT: tl.constexpr
):
    offs = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = offs < n
    if DEPENDENT:
        # Once every program of this kernel got here the next may start.
        gdc_launch_dependents()
    # No kernel of the chain writes a term: it's safe to read at once.
    term = tl.load(term_ptr + offs, mask=mask, other=0)  # (BLOCK,)
    if DEPENDENT:
        # Until the kernel before has ended and what it stored can be seen.
        gdc_wait()
    total = tl.load(total_ptr + offs, mask=mask, other=0)  # (BLOCK,)
    tl.store(out_ptr + offs, total + term, mask=mask)


def add_chain(
    x: torch.Tensor, terms: Sequence[torch.Tensor], *, dependent: bool | None = None
) -> torch.Tensor:
    """Add terms to a vector one after the other, each in a launch of its own.

    Args:
        x: contiguous tensor of any type in `operands.DTYPES`, at most 2^31 elements.
        terms: at least one tensor, each of the shape, dtype and device of `x`.
        dependent: whether each launch may start before the one before it has ended
            (programmatic dependent launch). Unless given, wherever the GPU can.

    Returns:
        `x + terms[0] + terms[1] + ...`, rounded after every term; a new tensor.

    Raises:
        HardwareError: `dependent` on a GPU older than Hopper, or interpreted.
        TypeError: a tensor isn't one, or its dtype isn't supported.
        ValueError: no terms, shapes, dtypes or devices differ, a tensor isn't
            contiguous, or there are too many elements for 32-bit offsets.
    """
    check.tensor(x, "x", dtype=DTYPES, contiguous=True)
    if not terms:
        raise ValueError("terms must hold at least one tensor, got none")
    for i, term in enumerate(terms):
        check.tensor(
            term,
            f"terms[{i}]",
            dtype=x.dtype,
            shape=x.shape,
            device=x.device,
            contiguous=True,
        )
        check_operands(x, term)
    check_int32_offsets(x, BLOCK)
    if dependent is None:
        dependent = device.has("pdl")
    elif dependent:
        device.require("pdl")
    n = x.numel()
    out = torch.empty_like(x)
    total = x
    for i, term in enumerate(terms if n else ()):
        # The first launch waits in full for whatever wrote the operands. All later
        # ones start after it, so they may read their terms before they wait.
        early = {"launch_pdl": True} if dependent and i else {}
        link_kernel[(triton.cdiv(n, BLOCK),)](
            total, term, out, n, BLOCK=BLOCK, DEPENDENT=dependent, **early
        )
        total = out
    return out


def capture(fn: Callable[[], object]) -> torch.cuda.CUDAGraph:
    """Record all that a function launches into a CUDA graph.

    Args:
        fn: launches kernels on the current stream; called twice, first to compile
            them. Tensors it makes belong to the graph.

    Returns:
        The graph; `replay()` launches the whole of it anew.

    Raises:
        HardwareError: no GPU.
    """
    device.require("gpu")
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        fn()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        fn()
    return graph
