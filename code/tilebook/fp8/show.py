"""What the chapter's cells print: tables of formats, and compiled kernels."""

import pandas as pd
import torch

from tilebook import compile_only
from tilebook.compile_only import Artefact
from tilebook.fp8 import accumulation, evidence, formats, mx, scaling, ways
from tilebook.matmul.evidence import launches, matrix

QUANTIZERS = ("row", "1x128", "128x128", "both 1x128", "norm 1x128")
"""Of which evidence is shown."""
RUNGS = (
    *(("tiled", "row", True), ("described", "row", True), ("cooperative", "row", True)),
    *(("folded", "row", True), ("tiled", "1x128", False)),
    *(("described", "1x128", False), ("promoted", "1x128", False)),
)
"""Kernels of which evidence is shown, with a scaling and whether sums are fast."""
SIDE = 4096


def landmarks() -> pd.DataFrame:
    """Where formats begin and end."""
    rows = {
        format.name: {
            "bits": 1 + format.exponent + format.mantissa,
            "largest": format.largest,
            "smallest normal": format.smallest_normal,
            "smallest": format.smallest,
            "half a step": 2.0 ** -(format.mantissa + 1),
        }
        for format in formats.FORMATS.values()
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def quantizers() -> str:
    """Evidence lines of the quantisers, for a matrix of 4096 by 8192."""
    lines = []
    for name in QUANTIZERS:
        lines += [
            f"{name}:\n  {found.evidence.line()}" for found in evidence.compiled(name)
        ]
    return "\n".join(lines)


def compiled(kernel: str, mode: str, fast: bool) -> Artefact:
    """Compile a rung for 4096 squared.

    Args:
        kernel: one of `ways.KERNELS`.
        mode: the granularity of `a`.
        fast: whether tensor cores may sum all of k.
    """
    product = evidence.product_for(SIDE, SIDE, SIDE, mode, fast=fast)
    (each,) = evidence.launches_of(ways.KERNELS[kernel], product)
    return compile_only.compile(each.kernel, *each.args, target="sm_90", **each.meta)


def rungs() -> str:
    """Evidence lines of the rungs."""
    return "\n".join(
        f"{kernel}, {mode}:\n  {compiled(kernel, mode, fast).evidence.line()}"
        for kernel, mode, fast in RUNGS
    )


def limits() -> str:
    """What `max_num_imprecise_acc` does to a kernel; 0 is what its name suggests for
    sums that are never imprecise."""
    codes = matrix(accumulation.ROWS, SIDE, torch.float8_e4m3fn)
    out = matrix(accumulation.ROWS, accumulation.COLUMNS, torch.float32)
    lines = []
    for limit in (*accumulation.LIMITS, 0):
        artefact = compile_only.compile(
            accumulation.sums_kernel, codes, codes, out, SIDE, accumulation.COLUMNS,
            BLOCK_M=accumulation.ROWS, BLOCK_N=accumulation.COLUMNS, BLOCK_K=128,
            LIMIT=limit, num_warps=4,
        )  # fmt: skip
        lines.append(f"{limit}:\n  {artefact.evidence.line()}")
    return "\n".join(lines)


def block_scaled(target: str) -> Artefact:
    """Compile the product of MX formats for 4096 squared.

    Args:
        target: as for `compile_only.compile`.
    """
    meta = torch.device("meta")
    found = scaling.place(SIDE, SIDE, "mx", torch.float8_e4m3fn, meta)
    out = matrix(SIDE, SIDE, torch.bfloat16)
    (each,) = launches(
        lambda wrap: mx.launch(
            found.codes, found.codes, out, found.scale, found.scale, wrap
        )
    )
    return compile_only.compile(each.kernel, *each.args, target=target, **each.meta)


def instruction() -> str:
    """Name Blackwell's instruction for the product of MX formats."""
    words = block_scaled("sm_100").ptx.split()
    return next(x for x in words if x.startswith("tcgen05.mma") and "scale" in x)
