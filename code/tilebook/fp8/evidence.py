"""The chapter's kernels, compiled for a named target as they would be launched."""

import functools
from types import ModuleType
from typing import Any

import torch

from tilebook import compile_only
from tilebook.fp8 import both, groups, rows, scaling, whole
from tilebook.fp8.operands import Job
from tilebook.fp8.products import Product
from tilebook.matmul.evidence import Launch, launches, matrix

ROWS, COLUMNS = 4096, 8192
"""Of the matrix that quantisers are compiled for."""
QUANTIZERS = (
    *("tensor", "delayed", "row", "1x128", "128x128", "mx"),
    *("both 1x128", "both 128x128", "norm row", "norm 1x128", "norm mx"),
)
"""By name, as far as they differ in kernels or constants."""


def job_for(
    granularity: str,
    *,
    turned: bool = False,
    silu: bool = False,
    source: torch.dtype = torch.bfloat16,
    dtype: torch.dtype = torch.float8_e4m3fn,
    shape: tuple[int, int] = (ROWS, COLUMNS),
    rounding: str = "down",
) -> Job:
    """Describe a matrix to be quantised, without memory.

    Args:
        granularity: one of `scaling.GRANULARITIES`.
        turned: whether columns lie together.
        silu: whether silu of it times another is quantised.
        source: of its elements.
        dtype: of the codes.
        shape: of the matrix.
        rounding: of MX scales.

    Returns:
        The job, its tensors on the device "meta".
    """
    x = matrix(*shape, source, turned=turned)
    place = scaling.place(*shape, granularity, dtype, torch.device("meta"))
    power = scaling.GRANULARITIES[granularity].power
    return Job(x, *place, granularity, rounding if power else "", x if silu else None)


def launched(name: str, **more: object) -> list[Launch]:
    """Record what a quantiser launches.

    Args:
        name: one of `QUANTIZERS`.
        more: as for `job_for`.

    Returns:
        Each launch, in order.
    """
    kind, _, granularity = name.rpartition(" ")
    job = job_for("tensor" if name == "delayed" else granularity, **more)

    def launch(wrap):
        wrapped = job._replace(wrap=wrap)
        if name == "delayed":
            whole.launch(wrapped, amax=matrix(1, 1, torch.float32))
        elif kind == "both":
            dtype, device = job.codes.dtype, job.x.device
            turned = scaling.place(job.k, job.m, granularity, dtype, device)
            both.launch(wrapped, turned)
        elif kind == "norm":
            weight = torch.empty(job.k, dtype=job.x.dtype, device="meta")
            rows.launch(wrapped, norm=rows.Norm(weight, 1e-6))
        elif name == "tensor":
            whole.launch(wrapped)
        else:
            (rows if name == "row" else groups).launch(wrapped)

    return launches(launch)


@functools.cache
def compiled(
    name: str, *, target: str = "sm_90", **more: object
) -> tuple[compile_only.Artefact, ...]:
    """Compile what a quantiser launches.

    Args:
        name: one of `QUANTIZERS`.
        target: as for `compile_only.compile`.
        more: as for `job_for`.

    Returns:
        The compiled kernels, one for each launch.
    """
    # AMD's compiler knows no limit of registers.
    unknown = {"maxnreg"} if target.startswith("gfx") else set()
    return tuple(
        compile_only.compile(
            each.kernel,
            *each.args,
            target=target,
            **{key: value for key, value in each.meta.items() if key not in unknown},
        )
        for each in launched(name, **more)
    )


def product_for(
    m: int,
    n: int,
    k: int,
    mode: str,
    *,
    fast: bool,
    dtype: torch.dtype = torch.bfloat16,
) -> Product:
    """Describe a product without memory, terms of both operands together.

    Args:
        m: rows.
        n: columns.
        k: terms.
        mode: the granularity of `a`; that of `b` is the same, "128x128" for "1x128".
        fast: whether tensor cores may sum all of k.
        dtype: of the result.
    """
    other = "128x128" if mode == "1x128" else mode
    meta, codes = torch.device("meta"), torch.float8_e4m3fn
    a = scaling.place(m, k, mode, codes, meta)
    b = scaling.place(n, k, other, codes, meta)
    out = matrix(m, n, dtype)
    return Product(a.codes, b.codes.t(), a.scale, b.scale.t(), out, fast=fast)


def launches_of(
    kernel: ModuleType, product: Product, config: Any = None
) -> list[Launch]:
    """Record what a rung launches for a product.

    Args:
        kernel: one of `ways.KERNELS`.
        product: on the device "meta".
        config: of the rung; its own choice by default.

    Returns:
        Each launch, in order.
    """
    return launches(lambda wrap: kernel.launch(product._replace(wrap=wrap), config))
