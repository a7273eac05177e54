"""What the chapter's cells print: tables of formats, and compiled kernels."""

import pandas as pd
import torch

from tilebook import compile_only, microscope
from tilebook.compile_only import Artefact
from tilebook.fp8 import (
    accumulation,
    evidence,
    formats,
    groups,
    mx,
    scaling,
    warps,
    ways,
)
from tilebook.fp8.operands import Job
from tilebook.matmul.evidence import launches, matrix
from tilebook.measure import roofline

QUANTIZERS = ("row", "1x128", "128x128", "both 1x128", "norm 1x128")
"""Of which evidence is shown."""
RUNGS = (
    *(("tiled", "row", True), ("described", "row", True), ("cooperative", "row", True)),
    *(("folded", "row", True), ("tiled", "1x128", False)),
    *(("described", "1x128", False), ("promoted", "1x128", False)),
    *(("paired", "1x128", False), ("carried", "1x128", False)),
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


def too_wide() -> str:
    """Evidence lines of `promoted` with tiles twice as large as it takes."""
    product = evidence.product_for(SIDE, SIDE, SIDE, "1x128", fast=False)
    lines = []
    for sides in ((128, 128), (128, 256), (256, 128)):
        config = warps.Config(*sides, 4)
        (each,) = evidence.launches_of(ways.KERNELS["promoted"], product, config)
        made = compile_only.compile(
            each.kernel, *each.args, target="sm_90", **each.meta
        )
        lines.append(f"{sides[0]} x {sides[1]}:\n  {made.evidence.line()}")
    return "\n".join(lines)


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


def trace() -> pd.DataFrame:
    """Run the quantiser by 1 x 128 on a matrix of 16 by 256 and note what it computes.

    Returns:
        Its values from the tile to the codes, with their shapes and types.
    """
    x = torch.zeros(16, 256, dtype=torch.bfloat16)
    found = scaling.place(16, 256, "1x128", torch.float8_e4m3fn, x.device)
    job = Job(x, *found, "1x128")
    (each,) = launches(lambda wrap: groups.launch(job._replace(wrap=wrap)))
    look = microscope.look(each.kernel, each.grid, *each.args, **each.meta)
    table = look.shape_table()
    names = ("x", "amax", "scale", "inverse", "y")
    own = table["function"] == "groups_kernel"
    shown = table[own & table["name"].isin(names)]
    return shown[["name", "shape", "dtype", "code"]].set_index("name")


def costs() -> pd.DataFrame:
    """What a layer costs in eight bits, by derivation: its product at the tensor
    cores' rate, and quantising its rows at the memory's.

    Returns:
        By rows, for a weight of 8192 squared: microseconds of both, in sixteen bits
        and in eight.
    """
    sheet = roofline.datasheet("h100-sxm", "float8_e4m3fn")
    half = roofline.datasheet("h100-sxm").tflops
    side, rows = 8192, {}
    for m in (16, 512, 8192):
        flops, weight = 2 * m * side * side, side * side
        memory = {size: weight * size / sheet.gbps / 1e3 for size in (1, 2)}
        rows[m] = {
            "bf16, µs": max(memory[2], flops / half / 1e6),
            "eight bits, µs": max(memory[1], flops / sheet.tflops / 1e6),
            "quantising the rows, µs": 3 * m * side / sheet.gbps / 1e3,
        }
    table = pd.DataFrame.from_dict(rows, orient="index").round(1)
    return table.rename_axis("rows")
