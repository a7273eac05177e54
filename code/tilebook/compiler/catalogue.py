"""Kernels of this book, compiled, whose shared memory we work out again."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import NamedTuple

import pandas as pd
import torch

from tilebook import compile_only
from tilebook.compile_only import Artefact
from tilebook.compiler import barriers, flow, pipeline, sharing, twins
from tilebook.matmul import batched, described, naive, ordered, persistent, streamed
from tilebook.matmul.evidence import first
from tilebook.softmax import evidence as softmax_evidence
from tilebook.softmax import fused, online, several, split
from tilebook.softmax import persistent as staying
from tilebook.tiling import aligned, explicit, grouped, tiled
from tilebook.tiling import described as bulk
from tilebook.tiling import evidence as tiling_evidence

_BARRIER = re.compile(r"\bbar(?:rier)?\.(?:cta\.)?sync\b")
_INSIDE = {"tt.reduce": 2, "ttg.convert_layout": 1}
"""Barriers that operations have inside which go by way of shared memory."""
_PASSED = ("num_warps", "num_stages")


@functools.cache
def kernels() -> Mapping[str, Artefact]:
    """Compile kernels of four chapters.

    Returns:
        By chapter and rung, or by target and stages for this chapter's product.
    """
    found: dict[str, Artefact] = {}
    for rung, m, n in (
        *((fused, 4096, 4096), (several, 4096, 1000), (staying, 4096, 16384)),
        *((online, 64, 70000), (split, 4, 2**20)),
    ):
        parts = softmax_evidence.compiled(rung, m, n)
        for number, part in enumerate(parts, 1):
            name = f"softmax {rung.__name__.rpartition('.')[2]}"
            found[f"{name} {number}" if len(parts) > 1 else name] = part
    for rung in (tiled, grouped, aligned, bulk, explicit):
        name = rung.__name__.rpartition(".")[2]
        found[f"transpose {name}"] = tiling_evidence.compiled(rung)
    for rung in (naive, ordered, persistent, batched, described, streamed):
        found[f"product {rung.__name__.rpartition('.')[2]}"] = first(rung)
    half = torch.empty(64, dtype=torch.float16, device="meta")
    sizes = {"BLOCK_M": 128, "BLOCK_N": 64, "BLOCK_K": 32}
    for target in ("sm_80", "sm_90"):
        for stages in (1, 2, 4):
            found[f"product here, {target}, {stages}"] = compile_only.compile(
                twins.matmul_kernel,
                *(half,) * 3,
                *(4096,) * 6,
                target=target,
                num_stages=stages,
                **sizes,
            )
    return found


@functools.cache
def lowered(name: str) -> tuple[pipeline.Step, ...]:
    """Take one of `kernels` down to where there are no tiles any more."""
    artefact = kernels()[name]
    options = {key: artefact.metadata[key] for key in _PASSED}
    return pipeline.lowered(artefact.ttgir, artefact.target, **options)


def allocated(name: str) -> str:
    """Return the module of one of `kernels` that has places in shared memory."""
    return pipeline.named(lowered(name), "allocate-shared-memory-nv").after


class Compared(NamedTuple):
    """Shared memory of one kernel."""

    theirs: int
    """Bytes, as Triton allocates."""
    ours: int
    """Bytes, as we do."""
    collisions: int
    """Pairs of Triton's buffers that overlap while both live, as we see it."""


def memory(name: str) -> Compared:
    """Compare Triton's allocation of one of `kernels` with ours."""
    module = allocated(name)
    pieces = sharing.buffers(module)
    chosen = {piece: piece.offset for piece in pieces}
    return Compared(
        int(re.search(r"ttg\.shared = (\d+)", module)[1]),
        sharing.total(sharing.allocate(pieces)),
        len(sharing.collisions(chosen)),
    )


def explicit_barriers(name: str) -> set[int] | None:
    """Return the operations of one of `kernels` that Triton puts a barrier before.

    Args:
        name: a key of `kernels`.

    Returns:
        Their numbers; None before Triton 3.9, which has no pass for it.
    """
    steps = [s for s in lowered(name) if s.flag == "triton-nvidia-gpu-membar"]
    if not steps:
        return None
    found, number = set(), 0
    for block in flow.read(steps[0].after):
        for op in block.operations:
            if op.name == "ttg.barrier":
                found.add(number)
            else:
                number += 1
    return found


def counted(name: str) -> int:
    """Count the barriers in the PTX of one of `kernels`."""
    return len(_BARRIER.findall(kernels()[name].ptx))


def inside(name: str) -> int:
    """Count the barriers that operations of one of `kernels` have inside, by ours."""
    found = barriers.needed(allocated(name))
    return sum(
        _INSIDE[op.name]
        for block in flow.read(allocated(name))
        for op in block.operations
        if op.number in found.within
    )


def table() -> pd.DataFrame:
    """List what Triton and we make of the shared memory of `kernels`.

    Returns:
        A row for each: bytes, and barriers. Slots of a buffer are told apart as the
        installed Triton does. Where the copy engine signals that it is done, ours are
        not worked out.
    """
    rows = {}
    for name in kernels():
        found, theirs = memory(name), explicit_barriers(name)
        row: dict[str, int | str] = {
            "bytes, Triton's": found.theirs,
            "bytes, ours": found.ours,
        }
        try:
            ours = barriers.needed(allocated(name), slots=theirs is not None)
            row["between, ours"] = len(ours.before) + len(ours.after)
            row["inside, ours"] = inside(name)
        except ValueError:
            row |= {"between, ours": "", "inside, ours": ""}
        if theirs is not None:
            row["between, Triton's"] = len(theirs)
        rows[name] = row | {"in Triton's PTX": counted(name)}
    return pd.DataFrame.from_dict(rows, orient="index")


def loop(name: str) -> str:
    """Write what the loop of one of `kernels` does to shared memory, with barriers.

    Args:
        name: a key of `kernels`, whose loop is one block.

    Returns:
        A line for each operation, and for each barrier that we find necessary where
        slots of a buffer are told apart.
    """
    found = barriers.needed(allocated(name))
    (block,) = (
        block
        for block in flow.read(allocated(name))
        if any(op.name == "ttg.async_wait" for op in block.operations)
        and any(op.name.endswith("dot") for op in block.operations)
    )
    out = []
    for op in block.operations:
        if op.number in found.before:
            out.append("  -- barrier: before what follows")
        if op.name.startswith(("ttg.async_wait", "ttg.async_copy", "ttng.warp_group")):
            views = [x for x in op.operands if x.startswith(("%a_", "%b_"))]
            kept = [] if op.name.endswith("wait") else views
            out.append(f"{op.name} {', '.join(kept)}".rstrip())
        elif op.name == "ttg.memdesc_index":
            out.append(f"{op.results[0]} = {op.name} {', '.join(op.operands)}")
        if op.number in found.after:
            out.append("  -- barrier: behind the wait")
    return "\n".join(out)
