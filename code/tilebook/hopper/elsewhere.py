"""Where `warp_specialize=True` takes effect and where nothing is said; and what the
chapter's Triton kernels compile to for other GPUs."""

import contextlib
import functools
import io
import re
from collections.abc import Mapping
from typing import NamedTuple

import pandas as pd
import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from tilebook import compile_only
from tilebook.compile_only import Artefact
from tilebook.hopper import automatic, made
from tilebook.hopper.launching import Config
from tilebook.matmul import elsewhere
from tilebook.matmul.evidence import SQUARE, Launch, first, launched, launches, task_for

LARGE = Config(128, 256, 64, 3)
"""The tile that every case has, but for those that are about the tile. In one piece:
Triton 3.6 fails on partitions that store it in two."""
TARGETS = ("sm_80", "sm_90", "sm_100", "gfx942")
PORTABLE = {
    "made": (made, Config(128, 128, 64, 3)),
    "automatic": (automatic, Config(128, 128, 64, 3)),
}
"""Module and configuration by name; shared memory decides the rest."""


@triton.jit
def host_kernel(
    a_desc, b_desc, out_desc, m, n, k,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    tiles_m, tiles_n = tl.cdiv(m, BLOCK_M), tl.cdiv(n, BLOCK_N)
    for tile in tl.range(
        tl.program_id(0), tiles_m * tiles_n, tl.num_programs(0),
        warp_specialize=True,
    ):  # fmt: skip
        start_m = tile // tiles_n * BLOCK_M
        start_n = tile % tiles_n * BLOCK_N
        acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
        for start_k in range(0, k, BLOCK_K):
            a = a_desc.load([start_m, start_k])  # (BLOCK_M, BLOCK_K)
            b = b_desc.load([start_n, start_k])  # (BLOCK_N, BLOCK_K)
            acc = tl.dot(a, b.T, acc)
        out_desc.store([start_m, start_n], acc.to(out_desc.dtype))


class Case(NamedTuple):
    """A way to ask for warps of their own."""

    config: Config = LARGE
    """The tile."""
    warps: int = 4
    """That `num_warps` asks for."""
    flatten: bool = False
    """Whether the two loops become one."""
    specialize: bool = True
    """Whether it is asked at all."""
    host: bool = False
    """Whether the host makes the descriptors."""


CASES: Mapping[str, Case] = {
    "as `automatic` asks": Case(),
    "not asked": Case(specialize=False),
    "with flatten=True": Case(flatten=True),
    "with eight warps": Case(warps=8),
    "descriptors of the host": Case(host=True),
    "the host's, eight warps": Case(host=True, warps=8),
    "a tile of 64 x 128": Case(LARGE._replace(block_m=64, block_n=128)),
    "a tile of 64 x 256": Case(LARGE._replace(block_m=64)),
}
"""By what it is, for the kernel of `made` unless the host describes."""


def launch_of(case: Case) -> Launch:
    """Record a launch of a case, for bfloat16, 4096 squared and rows of both operands
    along k.

    Args:
        case: one of `CASES`.
    """
    task = task_for(SQUARE, "NT", torch.bfloat16)
    config = case.config
    if not case.host:
        (found,) = launches(
            lambda wrap: made.launch_as(
                task._replace(wrap=wrap), config, warps=case.warps,
                flatten=case.flatten, specialize=case.specialize,
            )
        )  # fmt: skip
        return found
    m, n, k = config[:3]
    described = (
        TensorDescriptor.from_tensor(task.a, [m, k]),
        TensorDescriptor.from_tensor(task.b.t(), [n, k]),
        TensorDescriptor.from_tensor(task.out, [m, n]),
    )
    meta = {"BLOCK_M": m, "BLOCK_N": n, "BLOCK_K": k}
    meta |= {"num_warps": case.warps, "num_stages": config.num_stages}
    return Launch(host_kernel, (132,), (*described, *SQUARE), meta)


@functools.cache
def compiled(name: str) -> Artefact | None:
    """Compile a case for Hopper.

    Args:
        name: a key of `CASES`.

    Returns:
        The kernel; None if the compiler fails.
    """
    kernel, _, args, meta = launch_of(CASES[name])
    # A compiler that fails prints its whole state.
    with contextlib.redirect_stderr(io.StringIO()), contextlib.suppress(RuntimeError):
        return compile_only.compile(kernel, *args, **meta)
    return None


def partitions(artefact: Artefact) -> int:
    """Count the parts that warps were given: 1 where nothing came of it.

    Args:
        artefact: a kernel with TTGIR.
    """
    if "ttg.warp_specialize(" not in artefact.ttgir:
        return 1
    return 1 + len(re.findall(r"^\s+partition\d+\(", artefact.ttgir, re.M))


def effects() -> pd.DataFrame:
    """Compile every case and see what came of it.

    Returns:
        By case: partitions in TTGIR, warps, whether a product is waited for before the
        next one starts, registers and bytes spilled of a thread, and remarks of ptxas.
    """
    rows = {}
    for name in CASES:
        artefact = compiled(name)
        if artefact is None:
            rows[name] = {"partitions": "the compiler fails"}
            continue
        found = artefact.evidence
        codes = sorted({notice.code for notice in found.warnings})
        rows[name] = {
            "partitions": str(partitions(artefact)),
            "warps": str(artefact.metadata["num_warps"]),
            "products": "under way" if under_way(artefact) else "waited for",
            "registers": str(found.registers),
            "spilled": str(max(found.spill_store_bytes, found.spill_load_bytes)),
            "ptxas": ", ".join(codes),
        }
    return pd.DataFrame.from_dict(rows, orient="index").fillna("")


def under_way(artefact: Artefact) -> bool:
    """Say whether any product is still under way when the next one starts.

    Args:
        artefact: a kernel with TTGIR.
    """
    return "warp_group_dot_wait" in artefact.ttgir


def wanted() -> list[tuple[Launch, str]]:
    """What `table` and `effects` compile, but for what fails.

    Returns:
        Launches, and the target of each.
    """
    cases = [
        (launch_of(CASES[name]), "sm_90")
        for name in ("with flatten=True", "with eight warps", "not asked")
    ]
    others = [
        (launched(module, config, layout="NT")[0], target)
        for module, config in PORTABLE.values()
        for target in TARGETS
    ]
    return [*cases, *others]


def table() -> pd.DataFrame:
    """Compile the kernel of `made`, in both ways, for four targets.

    Returns:
        What `matmul.elsewhere.row` says, by kernel and target, and partitions.
    """
    rows = {}
    for name, (module, config) in PORTABLE.items():
        for target in TARGETS:
            artefact = first(module, config, target=target, layout="NT")
            row = elsewhere.row(artefact)
            row.pop("warps")
            rows[name, target] = row | {"partitions": partitions(artefact)}
    return pd.DataFrame.from_dict(rows, orient="index")
