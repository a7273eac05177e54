"""Each rung of `transpose`, compiled for a named target."""

import functools
from types import ModuleType

import torch
from triton.tools.tensor_descriptor import TensorDescriptor

from tilebook import compile_only
from tilebook.tiling import aligned, described, explicit, grouped, naive, tiled


def _meta(m: int, n: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.empty((m, n), dtype=dtype, device="meta")


@functools.cache
def compiled(
    rung: ModuleType,
    m: int = 8192,
    n: int = 8192,
    dtype: torch.dtype = torch.int16,
    target: str = "sm_90",
    *,
    wide: bool = False,
) -> compile_only.Artefact:
    """Compile a rung as it would be launched on a contiguous matrix.

    Args:
        rung: a module of the ladder.
        m: rows.
        n: columns.
        dtype: an integer type of the elements' size.
        target: as for `compile_only.compile`.
        wide: with the wide blocks of `described`.

    Returns:
        The compiled kernel.
    """
    x, out = _meta(m, n, dtype), _meta(n, m, dtype)
    if rung is aligned:
        caught = []

        class Kernel:
            def __getitem__(self, grid):
                return lambda *args, **meta: caught.append((args, meta))

        aligned.launch(Kernel(), x[None], out[None])
        ((args, constants),) = caught
        return compile_only.compile(
            rung.transpose_kernel, *args, target=target, **constants
        )
    if rung is described:
        blocks = described.WIDE_BLOCKS if wide else described.BLOCKS
        block_m, block_n = blocks[dtype.itemsize]
        return compile_only.compile(
            rung.transpose_kernel,
            TensorDescriptor.from_tensor(x, [block_m, block_n]),
            TensorDescriptor.from_tensor(out, [block_n, block_m]),
            *(m, n),
            **{"BLOCK_M": block_m, "BLOCK_N": block_n, "GROUP": described.GROUP},
            target=target,
        )
    if rung is explicit:
        vector = 16 // dtype.itemsize
        block, num_warps = explicit.SIDES[dtype.itemsize]
        return compile_only.compile(
            rung.transpose_kernel,
            *(x, out, m // vector, n // vector, n // vector),
            **{"BLOCK": block, "V": vector, "GROUP": explicit.GROUP},
            num_warps=num_warps,
            target=target,
        )
    constants = {"BLOCK_M": tiled.BLOCK_M, "BLOCK_N": tiled.BLOCK_N}
    if rung is naive:
        constants = {"BLOCK": naive.BLOCK}
    if rung is grouped:
        constants["GROUP"] = grouped.GROUP
    return compile_only.compile(
        rung.transpose_kernel, x, out, m, n, n, 1, target=target, **constants
    )
